//! Replay of logs whose files, checkpoints or copies are not what they should be. What is in the leaves is the business of `tests/fleet.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_transparency::replay::{self, Finding, Gravity, Job, Kind, LogInput, LogResult, State};
use cocoon_transparency::{
    AddCheckpoint, Error, Folder, Leaf, Log, Part, Source, TreeHead, Witness, log_key, open_checkpoint,
};
use cocoon_verifier::{Outcome, Verifier};
use signed_note::{Note, StandardSigner};
use tlog_tiles::{Checkpoint, Hash};

const ORIGIN: &str = "log.example";
const SEED: [u8; 32] = [7; 32];
/// What a wrong hash of a leaf comes to: no entry has it, and tiles above it and the root are others.
const ASTRAY: [Kind; 3] = [Kind::MissingLeaf, Kind::TileDiffers, Kind::RootDiffers];

fn key() -> String {
    log_key(ORIGIN, &SEED).unwrap()
}

/// A log of entries, published.
fn log(folder: &Path, entries: impl IntoIterator<Item = Vec<u8>>) -> Log {
    let log = Log::open(folder, ORIGIN, SEED).unwrap();
    log.append(entries.into_iter().collect()).unwrap();
    log.publish(&log.head().unwrap(), &[]).unwrap();
    log
}

/// Entries that are no leaves, `from` to `to`.
fn plain(from: u64, to: u64) -> impl Iterator<Item = Vec<u8>> {
    (from..to).map(|n| format!("entry {n}").into_bytes())
}

fn leaf(n: u64, time: u64) -> Leaf {
    Leaf {
        evidence_id: EvidenceId(Digest::of(&[&n.to_be_bytes()])),
        outcome: Outcome::Accepted,
        bundle: Part::Inline(vec![1]),
        appraisal: Part::Inline(b"{}".to_vec()),
        refusal: None,
        time: UnixTime(time),
        node: "node".into(),
        verifier: replay::VERIFIER.into(),
        policy: Digest([9; 32]),
        references: None,
    }
}

/// Signs a checkpoint of anything, as a log can.
fn signed(size: u64, root: Digest) -> String {
    let key = key();
    let id = key.split('+').nth(1).unwrap();
    let secret = base64_of(&[&[1], SEED.as_slice()].concat());
    let signer = StandardSigner::new(&format!("PRIVATE+KEY+{ORIGIN}+{id}+{secret}")).unwrap();
    let head = Checkpoint::new(ORIGIN, size, Hash(root.0), "").unwrap();
    let mut note = Note::new(&head.to_bytes(), &[]).unwrap();
    note.add_sigs(&[&signer]).unwrap();
    String::from_utf8(note.to_bytes()).unwrap()
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// What is made of a file that is read: itself, something else, or nothing.
type Lie = Box<dyn Fn(&str, Option<Vec<u8>>) -> Option<Vec<u8>> + Send + Sync>;

/// What is made of a file's bytes.
type Alter = fn(Vec<u8>) -> Option<Vec<u8>>;

/// A folder that does not show its files as they are.
struct Lying {
    folder: Folder,
    lie: Lie,
}

impl Source for Lying {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok((self.lie)(name, self.folder.read(name)?))
    }
}

fn public(folder: &Path) -> Folder {
    Folder(folder.join("public"))
}

/// A copy in which one file is absent.
fn without(folder: &Path, name: &str) -> Lying {
    let name = name.to_owned();
    Lying { folder: public(folder), lie: Box::new(move |asked, file| file.filter(|_| asked != name)) }
}

fn replay(source: &(dyn Source + Sync), state: &State, witnesses: &[String], checkpoints: &[String]) -> LogResult {
    let (verifier, stop) = (Verifier::default(), AtomicBool::new(false));
    let input = LogInput { source, key: &key(), witnesses, checkpoints, from: 0 };
    replay::replay(&input, state, &Job { jobs: 2, verifier: &verifier, progress: &|_, _| {}, stop: &stop }).unwrap()
}

fn findings(result: &LogResult, state: &State) -> Vec<Finding> {
    let mut all = result.findings.clone();
    state.findings(|finding| all.push(finding)).unwrap();
    // What is counted is what there is.
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    all.iter().for_each(|finding| *counts.entry(finding.kind.name().to_owned()).or_default() += 1);
    assert_eq!(counts, result.totals.findings.0);
    all
}

/// Kinds that were found, but for entries that are no leaves, which all of the plain ones are.
fn kinds(result: &LogResult, state: &State) -> BTreeSet<Kind> {
    findings(result, state).iter().map(|finding| finding.kind).filter(|kind| *kind != Kind::MalformedLeaf).collect()
}

fn found(source: &(dyn Source + Sync), checkpoints: &[String]) -> BTreeSet<Kind> {
    let state = State::in_memory().unwrap();
    kinds(&replay(source, &state, &[], checkpoints), &state)
}

/// A checkpoint of the same log over another history.
fn fork(size: u64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path(), plain(0, size - 1).chain([b"another".to_vec()]));
    log.head().unwrap().checkpoint
}

#[test]
fn a_split_view_is_not_hidden_by_a_tile_that_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), plain(0, 700));
    let (whole, other) = (public(folder.path()), fork(300));
    assert_eq!(found(&whole, &[]), BTreeSet::new());
    assert_eq!(found(&whole, std::slice::from_ref(&other)), BTreeSet::from([Kind::SplitView]));
    // The tile at the end of the tree that was shown to somebody else.
    let hiding = without(folder.path(), "tile/0/001");
    assert_eq!(found(&hiding, std::slice::from_ref(&other)), BTreeSet::from([Kind::SplitView, Kind::TileDiffers]));
    // Nor if it is taken away when all of it was replayed already.
    let state = State::in_memory().unwrap();
    assert_eq!(kinds(&replay(&whole, &state, &[], &[]), &state), BTreeSet::new());
    let later = replay(&hiding, &state, &[], std::slice::from_ref(&other));
    assert_eq!(kinds(&later, &state), BTreeSet::from([Kind::SplitView, Kind::TileDiffers]));
}

#[test]
fn where_nothing_proves_that_a_log_continues_what_it_signed_that_is_found() {
    let folder = tempfile::tempdir().unwrap();
    // Long enough for a replay to go on without the tile that is taken away.
    log(folder.path(), plain(0, 66_000));
    let (whole, other) = (public(folder.path()), fork(300));
    let hiding = without(folder.path(), "tile/0/001");
    let state = State::in_memory().unwrap();
    assert_eq!(kinds(&replay(&whole, &state, &[], &[]), &state), BTreeSet::new());
    let later = replay(&hiding, &state, &[], std::slice::from_ref(&other));
    assert_eq!(kinds(&later, &state), BTreeSet::from([Kind::TileDiffers]));
    assert_eq!(later.findings[0].evidence.len(), 2, "both checkpoints");
    // And what it showed is not forgotten.
    assert_eq!(kinds(&replay(&whole, &state, &[], &[]), &state), BTreeSet::from([Kind::SplitView]));
}

#[test]
fn every_file_of_hashes_is_there_and_is_what_the_leaves_make_it() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), plain(0, 700));
    for name in ["tile/0/000", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2"] {
        let lies: [(&str, Alter); 2] =
            [("absent", |_| None), ("short", |bytes| Some(bytes[..bytes.len() - 32].to_vec()))];
        for (what, lie) in lies {
            let lie = move |asked: &str, file: Option<Vec<u8>>| if asked == name { lie(file?) } else { file };
            let source = Lying { folder: public(folder.path()), lie: Box::new(lie) };
            let state = State::in_memory().unwrap();
            let result = replay(&source, &state, &[], &[]);
            assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::TileDiffers]), "{name} {what}");
            assert!(result.whole, "{name} {what}: the entries make the tree all the same");
        }
    }
    // Another hash at a higher level leads elsewhere, and at the lowest to another tree.
    let altered = |name: &'static str| Lying {
        folder: public(folder.path()),
        lie: Box::new(move |asked, file| {
            file.map(|mut bytes| {
                bytes[40] ^= u8::from(asked == name);
                bytes
            })
        }),
    };
    assert_eq!(found(&altered("tile/1/000.p/2"), &[]), BTreeSet::from([Kind::TileDiffers]));
    assert_eq!(found(&altered("tile/0/000"), &[]), ASTRAY.into());
}

#[test]
fn what_another_copy_need_not_show_is_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    // More than a tile of the second level.
    log(folder.path(), plain(0, 66_000));
    let whole = public(folder.path());
    let state = State::in_memory().unwrap();
    let good = replay(&whole, &state, &[], &[]);
    assert_eq!(findings(&good, &state).len(), 66_000, "none of them is a leaf");
    for (name, kind) in [
        ("tile/1/000", Kind::TileDiffers),
        ("tile/0/007", Kind::TileDiffers),
        ("tile/0/255", Kind::TileDiffers),
        ("tile/entries/009", Kind::MissingLeaf),
        ("tile/entries/257.p/208", Kind::MissingLeaf),
    ] {
        let state = State::in_memory().unwrap();
        let bad = replay(&without(folder.path(), name), &state, &[], &[]);
        assert_eq!(kinds(&bad, &state), BTreeSet::from([kind]), "{name}");
        let still = replay(&without(folder.path(), name), &state, &[], &[]);
        assert_eq!((still.totals.clone(), kinds(&still, &state)), (bad.totals, BTreeSet::from([kind])), "{name}");
        let mended = replay(&whole, &state, &[], &[]);
        assert_eq!(kinds(&mended, &state), BTreeSet::new(), "{name}");
        assert_eq!(mended.totals, good.totals, "{name}");
        assert_eq!(findings(&mended, &state).len(), 66_000);
    }
}

#[test]
fn a_tile_that_is_looked_at_again_is_held_against_the_tree_that_it_made() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), plain(0, 66_000));
    let whole = public(folder.path());
    // Entries of another log, with hashes that fit them.
    let other = tempfile::tempdir().unwrap();
    log(other.path(), plain(100_000, 100_000 + 66_000));
    let other = public(other.path());
    let forged = Lying {
        folder: public(folder.path()),
        lie: Box::new(move |asked, file| match asked {
            "tile/0/005" | "tile/entries/005" => other.read(asked).unwrap(),
            _ => file,
        }),
    };
    let state = State::in_memory().unwrap();
    let lost = replay(&without(folder.path(), "tile/entries/005"), &state, &[], &[]);
    assert_eq!(kinds(&lost, &state), BTreeSet::from([Kind::MissingLeaf]));
    for _ in 0..2 {
        let result = replay(&forged, &state, &[], &[]);
        assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::TileDiffers]));
    }
    let good = replay(&whole, &State::in_memory().unwrap(), &[], &[]);
    let mended = replay(&whole, &state, &[], &[]);
    assert_eq!((kinds(&mended, &state), mended.totals), (BTreeSet::new(), good.totals));
}

#[test]
fn two_findings_about_one_leaf_are_two() {
    let folder = tempfile::tempdir().unwrap();
    // Every second leaf is dated long before the one in front of it, and the policy of none of them is there.
    let leaves = (0..600).map(|n| leaf(n, 1_790_000_000 - n % 2 * 100_000).to_cbor());
    log(folder.path(), leaves);
    let state = State::in_memory().unwrap();
    let result = replay(&public(folder.path()), &state, &[], &[]);
    let found = findings(&result, &state);
    let of = |kind| found.iter().filter(|finding| finding.kind == kind).count();
    assert_eq!((of(Kind::PartMissing), of(Kind::TimeGoesBack), found.len()), (600, 300, 900));
    for leaf in 0..600 {
        let of: Vec<_> = found.iter().filter(|finding| finding.leaf == Some(leaf)).collect();
        assert_eq!(of.len() as u64, 1 + leaf % 2, "{of:?}");
    }
    assert!(result.whole);
    // Once more comes to the same.
    let again = replay(&public(folder.path()), &state, &[], &[]);
    assert_eq!((again.totals.clone(), findings(&again, &state).len()), (result.totals, 900));
}

#[test]
fn a_policy_that_this_version_cannot_read_is_not_one_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("# {}\n", "x".repeat(70_000)).into_bytes();
    let unknown = b"no-such-key = \"\x1b[2J<b>\"\n".to_vec();
    let documents = [unknown, long, vec![0xff; 10]].map(|bytes| (Digest::of(&[&bytes]), bytes));
    let entries = documents.iter().zip(0..).map(|((policy, _), n)| Leaf { policy: *policy, ..leaf(n, 7) }.to_cbor());
    let log = log(folder.path(), entries);
    log.add_parts(documents.iter().map(|(digest, bytes)| (*digest, bytes.as_slice()))).unwrap();
    let state = State::in_memory().unwrap();
    let result = replay(&public(folder.path()), &state, &[], &[]);
    let found = findings(&result, &state);
    assert_eq!(found.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::DocumentNotRead; 3]);
    assert!(found.iter().all(|finding| finding.detail.len() < 1_000 && finding.gravity == Gravity::Note), "{found:?}");
    assert!(found[1].detail.contains("more than 65536"), "{found:?}");
    assert!(state.logged(&Digest::of(&[&0u64.to_be_bytes()])).unwrap().iter().all(|leaf| !leaf.confirmed));
}

#[test]
fn a_checkpoint_that_the_log_did_not_sign_is_found_and_nothing_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), plain(0, 5));
    let bad: [(&str, Lie); 3] = [
        ("absent", Box::new(|name, file| file.filter(|_| name != "checkpoint"))),
        (
            "altered",
            Box::new(|name, file| {
                let text = String::from_utf8(file?).ok()?;
                Some(if name == "checkpoint" { text.replacen("\n5\n", "\n4\n", 1) } else { text }.into_bytes())
            }),
        ),
        (
            "too long",
            Box::new(|name, file| {
                let mut file = file?;
                if name == "checkpoint" {
                    file.resize(70_000, b'\n');
                }
                Some(file)
            }),
        ),
    ];
    for (what, lie) in bad {
        let state = State::in_memory().unwrap();
        let result = replay(&Lying { folder: public(folder.path()), lie }, &state, &[], &[]);
        assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::BadCheckpoint]), "{what}");
        assert_eq!((result.size, result.root, result.whole), (0, None, false), "{what}");
    }
}

#[test]
fn a_cosignature_that_is_none_is_not_the_logs_fault() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path(), plain(0, 5));
    let witness = |name: &str, seed| {
        Witness::open(&folder.path().join(format!("{name}.redb")), name, &[seed; 32], &[log.vkey().into()]).unwrap()
    };
    let (good, silent, forged) = (witness("good", 1), witness("silent", 2), witness("forged", 3));
    let head = log.head().unwrap();
    let request = AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: head.checkpoint.clone() }.to_text();
    let line = good.add_checkpoint(&request, UnixTime(5)).unwrap();
    let mut bent = forged.add_checkpoint(&request, UnixTime(6)).unwrap();
    let at = bent.len() - 6;
    bent.replace_range(at..=at, if bent.as_bytes()[at] == b'A' { "B" } else { "A" });
    log.publish(&head, &[line, bent]).unwrap();
    let keys = [good.vkey().to_owned(), silent.vkey().to_owned(), forged.vkey().to_owned()];
    let state = State::in_memory().unwrap();
    let result = replay(&public(folder.path()), &state, &keys, &[]);
    assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::NotCosigned, Kind::BadCosignature]));
    assert_eq!(result.witnesses, [("good".to_owned(), UnixTime(5))]);
    assert!(result.whole && result.replayed == 5, "the replay goes on");
    let about: Vec<_> = result.findings.iter().map(|finding| finding.about.as_deref().unwrap()).collect();
    assert_eq!(about, ["silent", "forged"]);
}

#[test]
fn an_old_copy_is_no_split_view_and_two_trees_of_one_size_are() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path(), plain(0, 300));
    let older = public(folder.path()).read("checkpoint").unwrap().unwrap();
    let older = String::from_utf8(older).unwrap();
    log.append(plain(300, 320).collect()).unwrap();
    log.publish(&log.head().unwrap(), &[]).unwrap();
    let newer = log.head().unwrap().checkpoint;
    let old = move |name: &str, file: Option<Vec<u8>>| {
        if name == "checkpoint" { Some(older.clone().into_bytes()) } else { file }
    };
    let copy = Lying { folder: public(folder.path()), lie: Box::new(old) };
    let state = State::in_memory().unwrap();
    let result = replay(&copy, &state, &[], &[newer]);
    assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::StaleCheckpoint]));
    assert_eq!(result.findings[0].gravity, Gravity::Note);
    // The newer one, later: it continues the older.
    assert_eq!(kinds(&replay(&public(folder.path()), &state, &[], &[]), &state), BTreeSet::new());
    assert_eq!(found(&public(folder.path()), &[fork(320)]), BTreeSet::from([Kind::SplitView]));
    assert_eq!(found(&public(folder.path()), &[fork(256)]), BTreeSet::from([Kind::SplitView]));
    // What the log did not sign says nothing about it.
    assert_eq!(found(&public(folder.path()), &[fork(256).replacen("256", "255", 1)]), BTreeSet::new());
}

#[test]
fn leaves_that_make_another_tree_are_found_and_gone_on_from_no_more() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), plain(0, 700));
    let good = public(folder.path()).read("checkpoint").unwrap().unwrap();
    let other = signed(700, Digest([1; 32]));
    let wrong = Lying {
        folder: public(folder.path()),
        lie: Box::new(move |name, file| if name == "checkpoint" { Some(other.clone().into_bytes()) } else { file }),
    };
    let state = State::in_memory().unwrap();
    let result = replay(&wrong, &state, &[], &[]);
    assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::RootDiffers]));
    assert!(!result.whole);
    // A wrong tile leads astray; where the right one is back, all of it is replayed anew.
    let bent = Lying {
        folder: public(folder.path()),
        lie: Box::new(|name, file| {
            let mut bytes = file?;
            bytes[0] ^= u8::from(name == "tile/0/000");
            Some(bytes)
        }),
    };
    let state = State::in_memory().unwrap();
    assert_eq!(kinds(&replay(&bent, &state, &[], &[]), &state), ASTRAY.into());
    let again = replay(&public(folder.path()), &state, &[], &[]);
    assert_eq!((kinds(&again, &state), again.whole), (BTreeSet::new(), true));
    assert_eq!(again.checkpoint.into_bytes(), good);
}

#[test]
fn copies_of_a_log_have_nothing_in_common_but_what_it_signed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    log(&at("log"), plain(0, 700));
    let open = |name: &str| State::open_copy(&at(name), &at("seen")).unwrap();
    // The state of the one says nothing about the other, whichever came first.
    let good = open("good");
    assert_eq!(kinds(&replay(&public(&at("log")), &good, &[], &[]), &good), BTreeSet::new());
    drop(good);
    let copy = without(&at("log"), "tile/entries/001");
    let state = open("bad");
    let result = replay(&copy, &state, &[], &[]);
    assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::MissingLeaf]));
    drop(state);
    // A third copy shows another history, and is held against what the first two showed.
    log(&at("fork"), plain(0, 650).chain([b"another".to_vec()]));
    let state = open("third");
    let result = replay(&public(&at("fork")), &state, &[], &[]);
    assert_eq!(kinds(&result, &state), BTreeSet::from([Kind::StaleCheckpoint]), "nothing proves more yet");
    drop(state);
    let good = open("good");
    assert_eq!(kinds(&replay(&public(&at("log")), &good, &[], &[]), &good), BTreeSet::from([Kind::SplitView]));
}

#[test]
fn a_log_that_grows_while_it_is_read_loses_no_leaf() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path(), plain(0, 300));
    let old = public(folder.path()).read("checkpoint").unwrap().unwrap();
    // Two publications later the unfinished files of the first are gone.
    for size in [310, 320, 330] {
        log.append(plain(log.size(), size).collect()).unwrap();
        log.publish(&log.head().unwrap(), &[]).unwrap();
    }
    assert!(public(folder.path()).read("tile/entries/001.p/44").unwrap().is_none());
    let asked = AtomicUsize::new(0);
    let first = move |name: &str, file: Option<Vec<u8>>| {
        if name == "checkpoint" && asked.fetch_add(1, Ordering::Relaxed) == 0 { Some(old.clone()) } else { file }
    };
    let source = Lying { folder: public(folder.path()), lie: Box::new(first) };
    let state = State::in_memory().unwrap();
    let result = replay(&source, &state, &[], &[]);
    assert_eq!((kinds(&result, &state), result.size, result.whole), (BTreeSet::new(), 330, true));
}

#[test]
fn a_log_that_signs_more_than_there_can_be_ends_the_replay_soon() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), plain(0, 700));
    for size in [1 << 50, 1 << 62] {
        let huge = signed(size, Digest([1; 32]));
        let source = Lying {
            folder: public(folder.path()),
            lie: Box::new(move |name, file| if name == "checkpoint" { Some(huge.clone().into_bytes()) } else { file }),
        };
        let started = Instant::now();
        let state = State::in_memory().unwrap();
        let result = replay(&source, &state, &[], &[]);
        assert_eq!(result.size, size);
        assert!(kinds(&result, &state).contains(&Kind::MissingLeaf), "{:?}", result.findings);
        let head = TreeHead { size, root: Digest([1; 32]) };
        assert!(replay::find(&source, &head, &Digest([2; 32]), |_| true).unwrap().is_none());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[test]
fn a_single_leaf_is_proved_and_is_never_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path(), (0..300).map(|n| leaf(n / 2, 1_000 + n).to_cbor()));
    let head = open_checkpoint(&log.head().unwrap().checkpoint, log.vkey()).unwrap();
    let source = public(folder.path());
    let id = Digest::of(&[&20u64.to_be_bytes()]);
    assert_eq!(replay::leaf(&source, &head, 41).unwrap().time, UnixTime(1_041));
    assert!(matches!(replay::leaf(&source, &head, 300), Err(Error::NoLeaf { .. })));
    let newest = replay::find(&source, &head, &id, |_| true).unwrap().unwrap();
    assert_eq!((newest.0, newest.1.time), (41, UnixTime(1_041)));
    let until = replay::find(&source, &head, &id, |leaf| leaf.time <= UnixTime(1_040)).unwrap().unwrap();
    assert_eq!((until.0, until.1.time), (40, UnixTime(1_040)));
    assert!(replay::find(&source, &head, &id, |leaf| leaf.time < UnixTime(1_040)).unwrap().is_none());

    // With an entry missing, those behind it keep their numbers, and it is not the next one.
    let gap = Lying {
        folder: public(folder.path()),
        lie: Box::new(|name, file| {
            let bytes = file?;
            if name != "tile/entries/000" {
                return Some(bytes);
            }
            let mut rest = bytes.as_slice();
            let (mut out, mut n) = (Vec::new(), 0);
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                if n != 40 {
                    out.extend(&rest[..2 + length]);
                }
                rest = &after[length..];
                n += 1;
            }
            Some(out)
        }),
    };
    assert!(matches!(replay::leaf(&gap, &head, 40), Err(Error::Leaf(_))));
    assert_eq!(replay::leaf(&gap, &head, 41).unwrap().time, UnixTime(1_041));
    assert_eq!(replay::find(&gap, &head, &id, |_| true).unwrap().unwrap().0, 41);

    // Entries that the tree does not hold are not shown, nor are hashes that the signed tree does not.
    let forged = leaf(20, 5).to_cbor();
    let entry = [&(forged.len() as u16).to_be_bytes()[..], &forged].concat();
    let lies: [Lie; 2] = [
        Box::new(move |name, file| if name.starts_with("tile/entries/000") { Some(entry.clone()) } else { file }),
        Box::new(|name, file| {
            let mut bytes = file?;
            if name == "tile/0/000" {
                bytes[41 * 32] ^= 1;
            }
            Some(bytes)
        }),
    ];
    for lie in lies {
        let source = Lying { folder: public(folder.path()), lie };
        assert!(replay::leaf(&source, &head, 41).is_err());
        assert!(!matches!(replay::find(&source, &head, &id, |leaf| leaf.time != UnixTime(1_040)), Ok(Some(_))));
    }
    let unsigned = TreeHead { size: 300, root: Digest([1; 32]) };
    assert!(matches!(replay::leaf(&source, &unsigned, 41), Err(Error::Proof(_))));
}

#[test]
fn a_replay_that_begins_later_checks_hashes_before_and_leaves_behind() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), plain(0, 700));
    let source = public(folder.path());
    let (verifier, stop, told) = (Verifier::default(), AtomicBool::new(false), Mutex::new(Vec::new()));
    let progress = |done: u64, of: u64| told.lock().unwrap().push((done, of));
    for (from, expected) in [(0, 700), (1, 699), (300, 400), (512, 188), (700, 0)] {
        let state = State::in_memory().unwrap();
        let input = LogInput { source: &source, key: &key(), witnesses: &[], checkpoints: &[], from };
        let job = Job { jobs: 1, verifier: &verifier, progress: &progress, stop: &stop };
        let result = replay::replay(&input, &state, &job).unwrap();
        assert_eq!((result.whole, result.from, findings(&result, &state).len()), (true, from, expected));
    }
    assert!(told.lock().unwrap().contains(&(700, 700)));
}
