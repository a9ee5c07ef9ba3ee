//! What clients promise a provider, kept within what their Channels hold.

use std::collections::HashMap;

use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::{Nanoton, ops};
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
    /// The record holds as many vouchers as it may of this enclave and Channel, and this one covers none of them.
    TooManyVouchers,
}

/// Takes promises one at a time.
#[derive(Default)]
pub struct Reservations(Mutex<()>);

impl Reservations {
    /// Keeps a verified voucher, on disk, if the sum over enclaves of what is promised and not yet paid stays within what its Channel
    /// holds. `serving` is the enclave that can still earn; what others did not earn they cannot earn any more.
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
        let _one = self.0.lock().await;
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
        let mut promised = Nanoton(0);
        for (key, cap) in caps {
            let paid = ops::channel_paid(chain, &promise.channel, &key).await?.paid;
            promised = promised.saturating_add(cap.saturating_sub(paid));
        }
        // Last: a claim that is paid meanwhile must not count as paid and its money as still there.
        let available = ops::channel_state(chain, &promise.channel).await?.available;
        if promised > available {
            return Ok(Reservation::Beyond { available, promised });
        }
        keep(store, voucher)
    }
}

/// Puts a voucher on disk before it is relied on.
fn keep(store: &Store, voucher: &SignedVoucher) -> Result<Reservation, Error> {
    Ok(if store.keep_voucher(voucher)? { Reservation::Kept } else { Reservation::TooManyVouchers })
}
