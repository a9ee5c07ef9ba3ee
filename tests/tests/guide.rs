//! The guide for people who pay and are paid is run line by line, and its balances add up.

use std::path::Path;
use std::process::Command;

#[test]
fn the_guide_to_pay_and_get_paid_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = std::fs::read_to_string(root.join("docs/guides/pay-and-get-paid.md")).unwrap();
    // Job control, as at a terminal; what was started is stopped whatever happens.
    let mut script = String::from("set -euo pipefail\nset -m\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for block in guide.split("```sh\n").skip(1) {
        script.push_str(block.split("```").next().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let programs =
        Path::new(&std::env::var_os("COCOON_ENCLAVE_BIN").expect("run by `make test`")).parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    // Every network of this test has the one proxy port of `cocoon up`; another test may hold the usual one.
    let script = script.replace("cocoon up --json", "cocoon up --listen 127.0.0.1:8797 --json");
    let output = Command::new("timeout")
        .args(["300", "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env_remove("COCOON_CHAIN")
        .env_remove("COCOON_NETWORK")
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");

    let csv = std::fs::read_to_string(folder.path().join("me/statement.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let mut balance = 0_i64;
    for row in &rows {
        let [received, sent, fees, after] = [5, 6, 7, 8].map(|column: usize| row[column].parse::<i64>().unwrap());
        balance += received - sent - fees;
        assert_eq!(balance, after);
    }
    let what: Vec<&str> = rows.iter().map(|row| row[3]).collect();
    for expected in ["transfer", "channel-deposit", "start-close", "finish-close", "channel-refund"] {
        assert!(what.contains(&expected), "{what:?}");
    }
    // The answers cost 0.05 to 0.5 TON; all the fees of opening and closing less than 0.05 TON.
    assert!((99_400_000_000..99_950_000_000).contains(&balance), "{balance}");
    let refund: i64 = rows.iter().find(|row| row[3] == "channel-refund").unwrap()[5].parse().unwrap();
    let deposit: i64 = rows.iter().find(|row| row[3] == "channel-deposit").unwrap()[6].parse().unwrap();
    assert!(deposit == 20_000_000_000 && refund < deposit - 50_000_000, "nothing was spent: {refund}");
}
