//! Writes the negative suite to a folder, and runs it against any verifier through exit codes.
//!
//! ```text
//! cargo run --release -p cocoon-verifier --example negative_suite -- FOLDER [COMMAND [ARGUMENT...]]
//! ```
//!
//! FOLDER gets the roots, a folder of files for each case, and `cases.json`: id, what was altered, expected outcome, the check that says so
//! here, and the arguments. COMMAND, such as `cocoon verify`, is called with those arguments:
//! `tdx QUOTE --collateral FILE`, `snp REPORT --vek FILE --ca FILE... [--crl FILE]` or `gpu REPORT --chain PEM --rim FILE...`, each with `--at UNIX`
//! and a `--root FILE` for each root. It must exit with 10 (refused), 20 (invalid) or 30 (malformed). A verifier with other arguments or
//! without these distinctions needs a wrapper of a few lines.

#[path = "../tests/suite/mod.rs"]
mod suite;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use cocoon_attestation::dev::DevPlatform;
use serde_json::json;
use suite::{AT, Files, cases};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        eprintln!("name a folder for the cases, and then, if you like, the command of a verifier");
        return ExitCode::from(2);
    };
    let command: Vec<String> = arguments.collect();
    match run(&folder, &command) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("{wrong} case(s) gave another exit code");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes the cases, and runs them if there is a command; gives how many were answered wrongly.
fn run(folder: &Path, command: &[String]) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let write = |name: String, bytes: &[u8]| -> std::io::Result<String> {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    };
    let platform = DevPlatform::from_seed([7; 32]);
    let roots =
        [("intel", platform.tdx_root_der()), ("amd", platform.snp_ark_der()), ("nvidia", platform.gpu_root_der())];
    let mut common = vec!["--at".to_owned(), AT.0.to_string()];
    for (vendor, der) in roots {
        common.extend(["--root".to_owned(), write(format!("root-{vendor}.der"), &der)?]);
    }
    let (mut list, mut wrong) = (Vec::new(), 0);
    for case in cases() {
        let file = |name: &str, bytes: &[u8]| write(format!("{}/{name}", case.id), bytes);
        let mut arguments: Vec<String> = Vec::new();
        match &case.files {
            Files::Tdx { quote, collateral } => {
                arguments.extend(["tdx".into(), file("quote", quote)?]);
                arguments.extend(["--collateral".into(), file("collateral.json", collateral)?]);
            }
            Files::Snp { report, vek, ca, crl } => {
                arguments.extend(["snp".into(), file("report", report)?, "--vek".into(), file("vek.der", vek)?]);
                for (n, ca) in ca.iter().enumerate() {
                    arguments.extend(["--ca".into(), file(&format!("ca-{n}.der"), ca)?]);
                }
                if let Some(crl) = crl {
                    arguments.extend(["--crl".into(), file("crl.der", crl)?]);
                }
            }
            Files::Gpu { report, chain, rims, ocsp } => {
                arguments.extend(["gpu".into(), file("report", report)?, "--chain".into(), file("chain.pem", chain)?]);
                for (n, rim) in rims.iter().enumerate() {
                    arguments.extend(["--rim".into(), file(&format!("rim-{n}.xml"), rim)?]);
                }
                for (n, ocsp) in ocsp.iter().enumerate() {
                    arguments.extend(["--ocsp".into(), file(&format!("ocsp-{n}.der"), ocsp)?]);
                }
            }
        }
        arguments.extend(common.iter().cloned());
        if let Some((program, first)) = command.split_first() {
            let mut run = Command::new(program);
            let status = run.args(first).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            let expected = match case.expect {
                "refused" => 10,
                "invalid" => 20,
                _ => 30,
            };
            if status.code() != Some(expected) {
                wrong += 1;
                println!("{} ({}): exit code {:?}, expected {expected}", case.id, case.what, status.code());
            }
        }
        list.push(json!({
            "id": case.id, "what": case.what, "expect": case.expect, "check": case.check, "arguments": arguments,
        }));
    }
    write("cases.json".into(), serde_json::to_string_pretty(&list)?.as_bytes())?;
    println!("{} cases in {}", list.len(), folder.display());
    Ok(wrong)
}
