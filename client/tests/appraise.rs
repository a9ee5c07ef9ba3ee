//! Which enclaves a client accepts. Each refusal alters one thing; where one setting switches the check off, it is shown to let the
//! same evidence pass.

#[path = "common/mod.rs"]
mod common;

use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::{Bundle, Claims, CpuEvidence, Digest, UnixTime};
use cocoon_client::{Appraised, Client, Error};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::statement::KeyStatement;
use common::{AT, MRTD, PRICES, World, appraise, bundle, enclave, platform, statement};

fn refused(result: Result<Appraised, Error>, by: &str) {
    match result {
        Err(Error::Refused { check, reason }) => assert_eq!(check, by, "{reason}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted, though {by} should refuse"),
    }
}

/// A world in which the evidence of these claims is registered.
async fn registered(world: &World, claims: &Claims, mrtd: [u8; 48]) -> Bundle {
    let bundle = bundle(&platform(), mrtd, claims);
    world.register(claims, bundle.evidence_id().0, AT.plus(80_000)).await;
    bundle
}

#[tokio::test]
async fn good_evidence_is_accepted_and_appraised_once() {
    let world = World::new().await;
    let claims = world.claims().await;
    let bundle = registered(&world, &claims, MRTD).await;
    let client = Client::open(world.config()).unwrap();
    for _ in 0..2 {
        let accepted = client.appraise(&bundle.to_cbor(), &statement(&bundle, &enclave()), PRICES).await.unwrap();
        assert_eq!((accepted.evidence_id, &accepted.claims), (bundle.evidence_id(), &claims));
        assert!(accepted.development, "its root is the policy's, not a vendor's");
    }
    assert_eq!(client.appraisals(), 1);
}

/// Evidence stays what it is; whether its key is still registered is looked up again after a minute.
#[tokio::test]
async fn a_registration_that_ends_is_noticed_without_another_appraisal() {
    let world = World::new().await;
    let claims = world.claims().await;
    let bundle = bundle(&platform(), MRTD, &claims);
    world.register(&claims, bundle.evidence_id().0, AT.plus(600)).await;
    let client = Client::open(world.config()).unwrap();
    let (bytes, statement) = (bundle.to_cbor(), statement(&bundle, &enclave()));
    let appraise = || client.appraise(&bytes, &statement, PRICES);
    for _ in 0..8 {
        appraise().await.unwrap();
        world.clock.advance(61);
    }
    world.clock.advance(200);
    refused(appraise().await, "registration");
    assert_eq!(client.appraisals(), 1);
}

#[tokio::test]
async fn evidence_that_was_refused_is_not_appraised_again_at_every_call() {
    let world = World::new().await;
    let mut claims = world.claims().await;
    claims.model_root = Digest([0x33; 32]);
    let bad = registered(&world, &claims, MRTD).await;
    let client = Client::open(world.config()).unwrap();
    for (again, appraisals) in [(0, 1), (10, 1), (49, 1), (2, 2), (59, 2)] {
        world.clock.advance(again);
        let result = client.appraise(&bad.to_cbor(), &statement(&bad, &enclave()), PRICES).await;
        refused(result, "reference.model-root");
        assert_eq!(client.appraisals(), appraisals, "after {again} s more");
    }
}

/// What the chain does not say yet, it may say soon.
#[tokio::test]
async fn evidence_that_nobody_registered_is_looked_at_again_soon() {
    let world = World::new().await;
    let claims = world.claims().await;
    let bundle = bundle(&platform(), MRTD, &claims);
    let client = Client::open(world.config()).unwrap();
    let (bytes, statement) = (bundle.to_cbor(), statement(&bundle, &enclave()));
    let appraise = || client.appraise(&bytes, &statement, PRICES);
    refused(appraise().await, "registration");
    world.register(&claims, bundle.evidence_id().0, AT.plus(80_000)).await;
    refused(appraise().await, "registration");
    assert_eq!(client.appraisals(), 1);
    world.clock.advance(6);
    appraise().await.unwrap();
    assert_eq!(client.appraisals(), 2);
}

#[tokio::test]
async fn only_reference_models_and_measurements_are_accepted() {
    for (root, mrtd, check) in
        [(Digest([0x33; 32]), MRTD, "reference.model-root"), (common::MODEL, [0xa2; 48], "reference.measurement")]
    {
        let world = World::new().await;
        let mut claims = world.claims().await;
        claims.model_root = root;
        let bundle = registered(&world, &claims, mrtd).await;
        let statement = statement(&bundle, &enclave());
        refused(appraise(world.config(), &bundle, &statement).await, check);
        let mut config = world.config();
        config.references = None;
        appraise(config, &bundle, &statement).await.unwrap();
    }
}

#[tokio::test]
async fn evidence_is_signed_by_a_platform_that_the_policy_names() {
    let world = World::new().await;
    let claims = world.claims().await;
    let good = registered(&world, &claims, MRTD).await;
    let statement_of = |bundle: &Bundle| statement(bundle, &enclave());

    let mut flipped = good.clone();
    let CpuEvidence::Tdx { quote } = &mut flipped.cpu else { panic!("TDX evidence expected") };
    quote[200] ^= 1;
    refused(appraise(world.config(), &flipped, &statement_of(&flipped)).await, "tdx.signature");

    let foreign = bundle(&DevPlatform::from_seed([8; 32]), MRTD, &claims);
    refused(appraise(world.config(), &foreign, &statement_of(&foreign)).await, "tdx.root");

    let mut unnamed = world.config();
    unnamed.policy.roots.clear();
    refused(appraise(unnamed, &good, &statement_of(&good)).await, "tdx.root");
}

#[tokio::test]
async fn an_enclave_of_another_provider_is_refused() {
    let world = World::new().await;
    let bundle = registered(&world, &world.claims().await, MRTD).await;
    let mut config = world.config();
    config.channel.provider.hash[0] ^= 1;
    // The provider is compared before the chain is asked about it.
    config.require_registered = false;
    refused(appraise(config, &bundle, &statement(&bundle, &enclave())).await, "provider");
}

#[tokio::test]
async fn beacons_are_young_blocks_of_the_chain() {
    let world = World::new().await;
    let mut claims = world.claims().await;
    claims.beacon.root_hash.0[0] ^= 1;
    let forged = registered(&world, &claims, MRTD).await;
    let of = statement(&forged, &enclave());
    refused(appraise(world.config(), &forged, &of).await, "beacon");
    let mut config = world.config();
    config.max_beacon_age = None;
    appraise(config, &forged, &of).await.unwrap();

    let world = World::new().await;
    let old = registered(&world, &world.claims().await, MRTD).await;
    let of = statement(&old, &enclave());
    world.clock.advance(601);
    for (age, accepted) in [(Some(600), false), (Some(86_400), true), (None, true)] {
        let mut config = world.config();
        config.max_beacon_age = age;
        let result = appraise(config, &old, &of).await;
        if accepted { drop(result.unwrap()) } else { refused(result, "beacon") }
    }
}

#[tokio::test]
async fn the_key_is_registered_with_this_evidence_and_still_is() {
    for case in ["never", "other evidence", "ended"] {
        let world = World::new().await;
        let claims = world.claims().await;
        let bundle = bundle(&platform(), MRTD, &claims);
        let id = bundle.evidence_id().0;
        match case {
            "other evidence" => world.register(&claims, Digest([0x77; 32]), AT.plus(80_000)).await,
            "ended" => {
                world.register(&claims, id, AT.plus(600)).await;
                world.clock.advance(700);
            }
            _ => {}
        }
        let of = statement(&bundle, &enclave());
        refused(appraise(world.config(), &bundle, &of).await, "registration");
        let mut config = world.config();
        config.require_registered = false;
        appraise(config, &bundle, &of).await.unwrap();
    }
}

#[tokio::test]
async fn the_provider_answers_to_the_registry_that_the_client_trusts() {
    let world = World::new().await;
    let bundle = registered(&world, &world.claims().await, MRTD).await;
    let mut config = world.config();
    config.registry.hash[0] ^= 1;
    refused(appraise(config, &bundle, &statement(&bundle, &enclave())).await, "registration");
}

#[tokio::test]
async fn key_statements_are_the_enclaves_own_for_this_evidence_and_time() {
    let world = World::new().await;
    let bundle = registered(&world, &world.claims().await, MRTD).await;
    let good = statement(&bundle, &enclave()).statement;
    let stranger = SigningKey::from_seed(&[42; 32]).unwrap();
    let altered = |alter: fn(&mut KeyStatement)| {
        let mut statement = good.clone();
        alter(&mut statement);
        statement.sign(&enclave())
    };
    for statement in [
        good.clone().sign(&stranger),
        altered(|statement| statement.not_after = UnixTime(AT.0 - 1_000)),
        altered(|statement| statement.not_before = AT.plus(1_000)),
        altered(|statement| statement.evidence_id.0.0[0] ^= 1),
    ] {
        refused(appraise(world.config(), &bundle, &statement).await, "key-statement");
    }
}
