//! Caps are in everybody's sight: they are whole steps, and no more than the channel and the spending limit have.

#[path = "common/mod.rs"]
mod common;

use cocoon_client::{Appraised, Client, ClientConfig, Error};
use cocoon_settlement::{Nanoton, ops};
use common::{AT, MRTD, PRICES, World, bundle, enclave, platform, statement};

const STEP: u64 = 1_000_000_000;

/// A client of a channel with some TON, and an enclave it accepts.
async fn client(alter: impl FnOnce(&mut ClientConfig)) -> (World, std::sync::Arc<Client>, Appraised, Nanoton) {
    let world = World::new().await;
    let mut config = world.config();
    config.voucher_step = Nanoton(STEP);
    alter(&mut config);
    let channel = config.channel.clone();
    ops::open_channel(&world.account, &channel, Nanoton(5 * STEP / 2)).await.unwrap().success().unwrap();
    let available = ops::channel_state(world.chain.as_ref(), &channel.address()).await.unwrap().available;
    assert!(available > Nanoton(2 * STEP) && available < Nanoton(3 * STEP), "{available}");
    let claims = world.claims().await;
    let bundle = bundle(&platform(), MRTD, &claims);
    world.register(&claims, bundle.evidence_id().0, AT.plus(80_000)).await;
    let client = Client::open(config).unwrap();
    let enclave = client.appraise(&bundle.to_cbor(), &statement(&bundle, &enclave()), PRICES).await.unwrap();
    (world, client, enclave, available)
}

#[tokio::test]
async fn a_cap_is_the_next_whole_step_or_all_that_the_channel_has() {
    let (_world, client, enclave, available) = client(|_| ()).await;
    let cap = async |least: u64| client.raised_voucher(&enclave, Nanoton(least)).await.map(|signed| signed.voucher.cap);
    assert_eq!(client.voucher(&enclave).await.unwrap().voucher.cap, Nanoton(STEP));
    for (least, expected) in [(1, STEP), (STEP, STEP), (STEP + 1, 2 * STEP), (2 * STEP - 7, 2 * STEP)] {
        assert_eq!(cap(least).await.unwrap(), Nanoton(expected), "for {least}");
    }
    assert!(matches!(cap(available.0 + 1).await, Err(Error::ChannelEmpty)));
    assert_eq!(cap(1).await.unwrap(), Nanoton(2 * STEP), "a promise is never taken back");
    assert_eq!(cap(2 * STEP + 1).await.unwrap(), available, "the third step is not whole");
    assert_eq!(cap(available.0).await.unwrap(), available);
}

#[tokio::test]
async fn a_cap_ends_at_the_spending_limit() {
    let limit = Nanoton(STEP + STEP / 3);
    let (_world, client, enclave, _) = client(|config| config.spending_limit = Some(limit)).await;
    assert_eq!(client.raised_voucher(&enclave, Nanoton(STEP + 1)).await.unwrap().voucher.cap, limit);
    let refused = client.raised_voucher(&enclave, Nanoton(limit.0 + 1)).await;
    assert!(matches!(refused, Err(Error::SpendingLimit { promised, .. }) if promised == limit));
    assert_eq!(client.voucher(&enclave).await.unwrap().voucher.cap, limit);
}

/// Less than a step is money too: it can all be promised before anybody is told that there is none.
#[tokio::test]
async fn a_limit_or_a_channel_below_a_step_is_promised_to_its_end() {
    let limit = Nanoton(STEP / 2);
    let (_world, limited, enclave, _) = client(|config| config.spending_limit = Some(limit)).await;
    assert_eq!(limited.voucher(&enclave).await.unwrap().voucher.cap, limit);
    assert_eq!(limited.voucher(&enclave).await.unwrap().voucher.cap, limit, "what is left is used");
    let refused = limited.raised_voucher(&enclave, Nanoton(limit.0 + 1)).await;
    assert!(matches!(refused, Err(Error::SpendingLimit { promised, .. }) if promised == limit));

    let (_world, poor, enclave, available) = client(|config| config.voucher_step = Nanoton(4 * STEP)).await;
    assert_eq!(poor.voucher(&enclave).await.unwrap().voucher.cap, available);

    let (_world, broke, enclave, _) = client(|config| config.spending_limit = Some(Nanoton(0))).await;
    assert!(matches!(broke.voucher(&enclave).await, Err(Error::SpendingLimit { .. })));
}
