//! Rules over measured events: what a log may say beyond replaying to the registers.

mod common;

use aws_lc_rs::digest::{SHA384, digest};
use cocoon_attestation::dev::{CollateralSpec, TdxSpec};
use cocoon_attestation::{Event, EventLog};
use cocoon_verifier::{Appraisal, Outcome, Policy, appraise_tdx, appraise_tdx_with_events};
use common::{AT, accepted, only, platform, policy, unchecked};

fn event(register: u8, kind: &str, data: &str) -> Event {
    let mut hash = [0; 48];
    hash.copy_from_slice(digest(&SHA384, data.as_bytes()).as_ref());
    Event { register, kind: kind.into(), digest: hash, data: data.into() }
}

/// A command line, an initial ram disk, then two notes.
fn events() -> Vec<Event> {
    vec![
        event(2, "cmdline", "console=ttyS0"),
        event(2, "initrd", "disk"),
        event(3, "note", "one"),
        event(3, "note", "two"),
    ]
}

fn with_rules(rules: &str) -> Policy {
    let mut policy = policy();
    policy.tdx.events = Policy::from_toml(&format!("[tdx]\nevents = [{rules}]")).expect(rules).tdx.events;
    policy
}

/// A quote whose registers were extended with some events, appraised with a log that names others or the same.
fn appraise(measured: &[Event], log: Option<&[Event]>, policy: &Policy) -> Appraisal {
    let registers = EventLog(measured.to_vec()).replay().expect("registers that exist");
    let mut spec = TdxSpec::default();
    spec.body.rtmr = registers.map(|register| register.0);
    let log = log.map(|events| EventLog(events.to_vec()));
    let collateral = platform().tdx_collateral(&CollateralSpec::default());
    appraise_tdx_with_events(&platform().tdx_quote(&spec), &collateral, log.as_ref(), policy, AT)
}

fn ruled(rules: &str) -> Appraisal {
    appraise(&events(), Some(&events()), &with_rules(rules))
}

#[test]
fn a_log_must_replay_and_a_quote_alone_says_that_none_came() {
    let all = events();
    let result = appraise(&all, Some(&all), &policy());
    accepted(&result);
    assert!(unchecked(&result, "tdx.rtmr2"), "a replay is no reference value");
    assert!(unchecked(&appraise(&all, None, &policy()), "tdx.event-log"));
    let collateral = platform().tdx_collateral(&CollateralSpec::default());
    let alone = appraise_tdx(&platform().tdx_quote(&TdxSpec::default()), &collateral, &policy(), AT);
    assert!(unchecked(&alone, "tdx.event-log"));
    let mut swapped = all.clone();
    swapped.swap(0, 1);
    let mut longer = all.clone();
    longer.push(event(3, "note", "three"));
    for log in [&swapped[..], &longer, &all[1..], &all[..3]] {
        only(&appraise(&all, Some(log), &policy()), "tdx.event-log", Outcome::Invalid);
    }
    // Rules are not held against a log that says nothing true.
    let refuted = appraise(&all, Some(&swapped), &with_rules("{ register = 2, repeat = true }"));
    assert!(refuted.check("tdx.event-log").is_some() && refuted.check("tdx.event-rules").is_none());
    // Leaving a register out is no lie, but no rule over it can be met.
    accepted(&appraise(&all, Some(&all[..2]), &policy()));
    only(
        &appraise(&all, Some(&all[..2]), &with_rules("{ register = 3, repeat = true, optional = true }")),
        "tdx.event-rules",
        Outcome::Refused,
    );
    only(&appraise(&all, None, &with_rules("{ register = 3, repeat = true }")), "tdx.event-rules", Outcome::Refused);
}

#[test]
fn rules_that_are_met() {
    let digest = hex::encode(events()[1].digest);
    let named = format!(
        r#"{{ register = 2, kind = "cmdline", measured_data = true, data = "console=ttyS0" }}, {{ register = 2, digest = ["{}", "{digest}"] }}"#,
        "00".repeat(48)
    );
    let result = ruled(&named);
    accepted(&result);
    assert!(!unchecked(&result, "tdx.rtmr2") && unchecked(&result, "tdx.rtmr3"));
    for rules in [
        "{ register = 2 }, { register = 2 }",
        "{ register = 2, repeat = true }",
        r#"{ register = 2, kind = "cmdline" }, { register = 2, kind = "none", optional = true }, { register = 2, kind = "initrd" }"#,
        r#"{ register = 3, kind = "note", repeat = true }, { register = 3, optional = true }"#,
        r#"{ register = 3, kind = "note", repeat = true, optional = true }"#,
        r#"{ register = 2, kind = "cmdline", repeat = true }, { register = 2, kind = "initrd" }"#,
        r#"{ register = 2, repeat = true }, { register = 3, data = "one", measured_data = true }, { register = 3, measured_data = true }"#,
        // A register that nothing was measured into.
        "{ register = 1, optional = true }",
    ] {
        accepted(&ruled(rules));
    }
}

#[test]
fn rules_that_are_not_met() {
    let digest = hex::encode(events()[1].digest);
    for rules in [
        "{ register = 2 }",
        "{ register = 2 }, { register = 2 }, { register = 2 }",
        r#"{ register = 2, kind = "initrd" }, { register = 2, kind = "cmdline" }"#,
        r#"{ register = 2, measured_data = true, data = "console=ttyS1" }, { register = 2 }"#,
        &format!(r#"{{ register = 2, digest = ["{digest}"] }}, {{ register = 2 }}"#),
        r#"{ register = 3, kind = "note", repeat = true }, { register = 3 }"#,
        r#"{ register = 3, kind = "other", optional = true }"#,
        "{ register = 1 }",
        r#"{ register = 3, kind = "other" }, { register = 3, repeat = true }"#,
        r#"{ register = 3, repeat = true, data = "one", measured_data = true }"#,
    ] {
        only(&ruled(rules), "tdx.event-rules", Outcome::Refused);
    }
    let told = |rules: &str| ruled(rules).reason;
    let cmdline = hex::encode(events()[0].digest);
    assert!(
        told(r#"{ register = 2, kind = "initrd" }"#).ends_with(&format!(
            r#"event 0 ("cmdline", digest {cmdline}) is not the one that rule 0 expects ("initrd")"#
        ))
    );
    assert!(
        told("{ register = 2 }, { register = 2 }, { register = 2 }")
            .ends_with("no event is the one that rule 2 expects")
    );
    // A kind and data that were not measured.
    let mut all = events();
    all[0].data = b"console=ttyS1".to_vec();
    let rules = with_rules("{ register = 2, measured_data = true, repeat = true }");
    only(&appraise(&all, Some(&all), &rules), "tdx.event-rules", Outcome::Refused);
}
