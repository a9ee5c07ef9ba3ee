//! The guide for auditors is followed to the letter: its commands on a running network, from nothing to a report.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use cocoon_tests::up::Up;
use cocoon_transparency::replay::report::Report;
use serde_json::Value;

fn guide() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/auditor.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

fn shell(folder: &Path, script: &str) -> Output {
    let programs = cocoon_tests::cocoon_binary();
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    command.args(["120", "bash", "-euo", "pipefail", "-c", script]).current_dir(folder).env("PATH", path);
    command.env_remove("COCOON_CHAIN").env_remove("COCOON_NETWORK").output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn three_commands_lead_from_nothing_to_a_report_and_the_others_do_what_they_say() {
    let blocks = guide();
    assert_eq!(blocks[0], "cocoon up --data network\n");
    assert!(blocks[1].starts_with("cocoon audit replay "));
    assert_eq!(blocks[2], "xdg-open report/report.html\n");
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("network"));
    // The other nodes cosign a checkpoint a moment after it was published.
    let started = Instant::now();
    let audit = loop {
        let audit = shell(folder.path(), &blocks[1]);
        if !said(&audit).contains("not-cosigned") || started.elapsed() > Duration::from_secs(60) {
            break audit;
        }
    };
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
    assert!(
        said(&audit).contains("NOT CONFIDENTIAL") && said(&audit).contains("nothing was found"),
        "{}",
        said(&audit)
    );
    assert!(folder.path().join("report/report.html").is_file());
    let report: Report =
        serde_json::from_slice(&std::fs::read(folder.path().join("report/report.json")).unwrap()).unwrap();
    assert_eq!(report.logs.len(), 3);
    assert!(report.logs.iter().all(|log| log.result.whole && log.result.witnesses.len() == 2));
    let chain = report.chain.as_ref().unwrap();
    assert_eq!((chain.attestations, chain.verdicts_followed, chain.verdicts_without_log), (1, 2, 0));

    // An answer, and what its receipt shows to somebody else.
    let url = up.ready["proxy"].as_str().or(up.ready["openai"].as_str()).map(str::to_owned);
    let url = url.unwrap_or_else(|| panic!("no proxy in {}", up.ready));
    let body = r#"{"model":"cocoon-demo","messages":[{"role":"user","content":"What is Cocoon?"}]}"#;
    std::fs::write(folder.path().join("request.json"), body).unwrap();
    let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
    let ask = format!(
        "curl -sS -D head -o answer.json -H 'content-type: application/json' --data-binary @request.json {base}/v1/chat/completions
         ID=$(grep -i '^cocoon-receipt-id:' head | tr -d '\r' | cut -d' ' -f2)
         curl -sS -o receipt.json {base}/v1/receipts/$ID"
    );
    let asked = shell(folder.path(), &ask);
    assert!(asked.status.success(), "{}", said(&asked));
    std::fs::rename(folder.path().join("network/auditor.toml"), folder.path().join("trust.toml")).unwrap();
    let of =
        |start: &str| blocks.iter().find(|block| block.starts_with(start)).unwrap_or_else(|| panic!("{start}")).clone();
    let receipt = shell(folder.path(), &of("cocoon audit receipt"));
    assert_eq!(receipt.status.code(), Some(0), "{}", said(&receipt));
    for line in [
        "signature passed",
        "request unchecked",
        "logged passed",
        "evidence passed",
        "appraisal passed",
        "policy unchecked",
        "provider passed",
        "attested passed",
        "channel passed",
    ] {
        assert!(said(&receipt).contains(line), "{line}: {}", said(&receipt));
    }
    assert!(said(&receipt).contains("cosigned by 2 of 2 witnesses"), "{}", said(&receipt));
    let json = |command: &str| -> (Option<i32>, Value) {
        let output = shell(folder.path(), &format!("{} --json", command.trim()));
        let value = serde_json::from_slice(&output.stdout);
        (output.status.code(), value.unwrap_or_else(|error| panic!("{error}: {}", said(&output))))
    };
    let outcome = |value: &Value, id: &str| {
        let checks = value["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == id).map(|check| check["outcome"].as_str().unwrap().to_owned())
    };
    let (code, good) = json(&of("cocoon audit receipt"));
    assert_eq!(code, Some(0));
    follows_the_schema("receipt", &good);
    // A policy of the auditor's own, which names none of the development platform's roots, accepts nothing of it.
    std::fs::write(folder.path().join("strict.toml"), "").unwrap();
    let (code, strict) = json(&format!("{} --policy strict.toml", of("cocoon audit receipt").trim()));
    assert_eq!((code, outcome(&strict, "policy").as_deref()), (Some(20), Some("failed")), "{strict}");
    assert_eq!(outcome(&strict, "appraisal").as_deref(), Some("passed"));
    // Another Registry than the one that the provider's contract names.
    let trust = std::fs::read_to_string(folder.path().join("trust.toml")).unwrap();
    let other = chain.providers[0].address.clone();
    std::fs::write(folder.path().join("other.toml"), trust.replace(&chain.registry, &other)).unwrap();
    let (code, elsewhere) = json(&of("cocoon audit receipt").replace("trust.toml", "other.toml"));
    assert_eq!((code, outcome(&elsewhere, "provider").as_deref()), (Some(20), Some("failed")), "{elsewhere}");
    // Without anything to hold it against, nothing is claimed.
    let (code, bare) = json("cocoon audit receipt receipt.json");
    assert_eq!(code, Some(0));
    assert_eq!(["evidence", "chain"].map(|id| outcome(&bare, id)), [(); 2].map(|()| Some("unchecked".to_owned())));
    follows_the_schema("receipt", &bare);
    let forged = folder.path().join("receipt.json");
    let text = std::fs::read_to_string(&forged).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let signed = value["signed"].as_str().unwrap().to_owned();
    let (head, tail) = signed.split_at(signed.len() / 2);
    let other = if tail.starts_with('A') { "B" } else { "A" };
    value["signed"] = format!("{head}{other}{}", &tail[1..]).into();
    std::fs::write(&forged, value.to_string()).unwrap();
    let refused = shell(folder.path(), &of("cocoon audit receipt"));
    assert!(matches!(refused.status.code(), Some(20 | 30)), "{}", said(&refused));

    // The evidence behind it, taken out of a log, and the monitor.
    let id = report.logs[0].result.checkpoint.is_empty();
    assert!(!id);
    let watch = of("cocoon audit watch").trim().to_owned() + " --once";
    assert_eq!(shell(folder.path(), &watch).status.code(), Some(0));
    let node: PathBuf = folder.path().join("network/node-0");
    let evidence = value["evidence_id"].as_str().unwrap();
    let bundle = format!("cocoon audit bundle {evidence} {} --out evidence", node.display());
    let bundle = shell(folder.path(), &bundle);
    assert_eq!(bundle.status.code(), Some(0), "{}", said(&bundle));
    assert!(said(&bundle).contains("both are the same"), "{}", said(&bundle));
    assert!(said(&bundle).contains("proved to be in its tree of"), "{}", said(&bundle));
    let (code, found) = json(&format!("cocoon audit bundle {evidence} --config trust.toml"));
    assert_eq!((code, &found["cosigned"], &found["witnesses"]), (Some(0), &2.into(), &2.into()), "{found}");
    follows_the_schema("bundle", &found);
    let leaf = format!("cocoon audit bundle --leaf {} {} --policy strict.toml", found["leaf"], node.display());
    let (code, strict) = json(&leaf);
    assert_eq!((code, &strict["own"]["outcome"], &strict["same"]), (Some(20), &"invalid".into(), &true.into()));
    follows_the_schema("bundle", &strict);
}

/// What the command writes is as `docs/schemas/audit.schema.json` says.
fn follows_the_schema(what: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/audit.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let faults = cocoon_tests::schema::faults(&schema, &schema["$defs"][what], value, what);
    assert!(faults.is_empty(), "{faults:#?}");
}
