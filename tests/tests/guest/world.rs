//! A running guest, the development platform as its CPU, and a client with a channel.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::dev::cpu::{DevCpu, Launch, Tee};
use cocoon_attestation::{Beacon, Bundle, Claims, Digest, UnixTime};
use cocoon_protocol::auth;
use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::{SignedFullReceipt, SignedSettlementReceipt};
use cocoon_protocol::sealed::{AnswerHead, InnerRequest, RequestSealer, ResponseOpener};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire::{self, AttestRequest, EnclaveEvidence};
use cocoon_settlement::cells::Voucher;
use cocoon_settlement::contracts::channel::{ChannelInit, channel_code_depth, channel_code_hash};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices};

pub const BEACON_TIME: u64 = 1_800_000_000;
pub const PRICES: Prices = Prices { prompt: 1_000_000, cached: 100_000, completion: 3_000_000, reasoning: 3_000_000 };
const PROVIDER: Address = Address { workchain: 0, hash: [0x11; 32] };

pub struct Guest {
    pub child: Child,
    /// Where it listens.
    pub address: String,
    _config: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Reply {
    /// From its bytes.
    pub fn parse(bytes: &[u8]) -> Self {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP response");
        let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
        Self { status, body: bytes[split + 4..].to_vec() }
    }
}

pub fn model() -> PathBuf {
    cocoon_tests::demo_model()
}

impl Guest {
    pub fn start() -> Self {
        Self::with("")
    }

    /// One with more lines of configuration.
    pub fn with(more: &str) -> Self {
        Self::serving(&model(), more)
    }

    /// One with another model, under the demo model's name.
    pub fn serving(model: &Path, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("guest.toml");
        let text = format!(
            "network = -217\nprovider = \"{PROVIDER}\"\nchannel_code_hash = \"{}\"\nchannel_code_depth = {}\nmodel_name = \"cocoon-demo\"\n{more}",
            hex::encode(channel_code_hash()),
            channel_code_depth()
        );
        std::fs::write(&config, text).unwrap();
        let (host, guest) = UnixStream::pair().unwrap();
        let launch = Launch { mrtd: [0xa1; 48], ..Launch::default() };
        std::thread::spawn(move || DevCpu::new(DevPlatform::from_seed([1; 32]), Tee::Tdx, launch).serve(host));
        let mut child = Command::new(cocoon_tests::enclave_binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--platform", "development", "--config"])
            .arg(&config)
            .arg("--model")
            .arg(model)
            .stdin(Stdio::from(OwnedFd::from(guest)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("one JSON line when ready");
        Self { child, address: ready["listening"].as_str().unwrap().to_owned(), _config: folder }
    }

    /// One guest for all tests that leave it as they found it.
    pub fn shared() -> &'static (Guest, EnclaveEvidence) {
        static GUEST: OnceLock<(Guest, EnclaveEvidence)> = OnceLock::new();
        GUEST.get_or_init(|| {
            let guest = Guest::start();
            let evidence = guest.attest();
            (guest, evidence)
        })
    }

    pub fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.send(method, path, headers, body);
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        Reply::parse(&reply)
    }

    /// HTTP/1.0, so that the body is neither chunked nor the connection kept.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut request = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        stream
    }

    pub fn attest(&self) -> EnclaveEvidence {
        self.attest_on(7, BEACON_TIME)
    }

    /// Evidence on another block.
    pub fn attest_on(&self, seqno: u32, time: u64) -> EnclaveEvidence {
        let beacon = Beacon { seqno, root_hash: Digest([7; 32]), time: UnixTime(time) };
        let request = AttestRequest { beacon, nonce_root: Digest::ZERO };
        let reply = self.http("POST", wire::ATTEST_PATH, &[], &request.to_cbor());
        assert_eq!(reply.status, 200);
        EnclaveEvidence::from_cbor(&reply.body).unwrap()
    }

    pub fn post(&self, sealed: &Sealed) -> Reply {
        self.http("POST", wire::SEALED_PATH, &sealed.headers(), &sealed.body)
    }
}

pub fn claims(evidence: &EnclaveEvidence) -> Claims {
    Bundle::from_cbor(&evidence.bundle).unwrap().claims().unwrap()
}

/// A client with a channel of its own, so that tests do not count on one another's money.
pub struct Client {
    pub key: SigningKey,
    pub channel: ChannelInit,
    pub voucher: Voucher,
}

impl Client {
    pub fn new(evidence: &EnclaveEvidence, number: u8) -> Self {
        let key = SigningKey::from_seed(&[number; 32]).unwrap();
        let channel = ChannelInit {
            network: NetworkId::LOCAL,
            provider: PROVIDER,
            owner: Address { workchain: 0, hash: [0x44; 32] },
            client: Address { workchain: 0, hash: [0x22; 32] },
            client_key: key.public(),
            close_delay: 259_200,
            salt: [number; 32],
        };
        let voucher = Voucher {
            network: NetworkId::LOCAL,
            channel: channel.address(),
            enclave_key: claims(evidence).enclave_key,
            cap: Nanoton(1_000_000_000),
            prices: PRICES,
            expiry: UnixTime(BEACON_TIME + 3_600),
        };
        Self { key, channel, voucher }
    }

    pub fn seal(&self, evidence: &EnclaveEvidence, method: &str, path: &str, body: &str) -> Sealed {
        let sealer = RequestSealer::new(&evidence.key_statement.statement).unwrap();
        let voucher = SignedVoucher::sign(self.voucher.clone(), self.key.seed()).unwrap();
        let request = InnerRequest {
            method: method.into(),
            path: path.into(),
            headers: auth::headers(&sealer.enc(), &voucher, &self.channel, &self.key),
            body: body.as_bytes().to_vec().into(),
        };
        let (body, opener) = sealer.seal(&request).unwrap();
        let evidence_id = Bundle::from_cbor(&evidence.bundle).unwrap().evidence_id().to_string();
        Sealed { evidence_id, voucher: voucher.to_header(), body, opener: Some(opener) }
    }

    pub fn chat(&self, evidence: &EnclaveEvidence, extra: &str) -> Sealed {
        self.seal(evidence, "POST", "/v1/chat/completions", &chat_body(extra))
    }
}

pub fn chat_body(extra: &str) -> String {
    format!(
        r#"{{"model":"cocoon-demo","temperature":0,"messages":[{{"role":"user","content":"Who can read my prompt?"}}]{extra}}}"#
    )
}

pub struct Sealed {
    pub evidence_id: String,
    pub voucher: String,
    pub body: Vec<u8>,
    pub opener: Option<ResponseOpener>,
}

impl Sealed {
    pub fn headers(&self) -> [(&str, &str); 2] {
        [(wire::ENCLAVE_HEADER, &self.evidence_id), (wire::VOUCHER_HEADER, &self.voucher)]
    }

    pub fn open(&mut self, reply: &Reply) -> Answer {
        assert_eq!(reply.status, 200);
        let mut decoder = Decoder::new();
        decoder.push(&reply.body);
        let (mut sealed, mut settlement, mut sealed_after_receipt) = (Vec::new(), None, 0);
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Sealed(bytes) => {
                    sealed.extend_from_slice(&bytes);
                    sealed_after_receipt += usize::from(settlement.is_some());
                }
                Frame::Receipt(bytes) => settlement = Some(SignedSettlementReceipt::from_bytes(&bytes).unwrap()),
            }
        }
        assert!(decoder.is_whole());
        let opener = self.opener.take().expect("opened once");
        let (head, body, trailer) = futures::executor::block_on(async {
            let mut answer = opener.open(futures::io::Cursor::new(sealed)).unwrap();
            let head = answer.head().await.unwrap();
            let mut body = Vec::new();
            while let Some(piece) = answer.next().await.unwrap() {
                body.extend_from_slice(&piece);
            }
            (head, body, answer.finish().await.unwrap())
        });
        let receipt = trailer.iter().find(|(name, _)| name == wire::RECEIPT_TRAILER);
        Answer {
            head,
            body,
            receipt: receipt.map(|(_, value)| SignedFullReceipt::from_trailer(value).unwrap()),
            settlement,
            sealed_after_receipt,
        }
    }
}

pub struct Answer {
    pub head: AnswerHead,
    pub body: Vec<u8>,
    pub receipt: Option<SignedFullReceipt>,
    pub settlement: Option<SignedSettlementReceipt>,
    pub sealed_after_receipt: usize,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}
