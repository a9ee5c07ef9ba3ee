//! Other nodes that witness this one's log (C2SP tlog-witness, the log's side).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use cocoon_protocol::wire::WITNESS_PATH;
use cocoon_transparency::{AddCheckpoint, Head, Log, open_cosigned};
use futures::future::join_all;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout};

use crate::Error;

/// Longest that a witness may take: verdicts wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// A witness that failed is not waited for again so soon.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);
/// Longest answer of a witness, in bytes.
const ANSWER: usize = 64 * 1024;

/// A node that witnesses this one's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its base URL.
    pub url: String,
    /// Verifier key of its cosignatures.
    pub witness: String,
}

struct State {
    peer: Peer,
    /// Size that it cosigned last, as far as is known.
    old: u64,
    not_before: Option<Instant>,
}

pub(crate) struct Peers {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    peers: Vec<State>,
}

impl Peers {
    pub fn new(peers: Vec<Peer>) -> Result<Self, Error> {
        let connector = crate::endorsements::connector().map_err(|error| Error::Interrupted(error.to_string()))?;
        let peers = peers.into_iter().map(|peer| State { peer, old: 0, not_before: None }).collect();
        Ok(Self { http: Client::builder(TokioExecutor::new()).build(connector), peers })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// Cosignatures of those that give one in time.
    pub async fn cosign(&mut self, log: &Arc<Log>, head: &Head) -> Vec<String> {
        let http = &self.http;
        let asked = self.peers.iter_mut().map(|state| async move {
            if state.not_before.is_some_and(|at| at > Instant::now()) {
                return None;
            }
            let answer = timeout(PATIENCE, ask(http, state, log, head)).await;
            match answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
                Ok(line) => Some(line),
                Err(trouble) => {
                    tracing::warn!(witness = state.peer.url, trouble, "a checkpoint goes without this witness");
                    state.not_before = Some(Instant::now() + PAUSE);
                    None
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

async fn ask(
    http: &Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    state: &mut State,
    log: &Arc<Log>,
    head: &Head,
) -> Result<String, String> {
    // It may know of another size than is remembered here: then it says which, once.
    for _ in 0..2 {
        let (asked, old, size) = (log.clone(), state.old, head.tree.size);
        let proof = crate::publish::blocking(move || asked.consistency(old.min(size), size)).await;
        let proof = proof.map_err(|error| error.to_string())?;
        let request = AddCheckpoint { old: state.old, proof, checkpoint: head.checkpoint.clone() };
        let url = format!("{}{WITNESS_PATH}", state.peer.url);
        let request =
            Request::post(url).body(Full::new(Bytes::from(request.to_text()))).map_err(|error| error.to_string())?;
        let response = http.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body =
            Limited::new(response.into_body(), ANSWER).collect().await.map_err(|error| error.to_string())?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        match status {
            200 => {
                let whole = format!("{}{text}", head.checkpoint);
                let opened =
                    open_cosigned(&whole, log.vkey(), &[&state.peer.witness]).map_err(|error| error.to_string())?;
                if opened.witnesses.is_empty() {
                    return Err("its answer is no cosignature by its key".into());
                }
                state.old = size;
                return Ok(text);
            }
            409 => {
                state.old = text.trim().parse().map_err(|_| "it refuses without saying what it cosigned".to_owned())?
            }
            _ => return Err(format!("status {status}: {}", text.chars().take(200).collect::<String>())),
        }
        if state.old > size {
            return Err(format!(
                "it cosigned {} leaves, more than this log has: was the log restored from a copy?",
                state.old
            ));
        }
    }
    Err("it does not take a proof from the size that it named: it saw another tree".into())
}
