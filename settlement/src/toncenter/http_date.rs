//! When an API that is busy may be asked again: RFC 9110, sections 10.2.3 and 5.6.7.

use std::time::Duration;

/// Longest wait that an API may ask for.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

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

/// Seconds since 1970 of a date in one of HTTP's three forms; `None` for anything else, dates before 1970 too.
fn parse(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    match parts[..] {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [weekday, day, month, year, time, "GMT"] if weekday.ends_with(',') && year.len() == 4 => {
            seconds(number(year)?, month, day, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT: below 75 the two digits are of this century.
        [weekday, date, time, "GMT"] if weekday.ends_with(',') => {
            let mut date = date.split('-');
            let (day, month, year) = (date.next()?, date.next()?, date.next()?);
            if year.len() != 2 || date.next().is_some() {
                return None;
            }
            let year = number(year)?;
            seconds(year + if year < 75 { 2_000 } else { 1_900 }, month, day, time)
        }
        // Sun Nov  6 08:49:37 1994
        [_, month, day, time, year] if year.len() == 4 => seconds(number(year)?, month, day, time),
        _ => None,
    }
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

fn seconds(year: u64, month: &str, day: &str, time: &str) -> Option<u64> {
    let month = MONTHS.iter().position(|known| *known == month)?;
    let mut time = time.split(':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    // A leap second is the next one's first.
    if time.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let leap = |year: u64| u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)));
    let lengths = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let day = number(day)?;
    if year < 1_970 || day == 0 || day > *lengths.get(month)? {
        return None;
    }
    // Years have four digits: the loop is short.
    let days =
        (1_970..year).map(|year| 365 + leap(year)).sum::<u64>() + lengths.iter().take(month).sum::<u64>() + day - 1;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
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
        // Against `date -u -d`: leap years, and centuries that are none.
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Sat, 28 Nov 2026 06:00:00 GMT", 1_795_845_600),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
            ("Thursday, 01-Jan-70 00:00:00 GMT", 3_155_760_000),
            ("Friday, 31-Dec-99 23:59:60 GMT", 946_684_800),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nob 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Mon, 29 Feb 2100 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37:11 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 19940 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-94-1 08:49:37 GMT",
            "Sun Nov 6 08:49:37 94",
            "\u{661}\u{664}, 06 Nov 1994 08:49:37 \u{661}",
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
