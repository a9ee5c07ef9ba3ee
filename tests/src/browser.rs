//! A real browser that is pressed and looked at as a person does it: Chromium over its own protocol, through a pipe.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// The first Chromium in PATH.
pub fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.is_file())
}

/// A browser with one page open. It ends when dropped.
pub struct Browser {
    process: Child,
    to: File,
    from: BufReader<File>,
    last: u64,
    session: Option<String>,
}

impl Browser {
    /// Opens a page; the browser's own files go into the folder.
    ///
    /// # Panics
    /// The browser does not start, or does not open it.
    pub fn open(chromium: &Path, folder: &Path, url: &str) -> Self {
        let (to, from) = (folder.join("to-browser"), folder.join("from-browser"));
        let made = Command::new("mkfifo").args([&to, &from]).status().expect("mkfifo");
        assert!(made.success());
        // The protocol is spoken on the file handles 3 and 4, which only a shell hands on.
        let process = Command::new("bash")
            .args(["-c", "exec timeout 300 \"$@\" 3<\"$TO\" 4>\"$FROM\"", "browser"])
            .arg(chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", folder.join("browser").display()))
            .envs([("TO", &to), ("FROM", &from)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        let to = File::options().write(true).open(&to).expect("a pipe");
        let from = BufReader::new(File::open(&from).expect("a pipe"));
        let mut browser = Self { process, to, from, last: 0, session: None };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        browser.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true }));
        browser.go(url);
        browser
    }

    /// Opens a page anew: nothing has the focus, and nothing is open.
    ///
    /// # Panics
    /// The browser does not open it.
    pub fn go(&mut self, url: &str) {
        for (url, there) in [("about:blank", "==="), (url, "!==")] {
            self.call("Page.navigate", json!({ "url": url }));
            self.wait_for(&format!("document.readyState === 'complete' && location.href {there} 'about:blank'"));
        }
    }

    /// Shows the page at a width, in a scheme.
    ///
    /// # Panics
    /// The browser does not.
    pub fn show(&mut self, width: u32, dark: bool) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Presses a key and lets it go: `Tab` or `Enter`.
    ///
    /// # Panics
    /// It is another key, or the browser does not answer.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => panic!("{key} is not known here"),
        };
        for kind in [if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "keyUp"] {
            let text = if kind == "keyUp" { "" } else { text };
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// What an expression is in the page, as JSON.
    ///
    /// # Panics
    /// It fails there.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    fn wait_for(&mut self, condition: &str) {
        for _ in 0..600 {
            // Between two pages there is none to ask.
            let asked = json!({ "expression": condition, "returnByValue": true });
            if self.ask("Runtime.evaluate", asked).is_ok_and(|answer| answer["result"]["value"] == true) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("never: {condition}");
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.ask(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let bytes = [message.to_string().as_bytes(), &[0]].concat();
        self.to.write_all(&bytes).expect("the browser runs");
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).expect("the browser runs");
            assert_eq!(answer.pop(), Some(0), "the browser ended at {method}");
            let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
            // What it tells unasked has no number.
            if answer["id"] == self.last {
                let error = answer["error"].take();
                return if error.is_null() { Ok(answer["result"].take()) } else { Err(error) };
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // `timeout` hands the signal on.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
