//! `cocoon audit receipt`: what a client was served and charged, shown to somebody else.
//!
//! A receipt holds digests and no content. Its salt is in it, so whoever has it can test a guess of the content, but nothing less:
//! the client discloses request or answer only if it hands them over as well.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use cocoon_attestation::EnclaveKey;
use cocoon_protocol::receipt::{FullReceipt, SignedFullReceipt};
use cocoon_settlement::contracts::provider::KeyState;
use cocoon_settlement::contracts::{channel, provider};
use cocoon_settlement::ops;
use cocoon_transparency::replay::utc;
use cocoon_verifier::Outcome;
use serde_json::{Value, json};

use super::bundle::{self, Opened, Wanted};
use super::logs::{LogArgs, OpenLog};
use super::progress::Progress;
use super::replay::ChainArgs;
use crate::verify;

#[derive(Debug, Args)]
pub(super) struct ReceiptArgs {
    /// The receipt: what the proxy gives at /v1/receipts/ID (JSON), or its `signed` field alone
    #[arg(value_name = "FILE")]
    receipt: PathBuf,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    chain: ChainArgs,
    /// The request's body, if the client discloses it
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The answer's body as the client got it, if the client discloses it
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,
    /// Appraise the evidence under this policy too, instead of only under the one that its leaf names; it may name reference values
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Seconds by which clocks of enclaves and nodes may differ.
const SLACK: u64 = 600;

/// What is checked of a receipt, in order.
struct Checks(Vec<(&'static str, Option<bool>, String)>);

impl Checks {
    fn put(&mut self, id: &'static str, holds: bool, detail: impl Into<String>) {
        self.0.push((id, Some(holds), detail.into()));
    }

    fn unchecked(&mut self, id: &'static str, why: impl Into<String>) {
        self.0.push((id, None, why.into()));
    }
}

fn read(bytes: &[u8]) -> Result<SignedFullReceipt> {
    let text = std::str::from_utf8(bytes).ok().map(str::trim);
    if let Some(text) = text.filter(|text| text.starts_with('{')) {
        let value: Value = serde_json::from_str(text).context("the receipt's JSON cannot be read")?;
        let signed = value["signed"].as_str().context("the receipt's JSON has no `signed`")?;
        return Ok(SignedFullReceipt::from_trailer(signed)?);
    }
    match text.and_then(|text| STANDARD.decode(text).ok()) {
        Some(decoded) => Ok(SignedFullReceipt::from_bytes(&decoded)?),
        None => Ok(SignedFullReceipt::from_bytes(bytes)?),
    }
}

pub(super) async fn run(args: ReceiptArgs) -> Result<ExitCode> {
    let bytes = verify::read(&args.receipt)?;
    let signed = match read(&bytes) {
        Ok(signed) => signed,
        Err(error) => {
            eprintln!("cocoon: {} is no receipt: {}", args.receipt.display(), crate::ui::error(&error));
            return Ok(ExitCode::from(Outcome::Malformed.exit_code()));
        }
    };
    let receipt = &signed.receipt;
    let settlement = &receipt.settlement.receipt;
    let key: EnclaveKey = settlement.enclave_key;
    let mut checks = Checks(Vec::new());
    match signed.verify(&key) {
        Ok(_) => checks.put(
            "signature",
            true,
            format!("enclave {} signed it, and the charge is what tokens and prices make", hex::encode(key.0)),
        ),
        Err(error) => checks.put("signature", false, error.to_string()),
    }
    for (id, file, digest) in
        [("request", &args.request, receipt.request_digest), ("response", &args.response, receipt.response_digest)]
    {
        match file {
            None => checks.unchecked(id, "not disclosed"),
            Some(path) => {
                let holds = FullReceipt::digest(&receipt.salt, &verify::read(path)?) == digest;
                checks.put(
                    id,
                    holds,
                    if holds { "it is what was disclosed" } else { "it is another one than what was disclosed" },
                );
            }
        }
    }
    let trust = args.logs.trust()?;
    let mut development = false;
    if args.logs.names_any(&trust) {
        let progress = Progress::new();
        let logs = args.logs.open(&trust, &progress).await?;
        progress.end();
        development = evidence(&mut checks, receipt, &logs, args.policy.as_deref())?;
    } else {
        checks.unchecked("evidence", "no log was named");
    }
    match args.chain.named(&trust)? {
        None => checks.unchecked("chain", "no chain was named"),
        Some(named) => on_chain(&mut checks, receipt, &named.open().await?).await?,
    }
    let failed = checks.0.iter().any(|(_, holds, _)| *holds == Some(false));
    let exit = if failed { Outcome::Invalid.exit_code() } else { 0 };
    let text =
        if args.json { machine(&signed, &checks, exit, development) } else { people(receipt, &checks, development) };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    Ok(ExitCode::from(exit))
}

/// The enclave was attested by evidence that a log holds as accepted when the receipt was signed, and that is accepted again.
fn evidence(checks: &mut Checks, receipt: &FullReceipt, logs: &[OpenLog], policy: Option<&Path>) -> Result<bool> {
    let settlement = &receipt.settlement.receipt;
    let until = settlement.time.plus(SLACK);
    let (mut found, mut failed) = (None::<Opened>, Vec::new());
    let in_force = |opened: &Opened| opened.leaf.outcome == Outcome::Accepted;
    for log in logs {
        match bundle::open(log, Wanted::Until(&receipt.evidence_id.0, until)) {
            // One that says accepted counts more than what stood first.
            Ok(Some(opened)) if in_force(&opened) => {
                found = Some(opened);
                break;
            }
            Ok(opened) => found = found.or(opened),
            Err(error) => failed.push(format!("{}: {error:#}", log.place)),
        }
    }
    let Some(opened) = found else {
        let mut detail =
            format!("no log has a leaf about the evidence {} from before the receipt", receipt.evidence_id);
        failed.iter().for_each(|why| detail += &format!("; {why}"));
        checks.put("evidence", false, detail);
        return Ok(false);
    };
    let (_, cosigned, named) = opened.tree;
    checks.put("logged", named == 0 || cosigned > 0, opened.place());
    let claims = cocoon_attestation::Bundle::from_cbor(&opened.bundle)?.claims()?;
    let ours = claims.enclave_key == settlement.enclave_key
        && claims.model_root == receipt.model_root
        && claims.provider == settlement.provider.into();
    let detail = format!("leaf {} of {} is about model {:?}", opened.index, opened.log, claims.model_name);
    checks.put(
        "evidence",
        ours,
        if ours { detail } else { detail + ", of another enclave, model or provider than the receipt's" },
    );
    let as_recorded =
        opened.again.outcome == opened.recorded.outcome && in_force(&opened) && opened.leaf.refusal.is_none();
    let detail = format!(
        "the leaf in force says {}; appraised again at {}: {}",
        opened.leaf.outcome,
        utc(opened.leaf.time),
        opened.again.reason
    );
    checks.put("appraisal", as_recorded && opened.again.outcome == Outcome::Accepted, detail);
    match policy {
        None => checks.unchecked("policy", "none was named: what is accepted is what the node's own policy accepts"),
        Some(path) => {
            let own = opened.under(path)?;
            checks.put("policy", own.outcome == Outcome::Accepted, format!("under {}: {}", path.display(), own.reason));
        }
    }
    Ok(opened.again.development)
}

async fn on_chain(checks: &mut Checks, receipt: &FullReceipt, open: &super::replay::OpenChain) -> Result<()> {
    let settlement = &receipt.settlement.receipt;
    if settlement.network != open.chain.network() {
        checks.put("chain", false, format!("it is for {}, not for {}", settlement.network, open.chain.network()));
        return Ok(());
    }
    // What a contract says of itself counts only if it is one of Cocoon's.
    let codes = [
        ("provider", settlement.provider, provider::provider_code_hash()),
        ("channel", settlement.channel, channel::channel_code_hash()),
    ];
    for (id, address, code) in codes {
        if open.chain.account(&address).await?.code_hash != Some(code) {
            checks.put(id, false, format!("{address} does not hold the code of Cocoon's {id}s"));
            return Ok(());
        }
    }
    let terms = provider::terms(&*open.chain, &settlement.provider).await?;
    let holds = terms.registry == open.registry && terms.network == settlement.network;
    let detail = format!("its attestations are let in by the Registry {}", terms.registry);
    checks.put("provider", holds, if holds { detail } else { format!("{detail}, not by {}", open.registry) });
    match ops::enclave_record(&*open.chain, &settlement.provider, &settlement.enclave_key).await? {
        None => checks.put("attested", false, "its provider's contract does not know the enclave's key (any more)"),
        Some(record) => {
            let holds = record.state == KeyState::Active
                || (record.state == KeyState::Retired && settlement.time <= record.until);
            let covered = settlement.time <= record.until && settlement.time >= record.since;
            let detail = format!(
                "the key is {:?}, attested from {} to {}; the receipt is of {}",
                record.state, record.since, record.until, settlement.time
            );
            checks.put("attested", holds && covered, detail);
        }
    }
    match ops::channel_terms(&*open.chain, &settlement.channel).await {
        Ok(terms) => {
            let holds = terms.provider == settlement.provider;
            let paid = channel::paid(&*open.chain, &settlement.channel, &settlement.enclave_key).await?;
            let detail = format!(
                "the channel has paid this enclave {} of the {} that the receipt says it had earned",
                paid.paid, settlement.total
            );
            checks.put("channel", holds, detail);
        }
        Err(error) => checks.unchecked("channel", error.to_string()),
    }
    Ok(())
}

fn machine(signed: &SignedFullReceipt, checks: &Checks, exit: u8, development: bool) -> String {
    let receipt = &signed.receipt;
    let settlement = &receipt.settlement.receipt;
    let checks: Vec<_> = checks
        .0
        .iter()
        .map(|(id, holds, detail)| json!({ "id": id, "outcome": holds.map_or("unchecked", |holds| if holds { "passed" } else { "failed" }), "detail": detail }))
        .collect();
    let object = json!({
        "schema": "cocoon/audit-receipt/v1", "exit_code": exit, "development": development, "checks": checks,
        "charge_nanoton": receipt.charge.0, "tokens": receipt.tokens, "prices": receipt.prices, "finish_reason": receipt.finish_reason,
        "model_root": receipt.model_root.to_string(), "evidence_id": receipt.evidence_id.to_string(),
        "request_digest": receipt.request_digest.to_string(), "response_digest": receipt.response_digest.to_string(),
        "settlement": { "network": settlement.network.0, "provider": settlement.provider.to_string(), "channel": settlement.channel.to_string(),
                        "enclave_key": hex::encode(settlement.enclave_key.0), "sequence": settlement.sequence,
                        "total_nanoton": settlement.total.0, "time": settlement.time },
    });
    format!("{object}\n")
}

fn people(receipt: &FullReceipt, checks: &Checks, development: bool) -> String {
    let tokens = &receipt.tokens;
    let settlement = &receipt.settlement.receipt;
    let mut lines = Vec::new();
    if development {
        lines.push(format!("*** {} ***", crate::ui::NOT_CONFIDENTIAL));
    }
    lines.push(format!(
        "{} for {} prompt, {} cached, {} completion and {} reasoning tokens, finished with {:?}",
        receipt.charge, tokens.prompt, tokens.cached, tokens.completion, tokens.reasoning, receipt.finish_reason
    ));
    lines.push(format!(
        "receipt {} of enclave {} in channel {}, {}",
        settlement.sequence,
        hex::encode(settlement.enclave_key.0),
        settlement.channel,
        settlement.time
    ));
    for (id, holds, detail) in &checks.0 {
        let word = holds.map_or("unchecked", |holds| if holds { "passed" } else { "FAILED" });
        lines.push(format!("  {id} {word}: {detail}"));
    }
    lines.iter().map(|line| crate::ui::within_line(line) + "\n").collect()
}
