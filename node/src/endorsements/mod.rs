//! Endorsements: what vendors say about platforms. They are fetched from the vendors' services, kept in a folder, and stapled to
//! bundles. The verifier itself does no I/O; nothing that is fetched is believed before it has appraised it.
//!
//! The folder is its own format, for taking along to a machine without a network: each file is what a vendor gave, byte for byte
//! (Intel's four answers put together as `QuoteCollateralV3` JSON), at a path that names it. `docs/endorsements.md` has the layout.

mod http;
mod services;
mod store;

use std::path::Path;
use std::time::Duration;

use cocoon_attestation::{Bundle, CpuEvidence, Endorsements, GpuEndorsements, SnpEndorsements, UnixTime};
use cocoon_verifier::{Need, needs};

pub use self::http::Limits;
pub(crate) use self::http::connector;
pub use self::services::Addresses;
pub use self::store::{Entry, Folder};
use services::Services;

/// What can go wrong with endorsements.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The evidence does not say what it needs.
    #[error("the evidence does not say which endorsements it needs: {0}")]
    Evidence(String),
    /// An address is none.
    #[error("{0:?} is no address of a service: give one like https://pccs.example:8081")]
    Address(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A service did not answer, or said no.
    #[error("{url} gave nothing, asked {attempts} time(s): {trouble}")]
    Service {
        /// What was asked.
        url: String,
        /// How often.
        attempts: u32,
        /// What went wrong the last time.
        trouble: String,
    },
    /// A service answered something else than what it is for.
    #[error("the answer of {url} is not what was asked for: {detail}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// What was fetched is not what was needed.
    #[error("what was fetched for {path} is something else: {detail}")]
    Foreign {
        /// What it was meant for.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The folder lacks something, or has it too old, and nothing may be fetched.
    #[error("{path} is not in the folder, or has lapsed: pull it where there is a network")]
    Missing {
        /// What is missing.
        path: String,
    },
    /// The folder cannot be used.
    #[error("the folder of endorsements cannot be used: {0}")]
    Folder(#[from] std::io::Error),
}

/// Gets endorsements: from its folder while they are current, from the vendors' services when not.
pub struct Endorser {
    folder: Folder,
    /// `None`: offline.
    services: Option<Services>,
}

/// Endorsements for one piece of evidence, by what they are.
type Found = Vec<(Need, Vec<u8>)>;

impl Endorser {
    /// With a folder and the vendors' services.
    ///
    /// # Errors
    /// The folder cannot be made, or TLS cannot be set up.
    pub fn online(folder: &Path, addresses: Addresses, limits: Limits) -> Result<Self, Error> {
        Ok(Self { folder: Folder::create(folder)?, services: Some(Services::new(addresses, limits)?) })
    }

    /// With a folder alone.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn offline(folder: &Path) -> Result<Self, Error> {
        Ok(Self { folder: Folder::open(folder)?, services: None })
    }

    /// The same folder, and nobody to ask.
    pub(crate) fn kept(&self) -> Self {
        Self { folder: self.folder.clone(), services: None }
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_online(&self) -> bool {
        self.services.is_some()
    }

    /// Whether the folder holds something that is current at a time.
    pub(crate) fn has(&self, need: &Need, at: UnixTime) -> bool {
        matches!(self.folder.get(need, at), Ok(Some(_)))
    }

    /// Whether what the folder holds lapses some day and was written longer ago, or is not there. What never lapses never gets old.
    pub(crate) fn is_older(&self, need: &Need, age: Duration) -> bool {
        let lapses = !matches!(need, Need::SnpKey { .. } | Need::SnpChain { .. } | Need::Rim { .. });
        lapses && self.folder.age(need).is_none_or(|found| found >= age)
    }

    /// A manifest that the folder holds.
    pub(crate) fn manifest(&self, need: &Need) -> Option<Vec<u8>> {
        let Need::Rim { .. } = need else { return None };
        self.folder.get(need, UnixTime(0)).ok()?
    }

    /// One thing, current at a time. With `anew` the folder is only written to.
    ///
    /// # Errors
    /// The services do not have it, or the folder lacks it and there are no services.
    pub async fn get(&self, need: &Need, at: UnixTime, anew: bool) -> Result<Vec<u8>, Error> {
        if !anew && let Some(bytes) = self.folder.get(need, at)? {
            return Ok(bytes);
        }
        let path = need.path();
        let Some(services) = &self.services else { return Err(Error::Missing { path }) };
        let bytes = services.fetch(need).await?;
        need.look(&bytes).map_err(|detail| Error::Foreign { path, detail })?;
        self.folder.put(need, &bytes)?;
        Ok(bytes)
    }

    /// All that some evidence needs. Manifests have needs of their own, which are got as well.
    async fn all(&self, needs: Vec<Need>, at: UnixTime, anew: bool) -> Result<Found, Error> {
        let mut found = Vec::new();
        for need in needs {
            let bytes = self.get(&need, at, anew).await?;
            if let Need::Rim { .. } = need {
                for need in needs::of_rim(&bytes).map_err(Error::Evidence)? {
                    if !found.iter().any(|(known, _)| *known == need) {
                        let bytes = self.get(&need, at, anew).await?;
                        found.push((need, bytes));
                    }
                }
            }
            found.push((need, bytes));
        }
        Ok(found)
    }

    /// `QuoteCollateralV3` JSON for a TDX quote.
    ///
    /// # Errors
    /// As for [`Self::get`]; or the bytes are no quote.
    pub async fn tdx(&self, quote: &[u8], at: UnixTime, anew: bool) -> Result<Vec<u8>, Error> {
        let needs = needs::of_tdx(quote).map_err(Error::Evidence)?;
        let found = self.all(needs, at, anew).await?;
        Ok(found.into_iter().map(|(_, bytes)| bytes).next().unwrap_or_default())
    }

    /// Certificates and revocation list for an SNP report. A VLEK's own certificate must be at hand already: `vek`.
    ///
    /// # Errors
    /// As for [`Self::get`]; or the bytes are no report that says what it needs.
    pub async fn snp(
        &self,
        report: &[u8],
        product: Option<cocoon_verifier::roots::Product>,
        vek: Option<&[u8]>,
        at: UnixTime,
        anew: bool,
    ) -> Result<SnpEndorsements, Error> {
        let needs = needs::of_snp(report, product).map_err(Error::Evidence)?;
        self.snp_of(needs, vek.unwrap_or_default(), at, anew).await
    }

    /// The same where the certificate of the report's key is at hand, be it a VCEK or a VLEK.
    pub(crate) async fn snp_by(&self, report: &[u8], vek: &[u8], at: UnixTime) -> Result<SnpEndorsements, Error> {
        let mut needs = needs::of_snp(report, None).map_err(Error::Evidence)?;
        needs.retain(|need| !matches!(need, Need::SnpKey { .. }));
        self.snp_of(needs, vek, at, false).await
    }

    async fn snp_of(&self, needs: Vec<Need>, vek: &[u8], at: UnixTime, anew: bool) -> Result<SnpEndorsements, Error> {
        let mut out = SnpEndorsements { vek: vek.to_vec(), ca: Vec::new(), crl: None };
        for (need, bytes) in self.all(needs, at, anew).await? {
            match need {
                Need::SnpKey { .. } => out.vek = bytes,
                Need::SnpChain { .. } => out.ca = needs::split(&bytes).map_err(Error::Evidence)?,
                _ => out.crl = Some(bytes),
            }
        }
        if out.vek.is_empty() {
            let detail = "the report is signed with a VLEK, whose certificate only the host has".to_owned();
            return Err(Error::Evidence(detail));
        }
        Ok(out)
    }

    /// Manifests and OCSP responses for GPUs' reports, each with its certificate chain (PEM).
    ///
    /// # Errors
    /// As for [`Self::get`]; or the bytes are no reports.
    pub async fn gpus(&self, gpus: &[(&[u8], &[u8])], at: UnixTime, anew: bool) -> Result<GpuEndorsements, Error> {
        let mut all = Vec::new();
        for (report, chain) in gpus {
            for need in needs::of_gpu(report, chain).map_err(Error::Evidence)? {
                if !all.contains(&need) {
                    all.push(need);
                }
            }
        }
        let chains = gpus.iter().map(|(_, chain)| chain.to_vec()).collect();
        let mut out = GpuEndorsements { chains, ..GpuEndorsements::default() };
        for (need, bytes) in self.all(all, at, anew).await? {
            let to = if matches!(need, Need::Rim { .. }) { &mut out.manifests } else { &mut out.ocsp };
            if !to.contains(&bytes) {
                to.push(bytes);
            }
        }
        Ok(out)
    }

    /// Staples to a bundle all that its evidence needs. Its evidence id does not change.
    ///
    /// # Errors
    /// As for [`Self::get`]; or the bundle's evidence does not say what it needs.
    pub async fn staple(&self, bundle: &mut Bundle, at: UnixTime, anew: bool) -> Result<(), Error> {
        bundle.endorsements = match &bundle.cpu {
            CpuEvidence::Tdx { quote } => Endorsements::Tdx { collateral: self.tdx(quote, at, anew).await? },
            CpuEvidence::Snp { report } => {
                let given = match &bundle.endorsements {
                    Endorsements::Snp(given) => Some(given.vek.clone()),
                    _ => None,
                };
                Endorsements::Snp(self.snp(report, None, given.as_deref(), at, anew).await?)
            }
        };
        let chains = bundle.gpu_endorsements.chains.clone();
        if bundle.gpu.is_empty() {
            return Ok(());
        }
        if chains.len() != bundle.gpu.len() {
            let detail = format!("{} GPU report(s) came with {} chain(s)", bundle.gpu.len(), chains.len());
            return Err(Error::Evidence(detail));
        }
        let gpus: Vec<_> = bundle.gpu.iter().map(Vec::as_slice).zip(chains.iter().map(Vec::as_slice)).collect();
        bundle.gpu_endorsements = self.gpus(&gpus, at, anew).await?;
        Ok(())
    }
}
