//! `cocoon audit receipt`: what a client was served and charged, shown to somebody else.
//!
//! A receipt holds digests and no content. Its salt is in it, so whoever has it can test a guess of the content, but nothing less:
//! the client discloses request or answer only if it hands them over as well.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use cocoon_attestation::EnclaveKey;
use cocoon_protocol::receipt::{FullReceipt, SignedFullReceipt};
use cocoon_settlement::contracts::channel;
use cocoon_settlement::contracts::provider::KeyState;
use cocoon_settlement::ops;
use cocoon_transparency::replay::utc;
use cocoon_verifier::Outcome;
use serde_json::{Value, json};

use super::bundle;
use super::logs::LogArgs;
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
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

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
            eprintln!("cocoon: {} is no receipt: {error:#}", args.receipt.display());
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
        development = evidence(&mut checks, receipt, &logs)?;
    } else {
        checks.unchecked("evidence", "no log was named");
    }
    match args.chain.open(&trust).await? {
        None => checks.unchecked("chain", "no chain was named"),
        Some(open) => on_chain(&mut checks, receipt, &open).await?,
    }
    let failed = checks.0.iter().any(|(_, holds, _)| *holds == Some(false));
    let exit = if failed { Outcome::Invalid.exit_code() } else { 0 };
    let text =
        if args.json { machine(&signed, &checks, exit, development) } else { people(receipt, &checks, development) };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    Ok(ExitCode::from(exit))
}

/// The enclave was attested by evidence that the logs hold, and that is accepted again.
fn evidence(checks: &mut Checks, receipt: &FullReceipt, logs: &[super::logs::OpenLog]) -> Result<bool> {
    let Some(opened) = bundle::open(logs, Some(&receipt.evidence_id.0), None)? else {
        checks.put(
            "evidence",
            false,
            format!("no log has a leaf about the evidence {} that it names", receipt.evidence_id),
        );
        return Ok(false);
    };
    let claims = cocoon_attestation::Bundle::from_cbor(&opened.bundle)?.claims()?;
    let key = receipt.settlement.receipt.enclave_key;
    let ours = claims.enclave_key == key && claims.model_root == receipt.model_root;
    let detail = format!("leaf {} of {} is about model {:?}", opened.index, opened.log, claims.model_name);
    checks.put(
        "evidence",
        ours,
        if ours { detail } else { detail + ", of another enclave or model than the receipt's" },
    );
    let accepted = opened.again.outcome == Outcome::Accepted;
    let detail = format!("appraised again at {}: {}", utc(opened.leaf.time), opened.again.reason);
    checks.put("appraisal", accepted && opened.recorded == opened.again, detail);
    Ok(opened.again.development)
}

async fn on_chain(checks: &mut Checks, receipt: &FullReceipt, open: &super::replay::OpenChain) -> Result<()> {
    let settlement = &receipt.settlement.receipt;
    if settlement.network != open.chain.network() {
        checks.put("chain", false, format!("it is for {}, not for {}", settlement.network, open.chain.network()));
        return Ok(());
    }
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
    let mut out = String::new();
    if development {
        out += &format!("*** {} ***\n", crate::ui::NOT_CONFIDENTIAL);
    }
    out += &format!(
        "{} for {} prompt, {} cached, {} completion and {} reasoning tokens, finished with {:?}\n",
        receipt.charge, tokens.prompt, tokens.cached, tokens.completion, tokens.reasoning, receipt.finish_reason
    );
    out += &format!(
        "receipt {} of enclave {} in channel {}, {}\n",
        settlement.sequence,
        hex::encode(settlement.enclave_key.0),
        settlement.channel,
        settlement.time
    );
    for (id, holds, detail) in &checks.0 {
        let word = holds.map_or("unchecked", |holds| if holds { "passed" } else { "FAILED" });
        out += &format!("  {id} {word}: {detail}\n");
    }
    out.chars().map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter }).collect()
}
