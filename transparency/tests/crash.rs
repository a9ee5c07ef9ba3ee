//! Killed at any byte, a log comes back with everything that it acknowledged.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cocoon_transparency::{Edge, Error, Log, open_checkpoint};

const ORIGIN: &str = "verifier.example/log";
const SEED: [u8; 32] = [7; 32];
const FOLDER: &str = "COCOON_TEST_LOG";

fn entry(number: u64) -> Vec<u8> {
    format!("entry {number} ").into_bytes().repeat(1 + number as usize % 50)
}

fn open(folder: &Path) -> Log {
    Log::open(folder, ORIGIN, SEED).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        match file.file_type().unwrap().is_dir() {
            true => copy(&file.path(), &target),
            false => drop(fs::copy(file.path(), target).unwrap()),
        }
    }
}

/// The log holds the first entries and no others, and its tree is theirs.
fn holds(log: &Log, leaves: u64) {
    let mut edge = Edge::default();
    for index in 0..leaves {
        assert_eq!(log.entry(index).unwrap(), entry(index));
        edge.push(&entry(index));
    }
    let head = open_checkpoint(&log.head().unwrap().checkpoint, log.vkey()).unwrap();
    assert_eq!((log.size(), head.size, head.root), (leaves, leaves, edge.root()));
}

#[test]
fn a_journal_cut_at_any_byte_keeps_every_whole_entry() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, mut ends) = (folder.path().join("journal-0"), Vec::new());
    let log = open(folder.path());
    for number in 0..4 {
        log.append(vec![entry(number)]).unwrap();
        ends.push(fs::metadata(&journal).unwrap().len());
    }
    drop(log);
    let whole = fs::read(&journal).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&journal, &whole[..cut]).unwrap();
        let kept = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        holds(&open(folder.path()), kept);
    }
    // A byte that was never written as it should be ends the journal there.
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0x10;
        fs::write(&journal, &bent).unwrap();
        let kept = ends.iter().filter(|end| **end <= at as u64).count() as u64;
        let log = open(folder.path());
        holds(&log, kept);
        assert_eq!(log.append(vec![entry(kept)]).unwrap(), kept);
    }
}

#[test]
fn a_crash_while_a_tile_is_finished_costs_nothing() {
    let base = tempfile::tempdir().unwrap();
    let before = base.path().join("before");
    let log = open(&before);
    log.append((0..255).map(entry).collect()).unwrap();
    drop(log);
    let after = base.path().join("after");
    copy(&before, &after);
    open(&after).append(vec![entry(255)]).unwrap();
    // Files of the finished tile that exist already, and the journal that nobody removed yet.
    let tile = |name: &str| after.join("public/tile").join(name);
    for (number, present) in
        [vec![], vec!["entries/000"], vec!["entries/000", "0/000"], vec!["entries/000", "0/000", "journal"]]
            .iter()
            .enumerate()
    {
        let crashed = base.path().join(format!("crashed-{number}"));
        copy(&before, &crashed);
        for name in present {
            let (from, to) = match *name {
                "journal" => (after.join("journal-1"), crashed.join("journal-1")),
                name => (tile(name), crashed.join("public/tile").join(name)),
            };
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
        let log = open(&crashed);
        let leaves = if present.contains(&"journal") { 256 } else { 255 };
        holds(&log, leaves);
        log.append((leaves..600).map(entry).collect()).unwrap();
        drop(log);
        holds(&open(&crashed), 600);
    }
}

#[test]
fn a_log_that_lost_what_it_published_does_not_open() {
    let base = tempfile::tempdir().unwrap();
    let whole = base.path().join("whole");
    let log = open(&whole);
    log.append((0..300).map(entry).collect()).unwrap();
    log.publish(&log.head().unwrap(), &[]).unwrap();
    drop(log);
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        let folder = base.path().join(name);
        copy(&whole, &folder);
        damage(&folder);
        let error = Log::open(&folder, ORIGIN, SEED).err().unwrap();
        assert!(matches!(error, Error::Damaged(_)), "{name}: {error}");
    };
    damaged("shorter", &|folder| {
        let journal = folder.join("journal-1");
        let bytes = fs::read(&journal).unwrap();
        fs::write(journal, &bytes[..bytes.len() - 1]).unwrap();
    });
    damaged("no-journal", &|folder| fs::remove_file(folder.join("journal-1")).unwrap());
    damaged("no-tile", &|folder| fs::remove_file(folder.join("public/tile/0/000")).unwrap());
    damaged("other-leaves", &|folder| {
        let tile = folder.join("public/tile/0/000");
        let mut bytes = fs::read(&tile).unwrap();
        bytes[0] ^= 1;
        fs::write(tile, bytes).unwrap();
    });
    holds(&open(&whole), 300);
}

/// Not a test by itself: what the next one starts, and kills.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = open(Path::new(&folder));
    let mut next = log.size();
    loop {
        let batch = 1 + next * 7 % 90;
        log.append((next..next + batch).map(entry).collect()).unwrap();
        next += batch;
        println!("acknowledged {next}");
        if next.is_multiple_of(3) {
            let head = log.head().unwrap();
            log.publish(&head, &[]).unwrap();
            println!("acknowledged {next}");
        }
    }
}

#[test]
fn killed_hundreds_of_times_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..300_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let numbers =
                lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
            numbers.last()
        });
        std::thread::sleep(Duration::from_micros(4_000 + round * 7_919 % 16_000));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = acknowledged.max(reader.join().unwrap().unwrap_or(0));
        if round % 25 == 24 {
            let log = open(folder.path());
            assert!(log.size() >= acknowledged, "{} leaves of {acknowledged} that were acknowledged", log.size());
            holds(&log, log.size());
        } else {
            assert!(open(folder.path()).size() >= acknowledged);
        }
    }
    assert!(acknowledged > 1_000, "the child appended while it lived: {acknowledged}");
}
