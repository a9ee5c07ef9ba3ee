//! A guest that somebody else launched and keeps running, `cocoon host launch` for one: the host reaches it at an address.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::vm::launcher::{answers, bridge};
use crate::{EnclaveLauncher, Error, Guest, LaunchSpec, RunningEnclave};

/// How long a guest may take to boot and to load its model.
const READY: Duration = Duration::from_secs(1_800);
const TRY: Duration = Duration::from_millis(250);
/// How often it is asked whether it still runs.
const LOOK: Duration = Duration::from_secs(2);
/// After so many times without an answer it runs no more: one that computes may be slow.
const MISSED: u32 = 5;

/// Where a guest is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestAddress {
    /// `http://host:port`.
    Http(String),
    /// `vsock:CID:PORT`.
    Vsock {
        /// Context id of the virtual machine.
        cid: u32,
        /// Port.
        port: u32,
    },
}

impl FromStr for GuestAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no guest's address: write http://host:port or vsock:CID:PORT");
        if let Some(rest) = text.strip_prefix("vsock:") {
            let (cid, port) = rest.split_once(':').ok_or_else(fault)?;
            return Ok(Self::Vsock {
                cid: cid.parse().map_err(|_| fault())?,
                port: port.parse().map_err(|_| fault())?,
            });
        }
        let authority = text.strip_prefix("http://").ok_or_else(fault)?;
        let (host, port) = authority.rsplit_once(':').ok_or_else(fault)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(fault());
        }
        Ok(Self::Http(authority.to_owned()))
    }
}

impl GuestAddress {
    /// Whether a guest is there: over HTTP one that answers, at a virtual socket one that listens. Blocks for some seconds at most.
    ///
    /// # Errors
    /// None is, or the name has no address.
    pub fn reach(&self) -> Result<(), String> {
        match self {
            Self::Http(authority) => {
                let mut found = authority.to_socket_addrs().map_err(|error| error.to_string())?;
                let address = found.next().ok_or("its name has no address")?;
                if answers(address) { Ok(()) } else { Err("nothing answers there".into()) }
            }
            Self::Vsock { cid, port } => {
                cocoon_host_device::vsock_connect(*cid, *port).map(drop).map_err(|error| error.to_string())
            }
        }
    }
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

/// Waits for the guest at an address instead of starting one.
pub struct Joiner {
    guest: GuestAddress,
}

impl Joiner {
    /// Of the guest there.
    pub fn new(guest: GuestAddress) -> Self {
        Self { guest }
    }

    fn failed(&self, why: impl ToString) -> Error {
        Error::Peer { url: self.guest.to_string(), why: why.to_string() }
    }

    fn address(&self) -> Result<(SocketAddr, Option<JoinHandle<()>>), Error> {
        match &self.guest {
            GuestAddress::Http(authority) => {
                let mut found = authority.to_socket_addrs().map_err(|error| self.failed(error))?;
                Ok((found.next().ok_or_else(|| self.failed("its name has no address"))?, None))
            }
            GuestAddress::Vsock { cid, port } => {
                let (address, task) = bridge(*cid, *port).map_err(|error| self.failed(error))?;
                Ok((address, Some(task)))
            }
        }
    }
}

impl EnclaveLauncher for Joiner {
    fn launch(&self, spec: &LaunchSpec) -> Result<RunningEnclave, Error> {
        let (address, bridge) = self.address()?;
        let until = Instant::now() + READY;
        while !answers(address) {
            if spec.given_up.load(Ordering::Relaxed) {
                return Err(self.failed("the host stops"));
            }
            if Instant::now() > until {
                return Err(self.failed("no guest answers there; `cocoon host launch` starts one"));
            }
            std::thread::sleep(TRY);
        }
        Ok(RunningEnclave::new(format!("http://{address}"), Box::new(Joined::watch(address, bridge))))
    }
}

/// A guest that is looked at from time to time, by a thread of its own.
struct Joined {
    left: Arc<AtomicBool>,
    gone: Arc<Mutex<Option<String>>>,
    bridge: Option<JoinHandle<()>>,
}

impl Joined {
    fn watch(address: SocketAddr, bridge: Option<JoinHandle<()>>) -> Self {
        let (left, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let joined = Self { left: left.clone(), gone: gone.clone(), bridge };
        std::thread::spawn(move || {
            let mut missed = 0;
            while !left.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                missed = if answers(address) { 0 } else { missed + 1 };
                if missed == MISSED {
                    let why = "it answers no more; whoever launched it knows why".to_owned();
                    *gone.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                    return;
                }
            }
        });
        joined
    }
}

impl Guest for Joined {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn ended(&mut self) -> Option<String> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is left alone: it is not this host's to end.
    fn kill(&mut self) {
        self.left.store(true, Ordering::Relaxed);
        if let Some(bridge) = self.bridge.take() {
            bridge.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_nonsense_is_named() {
        for good in ["http://127.0.0.1:18443", "http://guest.example:80", "http://[::1]:80", "vsock:42:8443"] {
            assert_eq!(good.parse::<GuestAddress>().unwrap().to_string(), good);
        }
        for bad in
            ["", "127.0.0.1:80", "https://x:1", "http://x", "http://:80", "http://x:y", "http://x:80/", "vsock:1"]
        {
            assert!(bad.parse::<GuestAddress>().unwrap_err().contains("http://host:port"), "{bad}");
        }
    }
}
