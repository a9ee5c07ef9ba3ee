//! The page of obligations names every check that is made, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that are measurements in results, and no checks.
const MEASUREMENTS: [&str; 10] = [
    "gpu.board",
    "gpu.driver",
    "gpu.vbios",
    "snp.launch-mitigations",
    "snp.current-mitigations",
    "rim.product",
    "rim.version",
    "gpu.rim.certificates",
    "gpu.rim.signature",
    "gpu.rim.format",
];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// Names of checks between two marks: `part.rest`, lower case.
fn names(text: &str, mark: char) -> BTreeSet<String> {
    let parts = ["tdx", "snp", "gpu", "rim", "bundle", "claims", "binding", "reference"];
    let quoted = text.split(mark).filter(|word| {
        word.split_once('.').is_some_and(|(part, rest)| {
            parts.contains(&part)
                && !rest.is_empty()
                && !rest.ends_with('.')
                && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
                && !rest.ends_with(".rs")
                && rest != "rs"
        })
    });
    quoted.map(str::to_owned).collect()
}

#[test]
fn every_check_is_on_the_page_and_every_one_on_the_page_is_made() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let page = fs::read_to_string(src.join("obligations.rs")).expect("the page");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut made = BTreeSet::new();
    // These only talk about checks that others make.
    let talk = ["obligations.rs", "advice.rs", "ear.rs", "explain.rs", "tests.rs", "outcome.rs"];
    for file in files.iter().filter(|file| !talk.iter().any(|name| file.ends_with(name))) {
        made.extend(names(&fs::read_to_string(file).expect("a source"), '"'));
    }
    made.retain(|name| !MEASUREMENTS.contains(&name.as_str()));
    let listed = names(&page, '`');
    let missing: Vec<_> = made.difference(&listed).collect();
    let idle: Vec<_> = listed.difference(&made).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    assert!(idle.is_empty(), "on the page, and made nowhere: {idle:?}");
    assert!(made.len() > 90, "{}", made.len());
}

#[test]
fn the_places_on_the_page_exist() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let page = fs::read_to_string(src.join("obligations.rs")).expect("the page");
    let mut seen = 0;
    for line in page.lines().filter(|line| line.starts_with("//! | `")) {
        let place = line.trim_end_matches(" |").rsplit(" | ").next().expect("a column");
        let words: Vec<_> = place.split('`').skip(1).step_by(2).collect();
        let paths: Vec<_> = words.iter().filter(|word| word.ends_with(".rs")).collect();
        let code: String = paths.iter().map(|path| fs::read_to_string(src.join(path)).expect(path)).collect();
        for word in words.iter().filter(|word| !word.ends_with(".rs")) {
            let function = word.rsplit("::").next().expect("a name");
            if !paths.is_empty() {
                assert!(code.contains(&format!("fn {function}")), "{place}: no {function}");
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "{seen}");
}
