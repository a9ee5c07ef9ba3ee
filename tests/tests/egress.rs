//! The guest reaches nobody: no socket, no connection, no program, from no thread, whatever asks for it.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use cocoon_tests::http;
use cocoon_tests::up::Up;
use serde_json::{Value, json};

fn probe(more: &[&str]) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(cocoon_tests::enclave_binary())
        .args(["probe-egress", "--address", &listener.local_addr().unwrap().to_string()])
        .args(more)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn no_way_out_is_open_once_it_is_closed() {
    let all =
        |open: bool| json!({"tcp": open, "udp": open, "unix": open, "program": open, "listener": open, "thread": open});
    assert_eq!(probe(&[]), all(false));
    assert_eq!(probe(&["--open"]), all(true), "the control: without it every way is open");
}

#[test]
fn the_serving_enclave_has_it_closed_and_answers() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    http::chat(up.proxy(), "Who can read my prompt?").expect("an answer");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", up.enclave_pid())).unwrap();
    let mut seen = 0;
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), (Some("2"), Some("1")), "{status}");
        seen += 1;
    }
    assert!(seen > 2, "{seen} threads");
}

/// A name that is no folder would be looked for on a model hub: it is refused before.
#[test]
fn a_model_that_is_not_there_is_looked_for_nowhere() {
    let output =
        Command::new(cocoon_tests::enclave_binary()).args(["record", "--model", "Qwen/Qwen3-0.6B"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("missing"), "{said}");
}
