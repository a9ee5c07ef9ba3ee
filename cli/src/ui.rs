//! What a person sees: steps with their time, balances, and the banner that development evidence always carries.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Shown on every surface that rests on the development platform.
pub const NOT_CONFIDENTIAL: &str = "DEVELOPMENT PLATFORM - NOT CONFIDENTIAL";

/// What somebody else wrote, for a line of text of ours: line feeds are told as `\n`, and what would steer a terminal or turn text around
/// is replaced.
pub fn within_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            letter if steers(letter) => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// An error for a terminal. It may be long, and quote what somebody else wrote: every line behind the first is indented, so that none
/// looks like one of ours.
pub fn error(error: &anyhow::Error) -> String {
    let lines: Vec<String> = format!("{error:#}").split('\n').map(within_line).collect();
    lines.join("\n    ")
}

/// Control characters, and marks that turn text around or are not seen.
pub(crate) fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Where progress goes. Progress is never mixed into machine-readable output: with `--json` it is written to standard error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For a person, on standard output.
    Human,
    /// For a program: one JSON line at the end on standard output, progress on standard error.
    Json,
}

/// Prints the steps of a long job.
#[derive(Clone, Copy)]
pub struct Ui {
    output: Output,
    colour: bool,
}

impl Ui {
    /// A printer for `output`; colours only where a terminal shows them and `NO_COLOR` is unset.
    pub fn new(output: Output) -> Self {
        let terminal = match output {
            Output::Human => std::io::stdout().is_terminal(),
            Output::Json => std::io::stderr().is_terminal(),
        };
        Self { output, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    /// One line of text.
    pub fn line(&self, text: impl AsRef<str>) {
        self.raw(&format!("{}\n", text.as_ref()));
    }

    /// A piece of text without a line's end, shown at once: an answer as it arrives.
    pub fn raw(&self, text: &str) {
        // A closed pipe must not end the job half-way: what is being shown is a report, not the work.
        let _ = match self.output {
            Output::Human => {
                let mut out = std::io::stdout();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Output::Json => std::io::stderr().write_all(text.as_bytes()),
        };
    }

    /// A heading for a group of steps.
    pub fn heading(&self, text: &str) {
        self.line(format!("\n{}", self.paint("1", text)));
    }

    /// The banner of development evidence.
    pub fn banner(&self) {
        self.line(self.paint("1;33", &format!("*** {NOT_CONFIDENTIAL} ***")));
    }

    /// A fact under the last step.
    pub fn detail(&self, text: impl AsRef<str>) {
        self.line(format!("      {}", self.paint("2", text.as_ref())));
    }

    /// Starts a step that may take a while; say how it ended with [`Step::done`].
    pub fn step(&self, text: impl Into<String>) -> Step {
        let text = text.into();
        self.raw(&format!("  ... {text}"));
        if !self.colour {
            self.raw("\n");
        }
        Step { ui: *self, text, started: Instant::now() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A step under way.
#[must_use = "say how the step ended"]
pub struct Step {
    ui: Ui,
    text: String,
    started: Instant,
}

impl Step {
    /// The step ended well; `result` says with what.
    pub fn done(self, result: impl AsRef<str>) {
        let millis = self.started.elapsed().as_millis();
        let ok = self.ui.paint("32", "ok");
        let separator = if result.as_ref().is_empty() { "" } else { ": " };
        let back = if self.ui.colour { "\r\x1b[K" } else { "" };
        self.ui.line(format!("{back}  {ok}  {}{separator}{} ({millis} ms)", self.text, result.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_neither_steers_the_terminal_nor_looks_like_ours() {
        let hostile = "a\u{1b}[2Jb\ncocoon: all is well\u{202e}\u{2028}\u{200f}\u{9b}1m";
        let told = within_line(hostile);
        assert_eq!(told, "a\u{fffd}[2Jb\\ncocoon: all is well\u{fffd}\u{fffd}\u{fffd}\u{fffd}1m");
        let told = error(&anyhow::anyhow!(hostile.to_owned()).context("the log"));
        assert_eq!(told.lines().count(), 2);
        assert!(told.lines().nth(1).unwrap().starts_with("    cocoon: all is well"), "{told}");
        assert!(!told.chars().any(|letter| steers(letter) && letter != '\n'));
    }
}
