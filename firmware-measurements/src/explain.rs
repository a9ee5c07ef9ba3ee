//! Why a quote's registers are not what they should be: a log is replayed against them, and against what was computed for the
//! machine, and the first difference is named in words.

use cocoon_attestation::{Event, EventLog, Measurement, ccel};

use crate::Error;
use crate::bytes::Bytes;
use crate::tdx::{Register, TdxMeasurements};

/// Logs of more events are replayed, but not searched for the event that is wrong: that takes the square of their number.
const MAX_SEARCH: usize = 1000;

/// The registers of a TDX quote, as it states them. Nothing here says whether the quote is genuine: `cocoon verify tdx` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedRegisters {
    /// Measurement of the initial memory.
    pub mrtd: Measurement,
    /// Runtime registers.
    pub rtmr: [Measurement; 4],
}

impl QuotedRegisters {
    /// Reads them from a quote of version 4 or 5 (Intel, "TDX DCAP Quoting Library API", appendix A.3).
    ///
    /// # Errors
    /// The bytes are no TDX quote.
    pub fn from_quote(quote: &[u8]) -> Result<Self, Error> {
        let bytes = Bytes::new("TDX quote", quote);
        let body = match (bytes.u16(0)?, bytes.u32(4)?) {
            (4, 0x81) => 48,
            // A version 5 body has a header: its type (2 for TD 1.0, 3 for TD 1.5) and its length.
            (5, 0x81) if matches!(bytes.u16(48)?, 2 | 3) => 54,
            (version, tee) => return Err(bytes.malformed(format!("version {version} for TEE {tee:#x}"))),
        };
        let register = |offset: u64| bytes.array(body + offset).map(Measurement);
        Ok(Self { mrtd: register(136)?, rtmr: [register(328)?, register(376)?, register(424)?, register(472)?] })
    }
}

/// What a replay found of one runtime register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Its value in the quote.
    pub quoted: Measurement,
    /// Its value after the log's events.
    pub replayed: Measurement,
    /// How many events of the log are of this register.
    pub events: usize,
}

/// What a replay found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// RTMR0 to 3.
    pub registers: [Replayed; 4],
    /// The first difference in words, of MRTD, then RTMR0 to 3; none if there is none.
    pub difference: Option<String>,
}

/// Replays a log against a quote and, if there is one, against what was computed for the machine.
///
/// # Errors
/// The log names a register that does not exist.
pub fn explain(
    quoted: &QuotedRegisters,
    log: &EventLog,
    expected: Option<&TdxMeasurements>,
) -> Result<Explanation, Error> {
    let replayed = log.replay().map_err(|error| Error::malformed("event log", error.to_string()))?;
    let of = |register: usize| -> Vec<&Event> {
        log.0.iter().filter(|event| usize::from(event.register) == register).collect()
    };
    let registers =
        [0, 1, 2, 3].map(|n| Replayed { quoted: quoted.rtmr[n], replayed: replayed[n], events: of(n).len() });
    let mrtd = expected.filter(|expected| expected.mrtd != quoted.mrtd).map(|expected| {
        format!(
            "MRTD is {} and should be {}: another firmware image, or another order of pages (QEMU 8 or 9)",
            quoted.mrtd, expected.mrtd
        )
    });
    let difference = mrtd.or_else(|| {
        (0..4).find_map(|n| {
            let events = of(n);
            let expected = expected.map(|expected| &expected.rtmr[n]);
            let against_expected = expected.and_then(|expected| differs(n, &events, quoted.rtmr[n], expected));
            let inconsistent = (replayed[n] != quoted.rtmr[n]).then(|| inconsistent(n, &events, quoted.rtmr[n]));
            match (inconsistent, against_expected) {
                (Some(log), Some(expected)) => Some(format!("{expected}. And the log is not the quote's: {log}")),
                (log, expected) => log.or(expected),
            }
        })
    });
    Ok(Explanation { registers, difference })
}

/// Where the log's events of a register leave what was computed.
fn differs(n: usize, events: &[&Event], quoted: Measurement, expected: &Register) -> Option<String> {
    let Register::Known { value, events: computed } = expected else { return None };
    // RTMR3 is the guest's own: what it extends after launch is no difference.
    if *value == quoted || n == 3 {
        return None;
    }
    for (at, event) in computed.iter().enumerate() {
        let found = match events.get(at) {
            Some(found) if found.digest == event.digest.0 => continue,
            Some(found) => format!("the log has {} with {}", shown(found), Measurement(found.digest)),
            None => "the log has no more".into(),
        };
        return Some(format!(
            "RTMR{n}, event {at} ({}) should be {}, which is {}; {found}",
            event.name, event.digest, event.meaning
        ));
    }
    Some(match events.get(computed.len()) {
        Some(more) => format!(
            "RTMR{n}: the log has {} events and should have {}; the first too many is {}",
            events.len(),
            computed.len(),
            shown(more)
        ),
        None => format!("RTMR{n} is {quoted} and should be {value}, though the log has the computed events"),
    })
}

/// What is wrong with a log that does not replay to a register.
fn inconsistent(n: usize, events: &[&Event], quoted: Measurement) -> String {
    let digests: Vec<[u8; 48]> = events.iter().map(|event| event.digest).collect();
    let gives = |digests: &mut dyn Iterator<Item = [u8; 48]>| {
        let value = digests.fold(Measurement([0; 48]), |value, digest| Measurement::of(&[&value.0, &digest]));
        value == quoted
    };
    if let Some(at) = (0..digests.len()).find(|at| gives(&mut digests[..*at].iter().copied())) {
        return format!(
            "RTMR{n} is what the first {at} of {} events give: {} and what follows were logged and not measured",
            digests.len(),
            named(at, events)
        );
    }
    if digests.len() <= MAX_SEARCH {
        for at in 0..digests.len() {
            let without = digests.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, digest)| *digest);
            if gives(&mut { without }) {
                return format!(
                    "RTMR{n} is what the log gives without {}, which was logged and not measured",
                    named(at, events)
                );
            }
            let mut altered = digests.clone();
            altered[at] = Measurement::of(&[&events[at].data]).0;
            if gives(&mut altered.into_iter()) {
                return format!(
                    "RTMR{n} is what the log gives with the digest of its own data for {}: its digest was altered",
                    named(at, events)
                );
            }
            let mut swapped = digests.clone();
            if at + 1 < swapped.len() {
                swapped.swap(at, at + 1);
                if gives(&mut swapped.into_iter()) {
                    return format!(
                        "RTMR{n} is what the log gives with {} and the event behind it in the other order",
                        named(at, events)
                    );
                }
            }
        }
    }
    let lie = events
        .iter()
        .position(|event| ccel::measures_its_data(&event.kind) && Measurement::of(&[&event.data]).0 != event.digest);
    if let Some(at) = lie {
        return format!("RTMR{n} is not what the log gives; {} has a digest that is not its data's", named(at, events));
    }
    match events.len() {
        0 => format!("RTMR{n} was extended, and the log has no event of it"),
        count => format!(
            "RTMR{n} is not what its {count} events give: one is missing or altered; name the computed measurements to see which"
        ),
    }
}

fn named(at: usize, events: &[&Event]) -> String {
    match events.get(at) {
        Some(event) => format!("event {at} ({})", shown(event)),
        None => format!("event {at}"),
    }
}

/// A kind and, where they are text, the data.
fn shown(event: &Event) -> String {
    let printable =
        !event.data.is_empty() && event.data.len() <= 60 && event.data.iter().all(|byte| (0x20..0x7f).contains(byte));
    let kind: String = event.kind.chars().filter(|c| !c.is_control()).take(60).collect();
    match printable {
        true => format!("{kind} {:?}", String::from_utf8_lossy(&event.data)),
        false => kind,
    }
}
