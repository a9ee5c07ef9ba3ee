//! Every transaction that the contracts' tests made on TON's own emulator, made again here: same everything. What the local chain's
//! tests did is made again there by `settlement/contracts/tests/replay`.
//!
//! `COCOON_TRACES` names the folder that `npm test` wrote with the same variable set; `make test` does both.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tycho_executor::ParsedConfig;
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;
use tycho_types::models::{
    Account, AccountState, BouncePhase, ComputePhase, OrdinaryTxInfo, ShardAccount, Transaction, TxInfo,
};

use super::config;
use super::execute::{Delivery, deliver, envelope};

const EXIT_CELL_UNDERFLOW: i32 = 9;
const EXIT_FATAL: i32 = 12;

#[derive(Deserialize)]
struct Recorded {
    now: u32,
    lt: u64,
    seed: String,
    before: String,
    message: String,
    after: Option<String>,
    transaction: Option<String>,
    /// Of an external message that was not accepted, where the virtual machine ran.
    #[serde(rename = "exitCode")]
    exit_code: Option<i32>,
}

fn traces() -> Option<Vec<PathBuf>> {
    let Some(folder) = std::env::var_os("COCOON_TRACES") else {
        assert!(std::env::var_os("CI").is_none(), "COCOON_TRACES is not set: run the contracts' tests with it first");
        eprintln!("skipped: COCOON_TRACES is not set");
        return None;
    };
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(&folder))
        .expect("the folder of COCOON_TRACES")
        .map(|f| f.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    Some(files)
}

fn cell(base64: &str) -> Cell {
    Boc::decode(BASE64_STANDARD.decode(base64).expect("base64")).expect("a bag of cells")
}

/// Our exit code, as the emulator has it: where an address should be and is not one, tycho calls it fatal, TON a cell that ended early.
fn comparable(ours: i32, theirs: i32) -> i32 {
    if (ours, theirs) == (EXIT_FATAL, EXIT_CELL_UNDERFLOW) { theirs } else { ours }
}

/// Makes of what happened here what the emulator says, where the difference is known and let through, and nowhere else.
/// docs/contracts.md lists them.
fn normalise(ours: &mut OrdinaryTxInfo, theirs: &OrdinaryTxInfo) {
    if let (ComputePhase::Executed(ours), ComputePhase::Executed(theirs)) =
        (&mut ours.compute_phase, &theirs.compute_phase)
    {
        // Tycho sets both flags on deployment, TON's emulator neither.
        ours.msg_state_used = false;
        ours.account_activated = false;
        ours.exit_code = comparable(ours.exit_code, theirs.exit_code);
    }
    if let (Some(BouncePhase::NoFunds(ours)), Some(BouncePhase::NoFunds(theirs))) =
        (&mut ours.bounce_phase, &theirs.bounce_phase)
    {
        // What a bounce would have cost that could not be paid.
        ours.req_fwd_fees = theirs.req_fwd_fees;
    }
}

fn ordinary(transaction: &Transaction) -> OrdinaryTxInfo {
    let TxInfo::Ordinary(info) = transaction.load_info().expect("a description") else { panic!("not ordinary") };
    info
}

/// Both accounts, ours with what is known to differ as theirs has it.
fn accounts(ours: &ShardAccount, theirs: &ShardAccount) -> (Option<Account>, Option<Account>) {
    let [mut ours, theirs] = [ours, theirs].map(|of| of.load_account().expect("an account"));
    if let (Some(ours), Some(theirs)) = (&mut ours, &theirs) {
        // A hash that only large accounts carry, of a dictionary that each implementation keeps its own way.
        ours.storage_stat.storage_extra = theirs.storage_stat.storage_extra;
        // What an account without code is said to take.
        if (&ours.state, &theirs.state) == (&AccountState::Uninit, &AccountState::Uninit) {
            ours.storage_stat.used = theirs.storage_stat.used.clone();
        }
    }
    (ours, theirs)
}

fn replay(config: &ParsedConfig, line: &str) -> Result<(), String> {
    let recorded: Recorded = serde_json::from_str(line).expect("a recorded transaction");
    let before = cell(&recorded.before).parse::<ShardAccount>().expect("an account");
    let message = cell(&recorded.message);
    let envelope = envelope(&message).expect("a message").expect("a destination");
    let seed = hex::decode(&recorded.seed).expect("hex").try_into().expect("32 bytes");
    let params = config::executor_params(recorded.now, recorded.lt, seed);
    let delivery = deliver(config, &params, recorded.lt, &envelope, message, &before).map_err(|e| e.to_string())?;
    let (ours, theirs) = match (delivery, &recorded.transaction) {
        (Delivery::NotAccepted(code), None) if recorded.exit_code.is_none_or(|theirs| code == theirs) => return Ok(()),
        (Delivery::NotAccepted(code), None) => {
            return Err(format!("not accepted: exit code {code} here, {:?} there", recorded.exit_code));
        }
        (Delivery::NotAccepted(code), Some(_)) => return Err(format!("not accepted here: exit code {code}")),
        (Delivery::Done(_), None) => return Err("not accepted there".into()),
        (Delivery::Done(ours), Some(theirs)) => (ours, cell(theirs).parse::<Transaction>().expect("a transaction")),
    };
    let after = cell(recorded.after.as_ref().expect("an account")).parse::<ShardAccount>().expect("an account");
    let made = ours.transaction.load().expect("a transaction");
    let head =
        |t: &Transaction| (t.account, t.lt, t.prev_trans_lt, t.now, t.orig_status, t.end_status, t.total_fees.clone());
    let check = |what: &str, equal: bool, ours: String, theirs: String| {
        if equal { Ok(()) } else { Err(format!("{what}\nhere:  {ours}\nthere: {theirs}")) }
    };
    let (a, b) = (head(&made), head(&theirs));
    check("head", a == b, format!("{a:?}"), format!("{b:?}"))?;
    let (mut a, b) = (ordinary(&made), ordinary(&theirs));
    normalise(&mut a, &b);
    check("description", a == b, format!("{a:?}"), format!("{b:?}"))?;
    check(
        "messages",
        made.out_msgs == theirs.out_msgs,
        format!("{:?}", made.out_msgs),
        format!("{:?}", theirs.out_msgs),
    )?;
    let (a, b) = accounts(&ours.new_state, &after);
    check("account", a == b, format!("{a:?}"), format!("{b:?}"))
}

#[test]
fn every_transaction_of_the_emulator_is_the_same_here() {
    let Some(files) = traces() else { return };
    let config = config::load().expect("the configuration");
    let (mut count, mut differences) = (0, Vec::new());
    for file in files {
        for (number, line) in fs::read_to_string(&file).expect("a trace").lines().enumerate() {
            count += 1;
            if let Err(difference) = replay(&config, line) {
                differences.push(format!("{}:{}: {difference}", file.display(), number + 1));
            }
        }
    }
    assert!(count > 5_000, "only {count} transactions were recorded");
    assert!(differences.is_empty(), "{} of {count} differ, first:\n{}", differences.len(), differences.join("\n"));
    println!("{count} transactions are equal");
}

#[test]
fn another_exit_code_is_let_through_one_way_only() {
    let let_through = |ours, theirs| comparable(ours, theirs) == theirs;
    assert!(let_through(EXIT_FATAL, EXIT_CELL_UNDERFLOW) && let_through(EXIT_FATAL, EXIT_FATAL));
    assert!(!let_through(EXIT_CELL_UNDERFLOW, EXIT_FATAL), "the emulator never says so of what underflows here");
    assert!(!let_through(EXIT_FATAL, 0) && !let_through(0, EXIT_CELL_UNDERFLOW));
}
