//! Which enclaves are announced. In memory: hosts announce again long before an entry expires.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::EvidenceId;
use cocoon_protocol::wire::Announcement;

use crate::Error;

/// Most enclaves in the directory.
pub const MAX_ENCLAVES: usize = 4096;

pub(crate) struct Directory {
    expiry: Duration,
    entries: Mutex<BTreeMap<EvidenceId, (Instant, Announcement)>>,
}

impl Directory {
    pub fn new(expiry: Duration) -> Self {
        Self { expiry, entries: Mutex::default() }
    }

    fn current(&self) -> MutexGuard<'_, BTreeMap<EvidenceId, (Instant, Announcement)>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, (since, _)| since.elapsed() < self.expiry);
        entries
    }

    pub fn put(&self, announcement: Announcement) -> Result<(), Error> {
        let unusable = |why: &str| Error::Announcement(why.into());
        let id: EvidenceId = announcement.evidence_id.parse().map_err(|_| unusable("evidence_id is no digest"))?;
        let url: http::Uri = announcement.host_url.parse().map_err(|_| unusable("host_url is no URL"))?;
        if url.scheme_str() != Some("http") || url.authority().is_none() || url.query().is_some() {
            return Err(unusable("host_url must be http://host:port"));
        }
        let mut entries = self.current();
        if entries.len() >= MAX_ENCLAVES && !entries.contains_key(&id) {
            return Err(Error::Full);
        }
        entries.insert(id, (Instant::now(), announcement));
        Ok(())
    }

    pub fn host_url(&self, id: &EvidenceId) -> Option<String> {
        self.current().get(id).map(|(_, announcement)| announcement.host_url.clone())
    }

    pub fn list(&self, model: Option<&str>) -> Vec<Announcement> {
        let serves =
            |announcement: &Announcement| model.is_none_or(|model| announcement.models.iter().any(|m| m == model));
        self.current().values().map(|(_, announcement)| announcement).filter(|a| serves(a)).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.current().len()
    }
}
