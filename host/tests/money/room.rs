//! A Provider that fills up loses a few keys that nothing needs, and only then.

use cocoon_attestation::EnclaveKey;
use cocoon_host::room::{FULL_FROM, REMOVED_AT_ONCE, make};
use cocoon_settlement::Nanoton;
use cocoon_settlement::contracts::provider;

use crate::world::world;

const DAY: u64 = 86_400;

#[tokio::test]
async fn a_start_makes_room_when_half_of_it_is_taken_by_keys_that_nothing_needs() {
    let world = world().await;
    let (chain, account, provider) = (world.chain.as_ref(), &world.account, &world.provider);
    let count = async || provider::key_count(chain, provider).await.unwrap();
    // Two keys have lapsed, and there is room.
    world.clock.advance(13 * DAY);
    assert_eq!(make(account, provider).await.unwrap(), 0);
    for n in 2..FULL_FROM {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        world.attest(EnclaveKey(key)).await;
    }
    assert_eq!(count().await, FULL_FROM);
    let before = account.balance().await.unwrap();
    assert_eq!(make(account, provider).await.unwrap(), 2, "the two that lapsed");
    let cost = before.checked_sub(account.balance().await.unwrap()).unwrap();
    assert!(cost < Nanoton(15_000_000), "{cost}");
    assert_eq!(count().await, FULL_FROM - 2);

    // It fills up with keys that are still needed: none of them goes.
    for n in [600_u16, 601, 602] {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        world.attest(EnclaveKey(key)).await;
    }
    assert_eq!(make(account, provider).await.unwrap(), 0);
    world.clock.advance(13 * DAY);
    assert_eq!(make(account, provider).await.unwrap(), REMOVED_AT_ONCE);
    assert_eq!(count().await, FULL_FROM - 1);
    assert_eq!(make(account, provider).await.unwrap(), 0, "there is room again");
}
