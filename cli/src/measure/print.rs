//! Measurements as people and programs see them.

use cocoon_attestation::Measurement;
use cocoon_firmware_measurements::tdx::{Register, TdxMeasurements};
use cocoon_firmware_measurements::{Event, Step};
use serde_json::{Value, json};

/// A memory step as JSON.
pub fn step(step: &Step) -> Value {
    let address = step.address.map(|address| format!("{address:#x}"));
    json!({ "name": step.name, "address": address, "size": step.size, "meaning": step.meaning })
}

/// A runtime register as JSON.
pub fn register(register: &Register) -> Value {
    match register {
        Register::Known { value, events } => {
            let events: Vec<_> = events
                .iter()
                .map(
                    |event| json!({ "name": event.name, "digest": event.digest.to_string(), "meaning": event.meaning }),
                )
                .collect();
            json!({ "value": value.to_string(), "events": events })
        }
        Register::Unknown { reason } => json!({ "value": null, "events": [], "reason": reason }),
    }
}

/// A table of registers, what went into each, and what that means.
pub fn tdx(found: &TdxMeasurements) -> String {
    let mut out = format!("MRTD   {}\n{}", found.mrtd, steps(&found.mrtd_steps));
    for (n, register) in found.rtmr.iter().enumerate() {
        match register {
            Register::Known { value, events } => {
                out.push_str(&format!("\nRTMR{n}  {value}\n"));
                out.extend(events.iter().map(event));
                if events.is_empty() {
                    out.push_str("         nothing, until the guest itself extends it\n");
                }
            }
            Register::Unknown { reason } => out.push_str(&format!("\nRTMR{n}  unknown: {reason}\n")),
        }
    }
    out
}

fn event(event: &Event) -> String {
    format!("         {:28} {}  {}\n", event.name, short(&event.digest), event.meaning)
}

/// Memory that was measured, one region a line.
pub fn steps(steps: &[Step]) -> String {
    let line = |step: &Step| {
        let address = step.address.map_or_else(|| "-".to_owned(), |address| format!("{address:#x}"));
        format!("         {:16} {address:>12} {:>10}  {}\n", step.name, bytes(step.size), step.meaning)
    };
    steps.iter().map(line).collect()
}

fn bytes(size: u64) -> String {
    if size.is_multiple_of(1024) { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}

/// Enough of a digest to tell it from others.
fn short(digest: &Measurement) -> String {
    let text = digest.to_string();
    format!("{}..", &text[..16])
}
