//! An enclave with limits of its own, asked by clients that read as they please.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::dev::cpu::{DevCpu, Launch, Tee};
use cocoon_attestation::{Beacon, Digest, UnixTime};
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::wire::{self, AttestRequest, EnclaveEvidence};
use cocoon_settlement::cells::SettlementReceipt;
use cocoon_settlement::contracts::channel::{channel_code_depth, channel_code_hash};

use super::world::{Answer, BEACON_TIME, Client, Reply, Sealed};

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
    child: Child,
    address: String,
    /// What it showed of itself at its first attestation.
    pub evidence: EnclaveEvidence,
    _config: tempfile::TempDir,
}

impl Drop for Enclave {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Enclave {
    /// Starts one with more lines of configuration, and has it attested.
    pub fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("guest.toml");
        let provider = format!("0:{}", "11".repeat(32));
        let text = format!(
            "network = -217\nprovider = \"{provider}\"\nchannel_code_hash = \"{}\"\nchannel_code_depth = {}\n\
             model_name = \"cocoon-demo\"\n{more}",
            hex::encode(channel_code_hash()),
            channel_code_depth()
        );
        std::fs::write(&config, text).unwrap();
        let (host, guest) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            DevCpu::new(DevPlatform::from_seed([1; 32]), Tee::Tdx, Launch::default()).serve(host)
        });
        let mut child = Command::new(cocoon_tests::enclave_binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--platform", "development", "--config"])
            .arg(&config)
            .arg("--model")
            .arg(cocoon_tests::demo_model())
            .stdin(Stdio::from(OwnedFd::from(guest)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("one JSON line when ready");
        let address = ready["listening"].as_str().unwrap().to_owned();
        let evidence = attest(&address, 7, BEACON_TIME);
        Self { child, address, evidence, _config: folder }
    }

    /// One with the limits that a guest has by default.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Enclave> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(""))
    }

    /// New evidence on another block.
    pub fn attest(&self, seqno: u32, time: u64) -> EnclaveEvidence {
        attest(&self.address, seqno, time)
    }

    pub fn get(&self, path: &str) -> Reply {
        reply(&mut request(&self.address, "GET", path, &[], b""))
    }

    pub fn post(&self, sealed: &Sealed) -> Reply {
        reply(&mut request(&self.address, "POST", wire::SEALED_PATH, &sealed.headers(), &sealed.body))
    }

    /// Sends a request, reads its answer and opens it.
    pub fn ask(&self, mut sealed: Sealed) -> Answer {
        let reply = self.post(&sealed);
        sealed.open(&reply)
    }

    /// Sends a request whose answer is read later, if at all: little of it fits in between.
    pub fn send(&self, sealed: &Sealed) -> TcpStream {
        request(&self.address, "POST", wire::SEALED_PATH, &sealed.headers(), &sealed.body)
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

    /// Bytes that it has in memory.
    pub fn resident(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
    }
}

fn attest(address: &str, seqno: u32, time: u64) -> EnclaveEvidence {
    let beacon = Beacon { seqno, root_hash: Digest([7; 32]), time: UnixTime(time) };
    let body = AttestRequest { beacon, nonce_root: Digest::ZERO }.to_cbor();
    let reply = reply(&mut request(address, "POST", wire::ATTEST_PATH, &[], &body));
    assert_eq!(reply.status, 200);
    EnclaveEvidence::from_cbor(&reply.body).unwrap()
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
    parsed(&bytes)
}

/// An answer from its bytes.
pub fn parsed(bytes: &[u8]) -> Reply {
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP response");
    let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
    Reply { status, body: bytes[split + 4..].to_vec() }
}
