//! Logs of real TDs, replayed; each thing that can be wrong with one, named.

mod common;

use cocoon_attestation::{Event, EventLog, Measurement, ccel};
use cocoon_firmware_measurements::Event as Computed;
use cocoon_firmware_measurements::explain::{QuotedRegisters, explain};
use cocoon_firmware_measurements::tdx::{Register, TdxMeasurements};
use common::{json, measurement, read, text, vectors};
use serde_json::Value;

fn event(register: u8, kind: &str, data: &[u8]) -> Event {
    Event { register, kind: kind.into(), digest: Measurement::of(&[data]).0, data: data.to_vec() }
}

fn log() -> EventLog {
    EventLog(vec![
        event(0, "EV_EFI_HANDOFF_TABLES2", b"memory"),
        event(1, "EV_EFI_BOOT_SERVICES_APPLICATION", b"kernel"),
        event(1, "EV_EFI_ACTION", b"Exit Boot Services Invocation"),
        event(1, "EV_EFI_ACTION", b"Exit Boot Services Returned with Success"),
        event(2, "EV_EVENT_TAG", b"initrd"),
    ])
}

fn quoted(log: &EventLog) -> QuotedRegisters {
    QuotedRegisters { mrtd: Measurement([7; 48]), rtmr: log.replay().unwrap() }
}

fn difference(quoted: &QuotedRegisters, log: &EventLog) -> String {
    explain(quoted, log, None).unwrap().difference.expect("a difference")
}

#[test]
fn a_log_that_replays_has_no_difference() {
    let found = explain(&quoted(&log()), &log(), None).unwrap();
    assert_eq!(found.difference, None);
    assert_eq!(found.registers.map(|register| register.events), [1, 3, 1, 0]);
}

#[test]
fn what_is_wrong_with_a_log_is_named() {
    let good = quoted(&log());
    let mut more = log();
    more.0.push(event(1, "EV_ACTION", b"never happened"));
    let words = difference(&good, &more);
    assert!(
        words.contains("RTMR1 is what the first 3 of 4 events give: event 3 (EV_ACTION \"never happened\")"),
        "{words}"
    );

    let mut extra = log();
    extra.0.insert(2, event(1, "EV_ACTION", b"slipped in"));
    let words = difference(&good, &extra);
    assert!(words.contains("without event 1 (EV_ACTION \"slipped in\")"), "{words}");

    let mut swapped = log();
    swapped.0.swap(2, 3);
    assert!(difference(&good, &swapped).contains("other order"));

    let mut altered = log();
    altered.0[1].digest[0] ^= 1;
    let words = difference(&good, &altered);
    assert!(words.contains("event 0 (EV_EFI_BOOT_SERVICES_APPLICATION \"kernel\"): its digest was altered"), "{words}");

    let mut both = log();
    both.0[2].digest[0] ^= 1;
    both.0[2].data.push(b'!');
    let words = difference(&good, &both);
    assert!(words.contains("event 1") && words.contains("not its data's"), "{words}");

    let mut missing = log();
    missing.0.remove(1);
    assert!(difference(&good, &missing).contains("one is missing or altered"));
    missing.0.remove(0);
    assert!(difference(&good, &missing).contains("RTMR0 was extended, and the log has no event of it"));
}

#[test]
fn the_first_event_that_is_not_the_computed_one_is_named() {
    let computed = |register: u8| {
        let of = log().0.into_iter().filter(move |event| event.register == register);
        let events = of.map(|event| Computed {
            name: event.kind,
            digest: Measurement(event.digest),
            meaning: "what it is".into(),
        });
        Register::Known { value: log().replay().unwrap()[usize::from(register)], events: events.collect() }
    };
    let expected = TdxMeasurements {
        mrtd: Measurement([7; 48]),
        mrtd_steps: vec![],
        rtmr: [computed(0), computed(1), computed(2), computed(3)],
    };
    let against = |log: &EventLog, quoted: &QuotedRegisters| explain(quoted, log, Some(&expected)).unwrap().difference;
    assert_eq!(against(&log(), &quoted(&log())), None);

    let mut other = log();
    other.0[1] = event(1, "EV_EFI_BOOT_SERVICES_APPLICATION", b"another kernel");
    let words = against(&other, &quoted(&other)).unwrap();
    assert!(words.starts_with("RTMR1, event 0 (EV_EFI_BOOT_SERVICES_APPLICATION) should be"), "{words}");
    assert!(words.contains("what it is") && words.contains("\"another kernel\""), "{words}");

    let mut fewer = log();
    fewer.0.pop();
    assert!(against(&fewer, &quoted(&fewer)).unwrap().contains("RTMR2, event 0 (EV_EVENT_TAG) should be"));
    let mut more = log();
    more.0.push(event(2, "EV_EVENT_TAG", b"more"));
    assert!(against(&more, &quoted(&more)).unwrap().contains("has 2 events and should have 1"));

    let mut firmware = quoted(&log());
    firmware.mrtd.0[0] ^= 1;
    assert!(against(&log(), &firmware).unwrap().starts_with("MRTD is"));
    let mut runtime = log();
    runtime.0.push(event(3, "note", b"the guest's own"));
    assert_eq!(against(&runtime, &quoted(&runtime)), None, "RTMR3 is the guest's own");
}

#[test]
fn the_log_of_a_captured_quote_replays_to_it() {
    let Some(folder) = vectors() else { return };
    let report = json(&folder, "tdx/dstack/quote-report.json");
    let events: Value = match &report["event_log"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        log => log.clone(),
    };
    let events = events.as_array().unwrap().iter().map(|event| Event {
        register: event["imr"].as_u64().unwrap() as u8,
        kind: ccel::kind_name(event["event_type"].as_u64().unwrap() as u32),
        digest: measurement(&event["digest"]).0,
        data: hex::decode(text(&event["event_payload"])).unwrap(),
    });
    let log = EventLog(events.collect());
    let quote = QuotedRegisters::from_quote(&hex::decode(text(&report["quote"])).unwrap()).unwrap();
    let found = explain(&quote, &log, None).unwrap();
    assert_eq!(found.difference, None);
    assert_eq!(found.registers.map(|register| register.events), [13, 5, 2, 8]);
    let mut other = log.clone();
    other.0.retain(|event| event.register != 2 || !event.data.ends_with(b"initrd\0"));
    assert!(difference(&quote, &other).starts_with("RTMR2 is not what its 1 events give"));
}

#[test]
fn a_captured_ccel_table_is_read() {
    let Some(folder) = vectors() else { return };
    let table = read(&folder, "tdx/dstack/ccel.bin");
    let log = ccel::parse(&table).unwrap();
    let count = |register: u8| log.0.iter().filter(|event| event.register == register).count();
    assert_eq!([count(0), count(1), count(2), count(3)], [13, 5, 0, 0]);
    // The machine had 1 GiB of memory, and OVMF 2025.02's layout.
    let expected = json(&folder, "tdx/own/expected.json");
    assert_eq!(Measurement(log.0[0].digest), measurement(&expected["ovmf"]["OVMF-2025.02"]["td_hob"]["1024"]));
    assert_eq!(log.0[4].kind, "EV_EFI_VARIABLE_DRIVER_CONFIG");
    let cut = ccel::parse(&table[..0x780]).unwrap_err().to_string();
    assert!(cut.contains("CCEL event log"), "{cut}");
}
