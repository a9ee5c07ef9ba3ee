//! `cocoon measure explain`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use cocoon_attestation::{EventLog, Measurement, ccel};
use cocoon_firmware_measurements::Event;
use cocoon_firmware_measurements::explain::{Explanation, QuotedRegisters, explain};
use cocoon_firmware_measurements::tdx::{Register, TdxMeasurements};
use serde::Deserialize;
use serde_json::json;

use super::{read, tdx};
use crate::verify::evidence;

/// The schema that `--json` names.
pub const SCHEMA: &str = "cocoon/measure-explain/v1";
/// What a refusal exits with, as everywhere.
const DIFFERENT: u8 = 10;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The TDX quote: raw bytes, hex or base64. Whether it is genuine is another question: `cocoon verify tdx`
    quote: PathBuf,
    /// What was measured: the guest's CCEL table (/sys/firmware/acpi/tables/data/CCEL), or an event log as CBOR
    #[arg(long, value_name = "FILE")]
    event_log: PathBuf,
    /// What should have been measured: the output of `cocoon measure tdx --json` for this machine
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    pub fn run(self) -> Result<(String, ExitCode)> {
        let quote =
            QuotedRegisters::from_quote(&evidence(&self.quote)?).with_context(|| self.quote.display().to_string())?;
        let log = event_log(&self.event_log)?;
        let expected = self.expected.as_deref().map(expected).transpose()?;
        let found = explain(&quote, &log, expected.as_ref())?;
        let code = if found.difference.is_some() { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS };
        let text = if self.json { for_programs(&found) } else { for_people(&found, expected.is_some()) };
        Ok((text, code))
    }
}

/// A log in either format: CBOR begins with an array, CCEL with the number of a register.
fn event_log(path: &Path) -> Result<EventLog> {
    let bytes = evidence(path)?;
    EventLog::from_cbor(&bytes).or_else(|_| ccel::parse(&bytes)).with_context(|| {
        format!("{} is neither an event log as CBOR (docs/schemas/event-log.cddl) nor a CCEL table", path.display())
    })
}

#[derive(Deserialize)]
struct Expected {
    schema: String,
    mrtd: Measurement,
    rtmr: [ExpectedRegister; 4],
}

#[derive(Deserialize)]
struct ExpectedRegister {
    value: Option<Measurement>,
    events: Vec<ExpectedEvent>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct ExpectedEvent {
    name: String,
    digest: Measurement,
    meaning: String,
}

fn expected(path: &Path) -> Result<TdxMeasurements> {
    let read: Expected = serde_json::from_slice(&read(path)?)
        .with_context(|| format!("{} is no output of `cocoon measure tdx --json`", path.display()))?;
    if read.schema != tdx::SCHEMA {
        bail!("{} has schema {:?}, not {}", path.display(), read.schema, tdx::SCHEMA);
    }
    let rtmr = read.rtmr.map(|register| {
        let event = |event: ExpectedEvent| Event { name: event.name, digest: event.digest, meaning: event.meaning };
        match register.value {
            Some(value) => Register::Known { value, events: register.events.into_iter().map(event).collect() },
            None => Register::Unknown { reason: register.reason },
        }
    });
    Ok(TdxMeasurements { mrtd: read.mrtd, mrtd_steps: Vec::new(), rtmr })
}

fn for_programs(found: &Explanation) -> String {
    let registers: Vec<_> = found
        .registers
        .iter()
        .map(|register| {
            json!({ "quoted": register.quoted.to_string(), "replayed": register.replayed.to_string(), "events": register.events })
        })
        .collect();
    format!("{}\n", json!({ "schema": SCHEMA, "registers": registers, "difference": found.difference }))
}

fn for_people(found: &Explanation, expected: bool) -> String {
    let mut out = String::new();
    for (n, register) in found.registers.iter().enumerate() {
        let verdict = if register.quoted == register.replayed { "replays" } else { "DOES NOT REPLAY" };
        out.push_str(&format!("RTMR{n}  {}  {:3} event(s)  {verdict}\n", register.quoted, register.events));
    }
    out.push('\n');
    match &found.difference {
        Some(words) => out.push_str(&format!("{words}\n")),
        None if expected => out.push_str("The log replays to the quote, and the registers are the computed ones.\n"),
        None => out.push_str(
            "The log replays to the quote. Whether it should say what it says is shown by --expected with the computed measurements.\n",
        ),
    }
    out
}
