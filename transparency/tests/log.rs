//! A log keeps what it was given, proves it, and proves nothing else.

use cocoon_attestation::{Bundle, CpuEvidence, Digest, Endorsements, UnixTime};
use cocoon_transparency::{
    Error, Folder, InclusionProof, Leaf, Log, Part, Source as _, TreeHead, layout, open_checkpoint, open_statement,
    read_entries, verify_consistency, verify_inclusion,
};
use cocoon_verifier::{Appraisal, Outcome, Policy, appraise_bundle};
use sha2::{Digest as _, Sha256};

const ORIGIN: &str = "verifier.example/log";
const SEED: [u8; 32] = [7; 32];

fn entry(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes().repeat(1 + number as usize % 7)
}

/// RFC 6962 section 2.1, word for word.
fn root(entries: &[Vec<u8>]) -> [u8; 32] {
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

fn open(folder: &std::path::Path) -> Log {
    Log::open(folder, ORIGIN, SEED).unwrap()
}

fn filled(folder: &std::path::Path, leaves: u64) -> Log {
    let log = open(folder);
    assert_eq!(log.append((0..leaves).map(entry).collect()).unwrap(), 0);
    log
}

fn head(log: &Log) -> TreeHead {
    open_checkpoint(&log.head().unwrap().checkpoint, log.vkey()).unwrap()
}

#[test]
fn every_size_has_the_root_of_rfc_6962_and_proves_every_leaf_and_every_size_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let (mut entries, mut heads) = (Vec::new(), Vec::new());
    for size in 0..=20 {
        let head = head(&log);
        assert_eq!((head.size, head.root.0), (size, root(&entries)));
        heads.push(head.clone());
        for index in 0..size {
            let proof = log.inclusion(index, size).unwrap();
            verify_inclusion(&entry(index), &proof, &head).unwrap();
            let older = log.consistency(index, size).unwrap();
            verify_consistency(&older, &head, &heads[index as usize]).unwrap();
        }
        log.append(vec![entry(size)]).unwrap();
        entries.push(entry(size));
    }
}

#[test]
fn trees_of_several_levels_of_tiles_are_right_however_they_were_appended_and_reopened() {
    let size = 256 * 257 + 300;
    let entries: Vec<_> = (0..size).map(entry).collect();
    let whole = tempfile::tempdir().unwrap();
    let log = filled(whole.path(), size);
    let expected = root(&entries);
    assert_eq!(head(&log).root.0, expected);
    for index in [0, 1, 255, 256, 65_535, 65_536, 65_791, 65_792, 66_047, 66_048, size - 1] {
        verify_inclusion(&entry(index), &log.inclusion(index, size).unwrap(), &head(&log)).unwrap();
        assert_eq!(log.entry(index).unwrap(), entry(index));
    }
    for older in [1_u64, 255, 256, 257, 65_535, 65_536, 65_537, 66_000] {
        let before = TreeHead { size: older, root: Digest(root(&entries[..older as usize])) };
        verify_consistency(&log.consistency(older, size).unwrap(), &head(&log), &before).unwrap();
        // Proofs in an older tree, from the newer log.
        verify_inclusion(&entry(0), &log.inclusion(0, older).unwrap(), &before).unwrap();
    }
    drop(log);
    let pieces = tempfile::tempdir().unwrap();
    let (mut log, mut done, mut step) = (open(pieces.path()), 0, 1);
    while done < entries.len() {
        let next = (done + step).min(entries.len());
        assert_eq!(log.append(entries[done..next].to_vec()).unwrap(), done as u64);
        done = next;
        step = step * 3 % 1_009;
        drop(log);
        log = open(pieces.path());
    }
    assert_eq!(head(&log).root.0, expected);
}

#[test]
fn a_log_is_open_once_and_belongs_to_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path(), 5);
    assert!(matches!(Log::open(folder.path(), ORIGIN, SEED), Err(Error::InUse(_))));
    drop(log);
    assert!(matches!(Log::open(folder.path(), ORIGIN, [8; 32]), Err(Error::OtherLog { .. })));
    assert!(matches!(Log::open(folder.path(), "a b", SEED), Err(Error::Origin(_))));
    assert_eq!(open(folder.path()).size(), 5);
}

#[test]
fn nothing_else_is_proved() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = filled(folder.path(), 6);
    let (proof, six) = (log.inclusion(3, 6).unwrap(), head(&log));
    verify_inclusion(&entry(3), &proof, &six).unwrap();
    let not_proved = |entry: &[u8], proof: &InclusionProof, head: &TreeHead| {
        assert!(matches!(verify_inclusion(entry, proof, head), Err(Error::Proof(_))));
    };
    not_proved(&entry(2), &proof, &six);
    for at in 0..proof.hashes.len() {
        let mut bent = proof.clone();
        bent.hashes[at].0[0] ^= 1;
        not_proved(&entry(3), &bent, &six);
    }
    let mut bent = proof.clone();
    bent.index = 2;
    not_proved(&entry(3), &bent, &six);
    let mut bent = proof.clone();
    bent.tree_size = 5;
    not_proved(&entry(3), &bent, &six);
    let mut bent = proof.clone();
    bent.hashes = vec![Digest([0; 32]); 100];
    not_proved(&entry(3), &bent, &six);
    let checkpoint = log.head().unwrap().checkpoint;
    let forged = checkpoint.replacen("\n6\n", "\n7\n", 1);
    assert!(matches!(open_checkpoint(&forged, log.vkey()), Err(Error::Checkpoint(_))));
    let stranger = Log::open(other.path(), ORIGIN, [8; 32]).unwrap();
    assert!(matches!(open_checkpoint(&checkpoint, stranger.vkey()), Err(Error::Checkpoint(_))));
    assert!(matches!(open_checkpoint(&checkpoint, "x"), Err(Error::VerifierKey(_))));
    assert!(matches!(log.inclusion(6, 6), Err(Error::NoLeaf { index: 6, size: 6 })));
    assert!(matches!(log.inclusion(3, 7), Err(Error::NoLeaf { .. })));
    assert!(matches!(log.consistency(3, 7), Err(Error::NoLeaf { .. })));
    assert!(matches!(log.entry(6), Err(Error::NoLeaf { index: 6, size: 6 })));
    assert!(matches!(log.append(vec![vec![0; 65_536]]), Err(Error::Leaf(_))));
    assert_eq!(log.size(), 6);
}

#[test]
fn statements_are_signed_by_the_log_and_are_no_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path(), 1);
    let note = log.state(&["refused", "because\nof this"]).unwrap();
    assert_eq!(open_statement(&note, log.vkey()).unwrap(), ["refused", "because of this"]);
    assert!(open_statement(&note.replace("refused", "accepted"), log.vkey()).is_err());
    assert!(open_checkpoint(&note, log.vkey()).is_err());
    assert!(open_statement(&log.head().unwrap().checkpoint, log.vkey()).is_err());
    let as_head = log.state(&["1", "AAAA"]).unwrap();
    assert!(open_checkpoint(&as_head, log.vkey()).is_err());
    assert!(matches!(Log::open(folder.path(), "cocoon/statement/v1", SEED), Err(Error::Origin(_))));
}

#[test]
fn a_tree_that_forgets_or_forks_is_not_consistent() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = filled(folder.path(), 6);
    let six = head(&log);
    log.append((6..12).map(entry).collect()).unwrap();
    let twelve = head(&log);
    let fork = open(other.path());
    fork.append((0..12).map(|number| entry(number + 1)).collect()).unwrap();
    let proof = log.consistency(6, 12).unwrap();
    verify_consistency(&proof, &twelve, &six).unwrap();
    for (proof, newer, older) in [
        (&proof, &head(&fork), &six),
        (&fork.consistency(6, 12).unwrap(), &head(&fork), &six),
        (&Vec::new(), &six, &twelve),
        (&Vec::new(), &head(&fork), &twelve),
        (&vec![Digest([0; 32]); 100], &twelve, &six),
    ] {
        assert!(verify_consistency(proof, newer, older).is_err());
    }
}

/// What is published can be read from the folder alone, as any web server would give it.
#[test]
fn published_files_are_those_of_c2sp() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path(), 258);
    let head = log.head().unwrap();
    log.publish(&head, &[]).unwrap();
    let files = Folder(folder.path().join("public"));
    let read = |name: &str| files.read(name).unwrap();
    assert_eq!(read("checkpoint").unwrap(), head.checkpoint.as_bytes());
    let full = read("tile/0/000").unwrap();
    assert_eq!((full.len(), &full[..32]), (256 * 32, root(&[entry(0)]).as_slice()));
    assert_eq!(read("tile/0/001.p/2").unwrap().len(), 64);
    assert_eq!(read("tile/1/000.p/1").unwrap().len(), 32);
    let entries = read("tile/entries/001.p/2").unwrap();
    assert_eq!(read_entries(&entries, 2).unwrap(), [entry(256), entry(257)]);
    assert!(read_entries(&entries, 1).is_err());
    assert!(read_entries(&entries[..entries.len() - 1], 2).is_err());
    let all = read("tile/entries/000").unwrap();
    assert_eq!(read_entries(&all, 256).unwrap()[255], entry(255));
    for absent in ["tile/0/001", "tile/0/001.p/3", "tile/2/000.p/1", "../owner", "owner"] {
        assert_eq!(read(absent), None, "{absent}");
    }
    // An older tree's unfinished tiles stay until the one after the next is published.
    let publish = |number| {
        log.append(vec![entry(number)]).unwrap();
        log.publish(&log.head().unwrap(), &[]).unwrap();
    };
    publish(258);
    assert!(read("tile/0/001.p/2").is_some());
    publish(259);
    assert!(read("tile/0/001.p/2").is_none());
    assert!(read("tile/0/001.p/3").is_some() && read("tile/0/001.p/4").is_some() && read("tile/1/000.p/1").is_some());
    assert!(read("tile/entries/001.p/4").is_some() && read("tile/entries/001.p/2").is_none());
}

#[test]
fn parts_stand_beside_the_tree_once_and_are_what_their_name_says() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let bytes = vec![5; 100_000];
    let digest = Digest::of(&[&bytes]);
    assert!(matches!(log.files().part(&digest), Err(Error::Part(_, "is not there"))));
    log.add_parts([(digest, bytes.as_slice()), (digest, bytes.as_slice())]).unwrap();
    assert_eq!(log.files().part(&digest).unwrap(), bytes);
    std::fs::write(folder.path().join("public").join(layout::part(&digest)), b"other").unwrap();
    assert!(matches!(log.files().part(&digest), Err(Error::Part(_, "has another SHA-256"))));
}

fn appraisal() -> Appraisal {
    let appraisal = appraise_bundle(b"no bundle", &Policy::default(), None, UnixTime(7)).appraisal;
    Appraisal { outcome: Outcome::Refused, reason: "tdx.debug: no".into(), checks: Vec::new(), ..appraisal }
}

fn bundle(gpu: Vec<Vec<u8>>) -> Bundle {
    Bundle {
        claims: vec![1; 200],
        cpu: CpuEvidence::Tdx { quote: vec![2; 5_000] },
        gpu,
        event_log: None,
        endorsements: Endorsements::Tdx { collateral: vec![3; 30_000] },
        gpu_endorsements: Default::default(),
    }
}

#[test]
fn leaves_give_their_bundle_back_and_fit_an_entry_however_long_the_bundle_is() {
    for (gpu, shared) in [(Vec::new(), 1), (vec![vec![4; 50_000]; 3], 3)] {
        let bundle = bundle(gpu);
        let mut appraisal = appraisal();
        appraisal.reason = "x".repeat(if shared == 1 { 4_000 } else { 40_000 });
        let (mut leaf, parts) = Leaf::new(&bundle, &appraisal, UnixTime(7), Digest([9; 32]));
        leaf.node = "node".into();
        leaf.refusal = Some("\u{e9}".repeat(1_000));
        let entry = leaf.to_cbor();
        assert!(entry.len() < 65_536);
        let read = Leaf::from_cbor(&entry).unwrap();
        assert_eq!(read.refusal.as_ref().unwrap().len(), 1_024, "cut at a character");
        let lookup = |digest: &Digest| parts.iter().find(|(name, _)| name == digest).map(|(_, bytes)| bytes.clone());
        assert_eq!(parts.len(), shared);
        assert_eq!(read.open_bundle(lookup).unwrap(), bundle);
        assert_eq!(read.appraisal.bytes(lookup).unwrap(), serde_json::to_vec(&appraisal).unwrap());
        assert_eq!(read.outcome, Outcome::Refused);
        let wrong = |_: &Digest| Some(vec![0]);
        assert!(read.open_bundle(wrong).is_err());
        assert!(read.open_bundle(|_| None).is_err());
        let mut other = read.clone();
        other.evidence_id.0.0[0] ^= 1;
        assert!(matches!(other.open_bundle(lookup), Err(Error::Leaf(_))));
    }
}

#[test]
fn what_is_said_of_accepted_evidence_is_stored_once() {
    let leaf = |outcome, report_data: &str| {
        let mut appraisal = Appraisal { outcome, ..appraisal() };
        appraisal.measurements.insert("tdx.mrtd".into(), "11".into());
        appraisal.measurements.insert("tdx.report-data".into(), report_data.to_owned());
        let (leaf, parts) = Leaf::new(&bundle(Vec::new()), &appraisal, UnixTime(7), Digest([9; 32]));
        let lookup = |digest: &Digest| parts.iter().find(|(name, _)| name == digest).map(|(_, bytes)| bytes.clone());
        let recorded: Appraisal = serde_json::from_slice(&leaf.appraisal.bytes(lookup).unwrap()).unwrap();
        assert_eq!(recorded, appraisal.recorded());
        (leaf.appraisal.clone(), Leaf::from_cbor(&leaf.to_cbor()).unwrap().appraisal)
    };
    let (first, read) = leaf(Outcome::Accepted, "22");
    assert!(matches!(first, Part::Shared(_)) && first == read);
    assert_eq!(leaf(Outcome::Accepted, "33").0, first);
    assert!(matches!(leaf(Outcome::Refused, "22").0, Part::Inline(_)));
}

/// `docs/vectors/log-leaf.json`: what a leaf is made of and its bytes.
#[test]
fn the_leafs_vector_holds() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/log-leaf.json");
    let bundle = Bundle { cpu: CpuEvidence::Snp { report: vec![2; 8] }, claims: vec![1; 8], ..bundle(Vec::new()) };
    let bundle = Bundle { endorsements: Endorsements::None, ..bundle };
    let (mut leaf, _) = Leaf::new(&bundle, &appraisal(), UnixTime(1_790_000_000), Digest([9; 32]));
    leaf.node = "node.example/log".into();
    leaf.verifier = "cocoon-verifier 0.1.0".into();
    leaf.references = Some(Digest([8; 32]));
    leaf.refusal = Some("the Registry does not allow the image".into());
    let hash: [u8; 32] = root(&[leaf.to_cbor()]);
    let vector = serde_json::json!({
        "claims": hex::encode(&bundle.claims),
        "report": hex::encode(bundle.cpu.as_bytes()),
        "appraisal": serde_json::to_string(&appraisal()).unwrap(),
        "outcome": leaf.outcome.exit_code(),
        "time": leaf.time.0,
        "node": leaf.node,
        "verifier": leaf.verifier,
        "policy": leaf.policy.to_string(),
        "references": leaf.references.map(|references| references.to_string()),
        "refusal": leaf.refusal,
        "leaf": hex::encode(leaf.to_cbor()),
        "hash": hex::encode(hash),
    });
    if std::env::var_os("WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&vector).unwrap() + "\n").unwrap();
    }
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(kept, vector);
    assert_eq!(Leaf::from_cbor(&hex::decode(kept["leaf"].as_str().unwrap()).unwrap()).unwrap(), leaf);
}
