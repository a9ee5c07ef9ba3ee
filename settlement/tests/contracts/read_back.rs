//! What happened, read back from transactions alone, as an auditor does.

use cocoon_attestation::types::Digest;
use cocoon_settlement::chain::{Chain, TxSummary};
use cocoon_settlement::contracts::events::{self, Event};
use cocoon_settlement::contracts::{
    self, Change, ChannelInit, Listed, ProviderInit, VerifierSet, Verifiers, channel, provider, registry,
};
use cocoon_settlement::wallet::OutMessage;
use cocoon_settlement::{Address, Error, NetworkId, ops};
use tycho_types::cell::{Cell, CellBuilder, CellFamily, Store};

use crate::world::{DAY, START, World, public, ton, verifier};

async fn history(world: &World, account: &Address) -> Vec<TxSummary> {
    let mut all = world.chain.transactions(account, 1_000).await.unwrap();
    all.reverse();
    all
}

async fn events(world: &World, account: &Address) -> Vec<Event> {
    history(world, account).await.iter().filter_map(|transaction| events::carried_out(transaction).unwrap()).collect()
}

/// A copy of a cell with other references and what `more` adds.
fn rebuilt(cell: &Cell, references: &[Cell], more: impl FnOnce(&mut CellBuilder)) -> Cell {
    let slice = cell.as_slice().unwrap();
    let mut b = CellBuilder::new();
    b.store_slice(slice.get_prefix(slice.size_bits(), 0)).unwrap();
    references.iter().for_each(|reference| b.store_reference(reference.clone()).unwrap());
    more(&mut b);
    b.build().unwrap()
}

/// The Channel looks at the first 512 bits of a signature that stands last: who adds to them claims all the same, and is seen.
#[tokio::test]
async fn a_claim_with_more_behind_its_signatures_is_paid_and_read() {
    let world = World::ready().await;
    let item = world.item();
    let claim = provider::claim(&[(&item, true)]).unwrap();
    let first = claim.reference_cloned(0).unwrap();
    let voucher = first.reference_cloned(0).unwrap();
    let bit = rebuilt(&first, std::slice::from_ref(&voucher), |b| b.store_bit_one().unwrap());
    let reference = rebuilt(&first, &[voucher.clone(), Cell::default()], |_| ());
    let long_voucher = rebuilt(&voucher, &[Cell::default()], |b| b.store_u8(7).unwrap());
    let in_voucher = rebuilt(&first, &[long_voucher], |_| ());
    let channel = world.channel.address();
    let plain = Event::Claim { channel, items: claimed(&claim) };
    for (n, item) in [bit, reference, in_voucher].into_iter().enumerate() {
        let body = rebuilt(&claim, &[item], |_| ());
        world.owner.send(world.provider, ton("0.1"), Some(body), None).await.unwrap().success().unwrap();
        let claims = events(&world, &world.provider).await;
        let claims: Vec<_> = claims.into_iter().filter(|event| matches!(event, Event::Claim { .. })).collect();
        assert_eq!(claims, vec![plain.clone(); n + 1]);
        let settled = events(&world, &channel).await;
        assert_eq!(settled.len(), n + 1);
        let Event::Settle { items } = &settled[n] else { panic!("{settled:?}") };
        assert_eq!(items[0].0, claimed(&claim)[0]);
        assert_eq!((items[0].1, items[0].2), (cocoon_attestation::types::UnixTime(START.0 - 600), START.plus(DAY)));
        assert!(items[0].0.holds(NetworkId::LOCAL, &world.provider, &channel));
        assert!(!items[0].0.holds(NetworkId::LOCAL, &channel, &channel));
        assert!(items[0].0.promise(NetworkId::LOCAL, &channel, &world.channel.client_key).is_some());
        assert!(items[0].0.promise(NetworkId::LOCAL, &channel, &[1; 32]).is_none());
    }
    assert_eq!(world.paid().await, ton("1"));
}

fn claimed(claim: &Cell) -> Vec<events::ClaimedItem> {
    match events::read(claim).unwrap() {
        Some(Event::Claim { items, .. }) => items,
        other => panic!("{other:?}"),
    }
}

/// Value stays on an account without code, whatever the message asks of it: it is no failure, and nothing was carried out.
#[tokio::test]
async fn what_no_code_ran_for_did_not_happen() {
    let world = World::ready().await;
    let item = world.item();
    let claim = provider::claim(&[(&item, true)]).unwrap();
    let mut b = CellBuilder::new();
    b.store_u32(0x4303_0002).unwrap();
    b.store_reference(claim.reference_cloned(0).unwrap()).unwrap();
    b.store_u32(0).unwrap();
    b.store_u32(u32::MAX).unwrap();
    let settle = b.build().unwrap();
    assert!(matches!(events::read(&settle).unwrap(), Some(Event::Settle { .. })));
    let nowhere = ChannelInit { salt: [99; 32], ..world.channel.clone() }.address();
    let message = |to| OutMessage { bounce: false, ..OutMessage::new(to, ton("0.1"), Some(settle.clone()), None) };
    world.payer.send_all(&[message(nowhere)]).await.unwrap();
    // The Channel refuses it from anybody but its Provider, and without a bounce the value stays too.
    world.payer.send_all(&[message(world.channel.address())]).await.unwrap();
    for (account, failed) in [(nowhere, false), (world.channel.address(), true)] {
        let last = history(&world, &account).await.pop().unwrap();
        assert_eq!((last.failed, last.carried_out()), (failed, false));
        assert!(last.received.as_ref().unwrap().body.as_ref() == Some(&settle));
        assert_eq!(events::carried_out(&last).unwrap(), None);
    }
    // And what bounces is nothing that was asked.
    ops::claim(
        &world.owner,
        &world.provider,
        &[{
            let mut item = item.clone();
            item.receipt_signature[0] ^= 1;
            item
        }],
    )
    .await
    .unwrap();
    let last = history(&world, &world.provider).await.pop().unwrap();
    assert!(last.received.as_ref().unwrap().bounced && last.carried_out());
    assert_eq!(events::carried_out(&last).unwrap(), None);
}

/// The Registry looks at as many signatures as its threshold says, and never opens what hangs on behind them.
#[tokio::test]
async fn an_attestation_with_a_long_tail_is_taken_and_read() {
    let world = World::new().await;
    let verdict = world.verdict();
    let sign = |index: u8| (index, verdict.sign(&verifier(index)).unwrap());
    let mut next = Some(Cell::default());
    for index in (0..3u8).chain((0..60).map(|n| n % 5)).rev() {
        let mut b = CellBuilder::new();
        b.store_u8(index).unwrap();
        b.store_raw(&sign(index).1, 512).unwrap();
        next.store_into(&mut b, Cell::empty_context()).unwrap();
        next = Some(b.build().unwrap());
    }
    let mut b = CellBuilder::new();
    b.store_u32(0x4301_0001).unwrap();
    b.store_u64(0).unwrap();
    b.store_reference(verdict.to_cell()).unwrap();
    next.store_into(&mut b, Cell::empty_context()).unwrap();
    let body = b.build().unwrap();
    world.owner.send(world.registry, ops::ATTEST_VALUE, Some(body), None).await.unwrap().success().unwrap();
    let taken = events(&world, &world.registry).await;
    let [Event::Attest { verdict: read, signatures }] = taken.as_slice() else { panic!("{taken:?}") };
    assert_eq!((read, &signatures[..3]), (&verdict, &[sign(0), sign(1), sign(2)][..]));
    let attested = events(&world, &world.provider).await;
    assert!(matches!(attested[0], Event::Attested { key, .. } if key == world.key()), "{attested:?}");
}

/// Which verifiers there were at any time follows from the first state and what was carried out since.
#[tokio::test]
async fn the_verifiers_follow_from_the_first_state_and_the_history() {
    let world = World::new().await;
    let (governance, registry) = (&world.governance, &world.registry);
    let first = history(&world, registry).await.remove(0);
    let init = first.received.unwrap().init.unwrap();
    let (code, data) = contracts::initial_state(registry, &init).unwrap();
    assert_eq!(code, registry::registry_code_hash());
    assert!(contracts::initial_state(&world.provider, &init).is_none(), "another account's");
    let mut set = VerifierSet::of_data(&data).unwrap();
    assert_eq!((set.epoch, set.threshold, set.verifiers.len()), (0, 3, 5));

    let keys =
        |seeds: &[(u8, u8)]| seeds.iter().map(|(at, seed)| (*at, public(&verifier(*seed)))).collect::<Verifiers>();
    let change = |threshold, seeds: &[(u8, u8)]| Change::Verifiers { threshold, verifiers: keys(seeds) };
    ops::tighten(governance, registry, &[1, 3], 3, DAY as u32).await.unwrap().success().unwrap();
    ops::tighten(governance, registry, &[], 2, DAY as u32).await.unwrap();
    ops::propose(governance, registry, &change(2, &[(0, 0), (7, 9)])).await.unwrap().success().unwrap();
    ops::propose(governance, registry, &Change::TimeLock(60)).await.unwrap().success().unwrap();
    for change in [change(1, &[(2, 4)]), Change::TimeLock(0), change(2, &[(5, 5), (6, 6), (9, 7)])] {
        ops::propose(governance, registry, &change).await.unwrap().success().unwrap();
    }
    ops::cancel(governance, registry, 0).await.unwrap().success().unwrap();
    ops::execute(&world.payer, registry, 2).await.unwrap();
    world.clock.advance(61);
    for id in [2, 1, 0] {
        ops::execute(&world.payer, registry, id).await.unwrap();
    }
    ops::propose(governance, registry, &Change::Allow(Listed::Model(Digest([8; 32]))))
        .await
        .unwrap()
        .success()
        .unwrap();
    ops::tighten(governance, registry, &[6], 2, DAY as u32).await.unwrap().success().unwrap();

    let mut sets = vec![(set.epoch, set.threshold, set.verifiers.clone())];
    for event in events(&world, registry).await {
        set.apply(&event).unwrap();
        sets.push((set.epoch, set.threshold, set.verifiers.clone()));
    }
    sets.dedup();
    let expected = [
        (0, 3, keys(&[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)])),
        (1, 3, keys(&[(0, 0), (2, 2), (4, 4)])),
        (2, 2, keys(&[(0, 0), (7, 9)])),
        (3, 2, keys(&[(5, 5), (6, 6), (9, 7)])),
        (4, 2, keys(&[(5, 5), (9, 7)])),
    ];
    assert_eq!(sets, expected);
    let now = world.chain.account(registry).await.unwrap().data.unwrap();
    assert_eq!(VerifierSet::of_data(&now).unwrap(), set);
    let params = ops::registry_params(&*world.chain, registry).await.unwrap();
    assert_eq!((params.set_epoch, params.threshold, params.verifiers), (4, 2, set.verifiers.clone()));
    // A history that leaves something out does not lead there.
    assert!(matches!(set.apply(&Event::Execute { id: 5 }), Err(Error::Malformed { .. })));
}

#[tokio::test]
async fn terms_are_read_from_data_of_any_time() {
    let world = World::ready().await;
    world.claim(&[world.item()]).await.success().unwrap();
    ops::start_close(&world.client, &world.channel.address()).await.unwrap().success().unwrap();
    let data = async |address: &Address| world.chain.account(address).await.unwrap().data.unwrap();
    let channel = data(&world.channel.address()).await;
    assert_eq!(ChannelInit::of_data(&channel).unwrap(), world.channel);
    assert_eq!(ChannelInit::of_data(&world.channel.to_cell()).unwrap(), world.channel);
    let provider = data(&world.provider).await;
    let terms = ops::provider_terms(&*world.chain, &world.provider).await.unwrap();
    assert_eq!(ProviderInit::of_data(&provider).unwrap(), terms);
    assert!(ProviderInit::of_data(&channel).is_err() && ChannelInit::of_data(&provider).is_err());
    let first = history(&world, &world.channel.address()).await.remove(0);
    let (code, data) =
        contracts::initial_state(&world.channel.address(), &first.received.unwrap().init.unwrap()).unwrap();
    assert_eq!((code, data), (channel::channel_code_hash(), world.channel.to_cell()));
}
