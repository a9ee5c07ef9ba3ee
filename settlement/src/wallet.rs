//! The standard wallets v5R1 and v4R2: their addresses, and the external messages that they accept.
//!
//! Schemes: `wallet-contract-v5`, types `SignedRequest` and `InnerRequest`, and `wallet-contract` v4; addresses and requests equal
//! `@ton/ton`'s `WalletContractV5R1` and `WalletContractV4`.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use cocoon_attestation::types::UnixTime;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, Lazy, Store};
use tycho_types::models::{
    CurrencyCollection, ExtInMsgInfo, IntAddr, MessageLayout, MsgInfo, OutAction, OwnedMessage, OwnedRelaxedMessage,
    RelaxedIntMsgInfo, RelaxedMsgInfo, SendMsgFlags, StateInit, StdAddr,
};
use zeroize::Zeroizing;

use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::error::Error;

/// Codes of the wallets; see `data/README.md`.
const CODE_V5R1: &[u8] = include_bytes!("../data/wallet-v5r1.boc");
const CODE_V4R2: &[u8] = include_bytes!("../data/wallet-v4r2.boc");
/// Operation of a request that arrives in an external message, "sign".
const SIGNED_EXTERNAL: u32 = 0x7369_676e;
/// Wallet id of a first v4 wallet in the basechain, on every network.
const ID_V4R2: i32 = 698_983_191;

/// Which of the standard wallets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// Version 4 revision 2: what most wallets that exist are.
    V4R2,
    /// Version 5 revision 1.
    #[default]
    V5R1,
}

impl Version {
    /// Messages that one request can carry.
    pub const fn max_messages(self) -> usize {
        match self {
            Self::V4R2 => 4,
            Self::V5R1 => 255,
        }
    }

    const fn code(self) -> &'static [u8] {
        match self {
            Self::V4R2 => CODE_V4R2,
            Self::V5R1 => CODE_V5R1,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4R2 => "v4R2",
            Self::V5R1 => "v5R1",
        })
    }
}

impl FromStr for Version {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::V4R2, Self::V5R1].into_iter().find(|version| version.to_string().eq_ignore_ascii_case(text)).ok_or_else(
            || Error::Malformed { what: "a wallet's version", why: format!("`{text}`; there are v4R2 and v5R1") },
        )
    }
}

/// A message that the wallet sends.
#[derive(Debug, Clone)]
pub struct OutMessage {
    /// Destination.
    pub to: Address,
    /// Value that arrives there; forward fees come on top.
    pub value: Nanoton,
    /// Whether what is not taken comes back. Off makes sense only for plain transfers to accounts that are not deployed: a contract that
    /// refuses one then keeps its value.
    pub bounce: bool,
    /// Whether it carries all that the wallet holds instead of `value`, fees deducted.
    pub everything: bool,
    /// Body.
    pub body: Option<Cell>,
    /// Initial state, to deploy the destination.
    pub state_init: Option<StateInit>,
}

impl OutMessage {
    /// A call, which comes back if it fails, or a transfer to an account that may not be deployed yet, which stays where it arrives. Who does
    /// not know what stands there looks first, and uses [`Self::transfer`].
    pub fn new(to: Address, value: Nanoton, body: Option<Cell>, state_init: Option<StateInit>) -> Self {
        Self { to, value, bounce: body.is_some() || state_init.is_some(), everything: false, body, state_init }
    }

    /// A transfer that stays where it arrives if nothing is deployed there, and comes back from what is deployed and does not take it.
    pub fn transfer(to: Address, value: Nanoton, deployed: bool) -> Self {
        Self { bounce: deployed, ..Self::new(to, value, None, None) }
    }
}

/// A wallet and its key.
pub struct Wallet {
    seed: Zeroizing<[u8; 32]>,
    public_key: [u8; 32],
    version: Version,
    wallet_id: i32,
    address: Address,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wallet({})", self.address)
    }
}

impl Wallet {
    /// The first wallet v5R1 of an Ed25519 seed (RFC 8032) on a network, in the basechain.
    pub fn new(seed: [u8; 32], network: NetworkId) -> Result<Self, Error> {
        Self::with_version(seed, network, Version::V5R1)
    }

    /// The first wallet of a version. That of v4R2 has the same address on every network, and its requests are valid on every network
    /// where it has the sequence number.
    pub fn with_version(seed: [u8; 32], network: NetworkId, version: Version) -> Result<Self, Error> {
        let seed = Zeroizing::new(seed);
        let public_key = key_pair(&seed)?.public_key().as_ref().try_into();
        let public_key = public_key.map_err(|_| Error::Unexpected("Ed25519".into()))?;
        let address = Self::address_of(&public_key, network, version)?;
        Ok(Self { seed, public_key, version, wallet_id: id(network, version), address })
    }

    /// Address of the wallet that [`Self::with_version`] makes of the seed with this public key.
    pub fn address_of(public_key: &[u8; 32], network: NetworkId, version: Version) -> Result<Address, Error> {
        Address::of_state_init(&state_init(version, public_key, id(network, version))?)
    }

    /// Which wallet it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Its public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// Its initial state: what the first message has to bring along.
    pub fn state_init(&self) -> Result<StateInit, Error> {
        state_init(self.version, &self.public_key, self.wallet_id)
    }

    /// The signed external message that sends `messages`, valid once (`seqno`) and until `valid_until`. `deploy` attaches the
    /// initial state, which an account that has no code yet needs.
    pub fn request(
        &self,
        seqno: u32,
        valid_until: UnixTime,
        messages: &[OutMessage],
        deploy: bool,
    ) -> Result<Cell, Error> {
        let body = self.signed_body(seqno, valid_until, messages)?;
        let message = OwnedMessage {
            info: MsgInfo::ExtIn(ExtInMsgInfo { dst: IntAddr::Std(self.address.into()), ..ExtInMsgInfo::default() }),
            init: deploy.then(|| self.state_init()).transpose()?,
            body: body.into(),
            layout: None,
        };
        Ok(CellBuilder::build_from(message)?)
    }

    fn signed_body(&self, seqno: u32, valid_until: UnixTime, messages: &[OutMessage]) -> Result<Cell, Error> {
        let most = self.version.max_messages();
        if messages.len() > most {
            return Err(Error::BadMessage(format!("a wallet {} sends at most {most} messages at once", self.version)));
        }
        let valid_until = u32::try_from(valid_until.0).map_err(|_| Error::Arithmetic("a time beyond 2106"))?;
        let mut request = CellBuilder::new();
        if self.version == Version::V5R1 {
            request.store_u32(SIGNED_EXTERNAL)?;
        }
        request.store_u32(self.wallet_id as u32)?;
        request.store_u32(valid_until)?;
        request.store_u32(seqno)?;
        match self.version {
            Version::V4R2 => {
                request.store_u8(0)?; // a plain sending of messages
                for message in messages {
                    request.store_u8(mode(message).bits())?;
                    request.store_reference(CellBuilder::build_from(relaxed(message))?)?;
                }
            }
            Version::V5R1 => {
                let actions = if messages.is_empty() { None } else { Some(out_list(messages)?) };
                actions.store_into(&mut request, Cell::empty_context())?;
                request.store_bit_zero()?; // no extended actions
            }
        }
        let hash = request.clone().build()?.repr_hash().0;
        let signature = key_pair(&self.seed)?.sign(&hash);
        match self.version {
            Version::V4R2 => {
                let mut body = CellBuilder::new();
                body.store_raw(signature.as_ref(), 512)?;
                body.store_builder(&request)?;
                Ok(body.build()?)
            }
            Version::V5R1 => {
                request.store_raw(signature.as_ref(), 512)?;
                Ok(request.build()?)
            }
        }
    }
}

fn key_pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, Error> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Unexpected("Ed25519".into()))
}

/// Id of a first wallet.
fn id(network: NetworkId, version: Version) -> i32 {
    match version {
        Version::V4R2 => ID_V4R2,
        Version::V5R1 => wallet_id(network, 0),
    }
}

/// `wallet_id` of v5R1: the client context (workchain 0, version 0, sub-wallet) xor the network's global id.
fn wallet_id(network: NetworkId, subwallet: u16) -> i32 {
    const CLIENT: u32 = 1 << 31;
    (CLIENT | u32::from(subwallet & 0x7fff)) as i32 ^ network.0
}

fn state_init(version: Version, public_key: &[u8; 32], wallet_id: i32) -> Result<StateInit, Error> {
    let code =
        Boc::decode(version.code()).map_err(|error| Error::Unexpected(format!("the wallet's code ({error})")))?;
    let mut data = CellBuilder::new();
    if version == Version::V5R1 {
        data.store_bit_one()?; // signatures are allowed
    }
    data.store_u32(0)?; // seqno
    data.store_u32(wallet_id as u32)?;
    data.store_raw(public_key, 256)?;
    data.store_bit_zero()?; // no extensions or plugins
    Ok(StateInit { code: Some(code), data: Some(data.build()?), ..StateInit::default() })
}

/// Wallets v5 demand "ignore errors" of external requests: a message that cannot be paid must not undo the sequence number.
fn mode(message: &OutMessage) -> SendMsgFlags {
    let rest = if message.everything { SendMsgFlags::ALL_BALANCE } else { SendMsgFlags::PAY_FEE_SEPARATELY };
    SendMsgFlags::IGNORE_ERROR | rest
}

/// The actions in the linked list that the TVM takes.
fn out_list(messages: &[OutMessage]) -> Result<Cell, Error> {
    let mut list = Cell::default();
    for message in messages {
        let action = OutAction::SendMsg { mode: mode(message), out_msg: Lazy::new(&relaxed(message))? };
        let mut node = CellBuilder::new();
        node.store_reference(list)?;
        action.store_into(&mut node, Cell::empty_context())?;
        list = node.build()?;
    }
    Ok(list)
}

/// Longest body that is written into the message's own cell, in bits; what goes before it takes at most 446.
const MAX_INLINE_BODY: u16 = 570;

fn relaxed(message: &OutMessage) -> OwnedRelaxedMessage {
    // Left to itself, tycho-types takes a body that is one bit too long for one that fits.
    let long = message.body.as_ref().is_some_and(|body| body.bit_len() > MAX_INLINE_BODY);
    OwnedRelaxedMessage {
        info: RelaxedMsgInfo::Int(RelaxedIntMsgInfo {
            ihr_disabled: true,
            bounce: message.bounce,
            dst: StdAddr::from(message.to).into(),
            value: CurrencyCollection::new(message.value.0.into()),
            ..RelaxedIntMsgInfo::default()
        }),
        init: message.state_init.clone(),
        body: message.body.clone().unwrap_or_default().into(),
        layout: long.then_some(MessageLayout { init_to_cell: false, body_to_cell: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `@ton/ton` 16.3.0 for the key of seed 01..01.
    const EXPECTED: [(NetworkId, &str); 3] = [
        (NetworkId::MAINNET, "0:9d1e1843624c4d175a695a8c2de8a5a61f03b93336e8caa4e164bf6cbbab205e"),
        (NetworkId::TESTNET, "0:9b497c508fc1628f291e9a15742816c8671545350291fa91a29eb600a303a6f7"),
        (NetworkId::LOCAL, "0:400a718dd331a62a26336625e5c29f1d005ed59f557d2f3bf8fee7aa5c7c778e"),
    ];

    #[test]
    fn addresses_equal_ton_tons() {
        for (network, address) in EXPECTED {
            assert_eq!(Wallet::new([1; 32], network).unwrap().address().to_string(), address);
        }
    }

    #[test]
    fn a_v4r2_wallets_address_and_request_equal_ton_tons() {
        for network in [NetworkId::MAINNET, NetworkId::LOCAL] {
            let wallet = Wallet::with_version([1; 32], network, Version::V4R2).unwrap();
            let address = "0:efaff4bac220f88b2e98eb1d9cffcca3bfe3b66ece31a7d6c5890d30dfd7afa5";
            assert_eq!(wallet.address().to_string(), address);
            let request = wallet.signed_body(7, UnixTime(1_800_000_000), &messages()).unwrap();
            let hash = "6c63cd1f50bf193fb2c925badf676ef4beda741dc78ee45401b440769fe613fb";
            assert_eq!(hex::encode(request.repr_hash().0), hash);
            let five = vec![messages()[0].clone(); 5];
            let error = wallet.signed_body(7, UnixTime(1_800_000_000), &five).unwrap_err().to_string();
            assert!(error.contains("at most 4"), "{error}");
        }
    }

    #[test]
    fn versions_are_read_as_they_are_written() {
        for version in [Version::V4R2, Version::V5R1] {
            assert_eq!(version.to_string().to_lowercase().parse::<Version>().unwrap(), version);
        }
        assert!("v3R2".parse::<Version>().unwrap_err().to_string().contains("v4R2"));
    }

    #[test]
    fn codes_have_the_published_hashes() {
        for (version, hash) in [
            (Version::V4R2, "feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0"),
            (Version::V5R1, "20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f"),
        ] {
            assert_eq!(hex::encode(Boc::decode(version.code()).unwrap().repr_hash().0), hash);
        }
    }

    fn messages() -> [OutMessage; 2] {
        let to = EXPECTED[0].1.parse().unwrap();
        let body = CellBuilder::build_from(1u32).unwrap();
        [OutMessage::new(to, Nanoton(1_500_000_000), None, None), OutMessage::new(to, Nanoton(2), Some(body), None)]
    }

    /// The same request made with `@ton/ton` 16.3.0 (Ed25519 is deterministic, so even signatures agree).
    #[test]
    fn requests_equal_ton_tons() {
        let wallet = Wallet::new([1; 32], NetworkId::LOCAL).unwrap();
        let request = wallet.signed_body(7, UnixTime(1_800_000_000), &messages()).unwrap();
        assert_eq!(
            hex::encode(request.repr_hash().0),
            "ae12bbe27da997a2288a1b4a636535687121629d6c9649605d21431304c79579"
        );
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let seed = [0x5a; 32];
        let text = format!("{:?}", Wallet::new(seed, NetworkId::LOCAL).unwrap());
        assert!(!text.contains("5a5a") && !text.contains("90, 90"));
    }
}
