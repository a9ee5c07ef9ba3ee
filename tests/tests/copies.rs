//! Auditors over HTTP: servers that are down, slow, behind, or that show what is not so; copies that go on, and what is told of all that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_transparency::replay::Kind;
use cocoon_transparency::replay::report::Report;
use cocoon_transparency::{Folder, Leaf, Log, Part, Source as _};
use cocoon_verifier::Outcome;
use serde_json::Value;

/// A log of entries that are no leaves: what is in them does not matter here.
fn log(folder: &Path, name: &str, entries: impl IntoIterator<Item = Vec<u8>>) -> Log {
    let log = Log::open(folder, name, Digest::of(&[name.as_bytes()]).0).unwrap();
    log.append(entries.into_iter().collect()).unwrap();
    publish(&log);
    log
}

fn publish(log: &Log) {
    log.publish(&log.head().unwrap(), &[]).unwrap();
}

fn plain(from: u64, to: u64) -> impl Iterator<Item = Vec<u8>> {
    (from..to).map(|n| format!("entry {n}").into_bytes())
}

/// What a server makes of a file.
type Lie = Arc<dyn Fn(&str, Option<Vec<u8>>) -> Option<Vec<u8>> + Send + Sync>;

fn honest() -> Lie {
    Arc::new(|_, file| file)
}

/// Serves a log's files.
async fn serve(folder: &Path, lie: Lie) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let source = Folder(folder.join("public"));
    let file = move |uri: axum::http::Uri| async move {
        let name = uri.path().trim_start_matches('/');
        lie(name, source.read(name).unwrap()).ok_or(axum::http::StatusCode::NOT_FOUND)
    };
    let router = axum::Router::new().fallback(axum::routing::get(file));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn command(work: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(cocoon_tests::cocoon_binary());
    command.args(args).arg("--work").arg(work).env_remove("COCOON_CHAIN");
    command
}

fn cocoon(work: &Path, args: &[&str]) -> Output {
    tokio::task::block_in_place(|| command(work, args).output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A replay's report; its exit code is the report's.
fn replay(work: &Path, args: &[&str]) -> Report {
    let output = cocoon(work, &[&["audit", "replay", "--json"][..], args].concat());
    let report: Report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", text(&output.stdout), text(&output.stderr)));
    assert_eq!(output.status.code(), Some(report.exit_code.into()));
    report
}

/// What was found, but for entries that are no leaves.
fn counts(report: &Report) -> BTreeMap<&str, u64> {
    let kinds = report.counts.iter().filter(|(kind, _)| *kind != Kind::MalformedLeaf.name());
    kinds.map(|(kind, count)| (kind.as_str(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_that_is_down_or_hangs_does_not_stop_the_audit_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let good = log(&at("good"), "good.example", plain(0, 300));
    let url = serve(&at("good"), honest()).await;
    let (down, broken, hanging) = ("http://127.0.0.1:9", failing().await, silent().await);
    let mut config = String::new();
    let keys = ["one.example", "two.example", "three.example"].map(key);
    for (url, key) in [
        (url.as_str(), good.vkey()),
        (down, keys[0].as_str()),
        (broken.as_str(), keys[1].as_str()),
        (hanging.as_str(), keys[2].as_str()),
    ] {
        config += &format!("[[logs]]\nurl = \"{url}\"\nkey = \"{key}\"\n");
    }
    std::fs::write(at("trust.toml"), config).unwrap();
    let started = Instant::now();
    let report = replay(&at("work"), &["--config", at("trust.toml").to_str().unwrap(), "--deadline", "15"]);
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    assert_eq!(counts(&report), BTreeMap::from([("unreachable", 3)]));
    assert_eq!(report.logs.iter().map(|log| log.result.whole).collect::<Vec<_>>(), [true, false, false, false]);
    let about: Vec<_> = report.findings.iter().filter(|finding| finding.kind == Kind::Unreachable).collect();
    assert!(about.iter().any(|finding| finding.detail.contains("status 500")), "{about:?}");
    assert!(about.iter().any(|finding| finding.detail.contains("within 15 s")), "{about:?}");
    // The monitor goes on too, and none at all is an error.
    let watch = cocoon(
        &at("work"),
        &["audit", "watch", "--once", "--deadline", "15", "--config", at("trust.toml").to_str().unwrap()],
    );
    assert_eq!(watch.status.code(), Some(30), "{}", text(&watch.stderr));
    assert_eq!(text(&watch.stdout).matches("\"unreachable\"").count(), 3, "{}", text(&watch.stdout));
    let none = cocoon(&at("work"), &["audit", "replay", down, "--log-key", &keys[0]]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no log can be read"), "{}", text(&none.stderr));
    // A chain that does not answer does not either.
    let registry = "0:0000000000000000000000000000000000000000000000000000000000000000";
    let report = replay(&at("work"), &[&url, "--log-key", good.vkey(), "--chain", down, "--registry", registry]);
    assert_eq!(counts(&report), BTreeMap::from([("unreachable", 1)]));
    assert_eq!(report.asked.chain.as_deref().map(|url| url.starts_with(down)), Some(true));
}

/// The key of a log that nobody runs.
fn key(name: &str) -> String {
    cocoon_transparency::log_key(name, &Digest::of(&[name.as_bytes()]).0).unwrap()
}

async fn failing() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Takes connections and never answers.
async fn silent() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_lacked_or_had_wrong_is_fetched_anew() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = log(&at("log"), "log.example", plain(0, 700));
    for (n, (name, kinds)) in [
        ("tile/entries/001", &["missing-leaf"][..]),
        ("tile/0/001", &["missing-leaf", "root-differs", "tile-differs"][..]),
        ("tile/1/000.p/2", &["tile-differs"][..]),
        ("tile/entries/002.p/188", &["missing-leaf"][..]),
    ]
    .into_iter()
    .enumerate()
    {
        for absent in [true, false] {
            let lying = Arc::new(AtomicBool::new(true));
            let when = lying.clone();
            let lie: Lie = Arc::new(move |asked, file| {
                let mut bytes = file?;
                if asked != name || !when.load(Ordering::Relaxed) {
                    return Some(bytes);
                }
                bytes[10] ^= 1;
                (!absent).then_some(bytes)
            });
            let url = serve(&at("log"), lie).await;
            let work = at(&format!("work-{n}-{absent}"));
            let bad = replay(&work, &[&url, "--log-key", log.vkey()]);
            assert_eq!(bad.exit_code, 30);
            let found: Vec<_> = counts(&bad).into_keys().collect();
            if absent {
                assert!(found == ["missing-leaf"] || found == ["tile-differs"], "{name}: {found:?}");
            } else {
                assert_eq!(found, kinds, "{name}");
            }
            lying.store(false, Ordering::Relaxed);
            let good = replay(&work, &[&url, "--log-key", log.vkey()]);
            assert_eq!(counts(&good), BTreeMap::new(), "{name} {absent}");
            assert!(good.logs[0].result.whole);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_a_key_is_shown_the_log_of_that_key_or_told_that_it_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (one, two) = (log(&at("one"), "one.example", plain(0, 300)), log(&at("two"), "two.example", plain(0, 300)));
    let shown = at("two").to_str().unwrap().to_owned();
    // A folder that says itself whose it is, under another's key.
    let report = replay(&at("work"), &[&shown, "--log-key", one.vkey()]);
    assert_eq!(counts(&report), BTreeMap::from([("bad-checkpoint", 1)]));
    assert!(report.logs[0].result.key == one.vkey() && !report.logs[0].key_unchecked);
    // The same as one of two that a file names: each place is for its own key.
    let config = |first: &str| {
        let mut config = String::new();
        for (place, key) in [(first, one.vkey()), (shown.as_str(), two.vkey())] {
            config += &format!("[[logs]]\nurl = \"{place}\"\nkey = \"{key}\"\n");
        }
        std::fs::write(at("trust.toml"), config).unwrap();
        replay(&at("work"), &["--config", at("trust.toml").to_str().unwrap()])
    };
    std::os::unix::fs::symlink(at("two"), at("first")).unwrap();
    assert_eq!(counts(&config(at("first").to_str().unwrap())), BTreeMap::from([("bad-checkpoint", 1)]));
    assert_eq!(counts(&config(at("one").to_str().unwrap())), BTreeMap::new());
    // A key that no place shows a log of.
    let url = serve(&at("two"), honest()).await;
    for place in [&shown, &url] {
        let report = replay(&at("work"), &[place, "--log-key", one.vkey(), "--log-key", two.vkey()]);
        assert_eq!(counts(&report), BTreeMap::from([("unreachable", 1)]), "{place}");
        let missed = report.findings.iter().find(|finding| finding.kind == Kind::Unreachable).unwrap();
        assert_eq!(missed.about.as_deref(), Some(one.vkey()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_view_is_not_forgotten_while_its_log_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (log, good) = (log(&at("log"), "log.example", plain(0, 300)), log(&at("good"), "good.example", plain(0, 9)));
    std::fs::write(at("other"), sign("log.example", 200, [3; 32])).unwrap();
    let (url, down) = (serve(&at("log"), honest()).await, failing().await);
    let good_url = serve(&at("good"), honest()).await;
    let args = |url: &str| {
        let config = format!(
            "[[logs]]\nurl = \"{url}\"\nkey = \"{}\"\n[[logs]]\nurl = \"{good_url}\"\nkey = \"{}\"\n",
            log.vkey(),
            good.vkey()
        );
        std::fs::write(at("trust.toml"), config).unwrap();
        ["--config".to_owned(), at("trust.toml").to_str().unwrap().to_owned()]
    };
    let other = ["--checkpoint".to_owned(), at("other").to_str().unwrap().to_owned()];
    let run = |args: &[String]| replay(&at("work"), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let split = run(&[&args(&url)[..], &other[..]].concat());
    assert_eq!(counts(&split), BTreeMap::from([("split-view", 1)]));
    let later = run(&args(&down));
    assert_eq!(counts(&later), BTreeMap::from([("split-view", 1), ("unreachable", 1)]));
    assert_eq!(later.exit_code, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_of_a_log_has_findings_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = log(&at("log"), "log.example", plain(0, 700));
    let url = serve(&at("log"), honest()).await;
    let bad = serve(&at("log"), Arc::new(|name, file| file.filter(|_| name != "tile/entries/000"))).await;
    let key = ["--log-key", log.vkey()];
    let one = |url: &str| replay(&at("work"), &[&[url][..], &key[..]].concat());
    assert_eq!(counts(&one(&url)), BTreeMap::new());
    assert_eq!(
        counts(&one(&bad)),
        BTreeMap::from([("missing-leaf", 256)]),
        "the good copy says nothing about the bad one"
    );
    assert_eq!(counts(&one(&url)), BTreeMap::new(), "nor the bad one about the good one");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_the_one_with_the_longer_signed_tree_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = log(&at("log"), "log.example", plain(0, 300));
    let url = serve(&at("log"), honest()).await;
    let forged: Lie = Arc::new(|name, file| {
        let text =
            if name == "checkpoint" { text(&file?).replacen("\n300\n", "\n900\n", 1).into_bytes() } else { file? };
        Some(text)
    });
    let forged = serve(&at("log"), forged).await;
    for copies in [[&url, &forged], [&forged, &url]] {
        let report = replay(&at("work"), &[copies[0], copies[1], "--log-key", log.vkey()]);
        assert_eq!(counts(&report), BTreeMap::from([("bad-checkpoint", 1)]));
        let [read] = report.logs.as_slice() else { panic!("{:?}", report.logs) };
        assert_eq!((&read.place, read.result.size, read.result.whole), (&url, 300, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_copy_of_a_log_that_grows_is_whole_and_unfinished_files_go_away() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = Arc::new(log(&at("log"), "log.example", plain(0, 300)));
    // The log grows behind the first two looks at its checkpoint, so that the files that it promised are gone.
    let (grows, looks) = (log.clone(), AtomicUsize::new(0));
    let lie: Lie = Arc::new(move |name, file| {
        if name == "checkpoint" && looks.fetch_add(1, Ordering::Relaxed) < 2 {
            for _ in 0..3 {
                grows.append(plain(grows.size(), grows.size() + 7).collect()).unwrap();
                publish(&grows);
            }
        }
        file
    });
    let url = serve(&at("log"), lie).await;
    let report = replay(&at("work"), &[&url, "--log-key", log.vkey()]);
    assert_eq!(counts(&report), BTreeMap::new());
    assert_eq!(report.logs[0].result.size, 342);
    for size in [350, 511, 512, 513, 600] {
        log.append(plain(log.size(), size).collect()).unwrap();
        publish(&log);
        let report = replay(&at("work"), &[&url, "--log-key", log.vkey()]);
        assert_eq!((counts(&report), report.logs[0].result.size), (BTreeMap::new(), size));
        let unfinished = files(&at("work")).into_iter().filter(|path| path.to_str().unwrap().contains(".p/")).count();
        assert!(unfinished <= 3, "{unfinished} files of smaller trees are kept at {size}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_signs_a_size_without_end_ends_soon_and_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = log(&at("log"), "log.example", plain(0, 300));
    let huge = sign("log.example", 1 << 50, [1; 32]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let lie: Lie = Arc::new(move |name, file| {
        count.fetch_add(1, Ordering::Relaxed);
        if name == "checkpoint" { Some(huge.clone().into_bytes()) } else { file }
    });
    let url = serve(&at("log"), lie).await;
    let script = "ulimit -v 4000000; exec \"$@\"";
    let mut limited = Command::new("bash");
    limited.args(["-c", script, "bash"]).arg(cocoon_tests::cocoon_binary());
    limited.args(["audit", "replay", "--json", &url, "--log-key", log.vkey(), "--work"]).arg(at("work"));
    let started = Instant::now();
    let output = tokio::task::block_in_place(|| limited.output().unwrap());
    assert_eq!(output.status.code(), Some(30), "{}", text(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(counts(&report).contains_key("missing-leaf"), "{:?}", report.counts);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(asked.load(Ordering::Relaxed) < 500, "{asked:?} files were asked for");
}

/// Signs a checkpoint, as the log could.
fn sign(name: &str, size: u64, root: [u8; 32]) -> String {
    // A small log's own checkpoint, with another text: signed by the log's own key as a note is (C2SP signed-note).
    use aws_lc_rs::signature::Ed25519KeyPair;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let seed = Digest::of(&[name.as_bytes()]).0;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let key = cocoon_transparency::log_key(name, &seed).unwrap();
    let id = hex::decode(key.split('+').nth(1).unwrap()).unwrap();
    let body = format!("{name}\n{size}\n{}\n", STANDARD.encode(root));
    let signature = [id.as_slice(), pair.sign(body.as_bytes()).as_ref()].concat();
    format!("{body}\n\u{2014} {name} {}\n", STANDARD.encode(signature))
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_clients_kept_are_read_and_strangers_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = log(&at("log"), "log.example", plain(0, 300));
    let (key, seen) = (log.vkey(), log.head().unwrap().checkpoint);
    let other = sign("log.example", 200, [3; 32]);
    let args = |file: &str| {
        let (log, file) = (at("log"), at(file));
        [log.to_str().unwrap().to_owned(), "--checkpoint".into(), file.to_str().unwrap().to_owned()]
    };
    let run = |file: &str| {
        let args = args(file);
        replay(&at("work"), &args.each_ref().map(String::as_str))
    };
    // As client/src/logs.rs writes them; client/tests/logs.rs reads what it wrote with the same function.
    std::fs::write(at("a.seen"), format!("{key}\n{seen}")).unwrap();
    std::fs::write(at("a.split-view"), format!("{key}\n\n{seen}\n{other}")).unwrap();
    assert_eq!(counts(&run("a.seen")), BTreeMap::new());
    let split = run("a.split-view");
    assert_eq!(counts(&split), BTreeMap::from([("split-view", 1)]));
    let finding = split.findings.iter().find(|finding| finding.kind == Kind::SplitView).unwrap();
    assert_eq!(finding.evidence, [other, seen]);
    assert!(split.logs[0].key_unchecked, "the key is from the log's own folder");
    for (file, content) in [("stranger", sign("other.example", 5, [1; 32])), ("nothing", "what?\n".into())] {
        std::fs::write(at(file), content).unwrap();
        let args = args(file);
        let output =
            cocoon(&at("work"), &[&["audit", "replay"][..], &args.each_ref().map(String::as_str)[..]].concat());
        assert_eq!(output.status.code(), Some(1), "{file}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains("checkpoint"), "{}", text(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_log_says_never_steers_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let hostile = "x = \"\u{1b}[2J\u{202e}\"\nnothing was found = {{{\ncocoon: all is well\n".as_bytes();
    let leaf = Leaf {
        evidence_id: EvidenceId(Digest([1; 32])),
        outcome: Outcome::Accepted,
        bundle: Part::Inline(vec![1]),
        appraisal: Part::Inline(b"{}".to_vec()),
        refusal: None,
        time: UnixTime(1_790_000_000),
        node: "node".into(),
        verifier: "\u{1b}[31m".into(),
        policy: Digest::of(&[hostile]),
        references: None,
    };
    let log = log(&at("log"), "log.example", [leaf.to_cbor(), b"\x1b[2J no leaf".to_vec()]);
    log.add_parts([(leaf.policy, hostile)]).unwrap();
    let folder = at("log");
    let named = [folder.to_str().unwrap(), "--log-key", log.vkey()];
    let replayed = cocoon(&at("work"), &[&["audit", "replay"][..], &named[..]].concat());
    assert_eq!(replayed.status.code(), Some(30));
    assert!(text(&replayed.stdout).contains("document-not-read"), "{}", text(&replayed.stdout));
    let shown = cocoon(&at("work"), &[&["audit", "bundle", "--leaf", "0"][..], &named[..]].concat());
    assert_eq!(shown.status.code(), Some(1));
    assert!(text(&shown.stderr).contains("policy"), "{}", text(&shown.stderr));
    for said in [&replayed.stdout, &replayed.stderr, &shown.stdout, &shown.stderr].map(|bytes| text(bytes)) {
        assert!(!said.chars().any(|letter| letter != '\n' && letter.is_control() || letter == '\u{202e}'), "{said:?}");
        assert!(!said.lines().any(|line| line.starts_with("cocoon: all is well")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_from_a_leaf_on_leaves_the_whole_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = log(&at("log"), "log.example", plain(0, 700));
    let folder = at("log");
    let named = [folder.to_str().unwrap(), "--log-key", log.vkey()];
    for (from, leaves) in [("0", 700), ("600", 100), ("0", 700), ("256", 444)] {
        let report = replay(&at("work"), &[&named[..], &["--from", from]].concat());
        assert_eq!(report.counts, BTreeMap::from([("malformed-leaf".to_owned(), leaves)]), "from {from}");
        assert!(report.logs[0].result.whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitor_tells_each_finding_once_however_many_there_are_and_serves_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = log(&at("log"), "log.example", plain(0, 250));
    let split = at("split");
    std::fs::write(&split, sign("log.example", 200, [3; 32])).unwrap();
    let watch = |extra: &[&str]| {
        let folder = at("log");
        let args = [&["audit", "watch", folder.to_str().unwrap(), "--log-key", log.vkey()][..], extra].concat();
        command(&at("work"), &args)
    };
    let once = |extra: &[&str]| {
        let output = tokio::task::block_in_place(|| watch(&[&["--once"][..], extra].concat()).output().unwrap());
        assert_eq!(output.status.code(), Some(30), "{}", text(&output.stderr));
        let alerts = text(&output.stdout);
        let alerts: Vec<Value> = alerts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        alerts.into_iter().map(|alert| alert["finding"]["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // More than a report has room for.
    assert_eq!(once(&[]).len(), 250);
    assert_eq!(once(&["--checkpoint", split.to_str().unwrap()]), ["split-view"]);
    assert_eq!(once(&[]), Vec::<String>::new());
    // A split view is the same one when the log has grown.
    log.append(plain(250, 600).collect()).unwrap();
    publish(&log);
    assert_eq!(once(&[]), vec!["malformed-leaf"; 350]);
    log.append(plain(600, 601).collect()).unwrap();
    publish(&log);

    // Without --once it goes on, and serves metrics.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut running = watch(&["--every", "1", "--metrics", &port.to_string()]);
    let mut running = running.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = || {
        let output =
            Command::new("curl").args(["-sS", "--max-time", "5", &format!("http://{port}/metrics")]).output().unwrap();
        text(&output.stdout)
    };
    let wait = |what: &str| {
        let started = Instant::now();
        loop {
            let now = metrics();
            if now.contains(what) {
                return now;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "no {what:?} in {now}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let first = wait("cocoon_audit_log_leaves{log=\"log.example\"} 601");
        for line in [
            "cocoon_audit_gravest 30",
            "cocoon_audit_failures_total 0",
            "cocoon_audit_findings{kind=\"malformed-leaf\",gravity=\"broken\"} 601",
            "cocoon_audit_findings{kind=\"split-view\",gravity=\"broken\"} 1",
            "cocoon_audit_findings{kind=\"unreachable\",gravity=\"note\"} 0",
            "cocoon_audit_log_replayed{log=\"log.example\"} 601",
            "cocoon_audit_log_witnesses{log=\"log.example\"} 0",
        ] {
            assert!(first.contains(&format!("{line}\n")), "{line} is not in {first}");
        }
        log.append(plain(601, 610).collect()).unwrap();
        publish(&log);
        wait("cocoon_audit_log_leaves{log=\"log.example\"} 610");
        wait("kind=\"malformed-leaf\",gravity=\"broken\"} 610");
    }));
    running.kill().unwrap();
    let told = text(&running.wait_with_output().unwrap().stdout);
    waited.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(told.lines().count(), 10, "601 and those that came: {told}");
}

#[test]
fn a_replay_that_is_killed_goes_on_and_comes_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    drop(log(&at("log"), "log.example", plain(0, 150_000)));
    let logs = at("log");
    let args = ["audit", "replay", logs.to_str().unwrap(), "--json", "--jobs", "1"];
    let took = Instant::now();
    let whole = command(&at("whole"), &args).output().unwrap();
    let took = took.elapsed();
    assert_eq!(whole.status.code(), Some(30), "{}", text(&whole.stderr));
    let mut killed = 0;
    let end = loop {
        let mut child = command(&at("killed"), &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        // A little longer each time, on a fast machine and on a slow one.
        let limit = took * (killed + 1) / 16;
        let ended = loop {
            if child.try_wait().unwrap().is_some() {
                break true;
            }
            if started.elapsed() > limit {
                break false;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if ended || killed > 60 {
            break ended;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    };
    assert!(end && killed > 2, "killed {killed} times");
    let resumed = command(&at("killed"), &args).output().unwrap();
    let read = |output: &Output| serde_json::from_slice::<Report>(&output.stdout).unwrap();
    let (whole, resumed) = (read(&whole), read(&resumed));
    assert_eq!(resumed.counts, whole.counts);
    assert_eq!(resumed.counts["malformed-leaf"], 150_000);
    assert_eq!(resumed.findings, whole.findings);
    assert_eq!(resumed.logs[0].result, whole.logs[0].result);
}
