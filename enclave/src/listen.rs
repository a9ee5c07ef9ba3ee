//! Where the host reaches the enclave: at a TCP address, or at a port of the machine's vsock, where a guest needs no network interface.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::out::Door;
use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At an address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// At a vsock port; written `vsock:PORT`.
    Vsock(u32),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither ADDRESS:PORT nor vsock:PORT");
        match text.strip_prefix("vsock:") {
            Some(port) => port.parse().map(Self::Vsock).map_err(|_| wrong()),
            None => text.parse().map(Self::Tcp).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Vsock(port) => write!(f, "vsock:{port}"),
        }
    }
}

/// The enclave's only door, open.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// vsock.
    Vsock(VsockListener),
}

impl Listen {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken or not this machine's, or the machine has no vsock.
    pub async fn bind(self) -> Result<Listener> {
        let listener = match self {
            Self::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Vsock(port) => VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)).map(Listener::Vsock),
        };
        listener.with_context(|| format!("cannot listen on {self}"))
    }
}

impl Listener {
    /// Where it listens, as [`Listen`] is written.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(Listen::Tcp(listener.local_addr()?).to_string()),
            Self::Vsock(listener) => Ok(Listen::Vsock(listener.local_addr()?.port()).to_string()),
        }
    }

    /// Answers, for ever.
    ///
    /// # Errors
    /// The door cannot be held open.
    pub async fn serve(self, router: Router) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                // A streamed token must not wait for the acknowledgement of the last.
                let listener = axum::serve::ListenerExt::tap_io(listener, |connection| {
                    let _ = connection.set_nodelay(true);
                });
                axum::serve(Door(listener), router).await
            }
            Self::Vsock(listener) => axum::serve(Door(listener), router).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for text in ["127.0.0.1:0", "[::1]:8443", "vsock:8443"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["vsock", "vsock:", "vsock:4294967296", "localhost:1", "8443"] {
            assert!(text.parse::<Listen>().unwrap_err().contains(text), "{text}");
        }
    }
}
