//! Room for further enclave keys.
//!
//! Every start of an enclave brings its Provider a key, and a Provider holds 512. Removing one costs about 0.006 TON and saves 0.0009 TON of
//! rent a year: that pays when room runs out, not before. A key can be removed about eleven days after its attestation, when no
//! receipt, no verdict and no stake needs it any more.

use cocoon_settlement::account::Account;
use cocoon_settlement::contracts::provider;
use cocoon_settlement::{Address, ops};

use crate::Error;

/// Keys from which on room is made: half of what a Provider holds.
pub const FULL_FROM: u16 = 256;
/// Keys that are removed at most for one that comes, so that room grows and a start neither waits nor pays for more.
pub const REMOVED_AT_ONCE: usize = 2;

/// Removes a few keys that nothing needs any more if the Provider fills up; how many.
///
/// # Errors
/// The chain does not answer, or refuses. What was removed stays removed.
pub async fn make(account: &Account, provider: &Address) -> Result<usize, Error> {
    let chain = account.chain().as_ref();
    if provider::key_count(chain, provider).await? < FULL_FROM {
        return Ok(0);
    }
    let now = chain.head().await?.time;
    let lapsed = provider::lapsed(chain, provider, now).await?;
    let mut removed = 0;
    for key in lapsed.iter().take(REMOVED_AT_ONCE) {
        ops::prune(account, provider, key).await?.success()?;
        removed += 1;
    }
    if removed > 0 {
        tracing::info!(removed, "keys that nothing needs any more were removed from the Provider");
    }
    Ok(removed)
}
