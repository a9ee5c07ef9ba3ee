//! `cocoon audit bundle`: one leaf of a log, taken out with all it needs, and appraised again.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use cocoon_attestation::{Digest, ReferenceValues, UnixTime};
use cocoon_transparency::replay::{VERIFIER, document, find, leaf, utc};
use cocoon_transparency::{Leaf, Source as _};
use cocoon_verifier::{Appraisal, Policy, appraise_bundle};
use serde_json::json;

use super::logs::{LogArgs, OpenLog};
use super::progress::Progress;
use crate::ui::within_line;

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
    /// Appraise it under this policy too, instead of only under the one that the leaf names; it may name reference values
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write the bundle with its endorsements, policy and reference values into this folder, for `cocoon verify bundle`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// A leaf that its log's signed tree holds, and what came of it.
pub(super) struct Opened {
    pub log: String,
    pub index: u64,
    /// Leaves of the tree, witnesses that cosigned it, and how many were named.
    pub tree: (u64, usize, usize),
    pub leaf: Leaf,
    pub bundle: Vec<u8>,
    pub policy: String,
    pub references: Option<String>,
    pub recorded: Appraisal,
    pub again: Appraisal,
}

/// Which leaf is looked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// The one with an index.
    Index(u64),
    /// The newest about an evidence.
    Newest(&'a Digest),
    /// The newest about an evidence that is not dated later.
    Until(&'a Digest, UnixTime),
}

/// Looks for a leaf in a log, proves that the tree which the log signed holds it, and appraises its evidence again.
pub(super) fn open(log: &OpenLog, wanted: Wanted<'_>) -> Result<Option<Opened>> {
    let folder = match &log.folder {
        Ok(folder) => folder,
        Err(why) => bail!("{}: {why}", log.place),
    };
    let (head, cosigned) = log.head(folder).with_context(|| log.place.clone())?;
    let found = match wanted {
        Wanted::Index(index) => Some((index, leaf(folder, &head, index)?)),
        Wanted::Newest(id) => find(folder, &head, id, |_| true)?,
        Wanted::Until(id, time) => find(folder, &head, id, |leaf| leaf.time <= time)?,
    };
    let Some((index, leaf)) = found else { return Ok(None) };
    let part = |digest: &Digest| folder.part(digest).ok();
    let policy = document(folder, &leaf.policy).context("the leaf's policy")?;
    let named = Policy::from_toml(&policy).context("the leaf's policy")?;
    let references = leaf.references.as_ref().map(|digest| document(folder, digest)).transpose();
    let references = references.context("the leaf's reference values")?;
    let values = references.as_deref().map(ReferenceValues::from_toml).transpose();
    let values = values.context("the leaf's reference values")?;
    let bundle = leaf.open_bundle(part)?.to_cbor();
    let again = appraise_bundle(&bundle, &named, values.as_ref(), leaf.time).appraisal;
    let recorded: Appraisal = serde_json::from_slice(&leaf.appraisal.bytes(part)?).context("the recorded appraisal")?;
    let tree = (head.size, cosigned, log.witnesses.len());
    let log = cocoon_transparency::replay::origin(&log.key).to_owned();
    Ok(Some(Opened { log, index, tree, leaf, bundle, policy, references, recorded, again }))
}

impl Opened {
    /// Appraises the evidence once more, at the leaf's time, under a policy of the auditor's own.
    pub fn under(&self, policy: &std::path::Path) -> Result<Appraisal> {
        let text = std::fs::read_to_string(policy).with_context(|| format!("cannot read {}", policy.display()))?;
        let base = policy.parent().map(std::path::Path::to_owned).unwrap_or_default();
        let (policy, values) = crate::policy::load(&text, &base).with_context(|| policy.display().to_string())?;
        Ok(appraise_bundle(&self.bundle, &policy, values.as_ref(), self.leaf.time).appraisal)
    }

    /// Where it stands, and who saw that tree.
    pub fn place(&self) -> String {
        let (size, cosigned, named) = self.tree;
        let seen = if named == 0 {
            "no witness was named".into()
        } else {
            format!("cosigned by {cosigned} of {named} witnesses")
        };
        format!("leaf {} of {}, proved to be in its tree of {size} leaves; {seen}", self.index, self.log)
    }
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
    let mut found = None;
    let mut failed = Vec::new();
    for log in &logs {
        let wanted = match (args.leaf, &id) {
            (Some(index), _) => Wanted::Index(index),
            (None, Some(id)) => Wanted::Newest(id),
            (None, None) => bail!("name an evidence id or a leaf"),
        };
        match open(log, wanted) {
            Ok(Some(opened)) => {
                found = Some(opened);
                break;
            }
            Ok(None) => {}
            Err(error) => failed.push(format!("{}: {error:#}", log.place)),
        }
    }
    let Some(opened) = found else {
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        bail!("none of these logs has a leaf about that evidence");
    };
    let own = args.policy.as_deref().map(|policy| opened.under(policy)).transpose()?;
    let same = opened.again.is_recorded_as(&opened.recorded);
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
            "recorded": opened.recorded, "again": opened.again, "by": VERIFIER, "same": same, "own": own,
            "tree_size": opened.tree.0, "cosigned": opened.tree.1, "witnesses": opened.tree.2,
        });
        format!("{object}\n")
    } else {
        let mut lines = vec![format!("evidence {}, {}", leaf.evidence_id, utc(leaf.time)), opened.place()];
        lines.push(format!("recorded by {}: {} ({})", leaf.verifier, opened.recorded.outcome, opened.recorded.reason));
        lines.push(format!("appraised again by {VERIFIER}: {} ({})", opened.again.outcome, opened.again.reason));
        if let Some(own) = &own {
            lines.push(format!("under the named policy: {} ({})", own.outcome, own.reason));
        }
        if let Some(refusal) = &leaf.refusal {
            lines.push(format!("no verdict was given: {refusal}"));
        }
        for check in own.as_ref().unwrap_or(&opened.again).checks.iter().filter(|check| check.outcome.is_failure()) {
            lines.push(format!("  {} {}: {}", check.id, check.outcome, check.detail));
        }
        lines.push(if same { "both are the same" } else { "THE TWO DIFFER" }.into());
        if let Some(folder) = &args.out {
            let references = if opened.references.is_some() {
                format!(" --references {}/references.toml", folder.display())
            } else {
                String::new()
            };
            let folder = folder.display();
            lines.push(format!(
                "$ cocoon verify bundle {folder}/bundle.cbor --policy {folder}/policy.toml{references} --at {}",
                leaf.time.0
            ));
        }
        lines.iter().map(|line| within_line(line) + "\n").collect()
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    // A result that differs is graver than what it says.
    Ok(ExitCode::from(if same { own.as_ref().unwrap_or(&opened.again).outcome.exit_code() } else { 20 }))
}
