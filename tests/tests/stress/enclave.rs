//! An enclave with limits of its own, asked by clients that read as they please.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::Digest;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::wire::{self, EnclaveEvidence};
use cocoon_settlement::cells::SettlementReceipt;
use cocoon_tests::models::{self, Shape};

use super::world::{Answer, Client, Guest, Reply, Sealed};

/// The longest that anything is waited for that has to come.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// More fields of a request, so that its answer ends at `max_tokens` and not before: the tokens that end one are forbidden.
pub fn long(max_tokens: u64) -> String {
    format!(r#","stream":true,"max_tokens":{max_tokens},"logit_bias":{{"0":-100,"2":-100}}"#)
}

/// The same with so much about each token that no buffer on the way holds the whole answer.
pub fn wordy(max_tokens: u64) -> String {
    long(max_tokens) + r#","logprobs":true,"top_logprobs":20"#
}

/// Tests that press the same enclave, or measure it, take turns.
pub fn in_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Enclave {
    guest: Guest,
    /// Its model, if that is another than the demo's.
    _model: Option<tempfile::TempDir>,
    /// What it showed of itself at its first attestation.
    pub evidence: EnclaveEvidence,
}

impl Enclave {
    /// Starts one with more lines of configuration, and has it attested.
    pub fn start(more: &str) -> Self {
        let guest = Guest::with(more);
        let evidence = guest.attest();
        Self { guest, _model: None, evidence }
    }

    /// One with a small model that embeds.
    pub fn embedding(more: &str) -> Self {
        Self::with_model(more, |folder| models::write(folder, Shape::Embedding).unwrap())
    }

    /// One with a model whose template opens its thoughts, which it never closes.
    pub fn thinking(more: &str) -> Self {
        Self::with_model(more, |folder| models::thinker(folder).unwrap())
    }

    fn with_model(more: &str, write: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let recorded =
            Command::new(cocoon_tests::enclave_binary()).args(["record", "--model"]).arg(folder.path()).output();
        assert!(recorded.unwrap().status.success());
        let guest = Guest::serving(folder.path(), more);
        let evidence = guest.attest();
        Self { guest, _model: Some(folder), evidence }
    }

    /// One with the limits that a guest has by default.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Enclave> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(""))
    }

    /// New evidence on another block.
    pub fn attest(&self, seqno: u32, time: u64) -> EnclaveEvidence {
        self.guest.attest_on(seqno, time)
    }

    pub fn get(&self, path: &str) -> Reply {
        reply(&mut request(&self.guest.address, "GET", path, &[], b""))
    }

    pub fn post(&self, sealed: &Sealed) -> Reply {
        reply(&mut request(&self.guest.address, "POST", wire::SEALED_PATH, &sealed.headers(), &sealed.body))
    }

    /// Sends a request, reads its answer and opens it.
    pub fn ask(&self, mut sealed: Sealed) -> Answer {
        let reply = self.post(&sealed);
        sealed.open(&reply)
    }

    /// Sends a request whose answer is read later, if at all: little of it fits in between.
    pub fn send(&self, sealed: &Sealed) -> TcpStream {
        request(&self.guest.address, "POST", wire::SEALED_PATH, &sealed.headers(), &sealed.body)
    }

    /// The newest receipt of a client's channel, once that request has ended; the status where there is none.
    pub fn receipt_with(&self, client: &Client, request: &Digest) -> Result<SettlementReceipt, u16> {
        let channel = client.channel.address();
        let reply = self.get(&format!("{}?channel={channel}&request={request}", wire::RECEIPTS_PATH));
        if reply.status != 200 {
            return Err(reply.status);
        }
        Ok(SignedSettlementReceipt::from_bytes(&reply.body).unwrap().receipt)
    }

    /// The newest receipt of a client's channel.
    pub fn receipt(&self, client: &Client) -> Option<SettlementReceipt> {
        let reply = self.get(&format!("{}?channel={}", wire::RECEIPTS_PATH, client.channel.address()));
        assert!(reply.status == 200 || reply.status == 404, "status {}", reply.status);
        (reply.status == 200).then(|| SignedSettlementReceipt::from_bytes(&reply.body).unwrap().receipt)
    }

    /// Waits for a receipt behind that one.
    pub fn receipt_after(&self, client: &Client, sequence: u64) -> SettlementReceipt {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.receipt(client) {
                Some(receipt) if receipt.sequence > sequence => return receipt,
                _ => assert!(Instant::now() < deadline, "no receipt behind number {sequence}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a request has ended. Gives the newest receipt of the client's channel, if it has any.
    pub fn ended(&self, client: &Client, request: &Digest) -> Option<SettlementReceipt> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.receipt_with(client, request) {
                Ok(receipt) => return Some(receipt),
                Err(404) => return None,
                Err(status) => assert!(status == 202 && Instant::now() < deadline, "status {status}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a request was opened and accepted.
    pub fn accepted(&self, client: &Client, request: &Digest) {
        let deadline = Instant::now() + DEADLINE;
        while self.receipt_with(client, request) != Err(202) {
            assert!(Instant::now() < deadline, "the request was not opened");
        }
    }

    /// Bytes that it has in memory.
    pub fn resident(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.guest.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
    }
}

/// Connects with the least buffer for what comes back, so that what is not read is not taken. HTTP/1.0: nothing is chunked or kept open.
fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let connected = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(1)?;
        socket.connect(address.parse().unwrap()).await?.into_std()
    });
    let mut stream = connected.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses by the length may close before it has read it all.
    let _ = stream.write_all(body);
    stream
}

/// The rest of an answer.
pub fn reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Reply::parse(&bytes)
}
