//! Stop strings. The engine ends an answer with the token that completes one, and passes that token on; what a client must get
//! ends before the stop string, wherever the tokens' borders are.

/// Holds back what may turn out to be the beginning of a stop string.
#[derive(Debug, Default)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    pub(crate) fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes the next piece; gives what can be passed on, and whether a stop string has come.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let ends_in_part = |from: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*from..]));
        let starts = self.held.char_indices().map(|(at, _)| at);
        let keep = starts.into_iter().find(ends_in_part).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, once no more comes.
    pub(crate) fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client gets of pieces, and whether a stop string ended it.
    fn passed(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut filter = StopFilter::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            out.push_str(&text);
            if stopped {
                return (out, true);
            }
        }
        (out + &filter.flush(), false)
    }

    #[test]
    fn text_ends_before_the_stop_string_wherever_the_pieces_end() {
        let text = "Only the enclave that you checked can read";
        for stop in [" the", "O", "checked can", "read", "enclave that you checked can read"] {
            let expected = &text[..text.find(stop).unwrap()];
            for size in 1..text.len() {
                let pieces: Vec<&str> =
                    text.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
                assert_eq!(passed(&[stop], &pieces), (expected.to_owned(), true), "{stop:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_earliest_of_several_counts_and_none_leaves_all() {
        assert_eq!(passed(&["c", "b"], &["abc"]), ("a".to_owned(), true));
        assert_eq!(passed(&["abd"], &["ab", "c", "ab"]), ("abcab".to_owned(), false));
        assert_eq!(passed(&["aab"], &["a", "a", "a", "b"]), ("a".to_owned(), true));
        assert_eq!(passed(&["", "é!"], &["caf", "é", "?"]), ("café?".to_owned(), false));
        assert_eq!(passed(&[], &["abc"]), ("abc".to_owned(), false));
    }
}
