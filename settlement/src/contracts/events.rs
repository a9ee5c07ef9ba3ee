//! What a message asked of the contracts, read back from its body: how an auditor learns from an account's transactions what
//! happened there. Bodies are those of `schema.tlb`; whether a message was carried out, its transaction says.

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_types::cell::{Cell, CellSlice, Load};
use tycho_types::error::Error as CellError;
use tycho_types::num::Tokens;

use crate::address::Address;
use crate::amount::{Nanoton, Prices};
use crate::cells::{CheckpointAnchor, Signature, Verdict, load_hash, load_time, read_whole};

/// Most items or signatures that are read from one message: more than any contract takes.
const MOST: usize = 16;

/// One item of a claim, as it came to the Channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedItem {
    /// The enclave that signed the receipt.
    pub enclave_key: EnclaveKey,
    /// The voucher's terms, where it was sent along.
    pub voucher: Option<ClaimedVoucher>,
    /// The receipt's number.
    pub sequence: u64,
    /// What the enclave had earned in this Channel by then.
    pub total: Nanoton,
    /// When the enclave signed.
    pub time: UnixTime,
    /// The enclave's signature.
    pub signature: Signature,
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
        /// Signatures by position.
        signatures: Vec<(u8, Signature)>,
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
    /// To a Provider: two receipts that cannot both be true.
    Slash {
        /// The key that signed them.
        key: EnclaveKey,
        /// In this Channel.
        channel: Address,
    },
    /// To a Channel: a claim that its Provider passed on.
    Settle {
        /// The items, each with the time from and to which its key was attested.
        items: Vec<(ClaimedItem, UnixTime, UnixTime)>,
    },
    /// To a Provider's owner: what a claim paid.
    Paid(Nanoton),
}

/// Reads a body; `None` for operations that say all by their number ([`super::operation`]), those of others, and what does not follow
/// the schema.
pub fn read(body: &Cell) -> Option<Event> {
    body.as_slice().ok().and_then(|mut slice| event(&mut slice).ok().flatten())
}

fn event(s: &mut CellSlice<'_>) -> Result<Option<Event>, CellError> {
    let op = s.load_u32()?;
    // Claims, what they become and what they pay have no query id.
    if !matches!(op, 0x4302_0002 | 0x4303_0002 | 0x4304_0001) {
        s.load_u64()?;
    }
    Ok(Some(match op {
        0x4301_0001 => {
            let verdict = s.load_reference_cloned()?;
            let verdict = Verdict::from_cell(&verdict).map_err(|_| CellError::InvalidData)?;
            Event::Attest { verdict, signatures: signatures(Option::<Cell>::load_from(s)?)? }
        }
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
        0x4302_000a => Event::Slash { key: EnclaveKey(load_hash(s)?), channel: Address::load(s)? },
        0x4303_0002 => {
            let items = items(s.load_reference_cloned()?)?;
            let attested = items.into_iter().map(|item| Ok((item, load_time(s)?, load_time(s)?)));
            Event::Settle { items: attested.collect::<Result<_, CellError>>()? }
        }
        0x4304_0001 => Event::Paid(Nanoton(s.load_u64()?)),
        _ => return Ok(None),
    }))
}

fn signature(s: &mut CellSlice<'_>) -> Result<Signature, CellError> {
    let mut signature = [0; 64];
    s.load_raw(&mut signature, 512)?;
    Ok(signature)
}

fn signatures(mut next: Option<Cell>) -> Result<Vec<(u8, Signature)>, CellError> {
    let mut out = Vec::new();
    while let Some(cell) = next.take() {
        if out.len() == MOST {
            return Err(CellError::InvalidData);
        }
        out.push(read_whole(&cell, |s| {
            let one = (s.load_u8()?, signature(s)?);
            next = Option::<Cell>::load_from(s)?;
            Ok(one)
        })?);
    }
    Ok(out)
}

fn items(first: Cell) -> Result<Vec<ClaimedItem>, CellError> {
    let (mut out, mut next) = (Vec::new(), Some(first));
    while let Some(cell) = next.take() {
        if out.len() == MOST {
            return Err(CellError::InvalidData);
        }
        out.push(read_whole(&cell, |s| {
            let enclave_key = EnclaveKey(load_hash(s)?);
            next = Option::<Cell>::load_from(s)?;
            let voucher = Option::<Cell>::load_from(s)?;
            let voucher = voucher.map(|voucher| read_whole(&voucher, claimed_voucher)).transpose()?;
            let sequence = number(s)?;
            let total = Nanoton(number(s)?);
            Ok(ClaimedItem { enclave_key, voucher, sequence, total, time: load_time(s)?, signature: signature(s)? })
        })?);
    }
    Ok(out)
}

fn number(s: &mut CellSlice<'_>) -> Result<u64, CellError> {
    u64::try_from(Tokens::load_from(s)?.into_inner()).map_err(|_| CellError::IntOverflow)
}

fn claimed_voucher(s: &mut CellSlice<'_>) -> Result<ClaimedVoucher, CellError> {
    let cap = Nanoton(s.load_u64()?);
    let prices =
        Prices { prompt: s.load_u64()?, cached: s.load_u64()?, completion: s.load_u64()?, reasoning: s.load_u64()? };
    Ok(ClaimedVoucher { cap, prices, expiry: load_time(s)?, signature: signature(s)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkId;
    use crate::cells::{SettlementReceipt, Voucher};
    use crate::contracts::{ClaimItem, provider, registry};

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

    #[test]
    fn bodies_are_read_back_as_they_were_written() {
        let verdict = Verdict {
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
        };
        let signatures = vec![(0, [1; 64]), (4, [2; 64])];
        let body = registry::attest(1, &verdict, &signatures).unwrap();
        assert_eq!(read(&body), Some(Event::Attest { verdict, signatures }));

        let checkpoint = CheckpointAnchor {
            network: NetworkId::LOCAL,
            registry: address(1),
            origin: Digest([2; 32]),
            tree_size: 3,
            root: Digest([4; 32]),
            time: UnixTime(5),
        };
        let body = registry::anchor(1, 2, &checkpoint, &[7; 64]).unwrap();
        assert_eq!(read(&body), Some(Event::Anchor { index: 2, checkpoint, signature: [7; 64] }));

        let key = EnclaveKey([3; 32]);
        let body = registry::revoke_key(1, &address(2), &key, true).unwrap();
        assert_eq!(read(&body), Some(Event::RevokeKey { provider: address(2), key, void: true }));
        let body = provider::revoke(1, &key, false, &address(4)).unwrap();
        assert_eq!(read(&body), Some(Event::Revoke { key, void: false }));

        let (first, second) = (claim_item(1, 100), claim_item(2, u64::MAX));
        let body = provider::claim(&[(&first, true), (&second, false)]).unwrap();
        let Some(Event::Claim { channel, items }) = read(&body) else { panic!("a claim") };
        assert_eq!((channel, items.len()), (address(9), 2));
        assert_eq!(items[0].voucher.map(|voucher| voucher.cap), Some(Nanoton(7_000)));
        assert_eq!((items[1].voucher, items[1].total, items[1].sequence), (None, Nanoton(u64::MAX), 2));
        assert_eq!((items[1].time, items[1].signature), (UnixTime(1_000_000), [6; 64]));
    }

    #[test]
    fn other_bodies_are_no_events() {
        assert_eq!(read(&Cell::default()), None);
        assert_eq!(read(&provider::stake(1).unwrap()), None);
    }
}
