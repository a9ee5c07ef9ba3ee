//! What a Channel and a Registry need when rent has eaten what they held.

use cocoon_attestation::types::{Digest, EnclaveKey};
use cocoon_settlement::account::TxReport;
use cocoon_settlement::cells::{CheckpointAnchor, SettlementReceipt, Verdict, Voucher};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{Change, ChannelStatus, Listed, RegistryInit, channel, fund, registry};
use cocoon_settlement::local::Clock;
use cocoon_settlement::wallet::OutMessage;
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};

use crate::world::{CLIENT, DAY, START, World, public, ton, verifier};

const DELAY: u64 = 90 * DAY;

/// The secret of the enclave of this number.
fn secret(number: u16) -> [u8; 32] {
    let mut secret = [0x60; 32];
    secret[..2].copy_from_slice(&number.to_be_bytes());
    secret
}

/// A Channel with the longest delay that has paid 256 keys.
async fn full() -> (World, Address) {
    let mut world = World::new().await;
    world.channel.close_delay = DELAY as u32;
    world.open("0.3").await;
    let keys: Vec<u16> = (0..256).collect();
    for number in &keys {
        let enclave_key = EnclaveKey(public(&secret(*number)));
        world.attest(&Verdict { enclave_key, ..world.verdict() }, &[0, 1, 2]).await.success().unwrap();
    }
    for five in keys.chunks(5) {
        let item = |number: &u16| {
            let (seed, enclave_key) = (secret(*number), EnclaveKey(public(&secret(*number))));
            let receipt = SettlementReceipt { enclave_key, total: Nanoton(1_000), ..world.receipt() };
            world.signed(Voucher { enclave_key, ..world.voucher() }, &CLIENT, receipt, &seed)
        };
        world.claim(&five.iter().map(item).collect::<Vec<_>>()).await.success().unwrap();
    }
    let address = world.channel.address();
    (world, address)
}

async fn status(world: &World, channel: &Address) -> ChannelStatus {
    ops::channel_state(&*world.chain, channel).await.unwrap().status
}

/// Lets time pass until the account holds nothing and owes so much, by what TON really counts for it.
async fn drain(world: &World, account: &Address, debt: u64) {
    // It does not take it: it comes back, and the rent is up to date.
    let touched = async || {
        world.payer.send_all(&[OutMessage::transfer(*account, ton("0.05"), true)]).await.unwrap();
        world.chain.account(account).await.unwrap().balance.0
    };
    let (before, days) = (touched().await, 100);
    world.clock.advance(days * DAY);
    let after = touched().await;
    world.clock.advance((after + debt) * days * DAY / (before - after));
}

#[tokio::test]
async fn a_full_channel_with_the_longest_delay_closes_however_little_rent_has_left_of_it() {
    for released in [false, true] {
        // Almost nothing, and a debt.
        for debt in [0, 90_000_000] {
            let (world, channel) = full().await;
            world.payer.send(world.provider, ton("20"), Some(fund(0).unwrap()), None).await.unwrap().success().unwrap();
            if !released {
                ops::start_close(&world.client, &channel).await.unwrap().success().unwrap();
            }
            drain(&world, &channel, debt).await;
            let close = async |value: Option<Nanoton>| -> TxReport {
                let (account, to, body) = if released {
                    (&world.owner, world.provider, provider_release(&channel))
                } else {
                    (&world.client, channel, channel::finish_close(0).unwrap())
                };
                match value {
                    Some(value) => account.send(to, value, Some(body), None).await.unwrap(),
                    None if released => ops::release_channel(account, &world.provider, &channel).await.unwrap(),
                    None => ops::finish_close(account, &channel).await.unwrap(),
                }
            };
            // What is enough for others is not enough here, and nothing happens.
            assert_eq!(close(Some(ops::CALL_VALUE)).await.aborted, Some((channel, 37)));
            assert!(!matches!(status(&world, &channel).await, ChannelStatus::Closed { .. }));
            let value = ops::close_value(&*world.chain, &channel).await.unwrap();
            assert_eq!(value, Nanoton(50_000_000 + channel::closed_rent(256, DELAY as u32).0));
            close(None).await.success().unwrap();
            assert!(matches!(status(&world, &channel).await, ChannelStatus::Closed { .. }));
            // It stays as long as it must, and then goes.
            world.clock.advance(7 * DAY + DELAY);
            assert_eq!(ops::delete_channel(&world.payer, &channel).await.unwrap().aborted, Some((channel, 142)));
            world.clock.advance(1);
            ops::delete_channel(&world.payer, &channel).await.unwrap().success().unwrap();
        }
    }
}

fn provider_release(channel: &Address) -> tycho_types::cell::Cell {
    cocoon_settlement::contracts::provider::release_channel(0, channel).unwrap()
}

#[tokio::test]
async fn a_close_carries_rent_only_where_the_channel_may_not_have_it() {
    let world = World::new().await;
    world.open("0.2").await;
    let (chain, channel) = (&*world.chain, world.channel.address());
    let value = async || ops::close_value(chain, &channel).await.unwrap();
    assert_eq!(value().await, ops::CALL_VALUE, "it has what it needs");
    let rent = channel::closed_rent(0, 3 * DAY as u32);
    let held = ops::channel_state(chain, &channel).await.unwrap().balance;
    // The debt that there may be, the rent since the last transaction, and what must stay.
    let spare = held.0 - 100_000_000 - rent.0;
    let weight = 17_000 + 500 * 40;
    world.clock.advance(spare * 65_536 / weight - 60);
    assert_eq!(value().await, ops::CALL_VALUE);
    world.clock.advance(120);
    assert_eq!(value().await, Nanoton(50_000_000 + rent.0));
}

/// A Registry with as many images and models as there can be, whose year is nearly over.
async fn poor_registry(world: &World, models: usize) -> Address {
    let digests = |kind: u8, count: usize| {
        (0..count).map(move |n| Digest([kind, n as u8, 7].repeat(11)[..32].try_into().unwrap()))
    };
    let init = RegistryInit {
        network: NetworkId::LOCAL,
        governance: world.governance.address(),
        time_lock: DAY as u32,
        threshold: 1,
        max_lifetime: DAY as u32,
        verifiers: vec![public(&verifier(0)), public(&verifier(1))],
        images: digests(1, 256).collect(),
        models: digests(2, models).collect(),
    };
    let (registry, report) = ops::deploy_registry(&world.governance, &init).await.unwrap();
    report.success().unwrap();
    assert!(ops::registry_lacks(&*world.chain, &registry, 0).await.unwrap() < ton("0.05"));
    world.clock.advance(360 * DAY);
    registry
}

#[tokio::test]
async fn what_makes_a_registry_larger_brings_the_rent_that_it_lacks() {
    let world = World::new().await;
    let (chain, registry) = (&*world.chain, poor_registry(&world, 255).await);
    let lacks = async || ops::registry_lacks(chain, &registry, 0).await.unwrap();
    let lacking = lacks().await;
    assert!(lacking > ton("0.35"), "{lacking}");
    let checkpoint = |tree_size| CheckpointAnchor {
        network: NetworkId::LOCAL,
        registry,
        origin: Digest([4; 32]),
        tree_size,
        root: Digest([5; 32]),
        time: START,
    };
    let first = checkpoint(7);
    let signature = first.sign(&verifier(1)).unwrap();
    // What is enough for others comes back.
    let body = registry::anchor(0, 1, &first, &signature).unwrap();
    let little = world.payer.send(registry, ops::GOVERN_VALUE, Some(body), None).await.unwrap();
    assert_eq!(little.aborted, Some((registry, 101)));
    let before = world.payer.balance().await.unwrap();
    ops::anchor(&world.payer, &registry, 1, &first, &signature).await.unwrap().success().unwrap();
    let paid = before.checked_sub(world.payer.balance().await.unwrap()).unwrap();
    assert!(paid > ton("0.25") && paid < lacking.checked_add(ton("0.02")).unwrap(), "{paid} of {lacking}");
    assert_eq!(lacks().await, Nanoton::ZERO);

    // A later one pays for itself alone, whatever is missing.
    world.clock.advance(360 * DAY);
    let later = checkpoint(8);
    let before = world.payer.balance().await.unwrap();
    let signature = later.sign(&verifier(1)).unwrap();
    ops::anchor(&world.payer, &registry, 1, &later, &signature).await.unwrap().success().unwrap();
    assert!(before.checked_sub(world.payer.balance().await.unwrap()).unwrap() < ton("0.02"));

    // So do governance's calls, in debt too.
    world.clock.advance(40 * DAY);
    assert!(lacks().await > ton("0.3"));
    let change = Change::Allow(Listed::Model(Digest([9; 32])));
    let small = registry::propose(0, &change).unwrap();
    assert_eq!(
        world.governance.send(registry, ops::GOVERN_VALUE, Some(small), None).await.unwrap().aborted,
        Some((registry, 101))
    );
    ops::propose(&world.governance, &registry, &change).await.unwrap().success().unwrap();
    world.clock.advance(DAY);
    ops::execute(&world.payer, &registry, 0).await.unwrap().success().unwrap();
}

#[tokio::test]
async fn anybody_can_pay_a_registrys_rent() {
    let world = World::new().await;
    let registry = poor_registry(&world, 1).await;
    let lacks = ops::registry_lacks(&*world.chain, &registry, 0).await.unwrap();
    assert!(lacks > Nanoton::ZERO);
    ops::pay_rent(&world.payer, &registry, lacks.checked_add(ton("0.01")).unwrap()).await.unwrap().success().unwrap();
    assert_eq!(ops::registry_lacks(&*world.chain, &registry, 0).await.unwrap(), Nanoton::ZERO);
}

#[test]
fn rent_is_what_the_contract_reckons_with() {
    // `tests/rent.test.mjs` has the year of sixteen entries from TON's own emulator.
    assert_eq!(channel::rent(16, 365 * DAY), Nanoton(30_893_116));
    let (open, most) = (channel::closed_rent(0, 0), channel::closed_rent(256, channel::MAX_CLOSE_DELAY));
    assert!(open < Nanoton(2_000_000) && most > Nanoton(79_000_000) && most < Nanoton(80_000_000), "{open} {most}");
    assert_eq!(channel::closed_rent(256, u32::MAX), most, "a longer delay counts as the longest");
    assert_eq!(channel::rent(u16::MAX, u64::MAX), Nanoton(u64::MAX), "it does not wrap");
}

#[tokio::test]
async fn who_attests_brings_the_rent_that_a_large_provider_lacks_and_anybody_can_pay_it() {
    let (world, _) = full().await;
    let (chain, provider) = (&*world.chain, &world.provider);
    let lacks = async || ops::provider_lacks(chain, provider, 0).await.unwrap();
    assert!(lacks().await < ton("0.01"), "each attestation has brought it up");
    drain(&world, provider, 90_000_000).await;
    // A year's rent of 256 keys, and what is owed is not in the balance.
    let (short, one_more) = (lacks().await, ops::provider_lacks(chain, provider, 1).await.unwrap());
    assert!(short > ton("0.25") && one_more > short, "{short} {one_more}");
    let enclave_key = EnclaveKey(public(&secret(256)));
    let verdict = Verdict {
        enclave_key,
        until: world.clock.now().plus(DAY),
        expiry: world.clock.now().plus(3_600),
        ..world.verdict()
    };
    // What was attached before is not enough.
    let signatures = [0, 1, 2].map(|by| (by, verdict.sign(&verifier(by)).unwrap()));
    let body = registry::attest(0, &verdict, &signatures).unwrap();
    let little = world.owner.send(world.registry, ops::ATTEST_VALUE, Some(body), None).await.unwrap();
    assert_eq!(little.aborted, Some((*provider, 101)));
    let before = world.owner.balance().await.unwrap();
    world.attest(&verdict, &[0, 1, 2]).await.success().unwrap();
    assert_eq!(lacks().await, Nanoton::ZERO);
    let cost = before.checked_sub(world.owner.balance().await.unwrap()).unwrap();
    assert!(cost < one_more.saturating_add(ton("0.12")), "{cost}: what was not needed came back");

    // Stake is no rent.
    ops::stake(&world.owner, provider, ton("5")).await.unwrap().success().unwrap();
    assert!(lacks().await < ton("0.01"), "what the stake's message cost");
    world.clock.advance(2 * 365 * DAY);
    let short = lacks().await;
    assert!((ton("0.3")..ton("0.6")).contains(&short), "two years' rent, although five TON lie there: {short}");
    ops::pay_rent(&world.payer, provider, short.saturating_add(ton("0.01"))).await.unwrap().success().unwrap();
    assert_eq!(lacks().await, Nanoton::ZERO);
}
