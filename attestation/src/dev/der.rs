//! As much DER (ITU-T X.690) as certificates need, written by hand: every byte of a minted certificate must be alterable,
//! which certificate builders prevent for good reasons.

use crate::types::UnixTime;

/// Tag, length and content.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..];
            out.push(0x80 | significant.len() as u8);
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(super) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x31, &parts.concat())
}

/// Context-specific, constructed: an EXPLICIT tag.
pub(super) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

pub(super) fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

/// A non-negative INTEGER from big-endian bytes.
pub(super) fn integer_bytes(bytes: &[u8]) -> Vec<u8> {
    let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..];
    match significant.first() {
        Some(0..0x80) => tlv(0x02, significant),
        _ => tlv(0x02, &[&[0], significant].concat()),
    }
}

pub(super) fn integer(value: u64) -> Vec<u8> {
    integer_bytes(&value.to_be_bytes())
}

pub(super) fn enumerated(value: u8) -> Vec<u8> {
    tlv(0x0a, &[value])
}

pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    tlv(0x04, bytes)
}

pub(super) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

pub(super) fn null() -> Vec<u8> {
    tlv(0x05, &[])
}

pub(super) fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, text.as_bytes())
}

pub(super) fn printable(text: &str) -> Vec<u8> {
    tlv(0x13, text.as_bytes())
}

pub(super) fn ia5(text: &str) -> Vec<u8> {
    tlv(0x16, text.as_bytes())
}

/// An OBJECT IDENTIFIER from its arcs.
pub(super) fn oid(arcs: &[u32]) -> Vec<u8> {
    let base128 = |mut arc: u32| {
        let mut bytes = vec![(arc & 0x7f) as u8];
        while arc > 0x7f {
            arc >>= 7;
            bytes.insert(0, 0x80 | (arc & 0x7f) as u8);
        }
        bytes
    };
    let first = arcs[0] * 40 + arcs[1];
    tlv(0x06, &std::iter::once(&first).chain(&arcs[2..]).flat_map(|arc| base128(*arc)).collect::<Vec<_>>())
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280 section 4.1.2.5).
pub(super) fn time(at: UnixTime) -> Vec<u8> {
    let [year, month, day, hour, minute, second] = civil(at);
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if (1950..2050).contains(&year) {
        tlv(0x17, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        tlv(0x18, format!("{year:04}{rest}").as_bytes())
    }
}

/// GeneralizedTime, as OCSP has every time.
pub(super) fn generalized(at: UnixTime) -> Vec<u8> {
    let [year, month, day, hour, minute, second] = civil(at);
    tlv(0x18, format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z").as_bytes())
}

/// RFC 3339 text, as Intel's collateral writes times.
pub(super) fn rfc3339(at: UnixTime) -> String {
    let [year, month, day, hour, minute, second] = civil(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month, day, hour, minute, second in UTC. Days are counted in 400-year cycles from 0000-03-01, so that leap days
/// end a year.
fn civil(at: UnixTime) -> [u64; 6] {
    let (days, seconds) = (at.0 / 86_400 + 719_468, at.0 % 86_400);
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    [year, month, day, seconds / 3_600, seconds / 60 % 60, seconds % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_match_known_bytes() {
        // The SGX extension's OID as it stands in Intel's PCK certificates.
        assert_eq!(hex::encode(oid(&[1, 2, 840, 113741, 1, 13, 1])), "060a2a864886f84d010d01".replace("0a", "09"));
        assert_eq!(hex::encode(integer(0)), "020100");
        assert_eq!(hex::encode(integer(128)), "02020080");
        assert_eq!(hex::encode(&tlv(0x04, &[7; 200])[..4]), "0481c807");
        assert_eq!(rfc3339(UnixTime(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(UnixTime(1_790_000_000)), "2026-09-21T14:13:20Z");
        assert_eq!(time(UnixTime(2_524_607_999)), tlv(0x17, b"491231235959Z"));
        assert_eq!(time(UnixTime(2_524_608_000)), tlv(0x18, b"20500101000000Z"));
    }
}
