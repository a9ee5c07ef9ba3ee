//! When an API that is busy may be asked again: RFC 9110, sections 10.2.3 and 5.6.7.

use std::time::{Duration, UNIX_EPOCH};

/// Longest wait that an API may ask for.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The wait that a `Retry-After` asks for: a number of seconds, or a date, by the clock of the server where it gave its `Date`, else by `now`
/// (seconds since 1970). A date that is over asks for none; nothing asks for more than [`LONGEST_WAIT`]. `None` if it is neither.
pub(super) fn retry_after(value: &str, server_date: Option<&str>, now: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long wait all the same.
        return Some(value.parse().map_or(LONGEST_WAIT, Duration::from_secs).min(LONGEST_WAIT));
    }
    let now = server_date.and_then(parse).unwrap_or(now);
    Some(Duration::from_secs(parse(value)?.saturating_sub(now)).min(LONGEST_WAIT))
}

/// Seconds since 1970 of a date in one of HTTP's three forms.
fn parse(text: &str) -> Option<u64> {
    Some(httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOV_1994: u64 = 784_111_777;

    #[test]
    fn dates_are_read_in_each_of_https_forms() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text), Some(NOV_1994), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "-1",
            "1.5",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "\u{661}\u{664}",
        ] {
            assert_eq!(parse(text), None, "{text}");
            assert_eq!(retry_after(text, None, 0), None, "{text}");
        }
    }

    #[test]
    fn waits_are_bounded_and_what_is_over_is_no_wait() {
        let secs = |value: &str, date: Option<&str>, now| retry_after(value, date, now).map(|wait| wait.as_secs());
        assert_eq!(secs("7", None, 0), Some(7));
        assert_eq!((secs("31", None, 0), secs(&"9".repeat(40), None, 0)), (Some(30), Some(30)));
        assert_eq!((secs("-1", None, 0), secs("1.5", None, 0)), (None, None));
        let at = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(secs(at, None, NOV_1994 - 7), Some(7));
        assert_eq!(
            (secs(at, None, 0), secs(at, None, NOV_1994), secs(at, None, NOV_1994 + 9)),
            (Some(30), Some(0), Some(0))
        );
        // Whatever this machine's clock says: the server's counts, where it can be read.
        assert_eq!(secs(at, Some("Sun, 06 Nov 1994 08:49:30 GMT"), 0), Some(7));
        assert_eq!(secs(at, Some("today"), NOV_1994 - 5), Some(5));
    }
}
