//! The guide for people who pay and are paid is run line by line, and its balances add up.

use std::path::Path;
use std::process::Command;

/// A line of a statement, in nanoton.
#[derive(Debug)]
struct Line {
    time: i64,
    what: String,
    received: i64,
    sent: i64,
    fees: i64,
    balance: i64,
    earned: i64,
}

/// Reads a statement, each of whose balances is the one before, plus received, less sent, less fees.
fn statement(folder: &Path, name: &str) -> Vec<Line> {
    let csv = std::fs::read_to_string(folder.join(name)).unwrap();
    let mut balance = 0;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields[at].parse::<i64>().unwrap_or(0);
        let line = Line {
            time: number(0),
            what: fields[3].to_owned(),
            received: number(5),
            sent: number(6),
            fees: number(7),
            balance: number(8),
            earned: number(9),
        };
        balance += line.received - line.sent - line.fees;
        assert_eq!(balance, line.balance, "{name}: {line:?}");
        line
    };
    csv.lines().skip(1).map(line).collect()
}

/// The lines of one kind.
fn of<'a>(lines: &'a [Line], what: &str) -> Vec<&'a Line> {
    lines.iter().filter(|line| line.what == what).collect()
}

/// The one line of its kind.
fn one<'a>(lines: &'a [Line], what: &str) -> &'a Line {
    let found = of(lines, what);
    let [line] = found[..] else { panic!("{what}: {lines:?}") };
    line
}

fn sum(lines: &[&Line], pick: fn(&Line) -> i64) -> i64 {
    lines.iter().map(|line| pick(line)).sum()
}

/// No account of the guide pays more rent than this in so many seconds; and each transaction rounds up.
fn rent(seconds: i64) -> std::ops::RangeInclusive<i64> {
    0..=seconds + 10
}

/// All fees of an operation, as `docs/costs.md` has them, without rent.
fn cost(root: &Path, operation: &str) -> i64 {
    let file = std::fs::read(root.join("docs/vectors/operation-costs.json")).unwrap();
    let costs: serde_json::Value = serde_json::from_slice(&file).unwrap();
    costs["small"][operation][1].as_i64().unwrap()
}

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
    // Both channels of the wallet that was left are closed: nothing is bound to it any more.
    assert!(
        !out.contains("left behind:") && out.contains("All accounts that it had to do with were looked at."),
        "{out}"
    );

    client(&root, folder.path(), &guide);
    provider(folder.path());
}

/// The client's books and those of the channel explain each other to the nanoton.
fn client(root: &Path, folder: &Path, guide: &str) {
    let (me, channel) = (statement(folder, "me/statement.csv"), statement(folder, "me/channel.csv"));
    let (given, deposit) = (one(&me, "transfer"), one(&me, "channel-deposit"));
    assert_eq!((given.received, deposit.sent), (100_000_000_000, 20_000_000_000));
    let claims = of(&channel, "settle+claim-paid");
    assert_eq!(claims.len(), 2, "one by the running host, one by hand: {channel:?}");
    // Whatever left one arrived at the other.
    assert_eq!(sum(&me.iter().collect::<Vec<_>>(), |line| line.sent), {
        sum(&channel.iter().collect::<Vec<_>>(), |line| line.received) - sum(&claims, |line| line.received)
    });
    assert_eq!(sum(&me.iter().collect::<Vec<_>>(), |line| line.received) - given.received, {
        sum(&channel.iter().collect::<Vec<_>>(), |line| line.sent) - sum(&claims, |line| line.sent)
    });
    // What a claim takes from the deposit: what is paid, and the rent until then; its fees came with it.
    let taken = sum(&claims, |line| line.sent + line.fees - line.received);
    let own_fees = sum(&me.iter().collect::<Vec<_>>(), |line| line.fees);
    let channel_fees = sum(&channel.iter().collect::<Vec<_>>(), |line| line.fees) - sum(&claims, |line| line.fees);
    let (holds, kept) = (me.last().unwrap().balance, channel.last().unwrap().balance);
    assert_eq!(given.received, holds + taken + own_fees + channel_fees + kept, "a nanoton is not explained");

    // Each step cost what the tables say, and the rent of the time that had passed.
    let start = given.time;
    let (start_close, finish_close) = (one(&me, "start-close"), one(&me, "finish-close"));
    let started =
        start_close.fees + one(&me, "excess-returned").fees + one(&channel, "start-close+excess-returned").fees;
    let minutes = finish_close.time - 259_300 - start;
    assert!((0..600).contains(&minutes), "{minutes} s");
    assert!(rent(3 * minutes).contains(&(started - cost(root, "start close"))), "{started}");
    let refund = one(&me, "channel-refund");
    let finished = finish_close.fees + refund.fees + one(&channel, "finish-close+channel-refund").fees;
    assert!(rent(3 * (259_300 + minutes)).contains(&(finished - cost(root, "finish close"))), "{finished}");
    // A wallet's first message brings its code as well.
    let opened = deposit.fees + one(&channel, "channel-deposit").fees;
    let code = opened - cost(root, "open a Channel");
    assert!(rent(minutes).contains(&(code - WALLETS_CODE)), "{code}");

    // And every number of the guide's table is what was paid, rounded.
    let channel_of = |what: &str| one(&channel, what).fees;
    said(guide, "opening", &[opened, deposit.fees, channel_of("channel-deposit")]);
    let [start_fees, finish_fees] = ["start-close+excess-returned", "finish-close+channel-refund"].map(channel_of);
    said(guide, "starting to close", &[started, started - start_fees, start_fees]);
    said(guide, "finishing", &[finished, finished - finish_fees, finish_fees]);
    said(guide, "held for the time", &[kept, kept]);

    // The answers cost 0.05 to 0.5 TON; everything else what the guide says.
    assert!((50_000_000..500_000_000).contains(&taken), "{taken}");
    let rest = given.received - holds - taken;
    assert!((33_800_000..33_900_000).contains(&rest), "the guide says 0.0338 TON: {rest}");
    assert!((2_000_000..2_100_000).contains(&kept), "the guide says 0.0020 TON: {kept}");
}

/// The guide's row of costs that begins so says these amounts in TON: in all, by the wallet, by the channel. The rent of what the guide does
/// not wait for is little beside what is rounded.
fn said(guide: &str, row: &str, paid: &[i64]) {
    const HALF_OF_THE_LAST_PLACE: i64 = 50_000;
    const RENT_OF_TEN_MINUTES: i64 = 3 * 600 + 10;
    let line = guide.lines().find(|line| line.starts_with(&format!("| {row}"))).expect(row);
    let cells = line.split('|').skip(2).map(str::trim).filter(|cell| !cell.is_empty());
    let nanoton = cells.map(|cell| (cell.parse::<f64>().expect(row) * 1e9).round() as i64);
    let said: Vec<i64> = nanoton.collect();
    let close = |(said, paid): (&i64, &i64)| (paid - said).abs() <= HALF_OF_THE_LAST_PLACE + RENT_OF_TEN_MINUTES;
    assert!(said.len() == paid.len() && said.iter().zip(paid).all(close), "{line}: paid {paid:?}");
}

/// What it costs that the first message of a wallet deploys it.
const WALLETS_CODE: i64 = 2_802_000;

/// The provider's books: what he claimed by hand is what the channel paid, less the fees.
fn provider(folder: &Path) {
    let (owner, contract) = (statement(folder, "provider/earnings.csv"), statement(folder, "provider/contract.csv"));
    let channel = statement(folder, "me/channel.csv");
    let claim: serde_json::Value = {
        let text = std::fs::read(folder.join("provider/claim.txt")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let [paid, fees, before, after] =
        ["paid_nanoton", "fees_nanoton", "before_nanoton", "after_nanoton"].map(|name| claim[name].as_i64().unwrap());
    assert_eq!(claim["items"], 1);
    // The last of each: the first claim is the running host's.
    let last = |lines: &[Line], what: &str| lines.iter().rposition(|line| line.what == what).expect(what);
    let sent = &owner[last(&owner, "claim")];
    let got = &owner[last(&owner, "claim-paid")];
    let passed = &contract[last(&contract, "claim+settle")];
    let settled = &channel[last(&channel, "settle+claim-paid")];
    assert_eq!((sent.sent, passed.sent, settled.sent), (passed.received, settled.received, got.received));
    assert_eq!(fees, sent.fees + passed.fees + settled.fees + got.fees);
    assert!((9_500_000..11_600_000).contains(&fees), "the guide says 0.010 or 0.011 TON: {fees}");
    assert_eq!(after - before, got.received - got.fees - sent.sent - sent.fees);
    assert_eq!(owner.last().unwrap().balance, after);
    // The contracts paid the rent of the time since out of what they hold.
    let rents = after - before - (paid - fees);
    assert!(rent(2 * 600).contains(&rents), "{rents}");
    let rent_of_channel = settled.sent + settled.fees - settled.received - paid;
    assert!(rent(600).contains(&rent_of_channel), "{rent_of_channel}");
    // All that he earned is in his books, apart from what came back of what the claims carried.
    let earned = of(&owner, "claim-paid");
    assert_eq!(earned.len(), 2);
    assert_eq!(got.earned, paid);
    assert_eq!(sum(&owner.iter().collect::<Vec<_>>(), |line| line.earned), sum(&earned, |line| line.earned));
    let carried = sum(&earned, |line| line.received - line.earned);
    assert!(carried > 0 && carried < sum(&of(&owner, "claim"), |line| line.sent), "{carried}");
    assert_eq!(sum(&earned, |line| line.received), sum(&of(&channel, "settle+claim-paid"), |line| line.sent));
}
