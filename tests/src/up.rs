//! A running `cocoon up`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The process and what it said when it was ready. Killed when dropped.
pub struct Up {
    child: Child,
    /// The ready line of `docs/schemas/up.schema.json`.
    pub ready: Value,
}

impl Up {
    /// Starts it on a data folder and waits until it is ready.
    ///
    /// # Panics
    /// It does not start; what it said is in the message.
    pub fn start(data: &Path) -> Self {
        Self::try_start(data).expect("`cocoon up` says when it is ready")
    }

    /// Starts it with other models than the demo's, and waits until it is ready.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_with(data: &Path, models: &Path) -> Self {
        Self::wait(Self::spawn_with(data, models, &[])).expect("`cocoon up` says when it is ready")
    }

    /// Starts it with more arguments, and waits until it is ready.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_asked(data: &Path, more: &[String]) -> Self {
        Self::wait(Self::spawn_with(data, &crate::demo_model(), more)).expect("`cocoon up` says when it is ready")
    }

    /// Starts it; `None` if it ended before it was ready.
    ///
    /// # Panics
    /// The binary is not there.
    pub fn try_start(data: &Path) -> Option<Self> {
        Self::wait(Self::spawn(data))
    }

    fn wait(mut child: Child) -> Option<Self> {
        let stdout = child.stdout.take().expect("piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line).unwrap_or(0);
        if read == 0 {
            let _ = child.wait();
            return None;
        }
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Some(Self { child, ready })
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// The binary is not there.
    pub fn spawn(data: &Path) -> Child {
        Self::spawn_with(data, &crate::demo_model(), &[])
    }

    fn spawn_with(data: &Path, models: &Path, more: &[String]) -> Child {
        Command::new(crate::cocoon_binary())
            .env("COCOON_ENCLAVE_BIN", crate::enclave_binary())
            .args(["up", "--json", "--listen", "127.0.0.1:0", "--claim-every", "1", "--data"])
            .arg(data)
            .arg("--model")
            .arg(models)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the cocoon binary runs")
    }

    /// Base URL of the OpenAI API.
    ///
    /// # Panics
    /// The ready line lacks it.
    pub fn proxy(&self) -> &str {
        self.ready["proxy"].as_str().expect("a proxy URL")
    }

    /// Process id of the enclave.
    ///
    /// # Panics
    /// The ready line lacks it.
    pub fn enclave_pid(&self) -> u64 {
        self.ready["enclave_pid"].as_u64().expect("a process id")
    }

    /// Kills it without warning, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it as Ctrl-C does. Gives its exit code.
    ///
    /// # Panics
    /// It cannot be signalled.
    pub fn interrupt(&mut self) -> Option<i32> {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
        self.child.wait().ok()?.code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.kill();
    }
}
