//! What must be paid, and what it costs.

use std::collections::BTreeMap;
use std::path::Path;

use cocoon_attestation::types::Digest;
use cocoon_settlement::account::TxReport;
use cocoon_settlement::cells::SettlementReceipt;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{ChannelInit, ChannelStatus, EnclaveRecord, KeyState, RegistryInit, channel};
use cocoon_settlement::{NetworkId, ops};

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
    // Wallets deploy with their first message; that is not what is measured here.
    for account in [&world.payer, &world.client] {
        account.send(account.address(), ton("0.01"), None, None).await.unwrap().success().unwrap();
    }
    let address = world.channel.address();
    costs(&world, world.attest(&world.verdict(), &[0, 1, 2]).await, "attest", 21_532, 14_032_800);
    let record = ops::enclave_record(&*world.chain, &world.provider, &world.key()).await.unwrap();
    let expected = EnclaveRecord {
        state: KeyState::Active,
        generation: 0,
        set_epoch: 0,
        until: START.plus(DAY),
        evidence_id: Digest([0x11; 32]),
    };
    assert_eq!(record, Some(expected));

    costs(&world, ops::open_channel(&world.client, &world.channel, ton("5")).await.unwrap(), "open", 5_787, 14_196_400);
    let opened = ops::channel_state(&*world.chain, &address).await.unwrap();
    assert_eq!((opened.status, opened.keys), (ChannelStatus::Open, 0));
    assert!(opened.available > ton("4.9") && opened.available < opened.balance);

    let before = world.owner.balance().await.unwrap();
    let claim = world.claim(&[world.item()]).await;
    let gained = world.owner.balance().await.unwrap().checked_sub(before).unwrap();
    assert_eq!(gained, ton("1").checked_sub(claim.fees).unwrap(), "the owner gets the receipt's total less all fees");
    costs(&world, claim, "claim", 21_491, 13_704_400);

    let later = SettlementReceipt { sequence: 2, total: ton("1.5"), ..world.receipt() };
    let later = world.signed(world.voucher(), &CLIENT, later, &ENCLAVE);
    costs(&world, world.claim(&[later]).await, "claim_repeated", 20_658, 12_214_400);
    let paid = ops::channel_paid(&*world.chain, &address, &world.key()).await.unwrap();
    assert_eq!((paid.paid, paid.cap, paid.expiry), (ton("1.5"), ton("2"), START.plus(7 * DAY)));

    let before = world.client.balance().await.unwrap();
    costs(&world, ops::start_close(&world.client, &address).await.unwrap(), "start_close", 9_624, 5_390_400);
    world.clock.advance(3 * DAY);
    costs(&world, ops::finish_close(&world.client, &address).await.unwrap(), "finish_close", 10_718, 5_988_471);
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
    assert!(first > ton("0.48") && first < ton("0.5"), "{first}");
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
    assert_eq!(params.verifiers, (0..5).map(|i| public(&verifier(i))).collect::<Vec<_>>());
    assert_eq!((params.images, params.models), (vec![IMAGE], vec![MODEL]));

    let image = cocoon_settlement::contracts::registry::Listed::Image(IMAGE);
    let stranger = ops::set_allowed(&world.payer, &world.registry, image, false).await.unwrap();
    assert_eq!(stranger.aborted, Some((world.registry, 100)));
    ops::set_allowed(&world.governance, &world.registry, image, false).await.unwrap().success().unwrap();
    let keys = [public(&verifier(7))];
    ops::set_verifiers(&world.governance, &world.registry, 1, &keys).await.unwrap().success().unwrap();
    let params = ops::registry_params(&*world.chain, &world.registry).await.unwrap();
    assert_eq!((params.images, params.verifiers), (vec![], keys.to_vec()));
    assert_eq!((params.threshold, params.set_epoch), (1, 1));
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
        ChannelInit { close_delay: provider.claim_window - 1, ..init.clone() },
    ] {
        assert!(wrong.check_for(&provider).is_err());
    }

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
    ] {
        assert!(bad.address().is_err());
    }
    let items = vec![world.item(); 9];
    assert!(ops::claim(&world.owner, &world.provider, &items).await.is_err());
    assert!(ops::claim(&world.owner, &world.provider, &[]).await.is_err());
}
