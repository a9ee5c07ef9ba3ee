//! `cocoon up` and its enclave are killed without warning at fifty moments. Nothing acknowledged is lost, and every balance adds up.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cocoon_client::state::State;
use cocoon_host::store::Store;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::local::{Genesis, LocalChain};
use cocoon_settlement::{Nanoton, ops};
use cocoon_tests::http;
use cocoon_tests::up::Up;

const KILLS: u64 = 50;
const DEADLINE: Duration = Duration::from_secs(60);

/// Moments that differ from round to round and from run to run. `COCOON_KILLS_SEED` repeats a run.
fn moment(seed: u64, round: u64, most: u64) -> Duration {
    let mixed = (seed ^ (round + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    Duration::from_millis((mixed >> 33) % most)
}

fn seed() -> u64 {
    let named = std::env::var("COCOON_KILLS_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let now =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = named.unwrap_or_else(now);
    println!("COCOON_KILLS_SEED={seed}");
    seed
}

/// What is on disk while nothing runs.
struct Ledger {
    /// Answers that clients have a verified receipt for.
    acknowledged: u64,
    /// All that enclaves earned, by their last receipts.
    earned: Nanoton,
    /// All that channels paid.
    paid: Nanoton,
    /// What the client's channel holds.
    held: Nanoton,
}

/// Reads the records of host, client and chain, and checks that they agree.
fn inspect(data: &Path) -> Ledger {
    let chain = LocalChain::open(&data.join("chain"), Genesis::default()).unwrap();
    chain.check().expect("the chain is whole");
    let mut ledger = Ledger { acknowledged: 0, earned: Nanoton(0), paid: Nanoton(0), held: Nanoton(0) };
    let (client, host) = (data.join("client/client.redb"), data.join("host/host.redb"));
    if !client.is_file() || !host.is_file() {
        return ledger;
    }
    let (client, host) = (State::open(&client).unwrap(), Store::open(&host).unwrap());
    futures::executor::block_on(async {
        for (channel, enclave, account) in client.accounts().unwrap() {
            let receipt = host.receipt(&channel, &enclave).unwrap();
            let (sequence, total) = receipt.map_or((0, Nanoton(0)), |kept| (kept.receipt.sequence, kept.receipt.total));
            assert!(sequence >= account.sequence && total >= account.total, "an acknowledged receipt is lost");
            let paid = ops::channel_paid(&chain, &channel, &enclave).await.unwrap().paid;
            assert!(paid <= total, "more was paid than earned");
            ledger.acknowledged += account.sequence;
            ledger.earned = ledger.earned.checked_add(total).unwrap();
            ledger.paid = ledger.paid.checked_add(paid).unwrap();
            ledger.held = chain.account(&channel).await.unwrap().balance;
        }
    });
    ledger
}

#[test]
fn fifty_kills_lose_no_acknowledged_receipt_and_no_balance() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (answered, seed) = (Arc::new(AtomicU64::new(0)), seed());
    let mut before = Ledger { acknowledged: 0, earned: Nanoton(0), paid: Nanoton(0), held: Nanoton(0) };
    for round in 0..KILLS {
        if round % 5 == 4 {
            // While it starts: at any moment from the first write on.
            let mut child = Up::spawn(data);
            std::thread::sleep(moment(seed, round, 500));
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            let mut up = Up::start(data);
            let stop = Arc::new(AtomicBool::new(false));
            let asking: Vec<_> = (0..2)
                .map(|_| {
                    let (stop, answered, proxy) = (stop.clone(), answered.clone(), up.proxy().to_owned());
                    std::thread::spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            if http::chat(&proxy, "How am I charged?").is_some() {
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            // Claims are made every second, so some of these are in the middle of one.
            std::thread::sleep(moment(seed, round, 1_500));
            if round % 2 == 1 {
                let killed = Command::new("kill").args(["-KILL", &up.enclave_pid().to_string()]).status().unwrap();
                assert!(killed.success());
                // It comes back by itself, with a new key, and answers.
                let (then, deadline) = (answered.load(Ordering::Relaxed), Instant::now() + DEADLINE);
                while answered.load(Ordering::Relaxed) <= then + 2 {
                    assert!(Instant::now() < deadline, "no answer after the enclave was killed (round {round})");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            up.kill();
            stop.store(true, Ordering::Relaxed);
            for thread in asking {
                thread.join().unwrap();
            }
        }
        let now = inspect(data);
        assert!(now.acknowledged >= before.acknowledged && now.earned >= before.earned && now.paid >= before.paid);
        // Whatever left the channel was paid to the provider, but for its rent: far below a thousandth of a Toncoin.
        if before.held > Nanoton(0) {
            let left = before.held.saturating_sub(now.held);
            let claimed = now.paid.checked_sub(before.paid).unwrap();
            assert!(
                left <= claimed.saturating_add(Nanoton(1_000_000)),
                "{left} left the channel and {claimed} was paid"
            );
        }
        before = now;
    }
    assert!(before.acknowledged >= answered.load(Ordering::Relaxed), "every answer that came to its end is on record");
    assert!(answered.load(Ordering::Relaxed) > KILLS, "answers were given between the kills");

    // In the end, everything earned is paid: a claim worth less than its fees waits, so the rest is small.
    let mut up = Up::start(data);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(up.interrupt(), Some(0), "Ctrl-C stops it cleanly");
    let end = inspect(data);
    let keys = KILLS * 2;
    assert!(end.earned.saturating_sub(end.paid) < Nanoton(50_000_000 * keys), "receipts are not claimed");
    assert!(end.paid > Nanoton(0));
}
