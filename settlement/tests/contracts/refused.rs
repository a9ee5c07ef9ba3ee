//! What must be refused, each case one step away from what is accepted, and that it costs nobody but its sender.

use cocoon_attestation::types::UnixTime;
use cocoon_settlement::cells::{SettlementReceipt, Verdict, Voucher};
use cocoon_settlement::contracts::{ClaimItem, exit, provider, registry};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId, ops};

use crate::world::{CLIENT, DAY, ENCLAVE, IMAGE, START, World, public, ton, verifier};

/// The refusal at `at` with `code`, which has words for a person, and left the sender everything but fees.
async fn refuse_verdict(world: &World, verdict: Verdict, signers: &[u8], at: Address, code: i32) {
    let before = world.owner.balance().await.unwrap();
    let report = world.attest(&verdict, signers).await;
    assert_eq!(report.aborted, Some((at, code)));
    assert!(exit::reason(code).is_some());
    let spent = before.checked_sub(world.owner.balance().await.unwrap()).unwrap();
    assert_eq!(spent, report.fees, "the payer gets everything else back");
    assert!(ops::enclave_record(&*world.chain, &world.provider, &verdict.enclave_key).await.unwrap().is_none());
}

#[tokio::test]
async fn a_verdict_short_of_k_is_refused_and_counts_where_k_is_lower() {
    let world = World::new().await;
    refuse_verdict(&world, world.verdict(), &[0, 1], world.registry, 109).await;
    let control = World::with_threshold(2).await;
    control.attest(&control.verdict(), &[0, 1]).await.success().unwrap();
}

#[tokio::test]
async fn a_verdict_is_refused_for_each_thing_wrong_with_it() {
    let world = World::new().await;
    let (good, registry) = (world.verdict(), world.registry);
    refuse_verdict(&world, good.clone(), &[0, 1, 1], registry, 110).await;
    refuse_verdict(&world, good.clone(), &[0, 1, 9], registry, 111).await;
    let cases = [
        (Verdict { network: NetworkId::TESTNET, ..good.clone() }, 102),
        (Verdict { registry: world.provider, ..good.clone() }, 103),
        (Verdict { expiry: UnixTime(START.0 - 1), ..good.clone() }, 104),
        (Verdict { set_epoch: 1, ..good.clone() }, 105),
        (Verdict { until: START.plus(2 * DAY), ..good.clone() }, 106),
        (Verdict { image: world.verdict().model_root, ..good.clone() }, 107),
        (Verdict { model_root: IMAGE, ..good.clone() }, 108),
    ];
    for (verdict, code) in cases {
        refuse_verdict(&world, verdict, &[0, 1, 2], registry, code).await;
    }
    let first = Verdict { generation: 1, ..good.clone() };
    refuse_verdict(&world, first, &[0, 1, 2], world.provider, 120).await;
    let nowhere = Verdict { provider: Address::basechain([9; 32]), ..good.clone() };
    let report = world.attest(&nowhere, &[0, 1, 2]).await;
    assert_eq!(report.aborted.map(|(at, _)| at), Some(nowhere.provider));
    world.attest(&good, &[0, 1, 2]).await.success().unwrap();
}

#[tokio::test]
async fn a_signature_by_another_key_under_a_verifiers_position_is_refused() {
    let world = World::new().await;
    let verdict = world.verdict();
    let mut signatures: Vec<_> = (0..3).map(|i| (i, verdict.sign(&verifier(i)).unwrap())).collect();
    signatures[2].1 = verdict.sign(&verifier(4)).unwrap();
    let report = ops::attest(&world.payer, &world.registry, &verdict, &signatures).await.unwrap();
    assert_eq!(report.aborted, Some((world.registry, 112)));
}

#[tokio::test]
async fn a_stranger_brings_a_provider_no_key_but_may_pay_for_a_renewal() {
    let world = World::new().await;
    let signatures =
        |verdict: &Verdict| -> Vec<_> { (0..3).map(|i| (i, verdict.sign(&verifier(i)).unwrap())).collect() };
    let first = world.verdict();
    let report = ops::attest(&world.payer, &world.registry, &first, &signatures(&first)).await.unwrap();
    assert_eq!(report.aborted, Some((world.provider, 100)));
    world.attest(&first, &[0, 1, 2]).await.success().unwrap();
    world.clock.advance(20);
    let renewal = Verdict { generation: 1, until: START.plus(DAY + 10), ..first };
    let report = ops::attest(&world.payer, &world.registry, &renewal, &signatures(&renewal)).await.unwrap();
    report.success().unwrap();
}

#[tokio::test]
async fn a_renewal_that_does_not_extend_is_refused() {
    let world = World::ready().await;
    let good = world.verdict();
    for (generation, until, code) in [(0, START.plus(DAY + 10), 120), (1, START.plus(DAY), 121)] {
        world.clock.advance(20);
        let verdict = Verdict { generation, until, ..good.clone() };
        assert_eq!(world.attest(&verdict, &[0, 1, 2]).await.aborted, Some((world.provider, code)));
    }
}

#[tokio::test]
async fn only_the_registry_attests_and_only_the_provider_settles() {
    let world = World::ready().await;
    // The bodies that the contracts send each other, taken from an account that is neither.
    let attested = body_of(0x4302_0001, 875);
    let report = world.payer.send(world.provider, ton("0.1"), Some(attested), None).await.unwrap();
    assert_eq!(report.aborted, Some((world.provider, 100)));
    let claim = provider::claim(&[(&world.item(), true)]).unwrap();
    let report = world.payer.send(world.provider, ton("0.1"), Some(claim), None).await.unwrap();
    assert_eq!(report.aborted, Some((world.provider, 100)));
    let close = ops::start_close(&world.owner, &world.channel.address()).await.unwrap();
    assert_eq!(close.aborted, Some((world.channel.address(), 100)));
    let release = ops::release_channel(&world.client, &world.provider, &world.channel.address()).await.unwrap();
    assert_eq!(release.aborted, Some((world.provider, 100)));
}

/// A body of this operation with zeros behind the query id, the payer's address last.
fn body_of(op: u32, bits: u16) -> tycho_types::cell::Cell {
    let mut b = tycho_types::cell::CellBuilder::new();
    b.store_u32(op).unwrap();
    b.store_u64(0).unwrap();
    b.store_zeros(bits - 267).unwrap();
    b.store_small_uint(0b100, 3).unwrap();
    b.store_zeros(264).unwrap();
    b.build().unwrap()
}

/// The claim fails with `code`, pays nothing, and the owner gets back all but the fees.
async fn refuse_claim(world: &World, item: ClaimItem, at: Address, code: i32) {
    let before = (world.owner.balance().await.unwrap(), world.paid().await);
    let report = world.claim(&[item]).await;
    assert_eq!(report.aborted, Some((at, code)));
    assert!(exit::reason(code).is_some());
    let spent = before.0.checked_sub(world.owner.balance().await.unwrap()).unwrap();
    assert_eq!(spent, report.fees, "the owner gets everything else back");
    assert_eq!(world.paid().await, before.1);
}

#[tokio::test]
async fn a_claim_is_refused_for_each_thing_wrong_with_it() {
    let world = World::ready().await;
    let channel = world.channel.address();
    let (voucher, receipt) = (world.voucher(), world.receipt());
    let elsewhere = Address::basechain([0xcc; 32]);
    let vouchers =
        [Voucher { network: NetworkId::TESTNET, ..voucher.clone() }, Voucher { channel: elsewhere, ..voucher.clone() }];
    for wrong in vouchers {
        refuse_claim(&world, world.signed(wrong, &CLIENT, receipt.clone(), &ENCLAVE), channel, 130).await;
    }
    refuse_claim(&world, world.signed(voucher.clone(), &ENCLAVE, receipt.clone(), &ENCLAVE), channel, 130).await;
    let receipts = [
        SettlementReceipt { network: NetworkId::TESTNET, ..receipt.clone() },
        SettlementReceipt { provider: elsewhere, ..receipt.clone() },
    ];
    for wrong in receipts {
        refuse_claim(&world, world.signed(voucher.clone(), &CLIENT, wrong, &ENCLAVE), channel, 133).await;
    }
    refuse_claim(&world, world.signed(voucher.clone(), &CLIENT, receipt.clone(), &CLIENT), channel, 133).await;

    let mut unattested = world.item();
    unattested.receipt.enclave_key.0 = public(&CLIENT);
    refuse_claim(&world, unattested, world.provider, 124).await;
    let unverified = provider::claim(&[(&world.item(), false)]).unwrap();
    let report = world.owner.send(world.provider, ops::CLAIM_ITEM_VALUE, Some(unverified), None).await.unwrap();
    assert_eq!(report.aborted, Some((channel, 131)));
    let expired = Voucher { expiry: START, ..voucher.clone() };
    let late = SettlementReceipt { time: START.plus(1), ..receipt.clone() };
    refuse_claim(&world, world.signed(expired, &CLIENT, late, &ENCLAVE), channel, 132).await;
    let after = SettlementReceipt { time: START.plus(DAY + 1), ..receipt.clone() };
    refuse_claim(&world, world.signed(voucher, &CLIENT, after, &ENCLAVE), channel, 134).await;

    world.claim(&[world.item()]).await.success().unwrap();
    assert_eq!(world.paid().await, ton("1"));
}

#[tokio::test]
async fn a_receipt_signed_for_another_channel_pays_nothing_from_this_one() {
    let world = World::ready().await;
    let foreign = SettlementReceipt { channel: Address::basechain([0xcc; 32]), ..world.receipt() };
    let signature = foreign.sign(&ENCLAVE).unwrap();
    let item = ClaimItem { receipt_signature: signature, ..world.item() };
    refuse_claim(&world, item, world.channel.address(), 133).await;
}

#[tokio::test]
async fn a_claim_after_the_window_is_refused_and_one_at_its_edge_is_paid() {
    for (past, accepted) in [(4 * DAY, true), (4 * DAY + 1, false)] {
        let world = World::ready().await;
        world.clock.advance(past);
        if accepted {
            world.claim(&[world.item()]).await.success().unwrap();
            assert_eq!(world.paid().await, ton("1"));
        } else {
            assert_eq!(world.claim(&[world.item()]).await.aborted, Some((world.provider, 135)));
            assert_eq!(world.paid().await, Nanoton::ZERO);
        }
    }
}

#[tokio::test]
async fn a_voucher_pays_its_cap_and_a_replay_pays_nothing_more() {
    let world = World::ready().await;
    let receipt = SettlementReceipt { total: ton("3"), ..world.receipt() };
    let item = world.signed(world.voucher(), &CLIENT, receipt, &ENCLAVE);
    world.claim(std::slice::from_ref(&item)).await.success().unwrap();
    assert_eq!(world.paid().await, ton("2"));
    let before = world.owner.balance().await.unwrap();
    let replay = world.claim(&[item]).await.success().unwrap();
    assert_eq!(world.paid().await, ton("2"));
    assert_eq!(before.checked_sub(world.owner.balance().await.unwrap()), Some(replay.fees));
}

#[tokio::test]
async fn one_refused_item_refuses_the_claim() {
    let world = World::ready().await;
    let mut forged = world.item();
    forged.receipt_signature[0] ^= 1;
    let report = world.claim(&[world.item(), forged]).await;
    assert_eq!(report.aborted, Some((world.channel.address(), 133)));
    assert_eq!(world.paid().await, Nanoton::ZERO);
}

#[tokio::test]
async fn a_contract_with_other_code_is_not_believed() {
    let world = World::ready().await;
    let (chain, channel) = (&*world.chain, world.channel.address());
    assert!(matches!(ops::provider_terms(chain, &channel).await, Err(Error::Unexpected(_))));
    assert!(matches!(ops::channel_state(chain, &world.provider).await, Err(Error::Unexpected(_))));
    assert!(matches!(ops::registry_params(chain, &world.owner.address()).await, Err(Error::Unexpected(_))));
    assert!(matches!(ops::registry_params(chain, &Address::basechain([9; 32])).await, Err(Error::NotDeployed(_))));
}

#[tokio::test]
async fn too_little_value_is_refused_before_anything_happens() {
    let world = World::ready().await;
    let least = provider::claim_value(&*world.chain, &world.provider, 1).await.unwrap();
    let body = provider::claim(&[(&world.item(), true)]).unwrap();
    let short = Nanoton(least.0 - 1);
    let report = world.owner.send(world.provider, short, Some(body.clone()), None).await.unwrap();
    assert_eq!(report.aborted, Some((world.provider, 101)));
    world.owner.send(world.provider, least, Some(body), None).await.unwrap().success().unwrap();
    assert_eq!(world.paid().await, ton("1"));

    let least = registry::attest_value(&*world.chain, &world.registry).await.unwrap();
    let verdict = world.verdict();
    let signatures: Vec<_> = (0..3).map(|i| (i, verdict.sign(&verifier(i)).unwrap())).collect();
    let body = registry::attest(0, &verdict, &signatures).unwrap();
    let report = world.payer.send(world.registry, Nanoton(least.0 - 1), Some(body), None).await.unwrap();
    assert_eq!(report.aborted, Some((world.registry, 101)));
}

#[tokio::test]
async fn a_closing_channel_refuses_deposits_and_early_refunds_but_pays() {
    let world = World::ready().await;
    let channel = world.channel.address();
    assert_eq!(ops::finish_close(&world.client, &channel).await.unwrap().aborted, Some((channel, 141)));
    ops::start_close(&world.client, &channel).await.unwrap().success().unwrap();
    let before = world.client.balance().await.unwrap();
    let report = ops::top_up(&world.client, &channel, ton("1")).await.unwrap();
    assert_eq!(report.aborted, Some((channel, 140)));
    assert_eq!(before.checked_sub(world.client.balance().await.unwrap()), Some(report.fees));
    world.clock.advance(3 * DAY - 1);
    assert_eq!(ops::finish_close(&world.client, &channel).await.unwrap().aborted, Some((channel, 142)));
    world.claim(&[world.item()]).await.success().unwrap();
    assert_eq!(world.paid().await, ton("1"));
    world.clock.advance(1);
    ops::finish_close(&world.client, &channel).await.unwrap().success().unwrap();
    assert_eq!(ops::delete_channel(&world.client, &channel).await.unwrap().aborted, Some((channel, 142)));
    assert_eq!(world.claim(&[world.item()]).await.aborted, Some((channel, 140)));
}
