//! What must be paid, and what it costs.

use std::collections::BTreeMap;
use std::path::Path;

use cocoon_attestation::types::{Digest, UnixTime};
use cocoon_settlement::account::TxReport;
use cocoon_settlement::cells::{CheckpointAnchor, SettlementReceipt};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{
    self, Change, ChannelInit, ChannelStatus, EnclaveRecord, KeyState, Listed, ProviderInit, RegistryInit, Release,
    Verifiers, channel,
};
use cocoon_settlement::{Nanoton, NetworkId, ops};
use tycho_types::cell::CellBuilder;

use crate::world::{CLIENT, DAY, ENCLAVE, IMAGE, MODEL, START, World, public, ton, verifier};

/// Gas and fees of a call, pinned: in all, wallet included, and of each contract's transaction, where TON's own emulator
/// says the same (`docs/vectors/contract-costs.json`, which `settlement/contracts/tests` checks there).
fn costs(world: &World, report: TxReport, name: &str, gas: u64, fees: u64) {
    let report = report.success().unwrap();
    println!("{name}: gas {} fees {}", report.gas_used, report.fees);
    let contracts = [world.registry, world.provider, world.channel.address()];
    let steps: Vec<(u64, u64)> = report
        .transactions
        .iter()
        .filter(|step| contracts.contains(&step.account))
        .map(|step| (step.gas_used, step.fees.0))
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/contract-costs.json");
    let vectors: BTreeMap<String, Vec<(u64, u64)>> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(steps, vectors[name], "{name}");
    assert_eq!((report.gas_used, report.fees.0), (gas, fees));
}

#[tokio::test]
async fn attest_open_claim_close() {
    let world = World::new().await;
    // A wallet deploys with its first message; that is not what is measured here.
    world.client.send(world.client.address(), ton("0.01"), None, None).await.unwrap().success().unwrap();
    let address = world.channel.address();
    costs(&world, world.attest(&world.verdict(), &[0, 1, 2]).await, "attest", 22_320, 14_348_000);
    let record = ops::enclave_record(&*world.chain, &world.provider, &world.key()).await.unwrap();
    let expected = EnclaveRecord {
        state: KeyState::Active,
        generation: 0,
        set_epoch: 0,
        since: UnixTime(START.0 - 600),
        until: START.plus(DAY),
        keep: START.plus(12 * DAY),
        evidence_id: Digest([0x11; 32]),
    };
    assert_eq!(record, Some(expected));

    costs(&world, ops::open_channel(&world.client, &world.channel, ton("5")).await.unwrap(), "open", 7_623, 17_043_600);
    let opened = ops::channel_state(&*world.chain, &address).await.unwrap();
    assert_eq!((opened.status, opened.keys), (ChannelStatus::Open, 0));
    assert!(opened.available > ton("4.9") && opened.available < opened.balance);

    let before = world.owner.balance().await.unwrap();
    let claim = world.claim(&[world.item()]).await;
    let gained = world.owner.balance().await.unwrap().checked_sub(before).unwrap();
    assert_eq!(gained, ton("1").checked_sub(claim.fees).unwrap(), "the owner gets the receipt's total less all fees");
    costs(&world, claim, "claim", 17_715, 11_400_400);

    let later = SettlementReceipt { sequence: 2, total: ton("1.5"), ..world.receipt() };
    let later = world.signed(world.voucher(), &CLIENT, later, &ENCLAVE);
    costs(&world, world.claim(&[later]).await, "claim_repeated", 15_975, 9_547_600);
    let paid = ops::channel_paid(&*world.chain, &address, &world.key()).await.unwrap();
    assert_eq!((paid.paid, paid.cap, paid.expiry), (ton("1.5"), ton("2"), START.plus(7 * DAY)));

    let before = world.client.balance().await.unwrap();
    costs(&world, ops::start_close(&world.client, &address).await.unwrap(), "start_close", 10_340, 5_676_800);
    world.clock.advance(3 * DAY);
    costs(&world, ops::finish_close(&world.client, &address).await.unwrap(), "finish_close", 11_391, 6_272_862);
    let refund = world.client.balance().await.unwrap().checked_sub(before).unwrap();
    assert!(refund > ton("3.48") && refund < ton("3.5"), "{refund}");
    let closed = ops::channel_state(&*world.chain, &address).await.unwrap();
    assert_eq!(closed.status, ChannelStatus::Closed { at: START.plus(3 * DAY) });
    assert!(closed.balance < ton("0.01"));

    world.clock.advance(20 * DAY);
    ops::delete_channel(&world.payer, &address).await.unwrap().success().unwrap();
    assert!(matches!(ops::channel_state(&*world.chain, &address).await, Err(cocoon_settlement::Error::NotDeployed(_))));
}

#[tokio::test]
async fn a_release_refunds_at_once() {
    let world = World::ready().await;
    let before = world.client.balance().await.unwrap();
    ops::release_channel(&world.owner, &world.provider, &world.channel.address()).await.unwrap().success().unwrap();
    assert!(world.client.balance().await.unwrap() > before.checked_add(ton("4.98")).unwrap());
}

#[tokio::test]
async fn what_lacked_funds_is_paid_after_a_top_up() {
    let world = World::new().await;
    world.attest(&world.verdict(), &[0, 1, 2]).await.success().unwrap();
    world.open("0.5").await;
    world.claim(&[world.item()]).await.success().unwrap();
    let first = world.paid().await;
    assert!(first > ton("0.46") && first < ton("0.5"), "{first}");
    ops::top_up(&world.client, &world.channel.address(), ton("1")).await.unwrap().success().unwrap();
    world.claim(&[world.item()]).await.success().unwrap();
    assert_eq!(world.paid().await, ton("1"));
}

#[tokio::test]
async fn a_renewal_raises_generation_and_expiry() {
    let world = World::ready().await;
    world.clock.advance(1_000);
    let mut verdict = world.verdict();
    (verdict.generation, verdict.until) = (1, START.plus(DAY + 1_000));
    world.attest(&verdict, &[4, 1, 3]).await.success().unwrap();
    let record = ops::enclave_record(&*world.chain, &world.provider, &world.key()).await.unwrap().unwrap();
    assert_eq!((record.generation, record.until), (1, verdict.until));
}

#[tokio::test]
async fn what_a_registry_holds_can_be_read_and_changed_by_governance_alone() {
    let world = World::new().await;
    let params = ops::registry_params(&*world.chain, &world.registry).await.unwrap();
    assert_eq!((params.network, params.governance), (NetworkId::LOCAL, world.governance.address()));
    assert_eq!((params.threshold, params.set_epoch, params.max_lifetime), (3, 0, DAY as u32));
    assert_eq!(params.verifiers, (0..5).map(|i| (i, public(&verifier(i)))).collect());
    assert_eq!((params.images, params.models), (vec![IMAGE], vec![MODEL]));

    let (governance, registry) = (&world.governance, &world.registry);
    let stranger = ops::forbid(&world.payer, registry, Listed::Image(IMAGE)).await.unwrap();
    assert_eq!(stranger.aborted, Some((world.registry, 100)));
    ops::forbid(governance, registry, Listed::Image(IMAGE)).await.unwrap().success().unwrap();
    let keys = Verifiers::from([(3, public(&verifier(7)))]);
    let change = Change::Verifiers { threshold: 1, verifiers: keys.clone() };
    ops::propose(governance, registry, &change).await.unwrap().success().unwrap();
    let params = ops::registry_params(&*world.chain, &world.registry).await.unwrap();
    assert_eq!((params.images, params.verifiers), (vec![], keys));
    assert_eq!((params.threshold, params.set_epoch), (1, 1));
}

#[tokio::test]
async fn a_change_waits_in_the_time_lock_where_everyone_can_read_it() {
    let world = World::new().await;
    let (chain, governance, registry) = (&*world.chain, &world.governance, &world.registry);
    ops::propose(governance, registry, &Change::TimeLock(DAY as u32)).await.unwrap().success().unwrap();
    let release = Release { version: 1, provider_code: [1; 32], channel_code: [2; 32] };
    let changes = [
        Change::Verifiers { threshold: 2, verifiers: Verifiers::from([(0, [1; 32]), (1, [2; 32])]) },
        Change::Allow(Listed::Model(IMAGE)),
        Change::MaxLifetime(3_600),
        Change::Governance(world.payer.address()),
        Change::TimeLock(0),
        Change::Release(release),
    ];
    for change in &changes {
        ops::propose(governance, registry, change).await.unwrap().success().unwrap();
    }
    let waiting = contracts::registry::proposals(chain, registry).await.unwrap();
    assert_eq!(waiting.iter().map(|waiting| waiting.change.clone()).collect::<Vec<_>>(), changes);
    assert!(waiting.iter().all(|waiting| waiting.not_before == START.plus(DAY)));
    let early = ops::execute(&world.payer, registry, 5).await.unwrap();
    assert_eq!(early.aborted, Some((*registry, 117)));
    world.clock.advance(DAY);
    ops::cancel(governance, registry, 3).await.unwrap().success().unwrap();
    for id in [0, 1, 2, 4, 5] {
        ops::execute(&world.payer, registry, id).await.unwrap().success().unwrap();
    }
    assert_eq!(contracts::registry::proposals(chain, registry).await.unwrap(), []);
    assert_eq!(contracts::registry::release(chain, registry).await.unwrap(), release);
    let params = ops::registry_params(chain, registry).await.unwrap();
    assert_eq!((params.threshold, params.max_lifetime, params.time_lock), (2, 3_600, 0));
    assert_eq!(params.models, [IMAGE, MODEL]);

    let looser = ops::tighten(governance, registry, &[], 1, 60).await.unwrap();
    assert_eq!(looser.aborted, Some((*registry, 114)));
    ops::tighten(governance, registry, &[], 2, 60).await.unwrap().success().unwrap();
    assert_eq!(ops::registry_params(chain, registry).await.unwrap().max_lifetime, 60);
}

/// A Registry takes any small cell from its governance as a proposal.
#[tokio::test]
async fn a_proposal_that_nobody_can_read_hides_no_other_and_stops_nothing() {
    let world = World::new().await;
    let (chain, governance, registry) = (&*world.chain, &world.governance, &world.registry);
    ops::propose(governance, registry, &Change::TimeLock(DAY as u32)).await.unwrap().success().unwrap();
    let cell = |write: fn(&mut CellBuilder)| {
        let mut builder = CellBuilder::new();
        write(&mut builder);
        builder.build().unwrap()
    };
    // No change at all; a tag of none; one that ends early; one with something behind it; a list that there is not.
    let unknown = [
        cell(|_| ()),
        cell(|b| b.store_u8(7).unwrap()),
        cell(|b| b.store_u16(0x0300).unwrap()),
        cell(|b| b.store_u64(0x0300_0000_0100_0000).unwrap()),
        cell(|b| [2, 2].iter().chain(&[0; 32]).for_each(|byte| b.store_u8(*byte).unwrap())),
    ];
    for change in &unknown {
        let mut body = CellBuilder::new();
        body.store_u32(0x4301_0002).unwrap();
        body.store_u64(0).unwrap();
        body.store_reference(change.clone()).unwrap();
        governance.send(*registry, ton("0.5"), Some(body.build().unwrap()), None).await.unwrap().success().unwrap();
    }
    ops::propose(governance, registry, &Change::MaxLifetime(60)).await.unwrap().success().unwrap();
    let waiting = contracts::registry::proposals(chain, registry).await.unwrap();
    let changes: Vec<Change> = unknown.into_iter().map(Change::Unknown).chain([Change::MaxLifetime(60)]).collect();
    assert_eq!(waiting.iter().map(|waiting| waiting.change.clone()).collect::<Vec<_>>(), changes);
    assert!(ops::registry_lacks(chain, registry, 1).await.is_ok());
    // Nobody proposes one by these bindings, nobody can carry one out, and governance can take it back.
    assert!(contracts::registry::propose(0, &changes[0]).is_err());
    world.clock.advance(DAY);
    for id in 0..5 {
        let executed = ops::execute(&world.payer, registry, id).await.unwrap();
        assert_eq!(executed.aborted.map(|(account, _)| account), Some(*registry), "proposal {id}");
        ops::cancel(governance, registry, id).await.unwrap().success().unwrap();
    }
    ops::execute(&world.payer, registry, 5).await.unwrap().success().unwrap();
    assert_eq!(contracts::registry::proposals(chain, registry).await.unwrap(), []);
}

#[tokio::test]
async fn a_checkpoint_is_anchored() {
    let world = World::new().await;
    let checkpoint = CheckpointAnchor {
        network: NetworkId::LOCAL,
        registry: world.registry,
        origin: Digest([4; 32]),
        tree_size: 7,
        root: Digest([5; 32]),
        time: START,
    };
    let signature = checkpoint.sign(&verifier(1)).unwrap();
    let registry = &world.registry;
    ops::anchor(&world.payer, registry, 1, &checkpoint, &signature).await.unwrap().success().unwrap();
    let anchored = contracts::registry::anchored(&*world.chain, registry, 1).await.unwrap().expect("it was anchored");
    assert_eq!((anchored.verifier, anchored.tree_size), (public(&verifier(1)), 7));
    assert_eq!((anchored.origin, anchored.root, anchored.time), (Digest([4; 32]), Digest([5; 32]), START));
    assert_eq!(contracts::registry::anchored(&*world.chain, registry, 0).await.unwrap(), None);
}

#[tokio::test]
async fn stake_backs_a_provider_and_is_lost_by_equivocation() {
    let world = World::ready().await;
    let (chain, provider) = (&*world.chain, &world.provider);
    ops::stake(&world.owner, provider, ton("10")).await.unwrap().success().unwrap();
    ops::unstake(&world.owner, provider, ton("4")).await.unwrap().success().unwrap();
    let state = contracts::provider::stake_state(chain, provider).await.unwrap();
    assert!(state.stake > ton("5.9") && state.stake < ton("6"));
    assert_eq!((state.unbonding, state.unlocks_at), (ton("4"), START.plus(11 * DAY)));

    let higher = SettlementReceipt { total: ton("2"), ..world.receipt() };
    let lower = SettlementReceipt { sequence: 2, ..world.receipt() };
    let signed = |receipt: &SettlementReceipt| receipt.sign(&ENCLAVE).unwrap();
    let before = world.payer.balance().await.unwrap();
    let report =
        ops::slash(&world.payer, provider, (&higher, &signed(&higher)), (&lower, &signed(&lower))).await.unwrap();
    assert!(report.transactions.iter().all(|step| step.account != *provider || step.exit_code == 0));
    let reward = world.payer.balance().await.unwrap().checked_sub(before).unwrap();
    assert!(reward > ton("1.95") && reward < ton("2"), "{reward}");
    let state = contracts::provider::stake_state(chain, provider).await.unwrap();
    assert_eq!((state.stake, state.unbonding), (Nanoton::ZERO, Nanoton::ZERO));
    let record = ops::enclave_record(chain, provider, &world.key()).await.unwrap().unwrap();
    assert_eq!(record.state, KeyState::Slashed);
    assert_eq!(world.claim(&[world.item()]).await.aborted, Some((*provider, 122)));
}

#[tokio::test]
async fn keys_are_revoked_and_forgotten_and_their_entries_stay() {
    let world = World::ready().await;
    let (chain, provider, channel, key) = (&*world.chain, &world.provider, world.channel.address(), world.key());
    world.claim(&[world.item()]).await.success().unwrap();
    ops::revoke(&world.owner, provider, &key, false).await.unwrap().success().unwrap();
    let record = ops::enclave_record(chain, provider, &key).await.unwrap().unwrap();
    assert_eq!((record.state, record.until, record.keep), (KeyState::Retired, START, START.plus(11 * DAY)));
    ops::revoke_key(&world.governance, &world.registry, provider, &key, true).await.unwrap().success().unwrap();
    let record = ops::enclave_record(chain, provider, &key).await.unwrap().unwrap();
    assert_eq!(record.state, KeyState::Void);
    assert_eq!(ops::prune(&world.payer, provider, &key).await.unwrap().aborted, Some((*provider, 126)));
    world.clock.advance(11 * DAY + 1);
    ops::prune(&world.payer, provider, &key).await.unwrap().success().unwrap();
    assert_eq!(contracts::provider::key_count(chain, provider).await.unwrap(), 0);
    assert_eq!(ops::channel_state(chain, &channel).await.unwrap().keys, 1);
    assert_eq!(world.paid().await, ton("1"));
}

#[tokio::test]
async fn addresses_follow_from_initial_data_alone() {
    let world = World::ready().await;
    assert_eq!(ops::provider_terms(&*world.chain, &world.provider).await.unwrap().address(), world.provider);
    let init = ChannelInit::from_boc(&world.channel.to_boc()).unwrap();
    assert_eq!(init, world.channel);
    let account = world.chain.account(&init.address()).await.unwrap();
    assert_eq!(account.code_hash, Some(channel::channel_code_hash()));

    let provider = ops::provider_terms(&*world.chain, &world.provider).await.unwrap();
    init.check_for(&provider).unwrap();
    for wrong in [
        ChannelInit { network: NetworkId::TESTNET, ..init.clone() },
        ChannelInit { provider: world.registry, ..init.clone() },
        ChannelInit { owner: world.registry, ..init.clone() },
        ChannelInit { close_delay: provider.claim_window - 1, ..init.clone() },
    ] {
        assert!(wrong.check_for(&provider).is_err());
    }
    // Ninety days, not a second more: neither for the delay nor for the window that it must cover.
    let most = channel::MAX_CLOSE_DELAY;
    let slow = ProviderInit { claim_window: most, ..provider.clone() };
    let patient = ChannelInit { close_delay: most, provider: slow.address(), ..init.clone() };
    patient.check_for(&slow).unwrap();
    let too_patient = ChannelInit { close_delay: most + 1, ..patient.clone() };
    assert!(too_patient.check_for(&slow).is_err());
    assert!(ops::open_channel(&world.client, &too_patient, ton("1")).await.is_err());
    let too_slow = ProviderInit { claim_window: most + 1, ..provider };
    assert!(ops::deploy_provider(&world.owner, &too_slow).await.is_err());

    let other_code = init.address_with_code_hash(&[1; 32], channel::channel_code_depth());
    assert_ne!(other_code, init.address());
    let other_client = ChannelInit { client_key: [1; 32], ..init.clone() };
    assert_ne!(other_client.address(), init.address());
    // Data of a Channel that was used is not initial data.
    world.claim(&[world.item()]).await.success().unwrap();
    let used = world.chain.account(&init.address()).await.unwrap().data.unwrap();
    assert!(ChannelInit::from_cell(&used).is_err());
}

#[tokio::test]
async fn parameters_out_of_bounds_are_refused_before_anything_is_sent() {
    let world = World::new().await;
    let good = RegistryInit {
        network: NetworkId::LOCAL,
        governance: world.governance.address(),
        time_lock: 0,
        threshold: 1,
        max_lifetime: 1,
        verifiers: vec![[1; 32]],
        images: vec![],
        models: vec![],
    };
    assert!(good.address().is_ok());
    for bad in [
        RegistryInit { threshold: 0, ..good.clone() },
        RegistryInit { threshold: 2, ..good.clone() },
        RegistryInit { verifiers: vec![[1; 32]; 17], ..good.clone() },
        RegistryInit { max_lifetime: 604_801, ..good.clone() },
        RegistryInit { time_lock: 7_776_001, ..good.clone() },
        RegistryInit { verifiers: vec![[1; 32]; 2], ..good.clone() },
        RegistryInit { images: vec![IMAGE; 257], ..good.clone() },
    ] {
        assert!(bad.address().is_err());
    }
    let item = world.item();
    // Items, and vouchers among them.
    for (count, vouchers, good) in
        [(0, 0, false), (8, 0, true), (9, 0, false), (5, 5, true), (6, 5, false), (8, 2, true), (8, 3, false)]
    {
        let items: Vec<_> = (0..count).map(|n| (&item, n < vouchers)).collect();
        assert_eq!(contracts::provider::claim(&items).is_ok(), good, "{count} items, {vouchers} vouchers");
    }
    let mut other = world.item();
    other.receipt.channel = world.provider;
    assert!(contracts::provider::claim(&[(&item, false), (&other, false)]).is_err());
}
