//! What was measured into the runtime registers: a log that replays to them, and a policy's rules over its events.

use aws_lc_rs::digest::{SHA384, digest};
use cocoon_attestation::{Event, EventLog};

use super::parse::Quote;
use crate::outcome::Record;
use crate::policy::{EventRule, TdxPolicy};

/// Replays a log, if there is one, and holds its events against the policy's rules, if it has any.
pub(crate) fn appraise(record: &mut Record, quote: &Quote, log: Option<&EventLog>, policy: &TdxPolicy) {
    let Some(log) = log else {
        if !policy.events.is_empty() {
            record.demand("tdx.event-rules", false, "the policy has rules over measured events, and no event log came");
        }
        return record.unchecked("tdx.event-log", "no event log came");
    };
    if log.0.is_empty() && (0..4).any(|n| quote.rtmr(n) != [0; 48]) {
        return record.unchecked("tdx.event-log", "the log is empty, and registers were extended");
    }
    let differs = match log.replay() {
        Ok(registers) => (0..4).find(|n| named(log, *n) && registers[*n].0 != quote.rtmr(*n)),
        Err(error) => return record.genuine("tdx.event-log", false, error.to_string()),
    };
    let detail = match differs {
        None => "replays to the registers it names".to_owned(),
        Some(n) => format!("does not replay to RTMR{n}: an event is missing, added, altered or out of order"),
    };
    record.genuine("tdx.event-log", differs.is_none(), detail);
    if differs.is_some() || policy.events.is_empty() {
        return;
    }
    for (register, id) in ["tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2", "tdx.rtmr3"].into_iter().enumerate() {
        let rules: Vec<_> = policy.events.iter().filter(|rule| usize::from(rule.register) == register).collect();
        if rules.is_empty() {
            continue;
        }
        let events: Vec<_> = log.0.iter().filter(|event| usize::from(event.register) == register).collect();
        // A log without events of a register says nothing of it, so the register must be as it was at the start.
        let found = if events.is_empty() && quote.rtmr(register) != [0; 48] {
            Err(format!("the log has no event of RTMR{register}, which was extended"))
        } else {
            obey(&rules, &events)
        };
        match found {
            Ok(()) => {
                let detail = format!("{} event(s) of RTMR{register} are as the policy says", events.len());
                record.passed("tdx.event-rules", detail);
                // Kinds are the host's words: a register is covered by rules that each say what was measured.
                if rules.iter().all(|rule| !rule.digest.is_empty() || (rule.measured_data && rule.data.is_some())) {
                    record.covered(id);
                }
            }
            Err(detail) => record.demand("tdx.event-rules", false, format!("RTMR{register}: {detail}")),
        }
    }
}

fn named(log: &EventLog, register: usize) -> bool {
    log.0.iter().any(|event| usize::from(event.register) == register)
}

/// Every event meets a rule, in the order of the rules, and every rule that is not optional is met.
fn obey(rules: &[&EventRule], events: &[&Event]) -> Result<(), String> {
    // The rule that the next event is held against, and whether an event has met it already.
    let (mut next, mut met) = (0, false);
    for (n, event) in events.iter().enumerate() {
        loop {
            let Some(rule) = rules.get(next) else {
                return Err(format!("event {n} ({}) meets none of the rules that are left", shown(event)));
            };
            if meets(rule, event) {
                (next, met) = if rule.repeat { (next, true) } else { (next + 1, false) };
                break;
            }
            if !rule.optional && !met {
                return Err(format!(
                    "event {n} ({}) is not the one that rule {next} expects{}",
                    shown(event),
                    kind(rule)
                ));
            }
            (next, met) = (next + 1, false);
        }
    }
    let open = rules.iter().enumerate().skip(next + usize::from(met)).find(|(_, rule)| !rule.optional);
    match open {
        None => Ok(()),
        Some((n, rule)) => Err(format!("no event is the one that rule {n} expects{}", kind(rule))),
    }
}

fn kind(rule: &EventRule) -> String {
    rule.kind.as_ref().map(|kind| format!(" ({kind:?})")).unwrap_or_default()
}

fn meets(rule: &EventRule, event: &Event) -> bool {
    rule.kind.as_ref().is_none_or(|kind| *kind == event.kind)
        && (rule.digest.is_empty() || rule.digest.iter().any(|digest| digest.0 == event.digest))
        && (!rule.measured_data || digest(&SHA384, &event.data).as_ref() == event.digest)
        && rule.data.as_ref().is_none_or(|data| data.as_bytes() == event.data)
}

fn shown(event: &Event) -> String {
    let kind: String = event.kind.chars().take(64).collect();
    format!("{kind:?}, digest {}", hex::encode(event.digest))
}
