//! `cocoon verify`: appraises evidence from files, offline. It never fetches anything, and the time is an argument, so that a
//! result can be had again years later.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use clap::{Args, Subcommand, ValueEnum};
use cocoon_attestation::{Digest, EventLog, EvidenceId, ReferenceValues, UnixTime};
use cocoon_verifier::ear::Context;
use cocoon_verifier::{
    Appraisal, GpuEvidence, GpuReferences, Policy, appraise_bundle, appraise_gpus, appraise_rim, appraise_snp_against,
    appraise_tdx_against,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ui::NOT_CONFIDENTIAL;

/// Largest file that is read: far more than any evidence has.
const MAX_FILE: u64 = 16 << 20;

/// Says whether evidence is genuine and good enough. Exit code 0 accepted, 10 refused by the policy, 20 not authentic, 30 not
/// parseable, 2 wrong usage, 1 anything else.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(subcommand)]
    evidence: Evidence,
}

#[derive(Debug, Subcommand)]
enum Evidence {
    /// An Intel TDX quote.
    Tdx {
        /// The quote: raw bytes, hex or base64.
        quote: PathBuf,
        /// Its collateral, `QuoteCollateralV3` as JSON.
        #[arg(long, value_name = "FILE")]
        collateral: PathBuf,
        /// What was measured into the runtime registers: an event log as CBOR (docs/schemas/event-log.cddl), raw, hex or base64.
        #[arg(long, value_name = "FILE")]
        event_log: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// An AMD SEV-SNP attestation report.
    Snp {
        /// The report: raw bytes, hex or base64.
        report: PathBuf,
        /// Certificate of the key that signed the report, DER or PEM.
        #[arg(long, value_name = "FILE")]
        vek: PathBuf,
        /// AMD's certificates (ASK and ARK) in any order, DER or PEM; repeatable.
        #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
        ca: Vec<PathBuf>,
        /// AMD's revocation list, DER or PEM.
        #[arg(long, value_name = "FILE")]
        crl: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// An NVIDIA GPU's attestation report, or several in NVIDIA's own evidence JSON.
    Gpu {
        /// SPDM request and response: raw bytes, hex or base64; or JSON, an array of {"evidence", "certificate", "nonce"}.
        report: PathBuf,
        /// The GPU's certificates, PEM, leaf first; evidence JSON brings its own.
        #[arg(long, value_name = "PEM")]
        chain: Option<PathBuf>,
        /// NVIDIA's reference manifests for driver and VBIOS; repeatable.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        rim: Vec<PathBuf>,
        /// What NVIDIA's service says of its certificates: OCSP responses, DER; repeatable.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        ocsp: Vec<PathBuf>,
        /// The nonce that the report must answer, 32 bytes in hex. Evidence JSON states one, which proves nothing.
        #[arg(long, value_name = "HEX")]
        nonce: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// One of NVIDIA's reference manifests (RIM).
    Rim {
        /// The manifest, XML.
        manifest: PathBuf,
        /// What NVIDIA's service says of its certificates: OCSP responses, DER; repeatable.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        ocsp: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// An evidence bundle that carries its endorsements.
    Bundle {
        /// The bundle: CBOR as raw bytes, hex or base64.
        bundle: PathBuf,
        /// Reference values to compare with, TOML.
        #[arg(long, value_name = "FILE")]
        references: Option<PathBuf>,
        /// Ed25519 public key, hex, of who must have signed the reference values; repeatable. Without any, the file's
        /// signature is not looked at.
        #[arg(long, value_name = "KEY", requires = "references")]
        signer: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
}

/// Forms of an EAT attestation result.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Eat {
    /// Claims, not signed.
    Json,
    /// Signed, JWT.
    Jwt,
    /// Signed, CWT, in hex.
    Cwt,
}

#[derive(Debug, Args)]
struct Common {
    /// Root to accept instead of the vendors', DER or PEM; repeatable.
    #[arg(long, value_name = "FILE")]
    root: Vec<PathBuf>,
    /// The time to appraise at, in seconds since 1970.
    #[arg(long, value_name = "UNIX")]
    at: u64,
    /// Policy, TOML; the strict default otherwise.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Say of each failure which layer it is in (BIOS, microcode, module, collateral, policy ...) and what to do.
    #[arg(long, conflicts_with_all = ["json", "eat"])]
    explain: bool,
    /// An EAT attestation result for other systems instead of text: its claims as JSON, or signed as JWT or CWT (hex).
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    eat: Option<Eat>,
    /// The Ed25519 key that signs the attestation result: a file with its 32-byte seed in hex.
    #[arg(long, value_name = "FILE", requires = "eat", required_if_eq_any = [("eat", "jwt"), ("eat", "cwt")])]
    eat_key: Option<PathBuf>,
    /// A nonce to put into the attestation result, 8 to 64 bytes in hex.
    #[arg(long, value_name = "HEX", requires = "eat")]
    eat_nonce: Option<String>,
    /// One line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// A result as `--json` prints it.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    appraisal: &'a Appraisal,
    /// Of bundles only.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence_id: Option<EvidenceId>,
}

/// Runs the command: the result goes to standard output, and the outcome is the exit code. An error means that there is no
/// result, because a file cannot be read or a policy is none.
pub fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let (appraisal, evidence_id, common) = match args.evidence {
        Evidence::Tdx { quote, collateral, event_log, common } => {
            let (policy, references, at) = common.policy()?;
            let log = event_log.as_deref().map(|path| {
                EventLog::from_cbor(&evidence(path)?).with_context(|| format!("{} is no event log", path.display()))
            });
            let log = log.transpose()?;
            let (quote, collateral) = (evidence(&quote)?, read(&collateral)?);
            let result = appraise_tdx_against(&quote, &collateral, log.as_ref(), references.as_ref(), &policy, at);
            (result, None, common)
        }
        Evidence::Snp { report, vek, ca, crl, common } => {
            let (policy, references, at) = common.policy()?;
            let ca = all(&ca)?;
            let crl = crl.as_deref().map(read).transpose()?;
            let (report, vek) = (evidence(&report)?, read(&vek)?);
            let result = appraise_snp_against(&report, &vek, &ca, crl.as_deref(), references.as_ref(), &policy, at);
            (result, None, common)
        }
        Evidence::Gpu { report, chain, rim, ocsp, nonce, common } => {
            let (policy, _, at) = common.policy()?;
            let chain = chain.as_deref().map(read).transpose()?;
            let references = GpuReferences::new(all(&rim)?, all(&ocsp)?);
            let nonce = nonce.as_deref().map(nonce_from).transpose()?;
            let evidence = gpus(&report, chain)?;
            let evidence: Vec<_> = evidence.iter().map(|(report, chain)| GpuEvidence { report, chain }).collect();
            (appraise_gpus(&evidence, &references, nonce, &policy, at), None, common)
        }
        Evidence::Rim { manifest, ocsp, common } => {
            let (policy, _, at) = common.policy()?;
            (appraise_rim(&read(&manifest)?, &all(&ocsp)?, &policy, at), None, common)
        }
        Evidence::Bundle { bundle, references, signer, common } => {
            let (policy, named, at) = common.policy()?;
            ensure!(
                references.is_none() || named.is_none(),
                "the policy names reference values already: leave --references out"
            );
            let references = references.map(|path| reference_values(&path, &signer)).transpose()?.or(named);
            let result = appraise_bundle(&evidence(&bundle)?, &policy, references.as_ref(), at);
            (result.appraisal, result.evidence_id, common)
        }
    };
    let text = if common.json {
        serde_json::to_string(&Printed { appraisal: &appraisal, evidence_id })? + "\n"
    } else if let Some(format) = common.eat {
        common.attestation_result(&appraisal, format)? + "\n"
    } else if common.explain {
        explanation(&appraisal)
    } else {
        for_people(&appraisal, evidence_id)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    Ok(ExitCode::from(appraisal.outcome.exit_code()))
}

impl Common {
    fn policy(&self) -> anyhow::Result<(Policy, Option<ReferenceValues>, UnixTime)> {
        let (mut policy, references) = match &self.policy {
            None => (Policy::default(), None),
            Some(path) => {
                let base = path.parent().map(Path::to_owned).unwrap_or_default();
                crate::policy::load(&text(path)?, &base).with_context(|| path.display().to_string())?
            }
        };
        for path in &self.root {
            policy.add_root(&read(path)?).with_context(|| path.display().to_string())?;
        }
        Ok((policy, references, UnixTime(self.at)))
    }

    fn attestation_result(&self, appraisal: &Appraisal, format: Eat) -> anyhow::Result<String> {
        let policy = match &self.policy {
            None => "cocoon:strict".to_owned(),
            Some(path) => {
                let digest = Digest::of(&[&read(path)?]);
                let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
                format!("ni:///sha-256;{digest}")
            }
        };
        let nonce =
            self.eat_nonce.as_deref().map(|text| hex::decode(text).context("--eat-nonce is not hex")).transpose()?;
        let context = Context { at: UnixTime(self.at), policy: Some(policy), nonce };
        Ok(match format {
            Eat::Json => appraisal.to_ear_json(&context)?.to_string(),
            Eat::Jwt => appraisal.to_jwt(&context, &*self.seed()?)?,
            Eat::Cwt => hex::encode(appraisal.to_cwt(&context, &*self.seed()?)?),
        })
    }

    fn seed(&self) -> anyhow::Result<Zeroizing<[u8; 32]>> {
        let path = self.eat_key.as_ref().context("--eat-key is missing")?;
        let text = Zeroizing::new(text(path)?);
        let mut seed = Zeroizing::new([0; 32]);
        // Neither the file's text nor the library's error, which quotes from it, may be seen.
        let read = hex::decode_to_slice(text.trim(), &mut *seed).ok();
        read.with_context(|| format!("{} is not a 32-byte seed in hex", path.display()))?;
        Ok(seed)
    }
}

pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() as u64 <= MAX_FILE, "{} has more than {MAX_FILE} bytes", path.display());
    Ok(bytes)
}

fn all(paths: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    paths.iter().map(|path| read(path)).collect()
}

fn text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(path)?).with_context(|| format!("{} is no text in UTF-8", path.display()))
}

fn reference_values(path: &Path, signers: &[String]) -> anyhow::Result<ReferenceValues> {
    let text = text(path)?;
    let keys = signers.iter().map(|key| match hex::decode(key).ok().and_then(|key| key.try_into().ok()) {
        Some(key) => Ok(key),
        None => bail!("--signer {key:?} is not 32 bytes in hex"),
    });
    let keys: Vec<[u8; 32]> = keys.collect::<Result<_, _>>()?;
    let values =
        if keys.is_empty() { ReferenceValues::from_toml(&text) } else { ReferenceValues::from_signed(&text, &keys) };
    values.with_context(|| path.display().to_string())
}

/// Reference values that one of `signers` must have signed.
pub(crate) fn signed_reference_values(path: &Path, signers: &[String]) -> anyhow::Result<ReferenceValues> {
    ensure!(!signers.is_empty(), "{}: nobody is named who must have signed it", path.display());
    reference_values(path, signers)
}

pub(crate) fn evidence(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(decoded(read(path)?))
}

fn nonce_from(text: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.with_context(|| format!("--nonce {text:?} is not 32 bytes in hex"))
}

/// One entry of the evidence JSON that NVIDIA's tools write.
#[derive(Deserialize)]
struct NvidiaEvidence {
    evidence: String,
    certificate: String,
}

/// Reports with their certificate chains.
pub(crate) fn gpus(path: &Path, chain: Option<Vec<u8>>) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let bytes = read(path)?;
    let json = bytes.trim_ascii_start().starts_with(b"[") || bytes.trim_ascii_start().starts_with(b"{");
    if !json {
        let chain = chain.context("--chain is missing: name the PEM file with the GPU's certificates")?;
        return Ok(vec![(decoded(bytes), chain)]);
    }
    ensure!(chain.is_none(), "evidence JSON brings its own certificates: leave --chain out");
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum File {
        Bare(Vec<NvidiaEvidence>),
        Wrapped { evidences: Vec<NvidiaEvidence> },
    }
    let (File::Bare(entries) | File::Wrapped { evidences: entries }) = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is no evidence JSON: an array of evidence and certificate", path.display()))?;
    Ok(entries.into_iter().map(|entry| (decoded(entry.evidence.into()), decoded(entry.certificate.into()))).collect())
}

/// Evidence in hex or base64 is decoded; anything else stands for itself. No evidence is made of hex digits or base64
/// letters alone: each begins with, or soon has, a byte that is neither.
fn decoded(bytes: Vec<u8>) -> Vec<u8> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if text.is_empty() {
        return bytes;
    }
    let digits = text.strip_prefix(b"0x").unwrap_or(&text);
    hex::decode(digits)
        .ok()
        .or_else(|| GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(&text).ok())
        .or_else(|| GeneralPurpose::new(&alphabet::URL_SAFE, lenient).decode(&text).ok())
        .unwrap_or(bytes)
}

/// Details quote names from certificates and claims, which may hold anything: nothing of it may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn for_people(appraisal: &Appraisal, evidence_id: Option<EvidenceId>) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    if appraisal.development {
        line(format!("*** {NOT_CONFIDENTIAL} ***"));
    }
    line(format!("{}: {}", appraisal.outcome, printable(&appraisal.reason)));
    if let Some(id) = evidence_id {
        line(format!("evidence id: {id}"));
    }
    if let Some(status) = &appraisal.tcb_status {
        let advisories = if appraisal.advisories.is_empty() { "none".into() } else { appraisal.advisories.join(", ") };
        line(format!("TCB status: {}; advisories: {}", printable(status), printable(&advisories)));
    }
    if let Some(time) = appraisal.not_after {
        line(format!("endorsements lapse at: {time}"));
    }
    line("\nchecks".into());
    for check in &appraisal.checks {
        line(format!("  {:<9} {:<26} {}", check.outcome.to_string(), check.id, printable(&check.detail)));
    }
    if !appraisal.unchecked.is_empty() {
        line("\nnot checked".into());
    }
    for item in &appraisal.unchecked {
        line(format!("  {:<26} {}", item.id, printable(&item.why)));
    }
    if !appraisal.measurements.is_empty() {
        line("\nmeasurements".into());
    }
    for (name, value) in &appraisal.measurements {
        line(format!("  {name:<26} {value}"));
    }
    out
}

/// What stands in the way, layer by layer, and what to do.
fn explanation(appraisal: &Appraisal) -> String {
    let mut out = String::new();
    if appraisal.development {
        out.push_str(&format!("*** {NOT_CONFIDENTIAL} ***\n"));
    }
    out.push_str(&format!("{}: {}\n", appraisal.outcome, printable(&appraisal.reason)));
    for advice in appraisal.advice() {
        out.push_str(&format!(
            "\n{} ({})\n  found: {}\n  to do: {}\n",
            advice.layer,
            advice.check,
            printable(&advice.found),
            advice.remedy
        ));
    }
    let count = appraisal.unchecked.len();
    if count > 0 {
        out.push_str(&format!("\n{count} things were not checked; leave --explain out to see them.\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use cocoon_attestation::dev::{
        CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, RimSpec, SnpEndorsementSpec, SnpSpec, TdxSpec,
    };

    use super::*;

    #[test]
    fn evidence_is_raw_hex_or_base64() {
        let raw = vec![4, 0, 2, 0, 0x81, 0, 0, 0, 0xff, 0xfe];
        for text in ["040002008100\n0000fffe\n", "0x0400020081000000FFFE", "BAACAIEAAAD//g==", "BAACAIEAAAD__g"] {
            assert_eq!(decoded(text.as_bytes().to_vec()), raw, "{text}");
        }
        assert_eq!(decoded(raw.clone()), raw);
        assert_eq!(decoded(Vec::new()), Vec::<u8>::new());
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        verify: VerifyArgs,
    }

    /// Runs `verify` with these arguments and says its exit code.
    fn exit_code(args: &[&str]) -> anyhow::Result<String> {
        let args = Command::try_parse_from([&["verify"], args].concat())?;
        Ok(format!("{:?}", run(args.verify)?))
    }

    #[test]
    fn the_outcome_is_the_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let platform = DevPlatform::from_seed([7; 32]);
        let mut debug = TdxSpec::default();
        debug.body.td_attributes[0] = 1;
        let good = file("good", hex::encode(platform.tdx_quote(&TdxSpec::default())).as_bytes());
        let debug = file("debug", &platform.tdx_quote(&debug));
        let none = file("none", b"none");
        let collateral = file("collateral", &platform.tdx_collateral(&CollateralSpec::default()));
        let root = file("root", &platform.tdx_root_der());
        let loose = file("policy", b"[tdx]\nallow_debug = true");
        let common = ["--collateral", &collateral, "--at", "1790000000", "--json"];
        let code = |quote: &str, more: &[&str]| exit_code(&[&["tdx", quote], &common[..], more].concat());
        for (quote, more, expected) in [
            (&good, &["--root", &root][..], 0),
            (&debug, &["--root", &root], 10),
            (&debug, &["--root", &root, "--policy", &loose], 0),
            (&good, &[], 20),
            (&none, &["--root", &root], 30),
        ] {
            assert_eq!(code(quote, more).unwrap(), format!("{:?}", ExitCode::from(expected)), "{quote} {more:?}");
        }
        assert!(code("absent", &[]).unwrap_err().to_string().contains("cannot read absent"));
        assert!(code(&good, &["--policy", &none]).is_err(), "a policy that is none");
        assert!(exit_code(&["tdx", &good]).unwrap_err().to_string().contains("--collateral"));
    }

    #[test]
    fn snp_reports_and_bundles_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let platform = DevPlatform::from_seed([7; 32]);
        let report = file("report", &platform.snp_report(&SnpSpec::default()));
        let chain = platform.snp_endorsements(&SnpEndorsementSpec::default());
        let (vek, ask, ark) = (file("vek", &chain.vek), file("ask", &chain.ca[0]), file("ark", &chain.ca[1]));
        let crl = file("crl", &chain.crl.unwrap());
        let accepted = format!("{:?}", ExitCode::SUCCESS);
        let args = ["snp", &report, "--vek", &vek, "--ca", &ark, "--ca", &ask, "--crl", &crl, "--root", &ark];
        assert_eq!(exit_code(&[&args[..], &["--at", "1790000000"]].concat()).unwrap(), accepted);
        let args = ["snp", &report, "--vek", &vek, "--ca", &ask, &ark, "--root", &ark, "--at", "1790000000"];
        assert_eq!(exit_code(&args).unwrap(), accepted);

        let malformed = format!("{:?}", ExitCode::from(30));
        assert_eq!(exit_code(&["bundle", &report, "--at", "1790000000"]).unwrap(), malformed);
    }

    #[test]
    fn gpu_reports_manifests_and_nvidias_own_json() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let platform = DevPlatform::from_seed([7; 32]);
        let bytes = platform.gpu_report(&GpuSpec::default());
        let pem = platform.gpu_chain(&GpuChainSpec::default());
        let (report, chain) = (file("report", hex::encode(&bytes).as_bytes()), file("chain", &pem));
        let driver = file("driver", &platform.gpu_manifest(&RimSpec::driver()));
        let vbios = file("vbios", &platform.gpu_manifest(&RimSpec::vbios()));
        let root = file("root", &platform.gpu_root_der());
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let entry = serde_json::json!({"evidence": base64(&bytes), "certificate": base64(&pem), "arch": "HOPPER", "nonce": "00"});
        let json = file("json", serde_json::json!([entry]).to_string().as_bytes());
        let twice = file("twice", serde_json::json!({"evidences": [entry, entry]}).to_string().as_bytes());
        let nonce = "00".repeat(32);
        let run = |args: &[&str]| exit_code(&[args, &["--root", &root, "--at", "1790000000", "--json"]].concat());
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(
            run(&["gpu", &report, "--chain", &chain, "--rim", &driver, &vbios, "--nonce", &nonce]).unwrap(),
            code(0)
        );
        assert_eq!(run(&["gpu", &report, "--chain", &chain, "--nonce", &"11".repeat(32)]).unwrap(), code(20));
        assert_eq!(run(&["gpu", &json, "--rim", &driver, "--rim", &vbios]).unwrap(), code(0));
        assert_eq!(run(&["gpu", &twice]).unwrap(), code(20), "one GPU twice");
        assert_eq!(run(&["rim", &driver]).unwrap(), code(0));
        assert_eq!(run(&["rim", &report]).unwrap(), code(30));
        assert!(run(&["gpu", &report]).unwrap_err().to_string().contains("--chain"));
        assert!(run(&["gpu", &json, "--chain", &chain]).unwrap_err().to_string().contains("leave --chain out"));
        assert!(
            run(&["gpu", &report, "--chain", &chain, "--nonce", "00"]).unwrap_err().to_string().contains("32 bytes")
        );
    }

    #[test]
    fn results_for_other_systems_and_advice() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let platform = DevPlatform::from_seed([7; 32]);
        let quote = file("quote", &platform.tdx_quote(&TdxSpec::default()));
        let collateral = file("collateral", &platform.tdx_collateral(&CollateralSpec::default()));
        let root = file("root", &platform.tdx_root_der());
        let (key, bad) = (file("key", "11".repeat(32).as_bytes()), file("bad", b"not a key"));
        let common = ["tdx", &quote, "--collateral", &collateral, "--at", "1790000000", "--root", &root];
        let run = |more: &[&str]| exit_code(&[&common[..], more].concat());
        let accepted = format!("{:?}", ExitCode::SUCCESS);
        for more in [
            &["--eat", "json"][..],
            &["--eat", "jwt", "--eat-key", &key],
            &["--eat", "cwt", "--eat-key", &key, "--eat-nonce", "0011223344556677"],
            &["--explain"],
        ] {
            assert_eq!(run(more).unwrap(), accepted, "{more:?}");
        }
        let failure = |more: &[&str]| run(more).unwrap_err().to_string();
        assert!(failure(&["--eat", "jwt"]).contains("--eat-key"));
        assert!(failure(&["--eat", "jwt", "--eat-key", &bad]).contains("not a 32-byte seed"));
        assert!(
            !failure(&["--eat", "jwt", "--eat-key", &bad]).contains("not a key"),
            "nothing of a key's file is shown"
        );
        assert!(failure(&["--eat", "json", "--eat-nonce", "00"]).contains("8 to 64 bytes"));
        assert!(failure(&["--json", "--explain"]).contains("--explain"));
        let log = cocoon_attestation::EventLog::default().to_cbor();
        assert_eq!(run(&["--event-log", &file("log", &log)]).unwrap(), accepted);
        assert!(failure(&["--event-log", &bad]).contains("no event log"));

        let refused = cocoon_verifier::appraise_tdx_with_events(
            &platform.tdx_quote(&TdxSpec::default()),
            &platform.tdx_collateral(&CollateralSpec::default()),
            None,
            &Policy::default(),
            UnixTime(1_790_000_000),
        );
        let text = explanation(&refused);
        assert!(text.contains("\nroot of trust (tdx.root)\n  found: ") && text.contains("\n  to do: "), "{text}");
    }

    #[test]
    fn development_evidence_says_so_first_and_nothing_steers_the_terminal() {
        let mut appraisal = cocoon_verifier::appraise_tdx(b"none", b"{}", &Policy::default(), UnixTime(0));
        assert!(for_people(&appraisal, None).starts_with("malformed: tdx.format: "));
        appraisal.development = true;
        appraisal.checks[0].detail = "\x1b[2J".into();
        let text = for_people(&appraisal, None);
        assert!(text.starts_with(&format!("*** {NOT_CONFIDENTIAL} ***\n")));
        assert!(!text.contains('\x1b'));
    }
}
