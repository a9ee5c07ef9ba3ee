//! What a message asked of the contracts, read back from its body: how an auditor learns from an account's transactions what
//! happened there. Bodies are those of `schema.tlb`.
//!
//! A body is read as the contracts read it, and no stricter: they look at the first 512 bits where a signature stands last, open items
//! one after the other, and leave alone what stands behind what they need. Whoever could get a message carried out that is not read
//! here would hide it from every audit; what is ours and cannot be read is therefore an error and never nothing.

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellSlice, Load};
use tycho_types::error::Error as CellError;

use crate::NetworkId;
use crate::address::Address;
use crate::amount::{Nanoton, Prices};
use crate::cells::{
    CheckpointAnchor, SettlementReceipt, Signature, Verdict, Voucher, load_hash, load_time, malformed, read_whole,
};
use crate::chain::{MessageSummary, TxSummary};
use crate::error::Error;

/// Most signatures that are read of one attestation: no Registry has more verifiers.
const MOST_SIGNATURES: usize = super::registry::MAX_VERIFIERS;
/// Most items that are read of one message: a Provider passes on eight.
const MOST_ITEMS: usize = 64;

/// One item of a claim, as it came to the Channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedItem {
    /// The enclave that signed the receipt.
    pub enclave_key: EnclaveKey,
    /// The voucher's terms, where it was sent along.
    pub voucher: Option<ClaimedVoucher>,
    /// The receipt.
    pub receipt: ClaimedReceipt,
}

impl ClaimedItem {
    /// Whether the enclave signed the receipt, for this Channel of this Provider.
    pub fn holds(&self, network: NetworkId, provider: &Address, channel: &Address) -> bool {
        self.receipt.holds(network, provider, channel, &self.enclave_key)
    }

    /// The voucher, if one came along and the client signed it, for this enclave and Channel.
    pub fn promise(&self, network: NetworkId, channel: &Address, client_key: &[u8; 32]) -> Option<&ClaimedVoucher> {
        self.voucher.as_ref().filter(|claimed| {
            let ClaimedVoucher { cap, prices, expiry, signature } = **claimed;
            let (channel, enclave_key) = (*channel, self.enclave_key);
            let voucher = Voucher { network, channel, enclave_key, cap, prices, expiry };
            voucher.verify(&signature, client_key).is_ok()
        })
    }
}

/// What a message says of a receipt; the contracts know the rest of what the enclave signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedReceipt {
    /// The receipt's number.
    pub sequence: u64,
    /// What the enclave had earned in the Channel by then.
    pub total: Nanoton,
    /// When the enclave signed.
    pub time: UnixTime,
    /// The enclave's signature.
    pub signature: Signature,
}

impl ClaimedReceipt {
    /// Whether an enclave signed it, for a Channel of a Provider.
    pub fn holds(&self, network: NetworkId, provider: &Address, channel: &Address, key: &EnclaveKey) -> bool {
        let receipt = SettlementReceipt {
            network,
            provider: *provider,
            channel: *channel,
            enclave_key: *key,
            sequence: self.sequence,
            total: self.total,
            time: self.time,
        };
        receipt.verify(&self.signature, &key.0).is_ok()
    }
}

/// What a claim says of a voucher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedVoucher {
    /// Most that the client promised.
    pub cap: Nanoton,
    /// At these prices.
    pub prices: Prices,
    /// For receipts up to this time.
    pub expiry: UnixTime,
    /// The client's signature.
    pub signature: Signature,
}

/// A message of the contracts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// To the Registry: k verdicts.
    Attest {
        /// What the verifiers signed.
        verdict: Verdict,
        /// Signatures by position. The Registry looks at as many as its threshold says; what stands behind them may be anything, and
        /// ends here where it cannot be read.
        signatures: Vec<(u8, Signature)>,
    },
    /// To the Registry: governance proposes a change, which may be none.
    Propose {
        /// The change, which nobody opens before it is carried out.
        change: Cell,
    },
    /// To the Registry: a proposal is carried out.
    Execute {
        /// Its number.
        id: u32,
    },
    /// To the Registry: governance takes a proposal back.
    Cancel {
        /// Its number.
        id: u32,
    },
    /// To the Registry: governance drops verifiers or raises the threshold.
    Tighten {
        /// Positions that are dropped, as bits.
        drop: u16,
        /// Signatures that a verdict then needs.
        threshold: u8,
    },
    /// To the Registry: a log's checkpoint.
    Anchor {
        /// The verifier's position.
        index: u8,
        /// Its checkpoint.
        checkpoint: CheckpointAnchor,
        /// Its signature.
        signature: Signature,
    },
    /// To the Registry: governance revokes a key.
    RevokeKey {
        /// At this Provider.
        provider: Address,
        /// The key.
        key: EnclaveKey,
        /// Whether its claims are refused too.
        void: bool,
    },
    /// To a Provider: an attestation that its Registry passed on.
    Attested {
        /// The key.
        key: EnclaveKey,
        /// Number of the attestation.
        generation: u32,
        /// Verifier set that signed it.
        set_epoch: u32,
        /// It ends here.
        until: UnixTime,
        /// The evidence that was appraised.
        evidence_id: Digest,
        /// Who paid for it.
        payer: Address,
    },
    /// To a Provider: it claims.
    Claim {
        /// The Channel's account in the basechain.
        channel: Address,
        /// At most eight items.
        items: Vec<ClaimedItem>,
    },
    /// To a Provider: a key is revoked.
    Revoke {
        /// The key.
        key: EnclaveKey,
        /// Whether its claims are refused too.
        void: bool,
    },
    /// To a Provider: a key that nothing needs any more is forgotten.
    Prune {
        /// The key.
        key: EnclaveKey,
    },
    /// To a Provider: two receipts that cannot both be true.
    Slash {
        /// The key that signed them.
        key: EnclaveKey,
        /// In this Channel.
        channel: Address,
        /// The two receipts, as they were shown.
        receipts: [ClaimedReceipt; 2],
    },
    /// To a Channel: a claim that its Provider passed on.
    Settle {
        /// The items, each with the time from and to which its key was attested.
        items: Vec<(ClaimedItem, UnixTime, UnixTime)>,
    },
    /// To a Provider's owner: what a claim paid.
    Paid(Nanoton),
}

/// Reads a body; `None` for operations that say all by their number ([`super::operation`]), and those of others.
///
/// # Errors
/// [`Error::Malformed`]: the operation is one of these, and what follows it is not what belongs to it.
pub fn read(body: &Cell) -> Result<Option<Event>, Error> {
    let read = || {
        let mut slice = body.as_slice()?;
        // Without an operation it is a transfer.
        if slice.size_bits() < 32 { Ok(None) } else { event(&mut slice) }
    };
    read().map_err(|why: CellError| malformed(WHAT, why))
}

const WHAT: &str = "a message of the contracts";

/// What a transaction carried out: `None` where it carried out nothing, and for all that [`read`] says nothing about.
///
/// # Errors
/// As [`read`]'s, and [`Error::Incomplete`] where the chain's server keeps the body to itself.
pub fn carried_out(transaction: &TxSummary) -> Result<Option<Event>, Error> {
    match &transaction.received {
        Some(message) if transaction.carried_out() && !message.bounced => of(message),
        _ => Ok(None),
    }
}

/// What a message asks.
///
/// # Errors
/// As [`carried_out`]'s.
pub fn of(message: &MessageSummary) -> Result<Option<Event>, Error> {
    match &message.body {
        Some(body) => read(body),
        None if message.op.is_none() => Ok(None),
        None => Err(Error::Incomplete("the body of a message")),
    }
}

/// A body as bytes, to be kept for [`from_bytes`].
pub fn to_bytes(body: &Cell) -> Vec<u8> {
    Boc::encode(body)
}

/// Reads a body that was kept.
///
/// # Errors
/// As [`read`]'s.
pub fn from_bytes(bytes: &[u8]) -> Result<Option<Event>, Error> {
    read(&Boc::decode(bytes).map_err(|why| malformed(WHAT, why))?)
}

fn event(s: &mut CellSlice<'_>) -> Result<Option<Event>, CellError> {
    let op = s.load_u32()?;
    if !matches!(op, 0x4301_0001..=0x4301_0004 | 0x4301_0006..=0x4301_0008 | 0x4302_0001 | 0x4302_0002)
        && !matches!(op, 0x4302_0007 | 0x4302_0008 | 0x4302_000a | 0x4303_0002 | 0x4304_0001)
    {
        return Ok(None);
    }
    // Claims, what they become and what they pay have no query id.
    if !matches!(op, 0x4302_0002 | 0x4303_0002 | 0x4304_0001) {
        s.load_u64()?;
    }
    Ok(Some(match op {
        0x4301_0001 => {
            let verdict = s.load_reference_cloned()?;
            let verdict = Verdict::from_cell(&verdict).map_err(|_| CellError::InvalidData)?;
            Event::Attest { verdict, signatures: signatures(Option::<Cell>::load_from(s)?) }
        }
        0x4301_0002 => Event::Propose { change: s.load_reference_cloned()? },
        0x4301_0003 => Event::Execute { id: s.load_u32()? },
        0x4301_0004 => Event::Cancel { id: s.load_u32()? },
        0x4301_0006 => Event::Tighten { drop: s.load_u16()?, threshold: s.load_u8()? },
        0x4301_0007 => {
            Event::RevokeKey { provider: Address::load(s)?, key: EnclaveKey(load_hash(s)?), void: s.load_bit()? }
        }
        0x4301_0008 => {
            let index = s.load_u8()?;
            let checkpoint = CheckpointAnchor::from_cell(&s.load_reference_cloned()?);
            let checkpoint = checkpoint.map_err(|_| CellError::InvalidData)?;
            Event::Anchor { index, checkpoint, signature: signature(s)? }
        }
        0x4302_0001 => Event::Attested {
            key: EnclaveKey(load_hash(s)?),
            generation: s.load_u32()?,
            set_epoch: s.load_u32()?,
            until: load_time(s)?,
            evidence_id: Digest(load_hash(s)?),
            payer: Address::load(s)?,
        },
        0x4302_0002 => {
            let channel = Address::basechain(load_hash(s)?);
            Event::Claim { channel, items: items(s.load_reference_cloned()?)? }
        }
        0x4302_0007 => Event::Revoke { key: EnclaveKey(load_hash(s)?), void: s.load_bit()? },
        0x4302_0008 => Event::Prune { key: EnclaveKey(load_hash(s)?) },
        0x4302_000a => {
            let (key, channel) = (EnclaveKey(load_hash(s)?), Address::load(s)?);
            let mut shown = || read_whole(&s.load_reference_cloned()?, shown_receipt);
            Event::Slash { key, channel, receipts: [shown()?, shown()?] }
        }
        0x4303_0002 => {
            let items = items(s.load_reference_cloned()?)?;
            let attested = items.into_iter().map(|item| Ok((item, load_time(s)?, load_time(s)?)));
            Event::Settle { items: attested.collect::<Result<_, CellError>>()? }
        }
        _ => Event::Paid(Nanoton(s.load_u64()?)),
    }))
}

fn signature(s: &mut CellSlice<'_>) -> Result<Signature, CellError> {
    let mut signature = [0; 64];
    s.load_raw(&mut signature, 512)?;
    Ok(signature)
}

/// As many as can be read. The Registry opens no more than its threshold; a sender may hang on behind them what it likes.
fn signatures(mut next: Option<Cell>) -> Vec<(u8, Signature)> {
    let mut out = Vec::new();
    while let Some(cell) = next.take().filter(|_| out.len() < MOST_SIGNATURES) {
        let one = read_whole(&cell, |s| {
            let one = (s.load_u8()?, signature(s)?);
            Ok((one, Option::<Cell>::load_from(s)?))
        });
        let Ok((one, rest)) = one else { break };
        out.push(one);
        next = rest;
    }
    out
}

/// An item ends with its signature, of which 512 bits count, whatever stands behind them.
fn items(first: Cell) -> Result<Vec<ClaimedItem>, CellError> {
    let (mut out, mut next) = (Vec::new(), Some(first));
    while let Some(cell) = next.take() {
        if out.len() == MOST_ITEMS {
            return Err(CellError::InvalidData);
        }
        let mut s = cell.as_slice()?;
        let enclave_key = EnclaveKey(load_hash(&mut s)?);
        next = Option::<Cell>::load_from(&mut s)?;
        let voucher = Option::<Cell>::load_from(&mut s)?;
        let voucher = voucher.map(|voucher| claimed_voucher(&mut voucher.as_slice()?)).transpose()?;
        let (sequence, total) = (number(&mut s)?, Nanoton(number(&mut s)?));
        let receipt = ClaimedReceipt { sequence, total, time: load_time(&mut s)?, signature: signature(&mut s)? };
        out.push(ClaimedItem { enclave_key, voucher, receipt });
    }
    Ok(out)
}

/// `VarUInteger 16`. TON takes zeros in front; the Channel takes no more than fits 64 bits.
fn number(s: &mut CellSlice<'_>) -> Result<u64, CellError> {
    let bytes = s.load_small_uint(4)?;
    let mut number = 0u128;
    for _ in 0..bytes {
        number = number << 8 | u128::from(s.load_u8()?);
    }
    u64::try_from(number).map_err(|_| CellError::IntOverflow)
}

fn claimed_voucher(s: &mut CellSlice<'_>) -> Result<ClaimedVoucher, CellError> {
    let cap = Nanoton(s.load_u64()?);
    let prices =
        Prices { prompt: s.load_u64()?, cached: s.load_u64()?, completion: s.load_u64()?, reasoning: s.load_u64()? };
    Ok(ClaimedVoucher { cap, prices, expiry: load_time(s)?, signature: signature(s)? })
}

fn shown_receipt(s: &mut CellSlice<'_>) -> Result<ClaimedReceipt, CellError> {
    let (sequence, total) = (s.load_u64()?, Nanoton(s.load_u64()?));
    Ok(ClaimedReceipt { sequence, total, time: load_time(s)?, signature: signature(s)? })
}

#[cfg(test)]
mod tests {
    use tycho_types::cell::{CellBuilder, CellFamily, Store};

    use super::*;
    use crate::contracts::{Change, ClaimItem, channel, provider, registry};

    fn address(byte: u8) -> Address {
        Address::basechain([byte; 32])
    }

    fn claim_item(key: u8, total: u64) -> ClaimItem {
        let prices = Prices { prompt: 1, cached: 2, completion: 3, reasoning: 4 };
        let (network, channel, enclave_key) = (NetworkId::LOCAL, address(9), EnclaveKey([key; 32]));
        let voucher =
            Voucher { network, channel, enclave_key, cap: Nanoton(7_000), prices, expiry: UnixTime(2_000_000) };
        let receipt = SettlementReceipt {
            network,
            provider: address(8),
            channel,
            enclave_key,
            sequence: u64::from(key),
            total: Nanoton(total),
            time: UnixTime(1_000_000),
        };
        ClaimItem { voucher, voucher_signature: [5; 64], receipt, receipt_signature: [6; 64] }
    }

    fn claimed(item: &ClaimItem, voucher: bool) -> ClaimedItem {
        let Voucher { cap, prices, expiry, .. } = item.voucher;
        let SettlementReceipt { sequence, total, time, enclave_key, .. } = item.receipt;
        let signature = item.voucher_signature;
        ClaimedItem {
            enclave_key,
            voucher: voucher.then_some(ClaimedVoucher { cap, prices, expiry, signature }),
            receipt: ClaimedReceipt { sequence, total, time, signature: item.receipt_signature },
        }
    }

    fn verdict() -> Verdict {
        Verdict {
            network: NetworkId::LOCAL,
            registry: address(1),
            provider: address(2),
            enclave_key: EnclaveKey([3; 32]),
            evidence_id: Digest([4; 32]),
            image: Digest([5; 32]),
            model_root: Digest([6; 32]),
            generation: 7,
            until: UnixTime(8),
            expiry: UnixTime(9),
            set_epoch: 10,
        }
    }

    fn attested() -> (Cell, Event) {
        let mut b = CellBuilder::new();
        b.store_u32(0x4302_0001).unwrap();
        b.store_u64(1).unwrap();
        b.store_raw(&[3; 32], 256).unwrap();
        for number in [7, 10, 8] {
            b.store_u32(number).unwrap();
        }
        b.store_raw(&[4; 32], 256).unwrap();
        address(5).store(&mut b).unwrap();
        let event = Event::Attested {
            key: EnclaveKey([3; 32]),
            generation: 7,
            set_epoch: 10,
            until: UnixTime(8),
            evidence_id: Digest([4; 32]),
            payer: address(5),
        };
        (b.build().unwrap(), event)
    }

    fn settle(first: Cell, items: &[ClaimedItem]) -> (Cell, Event) {
        let mut b = CellBuilder::new();
        b.store_u32(0x4303_0002).unwrap();
        b.store_reference(first).unwrap();
        for n in 0..items.len() as u32 {
            b.store_u32(n).unwrap();
            b.store_u32(n + 1_000).unwrap();
        }
        let times = (0u64..).map(|n| (UnixTime(n), UnixTime(n + 1_000)));
        let items = items.iter().cloned().zip(times).map(|(item, (since, until))| (item, since, until)).collect();
        (b.build().unwrap(), Event::Settle { items })
    }

    fn paid() -> (Cell, Event) {
        let mut b = CellBuilder::new();
        b.store_u32(0x4304_0001).unwrap();
        b.store_u64(77).unwrap();
        (b.build().unwrap(), Event::Paid(Nanoton(77)))
    }

    /// Every event with a body that says it.
    fn all() -> Vec<(Cell, Event)> {
        let key = EnclaveKey([3; 32]);
        let signatures = vec![(0, [1; 64]), (4, [2; 64])];
        let checkpoint = CheckpointAnchor {
            network: NetworkId::LOCAL,
            registry: address(1),
            origin: Digest([2; 32]),
            tree_size: 3,
            root: Digest([4; 32]),
            time: UnixTime(5),
        };
        let (one, other) = (claim_item(1, 100), claim_item(1, 200));
        let change = registry::propose(1, &Change::TimeLock(60)).unwrap().reference_cloned(0).unwrap();
        let eight: Vec<ClaimItem> = (1..=8).map(|n| claim_item(n, u64::from(n) << (8 * (n - 1)))).collect();
        let eight: Vec<(&ClaimItem, bool)> = eight.iter().map(|item| (item, item.receipt.sequence < 3)).collect();
        let items: Vec<ClaimedItem> = eight.iter().map(|(item, voucher)| claimed(item, *voucher)).collect();
        let claim = provider::claim(&eight).unwrap();
        let first = claim.reference_cloned(0).unwrap();
        let receipts = [claimed(&one, false).receipt, claimed(&other, false).receipt];
        let shown = [(&one.receipt, &one.receipt_signature), (&other.receipt, &other.receipt_signature)];
        vec![
            (registry::attest(1, &verdict(), &signatures).unwrap(), Event::Attest { verdict: verdict(), signatures }),
            (registry::propose(1, &Change::TimeLock(60)).unwrap(), Event::Propose { change }),
            (registry::execute(1, 12).unwrap(), Event::Execute { id: 12 }),
            (registry::cancel(1, 13).unwrap(), Event::Cancel { id: 13 }),
            (registry::tighten(1, &[0, 5], 3, 60).unwrap(), Event::Tighten { drop: 0b10_0001, threshold: 3 }),
            (
                registry::anchor(1, 2, &checkpoint, &[7; 64]).unwrap(),
                Event::Anchor { index: 2, checkpoint, signature: [7; 64] },
            ),
            (
                registry::revoke_key(1, &address(2), &key, true).unwrap(),
                Event::RevokeKey { provider: address(2), key, void: true },
            ),
            attested(),
            (claim, Event::Claim { channel: address(9), items: items.clone() }),
            (provider::revoke(1, &key, false, &address(4)).unwrap(), Event::Revoke { key, void: false }),
            (provider::prune(1, &key).unwrap(), Event::Prune { key }),
            (
                provider::slash(1, shown[0], shown[1]).unwrap(),
                Event::Slash { key: EnclaveKey([1; 32]), channel: address(9), receipts },
            ),
            settle(first, &items),
            paid(),
        ]
    }

    #[test]
    fn bodies_are_read_back_as_they_were_written() {
        for (body, event) in all() {
            assert_eq!(from_bytes(&to_bytes(&body)).unwrap(), Some(event));
        }
    }

    /// A copy with bits and a reference behind what there is.
    fn with_more(cell: &Cell) -> Cell {
        let mut b = CellBuilder::new();
        b.store_slice(cell.as_slice().unwrap()).unwrap();
        b.store_bit_one().unwrap();
        if cell.reference_count() < 4 {
            b.store_reference(Cell::default()).unwrap();
        }
        b.build().unwrap()
    }

    /// No contract looks at the end of a body.
    #[test]
    fn what_stands_behind_a_body_is_left_alone() {
        for (body, event) in all() {
            assert_eq!(read(&with_more(&body)).unwrap(), Some(event));
        }
    }

    #[test]
    fn what_ends_early_is_ours_and_cannot_be_read() {
        for (body, event) in all() {
            let slice = body.as_slice().unwrap();
            for bits in 32..slice.size_bits() {
                let mut b = CellBuilder::new();
                b.store_slice(slice.get_prefix(bits, slice.size_refs())).unwrap();
                let short = read(&b.build().unwrap());
                // What the end of these says nobody needs.
                let spare = match event {
                    Event::Revoke { .. } => 267,
                    Event::Tighten { .. } => 32,
                    _ => 0,
                };
                let complete = bits + spare >= slice.size_bits();
                let expected = if complete { Some(Some(event.clone())) } else { None };
                match short {
                    Ok(read) => assert_eq!(Some(read), expected, "{bits} bits"),
                    Err(Error::Malformed { .. }) => assert!(expected.is_none(), "{bits} bits of {event:?}"),
                    Err(error) => panic!("{error}"),
                }
            }
            for refs in 0..slice.size_refs() {
                let mut b = CellBuilder::new();
                b.store_slice(slice.get_prefix(slice.size_bits(), refs)).unwrap();
                assert!(matches!(read(&b.build().unwrap()), Err(Error::Malformed { .. })), "{refs} of {event:?}");
            }
        }
    }

    /// A claim of one item, changed at its end.
    fn claim_with(item: impl FnOnce(&Cell) -> Cell) -> Cell {
        let one = claim_item(1, 100);
        let claim = provider::claim(&[(&one, true)]).unwrap();
        let mut b = CellBuilder::new();
        b.store_slice(claim.as_slice().unwrap().get_prefix(32 + 256, 0)).unwrap();
        b.store_reference(item(&claim.reference_cloned(0).unwrap())).unwrap();
        b.build().unwrap()
    }

    /// The Channel looks at 512 bits of a signature that stands last, and opens what it needs.
    #[test]
    fn a_claim_is_read_as_the_channel_reads_it() {
        let one = claim_item(1, 100);
        let expected = Event::Claim { channel: address(9), items: vec![claimed(&one, true)] };
        assert_eq!(read(&claim_with(with_more)).unwrap(), Some(expected.clone()));
        let with_long_voucher = claim_with(|item| {
            let slice = item.as_slice().unwrap();
            let mut b = CellBuilder::new();
            b.store_slice(slice.get_prefix(slice.size_bits(), 0)).unwrap();
            b.store_reference(with_more(&item.reference_cloned(0).unwrap())).unwrap();
            b.build().unwrap()
        });
        assert_eq!(read(&with_long_voucher).unwrap(), Some(expected));
        let short = claim_with(|item| {
            let slice = item.as_slice().unwrap();
            let mut b = CellBuilder::new();
            b.store_slice(slice.get_prefix(slice.size_bits() - 1, 1)).unwrap();
            b.build().unwrap()
        });
        assert!(matches!(read(&short), Err(Error::Malformed { .. })));
    }

    #[test]
    fn numbers_may_begin_with_zeros_and_have_at_most_64_bits() {
        let read = |bytes: &[u8]| {
            let mut b = CellBuilder::new();
            b.store_small_uint(bytes.len() as u8, 4).unwrap();
            b.store_raw(bytes, 8 * bytes.len() as u16).unwrap();
            number(&mut b.build().unwrap().as_slice().unwrap())
        };
        assert_eq!(read(&[]).unwrap(), 0);
        assert_eq!(read(&[0, 0, 1, 2]).unwrap(), 258);
        assert_eq!(read(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap(), u64::MAX);
        assert!(read(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    /// The Registry opens as many as its threshold says.
    #[test]
    fn signatures_behind_the_threshold_may_be_anything() {
        let many: Vec<(u8, Signature)> = (0..63).map(|n| (n % 16, [n; 64])).collect();
        let body = registry::attest(1, &verdict(), &many).unwrap();
        let Some(Event::Attest { signatures, .. }) = read(&body).unwrap() else { panic!("an attestation") };
        assert_eq!(signatures, many[..MOST_SIGNATURES]);
        // Two signatures, and then a cell that is none.
        let mut next = Some(Cell::default());
        for (index, signature) in many[..2].iter().rev() {
            let mut b = CellBuilder::new();
            b.store_u8(*index).unwrap();
            b.store_raw(signature, 512).unwrap();
            next.store_into(&mut b, Cell::empty_context()).unwrap();
            next = Some(b.build().unwrap());
        }
        let mut b = CellBuilder::new();
        b.store_u32(0x4301_0001).unwrap();
        b.store_u64(1).unwrap();
        b.store_reference(verdict().to_cell()).unwrap();
        next.store_into(&mut b, Cell::empty_context()).unwrap();
        let Some(Event::Attest { signatures, .. }) = read(&b.build().unwrap()).unwrap() else { panic!("attestation") };
        assert_eq!(signatures, many[..2]);
    }

    #[test]
    fn other_bodies_are_no_events() {
        assert_eq!(read(&Cell::default()).unwrap(), None);
        assert_eq!(read(&provider::stake(1).unwrap()).unwrap(), None);
        assert_eq!(read(&channel::top_up(1).unwrap()).unwrap(), None);
        let mut b = CellBuilder::new();
        b.store_u32(0).unwrap();
        assert_eq!(read(&b.build().unwrap()).unwrap(), None, "a comment");
    }

    #[test]
    fn a_body_that_the_server_keeps_is_not_nothing() {
        let message =
            |op, body| MessageSummary { peer: address(1), value: Nanoton(0), op, bounced: false, body, init: None };
        assert_eq!(of(&message(None, None)).unwrap(), None);
        assert!(matches!(of(&message(Some(0x4303_0002), None)), Err(Error::Incomplete(_))));
        let (body, event) = paid();
        assert_eq!(of(&message(Some(0x4304_0001), Some(body))).unwrap(), Some(event));
    }
}
