//! What the system may not write to disk: the whole of the enclave's memory, where it has the right to lock it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::world::model;

/// In the guest the first process lifts the limit of locked memory. Where nobody may, as in many containers, the enclave says that its memory is
/// not locked.
#[test]
fn memory_is_locked_or_the_enclave_says_that_it_is_not() {
    let mut enclave = Command::new("sh")
        .args(["-c", r#"ulimit -l unlimited 2>/dev/null; exec "$0" "$@""#])
        .arg(cocoon_tests::enclave_binary())
        .args(["bench-engine", "--prompt", "unused", "--max-tokens", "1", "--model"])
        .arg(model())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(enclave.stdin.as_mut().unwrap(), "1 Who can read my prompt?").unwrap();
    let mut line = String::new();
    BufReader::new(enclave.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("answers"), "{line}");
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", enclave.id())).unwrap();
    let limit = read("limits");
    let limit =
        limit.lines().find_map(|line| line.strip_prefix("Max locked memory")).unwrap().split_whitespace().next();
    let may = limit == Some("unlimited");
    let status = read("status");
    let kilobytes = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (locked, resident) = (kilobytes("VmLck:"), kilobytes("VmRSS:"));
    let weights = std::fs::metadata(model().join("model.safetensors")).unwrap().len() >> 10;
    let _ = enclave.kill();
    let mut said = String::new();
    enclave.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    enclave.wait().unwrap();
    println!("{locked} KB locked and {resident} KB in memory, {weights} KB of them weights, limit {limit:?}");
    assert_eq!(may, !said.contains("memory is not locked"), "{said}");
    if may {
        assert!(locked >= resident && resident > weights, "{locked} KB locked of {resident} KB");
    }
}
