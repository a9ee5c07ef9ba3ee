//! Before a client sends anything, enough logs must prove that they hold the evidence as accepted, in a tree that others cosigned and that
//! continues what the client saw before.

mod common;

use cocoon_attestation::{Bundle, UnixTime};
use cocoon_client::{ClientConfig, Error, LogKey};
use cocoon_protocol::identity::SigningKey;
use cocoon_transparency::witness_key;
use cocoon_verifier::Outcome;
use common::{AT, MRTD, World, appraise, bundle, node, platform, statement};

const WITNESS: [u8; 32] = [61; 32];

fn enclave() -> SigningKey {
    SigningKey::from_seed(&[41; 32]).unwrap()
}

async fn registered(world: &World) -> Bundle {
    let claims = world.claims().await;
    let bundle = bundle(&platform(), MRTD, &claims);
    world.register(&claims, bundle.evidence_id().0, AT.plus(86_400)).await;
    bundle
}

/// A log that this client knows for its witness alone: it answers nothing.
fn witness() -> LogKey {
    let witness = witness_key("other.example/witness", &WITNESS).unwrap();
    LogKey {
        url: "http://127.0.0.1:1".into(),
        key: cocoon_transparency::log_key("other.example", &WITNESS).unwrap(),
        witness,
    }
}

async fn reason(config: &ClientConfig, bundle: &Bundle) -> Result<(), String> {
    match appraise(config.clone(), bundle, &statement(bundle, &enclave())).await {
        Ok(_) => Ok(()),
        Err(Error::Refused { check, reason }) if check == "transparency" => Err(reason),
        Err(other) => panic!("{other}"),
    }
}

async fn says(config: &ClientConfig, bundle: &Bundle, what: &str) {
    let reason = reason(config, bundle).await.unwrap_err();
    assert!(reason.contains(what), "{reason}");
}

#[tokio::test]
async fn a_log_proves_that_it_holds_this_evidence_as_accepted() {
    let world = World::new().await;
    let bundle = registered(&world).await;
    let log = world.log(&bundle, [51; 32], Outcome::Accepted);
    let mut config = world.config();
    config.required_logs = 1;
    says(&config, &bundle, "no log is configured").await;
    config.logs = vec![node(log.proof(0, ""), log.key()).await];
    reason(&config, &bundle).await.unwrap();

    let mut elsewhere = bundle.clone();
    elsewhere.gpu.push(vec![1]);
    let other = world.log(&elsewhere, [52; 32], Outcome::Accepted);
    config.logs = vec![node(other.proof(0, ""), other.key()).await];
    says(&config, &bundle, "for other evidence").await;
    let withdrawn = world.log(&bundle, [53; 32], Outcome::Refused);
    config.logs = vec![node(withdrawn.proof(0, ""), withdrawn.key()).await];
    says(&config, &bundle, "does not accept it any more").await;
    let mut forged = log.proof(0, "");
    forged.checkpoint = withdrawn.proof(0, "").checkpoint;
    config.logs = vec![node(forged, log.key()).await];
    says(&config, &bundle, "checkpoint does not hold").await;
    let mut elsewhere = log.proof(0, "");
    elsewhere.leaf_index = 1;
    config.logs = vec![node(elsewhere, log.key()).await];
    says(&config, &bundle, "not proved to be in the log").await;
    // Where no proof is demanded none is asked for.
    config.required_logs = 0;
    reason(&config, &bundle).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_needs_witnesses_of_late() {
    let world = World::new().await;
    let bundle = registered(&world).await;
    let log = world.log(&bundle, [51; 32], Outcome::Accepted);
    let mut config = world.config();
    (config.required_logs, config.required_witnesses) = (1, 1);
    let with = async |lines: &str| vec![node(log.proof(0, lines), log.key()).await, witness()];
    config.logs = with("").await;
    says(&config, &bundle, "cosigned by 0 of 1").await;
    let (line, _) = log.cosignature(WITNESS, AT);
    config.logs = with(&line).await;
    reason(&config, &bundle).await.unwrap();
    for (at, good) in [(AT.0 - 600, true), (AT.0 - 601, false), (AT.0 + 60, true), (AT.0 + 61, false)] {
        let (line, _) = log.cosignature(WITNESS, UnixTime(at));
        config.logs = with(&line).await;
        assert_eq!(reason(&config, &bundle).await.is_ok(), good, "{}", at as i64 - AT.0 as i64);
    }
    // A stranger's cosignature counts for nothing, and neither does the log's own operator's.
    let (stranger, key) = log.cosignature([62; 32], AT);
    config.logs = with(&stranger).await;
    says(&config, &bundle, "cosigned by 0 of 1").await;
    config.logs = vec![LogKey { witness: key, ..node(log.proof(0, &stranger), log.key()).await }];
    says(&config, &bundle, "cosigned by 0 of 1").await;
    // Twice the same witness is one witness.
    config.required_witnesses = 2;
    config.logs = with(&format!("{line}{line}")).await;
    says(&config, &bundle, "cosigned by 1 of 2").await;
}

#[tokio::test]
async fn a_log_that_forks_is_found_out_and_both_its_checkpoints_are_kept() {
    let world = World::new().await;
    let bundle = registered(&world).await;
    let shown = world.log(&bundle, [51; 32], Outcome::Accepted);
    shown.grow(3);
    let mut config = world.config();
    config.required_logs = 1;
    config.logs = vec![node(shown.proof(0, ""), shown.key()).await];
    reason(&config, &bundle).await.unwrap();
    // It grows: every client of the same data folder goes on from what was seen.
    shown.grow(7);
    config.logs = vec![node(shown.proof(4, ""), shown.key()).await];
    reason(&config, &bundle).await.unwrap();
    config.logs = vec![node(shown.proof(0, ""), shown.key()).await];
    reason(&config, &bundle).await.unwrap();

    // The same key, another history: of the same size, longer, and shorter.
    let fork = world.log(&bundle, [51; 32], Outcome::Accepted);
    fork.grow(2);
    for grow in [0, 8, 5] {
        fork.grow(grow);
        config.logs = vec![node(fork.proof(11, ""), fork.key()).await];
        says(&config, &bundle, "shows different histories").await;
    }
    let kept: Vec<_> = std::fs::read_dir(config.data.join("logs"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "split-view"))
        .collect();
    let text = std::fs::read_to_string(&kept[0]).unwrap();
    assert_eq!((kept.len(), text.matches("log.example/one\n").count()), (1, 2), "{text}");
    // An auditor reads both out of it: two trees that the log signed.
    let both = cocoon_transparency::kept_checkpoints(&text);
    let heads: Vec<_> =
        both.iter().map(|note| cocoon_transparency::open_checkpoint(note, &shown.key()).unwrap()).collect();
    assert_eq!(heads.len(), 2);
    assert_ne!(heads[0].root, heads[1].root);
    // The true history still counts.
    config.logs = vec![node(shown.proof(11, ""), shown.key()).await];
    reason(&config, &bundle).await.unwrap();
    // What was seen cannot be tampered with unnoticed.
    let seen = std::fs::read_dir(config.data.join("logs"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seen"))
        .unwrap();
    let text = std::fs::read_to_string(&seen).unwrap();
    let one = cocoon_transparency::kept_checkpoints(&text);
    assert_eq!(
        one.iter()
            .map(|note| cocoon_transparency::open_checkpoint(note, &shown.key()).unwrap().size)
            .collect::<Vec<_>>(),
        [11]
    );
    let text = text.replacen("\n11\n", "\n1\n", 1);
    std::fs::write(&seen, text).unwrap();
    assert!(matches!(cocoon_client::Client::open(config), Err(Error::State(_))));
}
