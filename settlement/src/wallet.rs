//! The standard wallet, version 5 revision 1: its address, and the external messages that it accepts.
//!
//! Scheme: `wallet-contract-v5`, types `SignedRequest` and `InnerRequest`; addresses equal `@ton/ton`'s `WalletContractV5R1`.

use std::fmt;

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

/// Code of the wallet; see `data/README.md`.
const CODE: &[u8] = include_bytes!("../data/wallet-v5r1.boc");
/// Operation of a request that arrives in an external message, "sign".
const SIGNED_EXTERNAL: u32 = 0x7369_676e;
/// Messages that one request can carry.
pub const MAX_MESSAGES: usize = 255;

/// A message that the wallet sends.
#[derive(Debug, Clone)]
pub struct OutMessage {
    /// Destination.
    pub to: Address,
    /// Value that arrives there; forward fees come on top.
    pub value: Nanoton,
    /// Whether a failure sends the value back. Off only makes sense for plain transfers to accounts not yet deployed.
    pub bounce: bool,
    /// Body.
    pub body: Option<Cell>,
    /// Initial state, to deploy the destination.
    pub state_init: Option<StateInit>,
}

impl OutMessage {
    /// A message as people expect it: plain transfers stay where they arrive, calls come back if they fail.
    pub fn new(to: Address, value: Nanoton, body: Option<Cell>, state_init: Option<StateInit>) -> Self {
        Self { to, value, bounce: body.is_some() || state_init.is_some(), body, state_init }
    }
}

/// A wallet and its key.
pub struct Wallet {
    seed: Zeroizing<[u8; 32]>,
    public_key: [u8; 32],
    wallet_id: i32,
    address: Address,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wallet({})", self.address)
    }
}

impl Wallet {
    /// The first wallet of an Ed25519 seed (RFC 8032) on a network, in the basechain.
    pub fn new(seed: [u8; 32], network: NetworkId) -> Result<Self, Error> {
        let seed = Zeroizing::new(seed);
        let public_key = key_pair(&seed)?.public_key().as_ref().try_into();
        let public_key = public_key.map_err(|_| Error::Unexpected("Ed25519".into()))?;
        let wallet_id = wallet_id(network, 0);
        let address = Address::basechain(CellBuilder::build_from(state_init(&public_key, wallet_id)?)?.repr_hash().0);
        Ok(Self { seed, public_key, wallet_id, address })
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
        state_init(&self.public_key, self.wallet_id)
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
        if messages.len() > MAX_MESSAGES {
            return Err(Error::BadMessage(format!("a wallet sends at most {MAX_MESSAGES} messages at once")));
        }
        let valid_until = u32::try_from(valid_until.0).map_err(|_| Error::Arithmetic("a time beyond 2106"))?;
        let mut body = CellBuilder::new();
        body.store_u32(SIGNED_EXTERNAL)?;
        body.store_u32(self.wallet_id as u32)?;
        body.store_u32(valid_until)?;
        body.store_u32(seqno)?;
        let actions = if messages.is_empty() { None } else { Some(out_list(messages)?) };
        actions.store_into(&mut body, Cell::empty_context())?;
        body.store_bit_zero()?;
        let hash = body.clone().build()?.repr_hash().0;
        let signature = key_pair(&self.seed)?.sign(&hash);
        body.store_raw(signature.as_ref(), 512)?;
        Ok(body.build()?)
    }
}

fn key_pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, Error> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Unexpected("Ed25519".into()))
}

/// `wallet_id` of v5R1: the client context (workchain 0, version 0, sub-wallet) xor the network's global id.
fn wallet_id(network: NetworkId, subwallet: u16) -> i32 {
    const CLIENT: u32 = 1 << 31;
    (CLIENT | u32::from(subwallet & 0x7fff)) as i32 ^ network.0
}

fn state_init(public_key: &[u8; 32], wallet_id: i32) -> Result<StateInit, Error> {
    let code = Boc::decode(CODE).map_err(|error| Error::Unexpected(format!("the wallet's code ({error})")))?;
    let mut data = CellBuilder::new();
    data.store_bit_one()?; // signatures are allowed
    data.store_u32(0)?; // seqno
    data.store_u32(wallet_id as u32)?;
    data.store_raw(public_key, 256)?;
    data.store_bit_zero()?; // no extensions
    Ok(StateInit { code: Some(code), data: Some(data.build()?), ..StateInit::default() })
}

/// The actions in the linked list that the TVM takes. The wallet demands mode "ignore errors" of external requests.
fn out_list(messages: &[OutMessage]) -> Result<Cell, Error> {
    let mut list = Cell::default();
    for message in messages {
        let action = OutAction::SendMsg {
            mode: SendMsgFlags::PAY_FEE_SEPARATELY | SendMsgFlags::IGNORE_ERROR,
            out_msg: Lazy::new(&relaxed(message))?,
        };
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
    fn code_has_the_published_hash() {
        let hash = Boc::decode(CODE).unwrap().repr_hash().0;
        assert_eq!(hex::encode(hash), "20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f");
    }

    /// The same request made with `@ton/ton` 16.3.0 (Ed25519 is deterministic, so even signatures agree).
    #[test]
    fn requests_equal_ton_tons() {
        let to = EXPECTED[0].1.parse().unwrap();
        let body = CellBuilder::build_from(1u32).unwrap();
        let messages = [
            OutMessage::new(to, Nanoton(1_500_000_000), None, None),
            OutMessage::new(to, Nanoton(2), Some(body), None),
        ];
        let wallet = Wallet::new([1; 32], NetworkId::LOCAL).unwrap();
        let request = wallet.signed_body(7, UnixTime(1_800_000_000), &messages).unwrap();
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
