//! A log keeps what it was given, proves it, and proves nothing else.

use cocoon_attestation::UnixTime;
use cocoon_transparency::{Error, Leaf, Log, entry, open_checkpoint, verify_inclusion};
use sha2::{Digest as _, Sha256};

const ORIGIN: &str = "verifier.example/log";

fn leaf(number: u64) -> Leaf {
    // Longer than a C2SP entry may be.
    Leaf { bundle: vec![number as u8; 70_000], appraisal: b"{}".to_vec(), time: UnixTime(number), node: "one".into() }
}

/// RFC 6962 section 2.1, word for word.
fn root(entries: &[[u8; 32]]) -> [u8; 32] {
    match entries {
        [] => Sha256::digest([]).into(),
        [one] => Sha256::new().chain_update([0]).chain_update(one).finalize().into(),
        more => {
            let split = more.len().next_power_of_two() / 2;
            let (left, right) = (root(&more[..split]), root(&more[split..]));
            Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
        }
    }
}

fn filled(folder: &std::path::Path, leaves: u64) -> Log {
    let log = Log::open(folder, ORIGIN, [7; 32]).unwrap();
    (0..leaves).for_each(|number| assert_eq!(log.append(&leaf(number)).unwrap(), number));
    log
}

#[test]
fn every_size_has_the_root_of_rfc_6962_and_proves_every_leaf() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), ORIGIN, [7; 32]).unwrap();
    let mut entries = Vec::new();
    for size in 0..=20 {
        let head = open_checkpoint(&log.checkpoint().unwrap(), log.vkey()).unwrap();
        assert_eq!((head.size, head.root.0), (size, root(&entries)));
        for index in 0..size {
            let (proof, checkpoint) = log.inclusion(index).unwrap();
            verify_inclusion(&leaf(index).to_cbor(), &proof, &checkpoint, log.vkey()).unwrap();
        }
        log.append(&leaf(size)).unwrap();
        entries.push(entry(&leaf(size).to_cbor()).0);
    }
}

#[test]
fn a_reopened_log_goes_on_with_the_same_tree() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = filled(folder.path(), 5).checkpoint().unwrap();
    let log = Log::open(folder.path(), ORIGIN, [7; 32]).unwrap();
    assert_eq!(log.checkpoint().unwrap(), before);
    assert_eq!(Leaf::from_cbor(&log.leaf(4).unwrap()).unwrap(), leaf(4));
    assert_eq!(log.append(&leaf(5)).unwrap(), 5);
    assert_eq!(log.checkpoint().unwrap(), filled(whole.path(), 6).checkpoint().unwrap());
    drop(log);
    assert!(matches!(Log::open(folder.path(), ORIGIN, [8; 32]), Err(Error::OtherLog { .. })));
}

#[test]
fn nothing_else_is_proved() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = filled(folder.path(), 6);
    let (proof, checkpoint) = log.inclusion(3).unwrap();
    let bytes = leaf(3).to_cbor();
    verify_inclusion(&bytes, &proof, &checkpoint, log.vkey()).unwrap();

    let mut altered = bytes.clone();
    altered[100] ^= 1;
    assert!(matches!(verify_inclusion(&altered, &proof, &checkpoint, log.vkey()), Err(Error::Proof(_))));
    for at in 0..proof.hashes.len() {
        let mut bent = proof.clone();
        bent.hashes[at].0[0] ^= 1;
        assert!(matches!(verify_inclusion(&bytes, &bent, &checkpoint, log.vkey()), Err(Error::Proof(_))));
    }
    let mut bent = proof.clone();
    bent.index = 2;
    assert!(matches!(verify_inclusion(&bytes, &bent, &checkpoint, log.vkey()), Err(Error::Proof(_))));
    let mut bent = proof.clone();
    bent.tree_size = 5;
    assert!(matches!(verify_inclusion(&bytes, &bent, &checkpoint, log.vkey()), Err(Error::Proof(_))));
    let forged = checkpoint.replacen("\n6\n", "\n7\n", 1);
    assert!(matches!(verify_inclusion(&bytes, &proof, &forged, log.vkey()), Err(Error::Checkpoint(_))));
    let stranger = Log::open(other.path(), ORIGIN, [8; 32]).unwrap();
    assert!(matches!(verify_inclusion(&bytes, &proof, &checkpoint, stranger.vkey()), Err(Error::Checkpoint(_))));
    assert!(matches!(verify_inclusion(&bytes, &proof, &checkpoint, "x"), Err(Error::VerifierKey(_))));
    assert!(matches!(log.inclusion(6), Err(Error::NoLeaf { index: 6, size: 6 })));
}

#[test]
fn tiles_are_those_of_c2sp() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path(), 258);
    let full = log.tile("tile/0/000").unwrap().unwrap();
    assert_eq!(full.len(), 256 * 32);
    let first: [u8; 32] = root(&[entry(&leaf(0).to_cbor()).0]);
    assert_eq!(full[..32], first);
    assert_eq!(log.tile("tile/0/001.p/2").unwrap().unwrap().len(), 64);
    assert_eq!(log.tile("tile/1/000.p/1").unwrap().unwrap().len(), 32);
    let entries = log.tile("tile/entries/001.p/2").unwrap().unwrap();
    assert_eq!(entries.len(), 2 * 34);
    assert_eq!(entries[2..34], entry(&leaf(256).to_cbor()).0);
    for absent in [
        "tile/0/001",
        "tile/0/001.p/3",
        "tile/2/000.p/1",
        "tile/8/data/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/x",
        "x",
    ] {
        assert_eq!(log.tile(absent).unwrap(), None, "{absent}");
    }
}

/// `docs/vectors/log-leaf.json`: what a leaf is made of, its bytes and its entry.
#[test]
fn the_leafs_vector_holds() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/log-leaf.json");
    let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let hex = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
    let leaf = Leaf {
        bundle: hex("bundle"),
        appraisal: vector["appraisal"].as_str().unwrap().as_bytes().to_vec(),
        time: UnixTime(vector["time"].as_u64().unwrap()),
        node: vector["node"].as_str().unwrap().into(),
    };
    assert_eq!(hex::encode(leaf.to_cbor()), vector["leaf"].as_str().unwrap());
    assert_eq!(Leaf::from_cbor(&hex("leaf")).unwrap(), leaf);
    assert_eq!(hex::encode(entry(&leaf.to_cbor()).0), vector["entry"].as_str().unwrap());
}
