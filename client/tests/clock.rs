//! A client whose clock is off by minutes, and an enclave that is good. What depends on time is refused by its name and with both times, and
//! nothing is accepted that has ended.

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;

use cocoon_attestation::{Bundle, UnixTime};
use cocoon_client::{Client, Error};
use cocoon_protocol::statement::{KeyStatement, SignedKeyStatement};
use cocoon_settlement::local::ManualClock;
use common::{AT, MRTD, PRICES, Time, World, bundle, enclave, platform};

const MINUTES: u64 = 5 * 60;
const HOUR: u64 = 3_600;

/// An enclave that is attested now, and its key, which is good for an hour from now on.
async fn attested(world: &World) -> (Bundle, SignedKeyStatement) {
    let claims = world.claims().await;
    let bundle = bundle(&platform(), MRTD, &claims);
    world.register(&claims, bundle.evidence_id().0, AT.plus(80_000)).await;
    let (evidence_id, key_config) = (bundle.evidence_id(), vec![1]);
    let statement = KeyStatement { evidence_id, key_config, not_before: AT, not_after: AT.plus(HOUR) };
    (bundle, statement.sign(&enclave()))
}

/// A client of its own, and its clock.
fn client(world: &World, at: UnixTime) -> (Arc<Client>, Arc<ManualClock>, tempfile::TempDir) {
    let (clock, folder) = (Arc::new(ManualClock::new(at)), tempfile::tempdir().unwrap());
    let mut config = world.config();
    (config.clock, config.data) = (Arc::new(Time(clock.clone())), folder.path().into());
    (Client::open(config).unwrap(), clock, folder)
}

async fn appraise(client: &Client, attested: &(Bundle, SignedKeyStatement)) -> Result<(), String> {
    match client.appraise(&attested.0.to_cbor(), &attested.1, PRICES).await {
        Ok(_) => Ok(()),
        Err(Error::Refused { check, reason }) => Err(format!("{check}: {reason}")),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_clock_that_is_minutes_behind_is_told_so_until_it_comes_to_the_keys_time() {
    let world = World::new().await;
    let attested = attested(&world).await;
    let (client, clock, _folder) = client(&world, UnixTime(AT.0 - MINUTES));
    for _ in 0..2 {
        let said = appraise(&client, &attested).await.unwrap_err();
        assert!(said.starts_with("key-statement: "), "{said}");
        for part in [AT.0, AT.0 + HOUR, AT.0 - MINUTES].map(|time| time.to_string()).iter().chain([&"clock".to_owned()])
        {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    }
    clock.advance(MINUTES);
    appraise(&client, &attested).await.unwrap();
    assert_eq!(client.appraisals(), 1, "the evidence was good all along");
}

#[tokio::test]
async fn a_clock_that_is_minutes_ahead_changes_nothing_until_the_key_seems_to_have_ended() {
    let world = World::new().await;
    let attested = attested(&world).await;
    let (right, right_clock, _one) = client(&world, AT);
    let (ahead, ahead_clock, _two) = client(&world, AT.plus(MINUTES));
    for client in [&right, &ahead] {
        appraise(client, &attested).await.unwrap();
    }
    for clock in [&right_clock, &ahead_clock, &world.clock] {
        clock.advance(HOUR - MINUTES + 1);
    }
    appraise(&right, &attested).await.unwrap();
    let said = appraise(&ahead, &attested).await.unwrap_err();
    assert!(said.starts_with("key-statement: ") && said.contains(&(AT.0 + HOUR + 1).to_string()), "{said}");
}

/// What vendors say of a platform has a beginning too: a clock that is far behind finds that first.
#[tokio::test]
async fn a_clock_that_is_hours_behind_does_not_take_what_vendors_have_not_said_yet() {
    let world = World::new().await;
    let attested = attested(&world).await;
    let (client, ..) = client(&world, UnixTime(AT.0 - 2 * HOUR));
    let said = appraise(&client, &attested).await.unwrap_err();
    assert!(said.starts_with("tdx.") && said.contains(&format!("not current at {}", AT.0 - 2 * HOUR)), "{said}");
}
