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
use tycho_types::error::Error as CellError;
use tycho_types::models::{
    Account, AccountState, BouncePhase, ComputePhase, Message, OrdinaryTxInfo, ShardAccount, Transaction, TxInfo,
};

use super::config;
use super::execute::{Delivery, deliver, envelope, storage_bits};

const EXIT_CELL_UNDERFLOW: i32 = 9;
const EXIT_FATAL: i32 = 12;
/// The first two bits of `addr_std`.
const STANDARD_ADDRESS: u8 = 0b10;

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

/// Where messages hold addresses that contracts read: operation, the tag of the first cell that the body refers to where it is there, and
/// the bit.
const ADDRESSES: [(&str, u32, Option<&[u8]>, u16); 8] = [
    ("the Registry of a verdict", 0x4301_0001, Some(b"COA1"), 64),
    ("the Provider of a verdict", 0x4301_0001, Some(b"COA1"), 64 + 267),
    ("a new governance", 0x4301_0002, Some(&[4]), 8),
    ("the Provider of a key to revoke", 0x4301_0007, None, 96),
    ("the Registry of a checkpoint", 0x4301_0008, Some(b"COK1"), 64),
    ("a Channel to release", 0x4302_0003, None, 96),
    ("the payer of a revocation", 0x4302_0007, None, 96 + 257),
    ("the Channel of two receipts", 0x4302_000a, None, 96 + 256),
];

/// The first of these places where a message holds another kind of address than a standard one.
fn another_address(message: &Cell) -> Option<usize> {
    let mut body = message.parse::<Message<'_>>().ok()?.body;
    let whole = body;
    let op = body.load_u32().ok()?;
    ADDRESSES.iter().position(|(_, of, inside, bit)| {
        let holds = || {
            let cell = inside.map(|_| whole.get_reference(0)).transpose()?;
            let mut slice = cell.map_or(Ok(whole), |cell| cell.as_slice())?;
            let mut tag = vec![0; inside.map_or(0, <[u8]>::len)];
            let bits = tag.len() as u16 * 8;
            slice.load_raw(&mut tag, bits)?;
            slice.skip_first(bit - bits, 0)?;
            Ok::<_, CellError>(
                inside.is_none_or(|inside| tag == inside) && slice.load_small_uint(2)? != STANDARD_ADDRESS,
            )
        };
        op == *of && holds().unwrap_or(false)
    })
}

/// Our exit code, as the emulator has it: where an address should be and another kind of address is, tycho calls it fatal, TON a cell
/// that ended early.
fn comparable(ours: i32, theirs: i32, another_address: bool) -> i32 {
    if another_address && (ours, theirs) == (EXIT_FATAL, EXIT_CELL_UNDERFLOW) { theirs } else { ours }
}

/// Makes of what happened here what the emulator says, where the difference is known and let through, and nowhere else.
/// docs/contracts.md lists them.
fn normalise(ours: &mut OrdinaryTxInfo, theirs: &OrdinaryTxInfo, another_address: bool) {
    if let (ComputePhase::Executed(ours), ComputePhase::Executed(theirs)) =
        (&mut ours.compute_phase, &theirs.compute_phase)
    {
        // Tycho sets both flags on deployment, TON's emulator neither.
        ours.msg_state_used = false;
        ours.account_activated = false;
        ours.exit_code = comparable(ours.exit_code, theirs.exit_code, another_address);
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

/// What an account without code takes, as TON counts it. The sandbox begins with accounts that are said to take nothing, which no chain does, and
/// TON adds to that what changed; tycho counts anew.
fn used(before: &Account, after: &Account) -> Option<[(u64, u64); 2]> {
    let used = &before.storage_stat.used;
    let nothing =
        (&before.state, &after.state) == (&AccountState::Uninit, &AccountState::Uninit) && used.cells.is_zero();
    let [was, is] = [before, after].map(|account| storage_bits(account).expect("an account's cell"));
    nothing.then(|| [(1, is), (0, used.bits.into_inner() + is - was)])
}

/// Both accounts, ours with what is known to differ as theirs has it.
fn accounts(before: &ShardAccount, ours: &ShardAccount, theirs: &ShardAccount) -> (Option<Account>, Option<Account>) {
    let [before, mut ours, theirs] = [before, ours, theirs].map(|of| of.load_account().expect("an account"));
    if let (Some(ours), Some(theirs)) = (&mut ours, &theirs) {
        // A hash that only large accounts carry, of a dictionary that each implementation keeps its own way.
        ours.storage_stat.storage_extra = theirs.storage_stat.storage_extra;
        let counted = |of: &Account| (of.storage_stat.used.cells.into_inner(), of.storage_stat.used.bits.into_inner());
        if before.as_ref().and_then(|before| used(before, ours)) == Some([counted(ours), counted(theirs)]) {
            ours.storage_stat.used = theirs.storage_stat.used.clone();
        }
    }
    (ours, theirs)
}

/// Which of [`ADDRESSES`] made the difference that is let through, if there was one.
fn replay(config: &ParsedConfig, line: &str) -> Result<Option<usize>, String> {
    let recorded: Recorded = serde_json::from_str(line).expect("a recorded transaction");
    let before = cell(&recorded.before).parse::<ShardAccount>().expect("an account");
    let message = cell(&recorded.message);
    let another_address = another_address(&message);
    let envelope = envelope(&message).expect("a message").expect("a destination");
    let seed = hex::decode(&recorded.seed).expect("hex").try_into().expect("32 bytes");
    let params = config::executor_params(recorded.now, recorded.lt, seed);
    let delivery = deliver(config, &params, recorded.lt, &envelope, message, &before).map_err(|e| e.to_string())?;
    let (ours, theirs) = match (delivery, &recorded.transaction) {
        (Delivery::NotAccepted(code), None) if recorded.exit_code.is_none_or(|theirs| code == theirs) => {
            return Ok(None);
        }
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
    let exit_code = |info: &OrdinaryTxInfo| match &info.compute_phase {
        ComputePhase::Executed(phase) => Some(phase.exit_code),
        ComputePhase::Skipped(_) => None,
    };
    let differs = exit_code(&a) != exit_code(&b);
    normalise(&mut a, &b, another_address.is_some());
    check("description", a == b, format!("{a:?}"), format!("{b:?}"))?;
    check(
        "messages",
        made.out_msgs == theirs.out_msgs,
        format!("{:?}", made.out_msgs),
        format!("{:?}", theirs.out_msgs),
    )?;
    let (a, b) = accounts(&before, &ours.new_state, &after);
    check("account", a == b, format!("{a:?}"), format!("{b:?}"))?;
    Ok(another_address.filter(|_| differs))
}

#[test]
fn every_transaction_of_the_emulator_is_the_same_here() {
    let Some(files) = traces() else { return };
    let config = config::load().expect("the configuration");
    let (mut count, mut differences, mut let_through) = (0, Vec::new(), [0; ADDRESSES.len()]);
    for file in files {
        for (number, line) in fs::read_to_string(&file).expect("a trace").lines().enumerate() {
            count += 1;
            match replay(&config, line) {
                Ok(None) => {}
                Ok(Some(place)) => let_through[place] += 1,
                Err(difference) => differences.push(format!("{}:{}: {difference}", file.display(), number + 1)),
            }
        }
    }
    assert!(count > 28_000, "only {count} transactions were recorded");
    for (count, (place, ..)) in let_through.iter().zip(ADDRESSES) {
        assert!(*count > 0, "nothing shows the difference that is let through at {place}");
    }
    assert!(differences.is_empty(), "{} of {count} differ, first:\n{}", differences.len(), differences.join("\n"));
    println!("{count} transactions are equal");
}

#[test]
fn another_exit_code_is_let_through_one_way_only_and_for_its_cause_alone() {
    let let_through = |ours, theirs| comparable(ours, theirs, true) == theirs;
    assert!(let_through(EXIT_FATAL, EXIT_CELL_UNDERFLOW) && let_through(EXIT_FATAL, EXIT_FATAL));
    assert!(!let_through(EXIT_CELL_UNDERFLOW, EXIT_FATAL), "the emulator never says so of what underflows here");
    assert!(!let_through(EXIT_FATAL, 0) && !let_through(0, EXIT_CELL_UNDERFLOW));
    assert_eq!(comparable(EXIT_FATAL, EXIT_CELL_UNDERFLOW, false), EXIT_FATAL, "no address is another kind of one");
}
