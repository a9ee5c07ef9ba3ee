//! `cocoon audit bundle`: one leaf of a log, taken out with all it needs, and appraised again.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use cocoon_attestation::{Digest, ReferenceValues};
use cocoon_transparency::replay::{VERIFIER, find, leaf, utc};
use cocoon_transparency::{Leaf, Source as _, layout, open_checkpoint};
use cocoon_verifier::{Appraisal, Policy, appraise_bundle};
use serde_json::json;

use super::logs::LogArgs;
use super::progress::Progress;

#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    /// The evidence id, 64 hexadecimal digits; with --leaf the first LOG
    #[arg(value_name = "ID")]
    id: String,
    /// The leaf with this index, instead of an evidence id
    #[arg(long, value_name = "INDEX")]
    leaf: Option<u64>,
    #[command(flatten)]
    logs: LogArgs,
    /// Write the bundle with its endorsements, policy and reference values into this folder, for `cocoon verify bundle`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// A leaf, and what came of it.
pub(super) struct Opened {
    pub log: String,
    pub index: u64,
    pub leaf: Leaf,
    pub bundle: Vec<u8>,
    pub policy: String,
    pub references: Option<String>,
    pub recorded: Appraisal,
    pub again: Appraisal,
}

/// Looks for evidence in logs and appraises the newest leaf about it again.
pub(super) fn open(logs: &[super::logs::OpenLog], id: Option<&Digest>, index: Option<u64>) -> Result<Option<Opened>> {
    for log in logs {
        let found = match (index, id) {
            (Some(index), _) => {
                let text = log.folder.read(layout::CHECKPOINT)?.unwrap_or_default();
                let head = open_checkpoint(&String::from_utf8_lossy(&text), &log.key)?;
                Some((index, leaf(&log.folder, head.size, index)?))
            }
            (None, Some(id)) => match find(&log.folder, &log.key, id)? {
                None => None,
                Some((index, entry)) => Some((index, Leaf::from_cbor(&entry)?)),
            },
            (None, None) => bail!("name an evidence id or a leaf"),
        };
        let Some((index, leaf)) = found else { continue };
        let part = |digest: &Digest| log.folder.part(digest).ok();
        let text = |digest: &Digest| -> Result<String> { Ok(String::from_utf8(log.folder.part(digest)?)?) };
        let bundle = leaf.open_bundle(part)?.to_cbor();
        let policy = text(&leaf.policy).context("the leaf's policy")?;
        let references = leaf.references.as_ref().map(text).transpose().context("the leaf's reference values")?;
        let values = references.as_deref().map(ReferenceValues::from_toml).transpose()?;
        let again = appraise_bundle(&bundle, &Policy::from_toml(&policy)?, values.as_ref(), leaf.time).appraisal;
        let recorded = serde_json::from_slice(&leaf.appraisal.bytes(part)?).context("the recorded appraisal")?;
        let log = cocoon_transparency::replay::origin(&log.key).to_owned();
        return Ok(Some(Opened { log, index, leaf, bundle, policy, references, recorded, again }));
    }
    Ok(None)
}

pub(super) async fn run(mut args: BundleArgs) -> Result<ExitCode> {
    let id = match args.leaf {
        // The first word is a log then.
        Some(_) => {
            args.logs.prepend(std::mem::take(&mut args.id));
            None
        }
        None => Some(args.id.parse::<Digest>().context("the evidence id must be 64 hexadecimal digits")?),
    };
    let progress = Progress::new();
    let trust = args.logs.trust()?;
    let logs = args.logs.open(&trust, &progress).await?;
    progress.end();
    let Some(opened) = open(&logs, id.as_ref(), args.leaf)? else {
        bail!("none of these logs has a leaf about that evidence");
    };
    let same = opened.recorded == opened.again;
    if let Some(folder) = &args.out {
        let put = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.join(name), bytes).with_context(|| format!("cannot write to {}", folder.display()))
        };
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        put("bundle.cbor", &opened.bundle)?;
        put("policy.toml", opened.policy.as_bytes())?;
        if let Some(references) = &opened.references {
            put("references.toml", references.as_bytes())?;
        }
        put("recorded.json", &serde_json::to_vec_pretty(&opened.recorded)?)?;
    }
    let leaf = &opened.leaf;
    let text = if args.json {
        let object = json!({
            "schema": "cocoon/audit-bundle/v1", "log": opened.log, "leaf": opened.index, "evidence_id": leaf.evidence_id.to_string(),
            "time": leaf.time, "node": leaf.node, "verifier": leaf.verifier, "outcome": leaf.outcome, "refusal": leaf.refusal,
            "policy": leaf.policy.to_string(), "references": leaf.references.map(|digest| digest.to_string()),
            "recorded": opened.recorded, "again": opened.again, "by": VERIFIER, "same": same,
        });
        format!("{object}\n")
    } else {
        let mut out =
            format!("evidence {} in leaf {} of {}, {}\n", leaf.evidence_id, opened.index, opened.log, utc(leaf.time));
        out += &format!("recorded by {}: {} ({})\n", leaf.verifier, opened.recorded.outcome, opened.recorded.reason);
        out += &format!("appraised again by {VERIFIER}: {} ({})\n", opened.again.outcome, opened.again.reason);
        if let Some(refusal) = &leaf.refusal {
            out += &format!("no verdict was given: {refusal}\n");
        }
        for check in opened.again.checks.iter().filter(|check| check.outcome.is_failure()) {
            out += &format!("  {} {}: {}\n", check.id, check.outcome, check.detail);
        }
        out += if same { "both are the same\n" } else { "THE TWO DIFFER\n" };
        if let Some(folder) = &args.out {
            let references = if opened.references.is_some() {
                format!(" --references {}/references.toml", folder.display())
            } else {
                String::new()
            };
            let folder = folder.display();
            out += &format!(
                "$ cocoon verify bundle {folder}/bundle.cbor --policy {folder}/policy.toml{references} --at {}\n",
                leaf.time.0
            );
        }
        out.chars().map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter }).collect()
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    // A result that differs is graver than what it says.
    Ok(ExitCode::from(if same { opened.again.outcome.exit_code() } else { 20 }))
}
