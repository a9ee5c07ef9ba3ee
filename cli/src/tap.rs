//! Keeps every byte that host and gateway saw, to be searched afterwards.

use std::sync::{Mutex, PoisonError};

/// Collects bytes of both relays.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<u8>>);

impl Recorder {
    /// Everything so far.
    pub fn seen(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }
}

impl cocoon_gateway::Tap for Recorder {
    fn bytes(&self, bytes: &[u8]) {
        self.add(bytes);
    }
}

impl cocoon_host::Tap for Recorder {
    fn bytes(&self, bytes: &[u8]) {
        self.add(bytes);
    }
}
