//! Looks for plaintext in everything the host and the gateway saw.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// How many bytes of a secret in a row count as seeing it. Shorter runs are in any English text: appraisals that
/// pass by have sentences of their own.
pub const WINDOW: usize = 16;

/// Words of OpenAI's wire format: a stream that leaks answers token by token holds these, though no long run of the answer.
const MARKERS: &[&str] = &["\"messages\"", "\"delta\"", "chat.completion", "\"content\""];

/// Text that is public, in every certificate of the development platform: a run of it in an answer is no sign of the answer.
const PUBLIC: &[&str] = &[cocoon_attestation::dev::ORGANISATION];

/// What was found, and how it was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Leak {
    /// Where in the bytes that were searched.
    pub offset: usize,
    /// `plain`, `base64`, `hex` or `api` for a marker of the wire format.
    pub form: &'static str,
}

/// The first place in `seen` that shows part of one of `secrets`: as it is, in base64, or in hexadecimal.
pub fn find(seen: &[u8], secrets: &[&str]) -> Option<Leak> {
    let mut needles: Vec<(Vec<u8>, &'static str)> = Vec::new();
    for secret in secrets {
        let bytes = secret.as_bytes();
        let window = WINDOW.min(bytes.len());
        if window == 0 {
            continue;
        }
        let public = |run: &[u8]| PUBLIC.iter().any(|text| position(text.as_bytes(), run).is_some());
        for run in bytes.windows(window).filter(|run| !public(run)) {
            needles.push((run.to_vec(), "plain"));
            needles.push((hex::encode(run).into_bytes(), "hex"));
            needles.push((hex::encode_upper(run).into_bytes(), "hex"));
            needles.extend((0..3).map(|shift| (base64_core(run, shift), "base64")));
        }
    }
    needles.extend(MARKERS.iter().map(|marker| (marker.as_bytes().to_vec(), "api")));
    needles
        .iter()
        .filter_map(|(needle, form)| position(seen, needle).map(|offset| Leak { offset, form }))
        .min_by_key(|leak| leak.offset)
}

/// The characters of `bytes` in base64 that do not depend on what stands around it, when `shift` bytes precede it in a group of three.
fn base64_core(bytes: &[u8], shift: usize) -> Vec<u8> {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(bytes);
    let text = STANDARD_NO_PAD.encode(&padded).into_bytes();
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    text[first..last].to_vec()
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| byte == first) {
        let start = from + at;
        if haystack[start + 1..].starts_with(rest) {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = "Who can read my prompt on the way?";

    fn noise() -> Vec<u8> {
        let mut state = 1_u64;
        (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .collect()
    }

    fn planted(leak: &[u8]) -> Option<Leak> {
        let mut seen = noise();
        seen.splice(50_000..50_000, leak.iter().copied());
        find(&seen, &[PROMPT])
    }

    #[test]
    fn noise_holds_nothing() {
        assert_eq!(find(&noise(), &[PROMPT]), None);
    }

    #[test]
    fn a_planted_leak_is_found_in_every_form() {
        assert_eq!(planted(PROMPT.as_bytes()).map(|leak| leak.form), Some("plain"));
        assert_eq!(planted(&PROMPT.as_bytes()[5..22]).map(|leak| leak.form), Some("plain"));
        assert_eq!(planted(hex::encode(PROMPT).as_bytes()).map(|leak| leak.form), Some("hex"));
        for prefix in ["", "x", "xy"] {
            let encoded = STANDARD_NO_PAD.encode(format!("{prefix}{PROMPT} and more"));
            assert_eq!(planted(encoded.as_bytes()).map(|leak| leak.form), Some("base64"), "{prefix:?}");
        }
        assert_eq!(planted(br#"data: {"choices":[{"delta":{}}]}"#).map(|leak| leak.form), Some("api"));
    }

    #[test]
    fn text_of_public_certificates_is_no_leak() {
        let organisation = cocoon_attestation::dev::ORGANISATION;
        let answer = format!("{organisation}, and it says so.");
        assert_eq!(find(organisation.as_bytes(), &[&answer]), None);
        assert_eq!(find(answer.as_bytes(), &[&answer]).map(|leak| leak.form), Some("plain"));
    }

    #[test]
    fn too_short_a_run_is_not_called_a_leak() {
        assert_eq!(planted(&PROMPT.as_bytes()[..WINDOW - 1]), None);
    }
}
