//! What clients promise a provider, kept within what their Channels hold.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::{Address, Nanoton, ops};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use crate::Error;
use crate::store::Store;

/// What became of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// It is on disk, and the Channel can pay all that is promised from it.
    Kept,
    /// The Channel cannot pay it beside what was promised before.
    Beyond {
        /// What the Channel can pay.
        available: Nanoton,
        /// What would be promised and unpaid.
        promised: Nanoton,
    },
    /// The Channel has paid as many enclaves as one does, or would have to.
    TooManyKeys,
    /// The record holds as many vouchers as it may of this enclave and Channel, and this one covers none of them.
    TooManyVouchers,
}

/// Takes promises from one channel one at a time; those of others do not wait for them.
#[derive(Default)]
pub struct Reservations(std::sync::Mutex<HashMap<Address, Arc<Mutex<()>>>>);

/// Questions to the chain at the same time.
const AT_ONCE: usize = 8;

impl Reservations {
    /// Keeps a verified voucher, on disk, if the sum over enclaves of what is promised and not yet paid stays within what its Channel
    /// can pay: what it holds, less the rent that it keeps back for them. `serving` is the enclave that can still earn; what others did not earn they cannot earn any more.
    ///
    /// # Errors
    /// The chain or the record does not answer.
    pub async fn reserve(
        &self,
        chain: &dyn Chain,
        store: &Store,
        serving: Option<EnclaveKey>,
        voucher: &SignedVoucher,
        now: UnixTime,
    ) -> Result<Reservation, Error> {
        let promise = &voucher.voucher;
        let turn = self.turn(&promise.channel);
        let _one = turn.lock().await;
        let kept = store.vouchers_of(&promise.channel, &promise.enclave_key)?;
        if kept.iter().any(|kept| kept.voucher.cap >= promise.cap) {
            // Nothing more is promised than before.
            return keep(store, voucher);
        }
        // The most that each enclave can be owed in all.
        let mut caps = HashMap::from([(promise.enclave_key, promise.cap)]);
        for known in store.vouchers(&promise.channel)? {
            let key = known.voucher.enclave_key;
            let cap = if known.voucher.expiry >= now && serving == Some(key) {
                known.voucher.cap
            } else {
                let receipt = store.receipt(&promise.channel, &key)?;
                receipt.map_or(Nanoton(0), |receipt| receipt.receipt.total.min(known.voucher.cap))
            };
            let most = caps.entry(key).or_default();
            *most = cap.max(*most);
        }
        // What is known to be paid may be less than what is: enough, if the promise fits all the same.
        let first = fits(chain, &promise.channel, &caps, &store.paid(&promise.channel)?).await?;
        if first == Reservation::Kept {
            return keep(store, voucher);
        }
        let keys: Vec<EnclaveKey> = caps.keys().copied().collect();
        let asked = keys.into_iter().map(|key| async move {
            let record = ops::channel_paid(chain, &promise.channel, &key).await?;
            store.remember_paid(&promise.channel, &key, &record)
        });
        futures::stream::iter(asked).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        // Last: a claim that is paid meanwhile must not count as paid and its money as still there.
        match fits(chain, &promise.channel, &caps, &store.paid(&promise.channel)?).await? {
            Reservation::Kept => keep(store, voucher),
            no => Ok(no),
        }
    }

    /// Who holds it is the only one that reserves from this channel.
    fn turn(&self, channel: &Address) -> Arc<Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits for those any more.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(*channel).or_default().clone()
    }
}

/// Whether a Channel can pay what it would owe each enclave in all, less what it is known to have paid.
async fn fits(
    chain: &dyn Chain,
    channel: &Address,
    caps: &HashMap<EnclaveKey, Nanoton>,
    paid: &HashMap<EnclaveKey, Nanoton>,
) -> Result<Reservation, Error> {
    let owed = caps.iter().map(|(key, cap)| (key, cap.saturating_sub(paid.get(key).copied().unwrap_or_default())));
    let owed: Vec<_> = owed.filter(|(_, owed)| *owed > Nanoton::ZERO).collect();
    let further = owed.iter().filter(|(key, _)| !paid.contains_key(key)).count();
    let promised = owed.into_iter().fold(Nanoton::ZERO, |sum, (_, owed)| sum.saturating_add(owed));
    Ok(match ops::channel_state(chain, channel).await?.available_with(further) {
        None => Reservation::TooManyKeys,
        Some(available) if promised > available => Reservation::Beyond { available, promised },
        Some(_) => Reservation::Kept,
    })
}

/// Puts a voucher on disk before it is relied on.
fn keep(store: &Store, voucher: &SignedVoucher) -> Result<Reservation, Error> {
    Ok(if store.keep_voucher(voucher)? { Reservation::Kept } else { Reservation::TooManyVouchers })
}
