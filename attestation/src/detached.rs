//! A detached bundle read in place, for whoever reads millions of them: nothing is copied, and endorsements are named only.
//!
//! It reads exactly what [`crate::Bundle::to_detached`] writes. Anything else is left to [`crate::Bundle::from_cbor_with`], which
//! says what is wrong with it, or reads it after all.

use std::cell::RefCell;

use crate::Bundle;
use crate::binding::length_prefixed;
use crate::bundle::{
    COLLECTION_TYPE, ENDORSEMENTS, EVIDENCE, MAX_BYTES, MAX_GPU_MANIFESTS, MAX_GPUS, MAX_NAMED, MAX_OCSP, MAX_SNP_CA,
    label, media_type, role,
};
use crate::cbor::InPlace;
use crate::types::{Digest, EvidenceId};

/// Evidence by the CPU, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuSlice<'a> {
    /// A TDX quote.
    Tdx(&'a [u8]),
    /// An SEV-SNP report.
    Snp(&'a [u8]),
}

impl<'a> CpuSlice<'a> {
    /// The evidence as the CPU signed it.
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::Tdx(bytes) | Self::Snp(bytes) => bytes,
        }
    }
}

/// What vouches for the CPU, by SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nothing.
    None,
    /// TDX collateral.
    Tdx(Digest),
    /// SNP certificates: of the report's key, of AMD, and AMD's revocation list.
    Snp(Digest, Vec<Digest>, Option<Digest>),
}

/// A detached bundle, in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached<'a> {
    /// The claims as the enclave encoded them.
    pub claims: &'a [u8],
    /// Evidence by the CPU.
    pub cpu: CpuSlice<'a>,
    /// SPDM reports of the GPUs.
    pub gpu: Vec<&'a [u8]>,
    /// The event log, CBOR.
    pub event_log: Option<&'a [u8]>,
    /// What vouches for the CPU.
    pub endorsements: Named,
    /// Each GPU's chain.
    pub gpu_chains: Vec<Digest>,
    /// Reference manifests.
    pub gpu_manifests: Vec<Digest>,
    /// OCSP responses.
    pub gpu_ocsp: Vec<Digest>,
}

impl<'a> Detached<'a> {
    /// Reads a detached bundle; `None` if it is not as [`crate::Bundle::to_detached`] writes it.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > MAX_BYTES {
            return None;
        }
        let mut reader = InPlace::new(bytes);
        let mut entries = reader.map()?;
        // Deterministic maps are in the order of their encoded keys: numbers, then the collection's type.
        let claims = record(&mut reader, label::CLAIMS, media_type::CLAIMS, EVIDENCE)?;
        let cpu = match record(&mut reader, label::CPU, media_type::TDX_QUOTE, EVIDENCE) {
            Some(quote) => CpuSlice::Tdx(quote),
            None => CpuSlice::Snp(record(&mut reader, label::CPU, media_type::SNP_REPORT, EVIDENCE)?),
        };
        let event_log = record(&mut reader, label::EVENT_LOG, media_type::EVENT_LOG, EVIDENCE);
        let index = record(&mut reader, label::INDEX, media_type::INDEX, ENDORSEMENTS);
        let mut gpu = Vec::new();
        while gpu.len() < MAX_GPUS
            && let Some(report) = record(&mut reader, label::GPU + gpu.len() as u64, media_type::GPU_REPORT, EVIDENCE)
        {
            gpu.push(report);
        }
        entries = entries.checked_sub(2 + gpu.len() as u64)?;
        entries = entries.checked_sub(u64::from(event_log.is_some()) + u64::from(index.is_some()))?;
        let kind = (reader.text()? == "__cmwc_t").then(|| reader.text())??;
        if entries != 1 || kind != COLLECTION_TYPE || !reader.is_empty() {
            return None;
        }
        let mut detached = Self {
            claims,
            cpu,
            gpu,
            event_log,
            endorsements: Named::None,
            gpu_chains: Vec::new(),
            gpu_manifests: Vec::new(),
            gpu_ocsp: Vec::new(),
        };
        index.map_or(Some(()), |index| detached.read_index(index))?;
        Some(detached)
    }

    fn read_index(&mut self, index: &[u8]) -> Option<()> {
        let mut reader = InPlace::new(index);
        let mut left = reader.array()?;
        let (mut last, mut seen) = (0, Vec::new());
        while left > 0 {
            left -= 1;
            if reader.array()? != 2 {
                return None;
            }
            let (role, digest) = (reader.uint()?, Digest::from_slice(reader.bytes()?).ok()?);
            if role < last || seen.contains(&digest) || seen.len() >= MAX_NAMED {
                return None;
            }
            last = role;
            seen.push(digest);
            match (role, &mut self.endorsements) {
                (role::TDX_COLLATERAL, named @ Named::None) => *named = Named::Tdx(digest),
                (role::SNP_VEK, named @ Named::None) => *named = Named::Snp(digest, Vec::new(), None),
                (role::SNP_CA, Named::Snp(_, ca, None)) if ca.len() < MAX_SNP_CA => ca.push(digest),
                (role::SNP_CRL, Named::Snp(_, _, crl @ None)) => *crl = Some(digest),
                (role::GPU_CHAIN, _) => self.gpu_chains.push(digest),
                (role::GPU_MANIFEST, _) => self.gpu_manifests.push(digest),
                (role::GPU_OCSP, _) => self.gpu_ocsp.push(digest),
                _ => return None,
            }
        }
        let many = self.gpu_chains.len() > MAX_GPUS
            || self.gpu_manifests.len() > MAX_GPU_MANIFESTS
            || self.gpu_ocsp.len() > MAX_OCSP;
        (reader.is_empty() && !many && !seen.is_empty()).then_some(())
    }

    /// The evidence id, as [`crate::Bundle::evidence_id`] makes it.
    pub fn evidence_id(&self) -> EvidenceId {
        EvidenceId(length_prefixed([self.claims, self.cpu.as_bytes()].into_iter().chain(self.gpu.iter().copied())))
    }

    /// Every endorsement that it names.
    pub fn named(&self) -> Vec<Digest> {
        let mut named = match &self.endorsements {
            Named::None => Vec::new(),
            Named::Tdx(collateral) => vec![*collateral],
            Named::Snp(vek, ca, crl) => [*vek].iter().chain(ca).chain(crl).copied().collect(),
        };
        named.extend(self.gpu_chains.iter().chain(&self.gpu_manifests).chain(&self.gpu_ocsp));
        named
    }
}

/// Every endorsement that a detached bundle names, however it is written; none if it cannot be read.
pub fn named(bundle: &[u8]) -> Vec<Digest> {
    if let Some(read) = Detached::read(bundle) {
        return read.named();
    }
    let named = RefCell::new(Vec::new());
    let lookup = |digest: &Digest| {
        named.borrow_mut().push(*digest);
        Some(Vec::new())
    };
    // What it says is of no interest here: whoever has the endorsements reads it again.
    let _ = Bundle::from_cbor_with(bundle, lookup);
    named.into_inner()
}

/// A CMW record of a kind under a label; nothing is consumed if another one stands here.
fn record<'a>(reader: &mut InPlace<'a>, label: u64, media_type: &str, indicator: u64) -> Option<&'a [u8]> {
    let mut ahead = *reader;
    let found = ahead.uint()? == label && ahead.array()? == 3 && ahead.text()? == media_type;
    let bytes = if found { ahead.bytes()? } else { return None };
    if ahead.uint()? != indicator {
        return None;
    }
    *reader = ahead;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuEvidence, Endorsements, Event, EventLog, GpuEndorsements, SnpEndorsements};

    fn bundles() -> Vec<Bundle> {
        let tdx = Bundle {
            claims: vec![1; 300],
            cpu: CpuEvidence::Tdx { quote: vec![2; 5_000] },
            gpu: Vec::new(),
            event_log: None,
            endorsements: Endorsements::Tdx { collateral: vec![3; 20_000] },
            gpu_endorsements: GpuEndorsements::default(),
        };
        let snp = SnpEndorsements { vek: vec![4; 900], ca: vec![vec![5; 30], vec![6; 30]], crl: Some(vec![7; 30]) };
        let gpus = GpuEndorsements {
            chains: (0..16).map(|n| vec![n; 40]).collect(),
            manifests: vec![vec![90; 40], vec![91; 40]],
            ocsp: vec![vec![92; 40]],
        };
        let events = EventLog(vec![Event { register: 3, kind: "model".into(), digest: [8; 48], data: vec![9; 20] }]);
        vec![
            Bundle { endorsements: Endorsements::None, ..tdx.clone() },
            Bundle {
                cpu: CpuEvidence::Snp { report: vec![2; 1184] },
                endorsements: Endorsements::Snp(snp.clone()),
                ..tdx.clone()
            },
            Bundle { gpu: (0..16).map(|n| vec![n; 4_100]).collect(), gpu_endorsements: gpus, ..tdx.clone() },
            // As many endorsements as there may be.
            Bundle {
                cpu: CpuEvidence::Snp { report: vec![2; 1184] },
                endorsements: Endorsements::Snp(SnpEndorsements {
                    ca: (0..MAX_SNP_CA as u8).map(|n| vec![n; 50]).collect(),
                    ..snp.clone()
                }),
                gpu: (0..16).map(|n| vec![n; 100]).collect(),
                gpu_endorsements: GpuEndorsements {
                    chains: (0..MAX_GPUS as u8).map(|n| vec![n; 40]).collect(),
                    manifests: (0..MAX_GPU_MANIFESTS as u8).map(|n| vec![n; 41]).collect(),
                    ocsp: (0..MAX_OCSP as u8).map(|n| vec![n; 42]).collect(),
                },
                ..tdx.clone()
            },
            Bundle { event_log: Some(events), ..tdx.clone() },
            tdx,
        ]
    }

    #[test]
    fn it_reads_what_bundles_write_and_names_what_vouches_for_them() {
        for bundle in bundles() {
            let (bytes, shared) = bundle.to_detached();
            assert_eq!(named(&bytes), shared.iter().map(|(digest, _)| *digest).collect::<Vec<_>>());
            let read = Detached::read(&bytes).expect("a detached bundle");
            assert_eq!(read.claims, bundle.claims);
            assert_eq!(read.cpu.as_bytes(), bundle.cpu.as_bytes());
            assert_eq!(read.gpu, bundle.gpu);
            assert_eq!(read.event_log.map(<[u8]>::to_vec), bundle.event_log.as_ref().map(EventLog::to_cbor));
            assert_eq!(read.evidence_id(), bundle.evidence_id());
            assert_eq!(read.named(), shared.iter().map(|(digest, _)| *digest).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_more_than_a_bundle_may_name_is_read_by_neither() {
        let mut bundle = bundles().remove(3);
        assert!(Bundle::from_cbor(&bundle.to_cbor()).is_ok());
        bundle.gpu_endorsements.ocsp.push(vec![200; 42]);
        assert!(Detached::read(&bundle.to_detached().0).is_none());
        assert!(Bundle::from_cbor(&bundle.to_cbor()).is_err());
    }

    #[test]
    fn what_a_bundle_names_is_found_however_it_is_written() {
        let bundle = bundles().remove(4);
        let (_, shared) = bundle.to_detached();
        // One that carries what it names, which is not read in place.
        let mut carried = bundle.to_cbor();
        assert!(Detached::read(&carried).is_none() && named(&carried).is_empty());
        carried.push(0);
        assert!(named(&carried).is_empty() && named(&[]).is_empty());
        assert_eq!(shared.len(), 1);
    }

    /// Whatever it reads, the reader of bundles reads too, and finds the same.
    #[test]
    fn it_reads_nothing_that_the_reader_of_bundles_does_not_read_alike() {
        for bundle in bundles() {
            let (bytes, shared) = bundle.to_detached();
            let lookup = |digest: &Digest| {
                Some(shared.iter().find(|(name, _)| name == digest).map_or(vec![0], |(_, bytes)| bytes.clone()))
            };
            let mut read = 0;
            for at in (0..bytes.len()).filter(|at| *at < 500 || at % 97 == 0 || bytes.len() - at < 700) {
                for flip in [1, 2, 32, 128] {
                    let mut altered = bytes.clone();
                    altered[at] ^= flip;
                    let Some(found) = Detached::read(&altered) else { continue };
                    // The event log is looked at by whoever appraises.
                    let slow = match Bundle::from_cbor_with(&altered, lookup) {
                        Ok(slow) => slow,
                        Err(_) if found.event_log.is_some() => continue,
                        Err(error) => panic!("byte {at}: {error}"),
                    };
                    assert_eq!(found.evidence_id(), slow.evidence_id(), "byte {at}");
                    assert_eq!(found.gpu.len(), slow.gpu.len(), "byte {at}");
                    let gpu = &slow.gpu_endorsements;
                    assert_eq!(
                        [found.gpu_chains.len(), found.gpu_manifests.len(), found.gpu_ocsp.len()],
                        [gpu.chains.len(), gpu.manifests.len(), gpu.ocsp.len()],
                        "byte {at}"
                    );
                    assert_eq!((found.claims, found.cpu.as_bytes()), (&slow.claims[..], slow.cpu.as_bytes()));
                    let kind = |tdx, snp| {
                        if tdx {
                            "TDX"
                        } else if snp {
                            "SNP"
                        } else {
                            "none"
                        }
                    };
                    assert_eq!(
                        kind(matches!(found.cpu, CpuSlice::Tdx(_)), true),
                        kind(matches!(slow.cpu, CpuEvidence::Tdx { .. }), true)
                    );
                    assert_eq!(
                        kind(matches!(found.endorsements, Named::Tdx(_)), matches!(found.endorsements, Named::Snp(..))),
                        kind(
                            matches!(slow.endorsements, Endorsements::Tdx { .. }),
                            matches!(slow.endorsements, Endorsements::Snp(_))
                        ),
                        "byte {at}"
                    );
                    read += 1;
                }
            }
            assert!(read > 100, "{read}");
            assert!(Detached::read(&[bytes.as_slice(), &[0]].concat()).is_none());
            assert!((0..bytes.len()).all(|end| Detached::read(&bytes[..end]).is_none()));
        }
    }
}
