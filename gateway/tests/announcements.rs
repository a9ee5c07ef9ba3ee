//! Nobody announces another's enclave, and nobody fills the directory with what no Registry has taken.

mod common;

use cocoon_attestation::UnixTime;
use cocoon_gateway::{MAX_AGE, MAX_AHEAD};
use cocoon_protocol::announce::Announced;
use cocoon_protocol::wire::Announcement;
use cocoon_settlement::wallet::Version;
use cocoon_settlement::{NetworkId, Prices, ops};
use http::StatusCode;

use common::{OWNER, World, announce, key, listed, now, signed, world, world_of};

const HOST: &str = "http://127.0.0.1:1";
const THIEF: u8 = 66;

/// A gateway that lists one enclave, as its host announced it a second ago.
async fn listing(world: &World) -> (String, Announcement) {
    let gateway = world.gateway().await;
    let announcement = world.announcement(41, HOST).await;
    let (body, header) = signed(&announcement, OWNER, UnixTime(now().0 - 1));
    assert_eq!(announce(&gateway, body, header).await, (StatusCode::NO_CONTENT, String::new()));
    (gateway, announcement)
}

#[tokio::test]
async fn the_owner_of_the_provider_announces_with_either_wallet() {
    for version in [Version::V5R1, Version::V4R2] {
        let world = world_of(version).await;
        let (gateway, announcement) = listing(&world).await;
        assert_eq!(listed(&gateway, "").await, [announcement]);
    }
}

#[tokio::test]
async fn an_announcement_of_anothers_enclave_is_refused_and_changes_nothing() {
    let world = world().await;
    let (gateway, known) = listing(&world).await;
    let stolen = Announcement { host_url: "http://127.0.0.1:2".into(), ..known.clone() };

    // Without a signature, as it was possible once.
    let (body, _) = signed(&stolen, OWNER, now());
    let (status, said) = announce(&gateway, body, None).await;
    assert!(status == StatusCode::UNAUTHORIZED && said.contains("no header cocoon-announced"), "{said}");

    // By somebody else, whose signature is genuine.
    let (body, header) = signed(&stolen, THIEF, now());
    let (status, said) = announce(&gateway, body, header).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("not the key of the wallet"), "{said}");

    // By somebody else in the owner's name.
    let body = serde_json::to_vec(&stolen).unwrap();
    let forged = Announced { key: key(OWNER).public(), ..Announced::sign(&body, NetworkId::LOCAL, now(), &key(THIEF)) };
    let (status, said) = announce(&gateway, body, Some(forged.to_header())).await;
    assert!(status == StatusCode::UNAUTHORIZED && said.contains("not by the key it names"), "{said}");

    // With the signature of what the owner said.
    let (_, header) = signed(&known, OWNER, now());
    let (status, said) = announce(&gateway, serde_json::to_vec(&stolen).unwrap(), header).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");

    // For another network.
    let body = serde_json::to_vec(&stolen).unwrap();
    let header = Announced::sign(&body, NetworkId::TESTNET, now(), &key(OWNER)).to_header();
    let (status, said) = announce(&gateway, body, Some(header)).await;
    assert!(status == StatusCode::UNAUTHORIZED && said.contains("network local"), "{said}");

    assert_eq!(listed(&gateway, "").await, [known]);
}

/// The thief has a provider of his own, which holds nothing of this enclave.
#[tokio::test]
async fn evidence_cannot_be_announced_under_another_provider_or_id() {
    let world = world().await;
    let (gateway, known) = listing(&world).await;
    let (_, other) = world.elsewhere().await;

    let renamed = Announcement { provider: other, ..known.clone() };
    let (body, header) = signed(&renamed, OWNER, now());
    let (status, said) = announce(&gateway, body, header).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("names another provider"), "{said}");

    // Evidence of his own under the other's id.
    let own = world.bundle(42, world.provider).await;
    let swapped = Announcement { evidence_id: known.evidence_id.clone(), ..world.announcement_of(&own, HOST) };
    let (body, header) = signed(&swapped, OWNER, now());
    let (status, said) = announce(&gateway, body, header).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("its bundle is the evidence"), "{said}");
    assert_eq!(listed(&gateway, "").await, [known]);
}

#[tokio::test]
async fn what_was_said_before_cannot_be_said_again() {
    let world = world().await;
    let gateway = world.gateway().await;
    let first = world.announcement(41, HOST).await;
    let at = now();
    let old = signed(&first, OWNER, UnixTime(at.0 - 20));
    assert_eq!(announce(&gateway, old.0.clone(), old.1.clone()).await.0, StatusCode::NO_CONTENT);
    // The host has moved.
    let moved = Announcement { host_url: "http://127.0.0.1:3".into(), ..first };
    let newer = signed(&moved, OWNER, UnixTime(at.0 - 10));
    assert_eq!(announce(&gateway, newer.0.clone(), newer.1.clone()).await.0, StatusCode::NO_CONTENT);
    for (body, header) in [old, newer] {
        let (status, said) = announce(&gateway, body, header).await;
        assert!(status == StatusCode::CONFLICT && said.contains("newer announcement"), "{said}");
    }
    assert_eq!(listed(&gateway, "").await, std::slice::from_ref(&moved));
    // Nor long after, nor long before.
    for time in [UnixTime(now().0 - MAX_AGE - 5), now().plus(MAX_AHEAD + 5)] {
        let (body, header) = signed(&moved, OWNER, time);
        let (status, said) = announce(&gateway, body, header).await;
        assert!(status == StatusCode::UNAUTHORIZED && said.contains("this gateway's clock says"), "{said}");
    }
}

#[tokio::test]
async fn evidence_that_the_registry_has_not_taken_or_has_given_up_is_not_listed() {
    let world = world().await;
    let gateway = world.gateway().await;
    let tried = |announcement: Announcement, gateway: String| async move {
        let (body, header) = signed(&announcement, OWNER, now());
        announce(&gateway, body, header).await
    };
    let bundle = world.bundle(43, world.provider).await;
    let (status, said) = tried(world.announcement_of(&bundle, HOST), gateway.clone()).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("holds no attestation"), "{said}");

    // Taken, and renewed with other evidence.
    world.attest(&bundle, world.registry, 0, 3_600).await;
    let other = cocoon_attestation::Bundle { claims: renewed(&bundle), ..bundle.clone() };
    let (status, said) = tried(world.announcement_of(&other, HOST), gateway.clone()).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("holds other evidence"), "{said}");

    // Taken, and revoked.
    let key = bundle.claims().unwrap().enclave_key;
    ops::revoke(&world.account, &world.provider, &key, false).await.unwrap().success().unwrap();
    let (status, said) = tried(world.announcement_of(&bundle, HOST), gateway.clone()).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("key is retired"), "{said}");

    // Under a Registry that anybody could have made.
    let (registry, provider) = world.elsewhere().await;
    let foreign = world.bundle(44, provider).await;
    world.attest(&foreign, registry, 0, 3_600).await;
    let (status, said) = tried(world.announcement_of(&foreign, HOST), gateway.clone()).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("belongs to the Registry"), "{said}");

    // Under a provider that is none.
    let nowhere = world.bundle(45, cocoon_settlement::Address::basechain([8; 32])).await;
    let (status, said) = tried(world.announcement_of(&nowhere, HOST), gateway.clone()).await;
    assert!(status == StatusCode::FORBIDDEN && said.contains("its provider"), "{said}");
    assert!(listed(&gateway, "").await.is_empty());
}

/// The claims of a renewal: another block, everything else the same.
fn renewed(bundle: &cocoon_attestation::Bundle) -> Vec<u8> {
    let mut claims = bundle.claims().unwrap();
    claims.beacon.seqno += 1;
    claims.to_cbor()
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_ends_nothing() {
    let world = world().await;
    let (gateway, known) = listing(&world).await;
    let cases: Vec<(Announcement, &str)> = vec![
        (Announcement { host_url: "ftp://x".into(), ..known.clone() }, "host_url"),
        (Announcement { host_url: "http://127.0.0.1:9/admin".into(), ..known.clone() }, "host_url"),
        (Announcement { host_url: "http://127.0.0.1:9/admin#".into(), ..known.clone() }, "host_url"),
        (Announcement { host_url: "http://user@127.0.0.1:9".into(), ..known.clone() }, "host_url"),
        (Announcement { host_url: "http://127.0.0.1:9?to=1".into(), ..known.clone() }, "host_url"),
        (Announcement { evidence_id: "zz".into(), ..known.clone() }, "evidence_id"),
        (Announcement { bundle: "?".into(), ..known.clone() }, "base64"),
        (Announcement { bundle: "AAAA".into(), ..known.clone() }, "bundle"),
    ];
    for (announcement, expected) in cases {
        let (body, header) = signed(&announcement, OWNER, now());
        let (status, said) = announce(&gateway, body, header).await;
        assert!(status == StatusCode::BAD_REQUEST && said.contains(expected), "{said}");
    }
    let body = b"{".to_vec();
    let header = Announced::sign(&body, NetworkId::LOCAL, now(), &key(OWNER)).to_header();
    assert_eq!(announce(&gateway, body.clone(), Some(header)).await.0, StatusCode::BAD_REQUEST);
    for header in ["", "x", "1 2 3", "99999999999999999999999 00 00"] {
        assert_eq!(announce(&gateway, body.clone(), Some(header.into())).await.0, StatusCode::UNAUTHORIZED, "{header}");
    }
    let large = vec![b' '; cocoon_gateway::MAX_ANNOUNCEMENT + 1];
    assert_eq!(announce(&gateway, large, None).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(listed(&gateway, "").await, std::slice::from_ref(&known));
    // Everything else may be as its owner likes: clients look for themselves.
    let prices = Prices { prompt: 9, ..known.prices };
    let (body, header) = signed(&Announcement { prices, ..known }, OWNER, now().plus(1));
    assert_eq!(announce(&gateway, body, header).await.0, StatusCode::NO_CONTENT);
}
