//! Is a genuine GPU good enough? Its mode and versions are policy, its measurements must be NVIDIA's own.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::rim::Kind;
use super::spdm::GpuReport;
use super::{Asked, ocsp};
use crate::outcome::Record;
use crate::policy::{GpuMode, GpuPolicy};

/// Block 36, which is index 35 of a manifest, is the first video decoder's.
const NVDEC0: u8 = 35;

/// What measurements are called in results, by NVIDIA's index.
static NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..=u8::MAX).map(|n| format!("gpu.measurement{n:02}")).collect());

pub(super) fn measure(record: &mut Record, report: &GpuReport, architecture: &str) {
    record.measurements.push(("gpu.architecture".into(), architecture.to_owned()));
    for (name, value) in
        [("gpu.driver", report.driver_version()), ("gpu.vbios", report.vbios_version()), ("gpu.board", report.board())]
    {
        record.measurements.extend(value.map(|value| (name.into(), value)));
    }
    record.measure("gpu.nonce", &report.nonce());
    // Blocks are counted from 1, NVIDIA's measurements from 0.
    for (name, block) in NAMES.iter().zip(1..=u8::MAX) {
        if let Some(digest) = report.measurement(block)
            && digest.iter().any(|byte| *byte != 0)
        {
            record.measure(name.as_str(), digest);
        }
    }
}

pub(super) fn mode_and_versions(record: &mut Record, report: &GpuReport, policy: &GpuPolicy) {
    match report.feature() {
        None if policy.mode.is_empty() => {
            record.unchecked("gpu.mode", "this driver does not report how the GPU is used");
        }
        None => record.demand("gpu.mode", false, "this driver does not report how the GPU is used"),
        Some(flag) => {
            let mode = match flag {
                [0, 0] => Some(GpuMode::Spt),
                [1, 0] => Some(GpuMode::Mpt),
                [2, 0] => Some(GpuMode::Ppcie),
                _ => None,
            };
            let accepted = mode.is_some_and(|mode| policy.mode.is_empty() || policy.mode.contains(&mode));
            let detail = match mode {
                None => format!("the flag {} is no mode that this verifier knows", hex::encode(flag)),
                Some(mode) if accepted => format!("{mode:?}"),
                Some(mode) => format!("{mode:?}, which is none of those that the policy takes"),
            };
            record.demand("gpu.mode", accepted, detail);
            if accepted && mode == Some(GpuMode::Ppcie) {
                record.unchecked(
                    "gpu.switches",
                    "this mode trusts the NVSwitches between the GPUs, which no evidence here is about",
                );
            }
        }
    }
    let text = |record: &mut Record, id: &'static str, found: Option<String>, accepted: &[String]| {
        let found = found.unwrap_or_default();
        if accepted.is_empty() {
            return record.unchecked(id, "the policy names none");
        }
        record.demand(id, accepted.contains(&found), format!("{found:?}; the policy takes {}", accepted.join(", ")));
    };
    text(record, "gpu.driver-version", report.driver_version(), &policy.driver_version);
    text(record, "gpu.vbios-version", report.vbios_version(), &policy.vbios_version);
}

/// Reference manifests, and every golden measurement in them.
pub(super) fn golden(record: &mut Record, report: &GpuReport<'_>, architecture: &str, asked: &Asked<'_>) {
    let rims = match &asked.manifests {
        Ok(rims) => rims,
        Err((id, outcome, detail)) => return record.put(format!("gpu.{id}"), *outcome, detail.clone()),
    };
    let find = |kind: Kind, version: &Option<String>| {
        rims.iter().find(|rim| {
            rim.kind == kind
                && rim.product == architecture
                && version.as_ref().is_some_and(|version| rim.version.eq_ignore_ascii_case(version))
        })
    };
    let mut values: BTreeMap<u8, (&str, &[Vec<u8>])> = BTreeMap::new();
    let mut complete = true;
    for (kind, id, revocation, what, version) in [
        (Kind::Driver, "gpu.driver-rim", "gpu.driver-rim-revocation", "driver", report.driver_version()),
        (Kind::Vbios, "gpu.vbios-rim", "gpu.vbios-rim-revocation", "VBIOS", report.vbios_version()),
    ] {
        let running = version.clone().unwrap_or_else(|| "of no version".into());
        match find(kind, &version) {
            Some(rim) => {
                record.passed(id, format!("{what} {} for {}, signed and current", rim.version, rim.product));
                record.development |= rim.development;
                ocsp::check(record, revocation, &rim.certificates, 0, &asked.responses, asked.at);
                record.not_after = Some(record.not_after.map_or(rim.window.to, |known| known.min(rim.window.to)));
                for (index, golden) in &rim.golden {
                    if values.insert(*index, (what, golden)).is_some() {
                        let detail = format!("driver and VBIOS manifests both give measurement {index}");
                        return record.genuine("gpu.measurements", false, detail);
                    }
                }
            }
            None if rims.iter().any(|rim| rim.kind == kind) => {
                complete = false;
                let found: Vec<_> = rims
                    .iter()
                    .filter(|rim| rim.kind == kind)
                    .map(|rim| format!("{} {}", rim.product, rim.version))
                    .collect();
                let detail = format!(
                    "the GPU ({architecture}) runs {what} {running}; the manifests are for {}",
                    found.join(", ")
                );
                record.demand(id, false, detail);
            }
            None => {
                complete = false;
                let why = format!("no manifest for {what} {running} was given");
                if asked.policy.gpu.require_rims {
                    record.demand(id, false, format!("{why}, and the policy demands one"));
                } else {
                    record.unchecked(id, why);
                }
            }
        }
    }
    if values.is_empty() {
        return record.unchecked(
            "gpu.measurements",
            "without manifests nothing says whether firmware and mode are NVIDIA's own",
        );
    }
    if report.nvdec0_disabled() {
        values.remove(&NVDEC0);
    }
    let differing: Vec<String> = values
        .iter()
        .filter(|(index, (_, golden))| {
            let found = report.measurement(*index + 1);
            !found.is_some_and(|found| golden.iter().any(|value| value == found))
        })
        .map(|(index, (what, _))| format!("{index} ({what})"))
        .collect();
    let detail = if differing.is_empty() {
        format!("{} golden measurements match", values.len())
    } else {
        format!(
            "{} of {} measurements are not NVIDIA's: {}; the firmware is another, or the GPU is not in confidential mode (devtools)",
            differing.len(),
            values.len(),
            differing.join(", ")
        )
    };
    record.demand("gpu.measurements", differing.is_empty(), detail);
    if !complete {
        record.unchecked("gpu.all-measurements", "one of the two manifests is missing");
    }
}
