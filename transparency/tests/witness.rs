//! A witness cosigns one history of a log, whatever the log shows to others.

use cocoon_attestation::{Digest, UnixTime};
use cocoon_transparency::{AddCheckpoint, Error, Log, Witness, WitnessError, open_cosigned};

const NOW: UnixTime = UnixTime(1_790_000_000);

fn log(folder: &std::path::Path, entries: &[&str]) -> Log {
    let log = Log::open(folder, "log.example", [7; 32]).unwrap();
    log.append(entries.iter().map(|entry| entry.as_bytes().to_vec()).collect()).unwrap();
    log
}

fn ask(log: &Log, old: u64) -> String {
    let head = log.head().unwrap();
    AddCheckpoint { old, proof: log.consistency(old, head.tree.size).unwrap(), checkpoint: head.checkpoint }.to_text()
}

struct World {
    folder: tempfile::TempDir,
    log: Log,
    witness: Witness,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder.path().join("log"), &["a", "b", "c"]);
        let witness = open(&folder, &log);
        Self { folder, log, witness }
    }
}

fn open(folder: &tempfile::TempDir, log: &Log) -> Witness {
    Witness::open(&folder.path().join("witness.redb"), "witness.example", &[8; 32], &[log.vkey().into()]).unwrap()
}

#[test]
fn what_continues_is_cosigned_and_counts_for_whoever_knows_the_witness() {
    let World { log, witness, .. } = World::new();
    let line = witness.add_checkpoint(&ask(&log, 0), NOW).unwrap();
    let checkpoint = log.head().unwrap().checkpoint + &line;
    let keys = [witness.vkey()];
    let opened = open_cosigned(&checkpoint, log.vkey(), &keys).unwrap();
    assert_eq!((opened.head.size, opened.witnesses), (3, vec![(0, NOW)]));
    // Named twice it still counts once; unnamed it does not count, nor does it harm.
    assert_eq!(open_cosigned(&checkpoint, log.vkey(), &[keys[0], keys[0]]).unwrap().witnesses.len(), 1);
    assert!(open_cosigned(&checkpoint, log.vkey(), &[] as &[&str]).unwrap().witnesses.is_empty());
    // Another time, another tree, another signature: not the witness's.
    let forged = checkpoint.replacen("\n3\n", "\n4\n", 1);
    assert!(matches!(open_cosigned(&forged, log.vkey(), &keys), Err(Error::Checkpoint(_))));
    let mut line = line.into_bytes();
    let at = line.len() - 5;
    line[at] = if line[at] == b'A' { b'B' } else { b'A' };
    let bent = log.head().unwrap().checkpoint + std::str::from_utf8(&line).unwrap();
    assert!(matches!(open_cosigned(&bent, log.vkey(), &keys), Err(Error::Checkpoint(_))));
    // A cosignature alone is no checkpoint of the log.
    let (text, _) = checkpoint.split_once("\n\n").unwrap();
    let alone = format!("{text}\n\n{}", witness.add_checkpoint(&ask(&log, 3), NOW).unwrap());
    assert!(matches!(open_cosigned(&alone, log.vkey(), &keys), Err(Error::Checkpoint(_))));
    assert!(matches!(open_cosigned(&checkpoint, log.vkey(), &[log.vkey()]), Err(Error::VerifierKey(_))));
    // The same tree again, later; and growth from there.
    log.append(vec![b"d".to_vec()]).unwrap();
    witness.add_checkpoint(&ask(&log, 3), NOW.plus(60)).unwrap();
    assert_eq!(witness.seen(log.vkey()).unwrap().size, 4);
}

#[test]
fn a_fork_a_forgotten_leaf_and_a_stale_request_are_not_cosigned_even_after_a_restart() {
    let World { folder, log: honest, witness } = World::new();
    witness.add_checkpoint(&ask(&honest, 0), NOW).unwrap();
    drop(witness);
    let witness = open(&folder, &honest);
    let fork = log(&folder.path().join("fork"), &["a", "B", "c"]);
    let shorter = log(&folder.path().join("shorter"), &["a", "b"]);
    let conflict = |answer: Result<String, WitnessError>| assert!(matches!(answer, Err(WitnessError::Conflict(3))));
    conflict(witness.add_checkpoint(&ask(&fork, 0), NOW));
    conflict(witness.add_checkpoint(&ask(&fork, 3), NOW));
    conflict(witness.add_checkpoint(&ask(&shorter, 2), NOW));
    fork.append(vec![b"d".to_vec()]).unwrap();
    assert!(matches!(witness.add_checkpoint(&ask(&fork, 3), NOW), Err(WitnessError::Inconsistent(_))));
    let back = AddCheckpoint { old: 3, proof: Vec::new(), checkpoint: shorter.head().unwrap().checkpoint };
    assert!(matches!(witness.add_checkpoint(&back.to_text(), NOW), Err(WitnessError::Malformed)));
    honest.append(vec![b"d".to_vec(), b"e".to_vec()]).unwrap();
    let mut bent = AddCheckpoint::from_text(&ask(&honest, 3)).unwrap();
    bent.proof[0] = Digest([0; 32]);
    assert!(matches!(witness.add_checkpoint(&bent.to_text(), NOW), Err(WitnessError::Inconsistent(_))));
    witness.add_checkpoint(&ask(&honest, 3), NOW).unwrap();
}

#[test]
fn strangers_and_garbage_get_the_status_that_c2sp_says() {
    let World { folder, log: known, witness } = World::new();
    let other = Log::open(&folder.path().join("other"), "other.example", [7; 32]).unwrap();
    assert!(matches!(witness.add_checkpoint(&ask(&other, 0), NOW), Err(WitnessError::UnknownLog(_))));
    let liar = Log::open(&folder.path().join("liar"), "log.example", [9; 32]).unwrap();
    assert!(matches!(witness.add_checkpoint(&ask(&liar, 0), NOW), Err(WitnessError::Untrusted(_))));
    let good = ask(&known, 0);
    for cut in 0..good.len() - 1 {
        if good.is_char_boundary(cut) {
            assert!(witness.add_checkpoint(&good[..cut], NOW).is_err(), "{cut}");
        }
    }
    for text in ["", "old", "old x\n\n", "old -1\n\nx", "old 0\nAAAA\n\nx", "new 0\n\nx"] {
        assert!(witness.add_checkpoint(text, NOW).is_err(), "{text}");
    }
    assert_eq!(witness.seen(known.vkey()).unwrap().size, 0);
    assert_eq!(AddCheckpoint::from_text(&good).unwrap().to_text(), good);
}
