//! The SNP certificate table that a host passes along with a report.
//!
//! Layout (GHCB specification 2.03, "SNP Extended Guest Request"): entries of GUID (16 bytes), offset (u32 LE) and length
//! (u32 LE), ended by an all-zero entry; then the certificates, at those offsets from the start of the table.

use crate::Error;
use crate::bundle::{Endorsements, SnpEndorsements};

/// Certificates by GUID (RFC 4122 byte order).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertTable(pub Vec<([u8; 16], Vec<u8>)>);

impl CertTable {
    /// Versioned chip endorsement key: 63da758d-e664-4564-adc5-f4b93be8accd.
    pub const VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
    /// Versioned loaded endorsement key: a8074bc2-a25a-483e-aae6-39c045a0b8a1.
    pub const VLEK: [u8; 16] = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();
    /// AMD signing key: 4ab7b379-bbac-4fe4-a02f-05aef327c782.
    pub const ASK: [u8; 16] = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
    /// AMD root key: c0b406a4-a803-4952-9743-3fb6014cd0ae.
    pub const ARK: [u8; 16] = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes();

    const ENTRY: usize = 24;

    /// Reads a table; offsets and lengths that point outside it are refused.
    pub fn parse(table: &[u8]) -> Result<Self, Error> {
        let malformed = |detail: &str| Error::Field { what: "SNP certificate table", detail: detail.into() };
        let mut certificates = Vec::new();
        for entry in table.chunks_exact(Self::ENTRY) {
            if entry.iter().all(|byte| *byte == 0) {
                return Ok(Self(certificates));
            }
            let number =
                |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]) as usize;
            let mut guid = [0; 16];
            guid.copy_from_slice(&entry[..16]);
            let (offset, length) = (number(16), number(20));
            let end = offset.checked_add(length).ok_or_else(|| malformed("an entry's end overflows"))?;
            let bytes = table.get(offset..end).ok_or_else(|| malformed("an entry points behind the end"))?;
            certificates.push((guid, bytes.to_vec()));
        }
        if table.is_empty() { Ok(Self::default()) } else { Err(malformed("no all-zero entry ends the list")) }
    }

    /// Writes a table.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut offset = (self.0.len() + 1) * Self::ENTRY;
        let mut header = Vec::new();
        let mut body = Vec::new();
        for (guid, certificate) in &self.0 {
            header.extend_from_slice(guid);
            header.extend_from_slice(&(offset as u32).to_le_bytes());
            header.extend_from_slice(&(certificate.len() as u32).to_le_bytes());
            body.extend_from_slice(certificate);
            offset += certificate.len();
        }
        header.extend_from_slice(&[0; Self::ENTRY]);
        [header, body].concat()
    }

    /// The certificate under a GUID.
    pub fn get(&self, guid: &[u8; 16]) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| found == guid).map(|(_, certificate)| certificate.as_slice())
    }

    /// The table as endorsements; [`Endorsements::None`] if it has no endorsement key certificate.
    pub fn endorsements(&self) -> Endorsements {
        let Some(vek) = self.get(&Self::VCEK).or_else(|| self.get(&Self::VLEK)) else { return Endorsements::None };
        let ca = [Self::ASK, Self::ARK].iter().filter_map(|guid| self.get(guid)).map(<[u8]>::to_vec).collect();
        Endorsements::Snp(SnpEndorsements { vek: vek.to_vec(), ca, crl: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<u8> {
        CertTable(vec![(CertTable::VCEK, vec![1, 2, 3]), (CertTable::ASK, vec![4]), (CertTable::ARK, vec![5, 6])])
            .to_bytes()
    }

    #[test]
    fn a_table_round_trips_and_names_its_certificates() {
        let parsed = CertTable::parse(&table()).unwrap();
        assert_eq!(parsed.to_bytes(), table());
        let expected = SnpEndorsements { vek: vec![1, 2, 3], ca: vec![vec![4], vec![5, 6]], crl: None };
        assert_eq!(parsed.endorsements(), Endorsements::Snp(expected));
    }

    #[test]
    fn entries_that_point_outside_are_refused() {
        let mut behind = table();
        behind[20] = 0xff; // length of the first entry
        assert!(CertTable::parse(&behind).unwrap_err().to_string().contains("behind the end"));
        let unended = &table()[..3 * CertTable::ENTRY];
        assert!(CertTable::parse(unended).is_err());
    }
}
