//! How far a long job is, on standard error, if that is a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::ui::within_line;

/// Time between two changes of what is shown.
const EVERY: Duration = Duration::from_millis(200);
const WIDTH: usize = 30;

/// A bar that is drawn over itself.
pub(super) struct Progress {
    shown: bool,
    state: Mutex<State>,
}

struct State {
    what: String,
    started: Instant,
    first: Option<u64>,
    last: Instant,
}

impl Progress {
    pub fn new() -> Self {
        let now = Instant::now();
        let state = State { what: String::new(), started: now, first: None, last: now };
        Self { shown: std::io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    /// Begins with something else.
    pub fn begin(&self, what: &str) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = State { what: what.to_owned(), started: now, first: None, last: now };
    }

    /// Shows how much of it is done.
    pub fn at(&self, done: u64, of: u64) {
        if !self.shown {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = *state.first.get_or_insert(done);
        if state.last.elapsed() < EVERY && done < of {
            return;
        }
        state.last = Instant::now();
        let seconds = state.started.elapsed().as_secs_f64();
        let rate = (done.saturating_sub(first)) as f64 / seconds.max(0.001);
        let line = line(&within_line(&state.what), done, of, rate);
        let _closed = write!(std::io::stderr(), "\r\x1b[K{line}");
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if self.shown {
            let _closed = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, of: u64, rate: f64) -> String {
    if of == 0 {
        return format!("{what}: {done}");
    }
    let share = (done as f64 / of as f64).clamp(0.0, 1.0);
    let full = (share * WIDTH as f64) as usize;
    let left = if rate > 0.0 { (of.saturating_sub(done)) as f64 / rate } else { 0.0 };
    let bar = format!("{}{}", "#".repeat(full), "-".repeat(WIDTH - full));
    format!("{what} [{bar}] {:3.0} %  {done} of {of}, {rate:.0}/s, {left:.0} s left", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_says_how_fast() {
        assert_eq!(
            line("log", 50, 100, 25.0),
            format!("log [{}{}]  50 %  50 of 100, 25/s, 2 s left", "#".repeat(15), "-".repeat(15))
        );
        assert!(line("log", 100, 100, 0.0).contains(&"#".repeat(WIDTH)));
        assert_eq!(line("chain", 7, 0, 1.0), "chain: 7");
    }
}
