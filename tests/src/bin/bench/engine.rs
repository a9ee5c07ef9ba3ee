//! Answers made in a process without Cocoon: the baselines.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::ways::{PROMPT, Sample};

/// An engine in a process of its own.
pub struct InProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl InProcess {
    /// mistral.rs as it comes, with so many generations at once where it runs on a GPU.
    pub fn raw(model: &Path, max_tokens: u64, concurrent: usize) -> Result<Self> {
        Self::with(model, max_tokens, &["--raw", "--concurrent", &concurrent.to_string()])
    }

    /// The enclave's engine.
    pub fn ours(model: &Path, max_tokens: u64) -> Result<Self> {
        Self::with(model, max_tokens, &[])
    }

    /// The enclave's engine, for answers of the demo model that do not end by themselves.
    pub fn endless(max_tokens: u64) -> Result<Self> {
        Self::with(&cocoon_tests::demo_model(), max_tokens, &["--never", "0", "--never", "2"])
    }

    fn with(model: &Path, max_tokens: u64, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(cocoon_tests::enclave_binary());
        command
            .args(["bench-engine", "--prompt", PROMPT, "--max-tokens", &max_tokens.to_string(), "--model"])
            .arg(model);
        command.args(more);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("the engine")?;
        let input = child.stdin.take().context("piped")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        Ok(Self { child, input, output })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// So many answers at once, and the time until the last one's end.
    pub fn ask(&mut self, streams: usize) -> Result<(Vec<Sample>, Duration)> {
        writeln!(self.input, "{streams}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let value: Value = serde_json::from_str(&line).context("the engine's answer")?;
        let micros = |value: &Value| value.as_u64().map(Duration::from_micros).context("a time");
        let answers = value["answers"].as_array().context("answers")?.iter().map(|answer| {
            Ok(Sample {
                first: micros(&answer["ttft_us"])?,
                total: micros(&answer["total_us"])?,
                tokens: answer["tokens"].as_u64().context("tokens")?,
                gaps: answer["gaps_us"].as_array().context("gaps")?.iter().map(micros).collect::<Result<_>>()?,
            })
        });
        Ok((answers.collect::<Result<_>>()?, micros(&value["wall_us"])?))
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used.
pub fn processor_time(pid: u32) -> Result<Duration> {
    // Fields 14 and 15 of proc(5) stat, in hundredths of a second on every Linux that Cocoon knows; the name before may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("a stat line")?.1;
    let ticks: Vec<u64> = after.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

/// mistral.rs's own HTTP server (`enclave/peers`), on a CPU.
pub struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts the one that `COCOON_ENGINE_SERVER` names, if it names one.
    pub fn start(model: &Path) -> Result<Option<Self>> {
        let Some(program) = std::env::var_os("COCOON_ENGINE_SERVER") else { return Ok(None) };
        let mut command = Command::new(program);
        command.arg(model).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("mistral.rs's HTTP server")?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut address)?;
        Ok(Some(Self { child, url: format!("http://{}", address.trim()) }))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
