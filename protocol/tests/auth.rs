//! The proof that the payer asked, and each thing that can be wrong with it.

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_protocol::Error;
use cocoon_protocol::auth::{self, Expected};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::sealed::InnerRequest;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::cells::Voucher;
use cocoon_settlement::contracts::channel::{ChannelInit, channel_code_depth, channel_code_hash};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices};

const NOW: UnixTime = UnixTime(1_000);
const ENC: [u8; 1120] = [8; 1120];

struct Case {
    expected: Expected,
    client: SigningKey,
    signer: SigningKey,
    channel: ChannelInit,
    voucher: Voucher,
    /// The `enc` that the request was signed for.
    signed_enc: [u8; 1120],
}

impl Case {
    fn good() -> Self {
        let provider = Address { workchain: 0, hash: [1; 32] };
        let client = SigningKey::from_seed(&[2; 32]).unwrap();
        let enclave_key = EnclaveKey([3; 32]);
        let channel = ChannelInit {
            network: NetworkId::LOCAL,
            provider,
            owner: Address { workchain: 0, hash: [6; 32] },
            client: Address { workchain: 0, hash: [4; 32] },
            client_key: client.public(),
            close_delay: 100,
            salt: [5; 32],
        };
        let voucher = Voucher {
            network: NetworkId::LOCAL,
            channel: channel.address(),
            enclave_key,
            cap: Nanoton(10),
            prices: Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 },
            expiry: NOW,
        };
        let expected = Expected {
            network: NetworkId::LOCAL,
            provider,
            enclave_key,
            channel_code_hash: channel_code_hash(),
            channel_code_depth: channel_code_depth(),
            least_close_delay: 100,
        };
        let signer = SigningKey::from_seed(&[2; 32]).unwrap();
        Self { expected, client, signer, channel, voucher, signed_enc: ENC }
    }

    fn signed(&self) -> (SignedVoucher, InnerRequest) {
        let voucher = SignedVoucher::sign(self.voucher.clone(), self.client.seed()).unwrap();
        let headers = auth::headers(&self.signed_enc, &voucher, &self.channel, &self.signer);
        let request = InnerRequest { method: "POST".into(), path: "/".into(), headers, body: Vec::new().into() };
        (voucher, request)
    }

    fn verify(&self) -> Result<ChannelInit, Error> {
        let (voucher, request) = self.signed();
        auth::verify(&self.expected, &voucher, &ENC, &request, NOW)
    }
}

#[test]
fn the_owner_of_the_channel_is_served() {
    let case = Case::good();
    assert_eq!(case.verify().unwrap(), case.channel);
}

#[test]
fn each_thing_that_does_not_fit_is_refused_with_its_reason() {
    type Alter = fn(&mut Case);
    let other = || SigningKey::from_seed(&[9; 32]).unwrap();
    let cases: [(Alter, &str); 9] = [
        (|case| case.expected.network = NetworkId(-3), "another network"),
        (|case| case.expected.provider.hash = [9; 32], "another provider"),
        (|case| case.expected.least_close_delay = 101, "longer delay"),
        (|case| case.expected.enclave_key = EnclaveKey([9; 32]), "another enclave"),
        (|case| case.voucher.expiry = UnixTime(NOW.0 - 1), "expired"),
        (|case| case.channel.salt = [9; 32], "initial data"),
        (|case| case.expected.channel_code_hash = [9; 32], "other code"),
        (|case| case.signed_enc[0] ^= 1, "the request"),
        (|case| case.voucher.channel.hash[0] ^= 1, "initial data"),
    ];
    for (alter, reason) in cases {
        let mut case = Case::good();
        alter(&mut case);
        let error = case.verify().unwrap_err().to_string();
        assert!(error.contains(reason), "{error} should say: {reason}");
    }
    let by_another = Case { signer: other(), ..Case::good() };
    assert!(matches!(by_another.verify(), Err(Error::Signature("the request"))));
    let voucher_by_another = Case { client: other(), ..Case::good() };
    assert!(matches!(voucher_by_another.verify(), Err(Error::Signature("the voucher"))));
}

#[test]
fn a_voucher_exchanged_on_the_way_is_refused() {
    let case = Case::good();
    let (_, request) = case.signed();
    let mut higher = case.voucher.clone();
    higher.cap = Nanoton(11);
    let exchanged = SignedVoucher::sign(higher, case.client.seed()).unwrap();
    let error = auth::verify(&case.expected, &exchanged, &ENC, &request, NOW).unwrap_err().to_string();
    assert!(error.contains("exchanged"), "{error}");
}

#[test]
fn a_missing_header_is_named() {
    let case = Case::good();
    let (voucher, request) = case.signed();
    for at in 0..request.headers.len() {
        let mut less = request.clone();
        let (name, _) = less.headers.remove(at);
        let error = auth::verify(&case.expected, &voucher, &ENC, &less, NOW).unwrap_err().to_string();
        assert!(error.contains(&name), "{error} should name {name}");
    }
}
