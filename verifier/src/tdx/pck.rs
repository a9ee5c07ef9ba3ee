//! What a PCK certificate says of its platform (Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5).

use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};

use crate::x509::{self, Cert};

const SGX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");

/// The SGX extension of a PCK certificate.
#[derive(Clone, Debug)]
pub(super) struct Pck {
    pub(super) cpu_svn: [u8; 16],
    pub(super) components: [u8; 16],
    pub(super) pce_svn: u16,
    pub(super) pce_id: [u8; 2],
    pub(super) fmspc: [u8; 6],
    /// The platform instance; only platforms that registered as one have it.
    pub(super) piid: Option<[u8; 16]>,
    pub(super) dynamic_platform: Option<bool>,
    pub(super) cached_keys: Option<bool>,
    pub(super) smt: Option<bool>,
}

impl Pck {
    pub(super) fn of(certificate: &Cert) -> Result<Self, String> {
        let extension = x509::extension(&certificate.x509, SGX).ok_or("the certificate has no SGX extension")?;
        let entries = Entries::parse(extension).map_err(|error| format!("SGX extension: {error}"))?;
        let missing = |what: &str| format!("the SGX extension lacks {what}, or has it in another form");
        let tcb = entries.nested(&[2]).ok_or_else(|| missing("the TCB"))?;
        let mut components = [0; 16];
        for (n, component) in (1..).zip(components.iter_mut()) {
            *component = tcb.integer(&[2, n]).ok_or_else(|| missing("a TCB component"))?;
        }
        // Processor certificates say nothing of these.
        let configuration = entries.nested(&[7]).unwrap_or_default();
        Ok(Self {
            cpu_svn: tcb.octets(&[2, 18]).ok_or_else(|| missing("CPUSVN"))?,
            components,
            pce_svn: tcb.integer(&[2, 17]).ok_or_else(|| missing("PCESVN"))?,
            pce_id: entries.octets(&[3]).ok_or_else(|| missing("PCEID"))?,
            fmspc: entries.octets(&[4]).ok_or_else(|| missing("FMSPC"))?,
            piid: entries.octets(&[6]),
            dynamic_platform: configuration.boolean(&[7, 1]),
            cached_keys: configuration.boolean(&[7, 2]),
            smt: configuration.boolean(&[7, 3]),
        })
    }
}

/// A SEQUENCE of (OID, value), each OID once.
#[derive(Default)]
struct Entries<'a>(Vec<(ObjectIdentifier, AnyRef<'a>)>);

impl<'a> Entries<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, der::Error> {
        Self::content(AnyRef::from_der(der)?)
    }

    fn content(sequence: AnyRef<'a>) -> Result<Self, der::Error> {
        sequence.tag().assert_eq(Tag::Sequence)?;
        let mut entries: Vec<(ObjectIdentifier, AnyRef<'a>)> = Vec::new();
        let mut reader = SliceReader::new(sequence.value())?;
        while !reader.is_finished() {
            let entry = AnyRef::decode(&mut reader)?;
            entry.tag().assert_eq(Tag::Sequence)?;
            let mut pair = SliceReader::new(entry.value())?;
            let oid = ObjectIdentifier::decode(&mut pair)?;
            let value = AnyRef::decode(&mut pair)?;
            pair.finish()?;
            if entries.iter().any(|(known, _)| *known == oid) {
                return Err(Tag::ObjectIdentifier.value_error().into());
            }
            entries.push((oid, value));
        }
        Ok(Self(entries))
    }

    fn get(&self, arcs: &[u32]) -> Option<AnyRef<'a>> {
        let oid = x509::below(SGX, arcs)?;
        self.0.iter().find(|(found, _)| *found == oid).map(|(_, value)| *value)
    }

    fn nested(&self, arcs: &[u32]) -> Option<Self> {
        Self::content(self.get(arcs)?).ok()
    }

    fn octets<const N: usize>(&self, arcs: &[u32]) -> Option<[u8; N]> {
        let value: &OctetStringRef = self.get(arcs)?.decode_as().ok()?;
        value.as_bytes().try_into().ok()
    }

    fn integer<T: for<'b> Decode<'b, Error = der::Error> + der::FixedTag>(&self, arcs: &[u32]) -> Option<T> {
        use der::Encode;
        T::from_der(&self.get(arcs)?.to_der().ok()?).ok()
    }

    fn boolean(&self, arcs: &[u32]) -> Option<bool> {
        self.get(arcs)?.decode_as().ok()
    }
}
