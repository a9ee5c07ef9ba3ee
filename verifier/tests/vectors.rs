//! Real evidence, and evidence minted for the purpose: every TDX and SNP case must give an outcome it allows.

use std::path::{Path, PathBuf};

use cocoon_attestation::UnixTime;
use cocoon_verifier::{
    Appraisal, CheckOutcome, Outcome, Policy, appraise_gpu, appraise_rim, appraise_snp, appraise_tdx,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    id: String,
    tee: String,
    evidence: PathBuf,
    collateral: Option<PathBuf>,
    root: Option<PathBuf>,
    vek: Option<PathBuf>,
    #[serde(default)]
    ca: Vec<PathBuf>,
    chain: Option<PathBuf>,
    #[serde(default)]
    rims: Vec<PathBuf>,
    at: u64,
    expect: Vec<String>,
    tcb_status: Option<String>,
    advisories: Option<Vec<String>>,
}

/// The folder of vectors: the one that `COCOON_VECTORS` names, or `shared/vectors` in or beside the checkout. They are not
/// part of the project, so without the variable they may be absent; never in CI.
fn vectors() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("COCOON_VECTORS").map(PathBuf::from) {
        assert!(folder.join("cases.json").is_file(), "COCOON_VECTORS names {}, without cases.json", folder.display());
        return Some(folder);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["../shared/vectors", "../../shared/vectors"].map(|folder| root.join(folder));
    let found = found.into_iter().find(|folder| folder.join("cases.json").is_file());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no vectors: let COCOON_VECTORS name their folder");
        eprintln!("skipped: no vectors; COCOON_VECTORS can name their folder");
    }
    found
}

fn cases(folder: &Path) -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_slice(&read(folder, Path::new("cases.json"))).expect("cases.json");
    assert!(
        cases.iter().all(|case| ["tdx", "snp", "gpu", "rim"].contains(&case.tee.as_str())),
        "a kind of case is new"
    );
    cases
}

fn read(folder: &Path, path: &Path) -> Vec<u8> {
    std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A case with its files, so that bytes can be altered.
struct Loaded {
    evidence: Vec<u8>,
    collateral: Vec<u8>,
    vek: Vec<u8>,
    ca: Vec<Vec<u8>>,
    chain: Vec<u8>,
    rims: Vec<Vec<u8>>,
    policy: Policy,
    at: UnixTime,
    tee: String,
}

impl Loaded {
    fn new(folder: &Path, case: &Case) -> Self {
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| read(folder, path)).unwrap_or_default();
        let mut policy = Policy::default();
        if let Some(root) = &case.root {
            policy.add_root(&read(folder, root)).expect("a root");
        }
        Self {
            evidence: match case.tee.as_str() {
                // NVIDIA's samples are in hex.
                "gpu" => hex::decode(read(folder, &case.evidence).trim_ascii()).expect("hex"),
                _ => read(folder, &case.evidence),
            },
            collateral: file(&case.collateral),
            vek: file(&case.vek),
            ca: case.ca.iter().map(|path| read(folder, path)).collect(),
            chain: file(&case.chain),
            rims: case.rims.iter().map(|path| read(folder, path)).collect(),
            policy,
            at: UnixTime(case.at),
            tee: case.tee.clone(),
        }
    }

    fn appraise(&self, evidence: &[u8]) -> Appraisal {
        match self.tee.as_str() {
            "tdx" => appraise_tdx(evidence, &self.collateral, &self.policy, self.at),
            "snp" => appraise_snp(evidence, &self.vek, &self.ca, None, &self.policy, self.at),
            "gpu" => appraise_gpu(evidence, &self.chain, &self.rims, None, &self.policy, self.at),
            _ => appraise_rim(evidence, &[], &self.policy, self.at),
        }
    }

    /// How many bytes from the first are signed, or decide how the rest is read.
    fn signed(&self) -> usize {
        match self.tee.as_str() {
            "tdx" => 632,
            "snp" => 0x2a0,
            "gpu" => self.evidence.len(),
            // Nearly all of a manifest; what XML means the same by is another matter.
            _ => 0,
        }
    }
}

#[test]
fn every_case_gives_an_outcome_it_allows() {
    let Some(folder) = vectors() else { return };
    let mut wrong = Vec::new();
    for case in cases(&folder) {
        let loaded = Loaded::new(&folder, &case);
        let result = loaded.appraise(&loaded.evidence);
        let outcome = result.outcome.to_string();
        println!("{} {outcome}: {}", case.id, result.reason);
        if !case.expect.contains(&outcome) {
            wrong.push(format!("{}: {outcome}, expected {:?}: {}", case.id, case.expect, result.reason));
        }
        if case.tcb_status.is_some() && case.tcb_status != result.tcb_status {
            wrong.push(format!("{}: status {:?}, expected {:?}", case.id, result.tcb_status, case.tcb_status));
        }
        if case.advisories.as_ref().is_some_and(|expected| *expected != result.advisories) {
            wrong.push(format!("{}: advisories {:?}", case.id, result.advisories));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_genuine_quote_that_the_strict_policy_refuses_is_accepted_under_one_that_allows_it() {
    let Some(folder) = vectors() else { return };
    let case = cases(&folder).into_iter().find(|case| case.id == "tdx-08").expect("tdx-08");
    let mut loaded = Loaded::new(&folder, &case);
    let strict = loaded.appraise(&loaded.evidence);
    assert_eq!(strict.check("tdx.sept-ve-disable").map(|check| check.outcome), Some(CheckOutcome::Refused));
    loaded.policy.tdx.allow_sept_ve = true;
    loaded.policy.tdx.accept_status = strict.tcb_status.into_iter().collect();
    loaded.policy.tdx.accept_advisories = strict.advisories;
    let result = loaded.appraise(&loaded.evidence);
    assert_eq!(result.outcome, Outcome::Accepted, "{}", result.reason);
    assert_eq!(result.check("tdx.sept-ve-disable").map(|check| check.outcome), Some(CheckOutcome::Allowed));
}

#[test]
fn no_altered_or_cut_evidence_panics_or_becomes_acceptable() {
    let Some(folder) = vectors() else { return };
    for case in cases(&folder) {
        let loaded = Loaded::new(&folder, &case);
        // Every 13th byte keeps the run short; the signed body of a quote ends at byte 1,072 at the latest.
        for at in (0..loaded.evidence.len()).step_by(13) {
            // A cut among the zeros that pad a quote leaves the quote whole.
            if loaded.evidence[at..].iter().any(|byte| *byte != 0) {
                let cut = loaded.appraise(&loaded.evidence[..at]);
                assert!(cut.outcome.exit_code() >= 20, "{} cut at {at}: {}", case.id, cut.reason);
            }
            let mut flipped = loaded.evidence.clone();
            flipped[at] ^= 0x10;
            let result = loaded.appraise(&flipped);
            if at < loaded.signed() {
                assert!(result.outcome.exit_code() >= 20, "{} flipped at {at}: {}", case.id, result.reason);
            }
        }
    }
}

/// The case of a broken XML signature is set at a time before its signer's certificate; here it is that signature that fails.
#[test]
fn a_broken_xml_signature_is_what_fails_while_its_signer_is_current() {
    let Some(folder) = vectors() else { return };
    let appraise = |name: &str| {
        let bytes = read(&folder, &Path::new("nvidia").join(name));
        appraise_rim(&bytes, &[], &Policy::default(), UnixTime(1_740_787_200))
    };
    let good = appraise("NV_GPU_DRIVER_GH100_550.144.03.xml");
    assert_eq!(good.outcome, Outcome::Accepted, "{}", good.reason);
    let broken = appraise("incorrect_signature_driver_rim.xml");
    assert!(broken.reason.starts_with("rim.signature: "), "{}", broken.reason);
}
