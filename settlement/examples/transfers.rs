//! Transfers per second of the local chain on one core: each a signed request to a wallet v5R1 and the plain transfer it sends, that is
//! two transactions, in blocks that each reach the disk in one commit.
//!
//! `make bench` runs it on one core. Elsewhere: `cargo build --release -p cocoon-settlement --example transfers`, then
//! `taskset -c 0 target/release/examples/transfers`. It ends with an error where that is not one core, or not fast enough.

use std::time::Instant;

use cocoon_attestation::types::UnixTime;
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::wallet::{OutMessage, Wallet};
use cocoon_settlement::{Address, Nanoton, NetworkId};

const AT: UnixTime = UnixTime(1_790_000_000);
const WALLETS: u32 = 1_000;
const ROUNDS: u32 = 10;
/// What a development chain should do at least, with every block on the disk.
const LEAST: f64 = 5_000.0;

/// Seconds that all rounds took, a round being one block to which every wallet sends a transfer.
fn measure(chain: &LocalChain, wallets: &[Wallet]) -> Result<f64, Box<dyn std::error::Error>> {
    let mut seconds = 0.0;
    // The first round deploys the wallets and is not counted.
    for round in 0..=ROUNDS {
        let requests: Vec<_> = wallets
            .iter()
            .enumerate()
            .map(|(index, wallet)| {
                let mut to = [7; 32];
                to[..8].copy_from_slice(&(index as u64).to_be_bytes());
                let message = OutMessage::new(Address::basechain(to), Nanoton(1_000_000), None, None);
                wallet.request(round, AT.plus(60), &[message], round == 0)
            })
            .collect::<Result<_, _>>()?;
        let before = chain.tick(AT)?.seqno;
        let start = Instant::now();
        let results = chain.submit(requests)?;
        let elapsed = start.elapsed().as_secs_f64();
        results.into_iter().collect::<Result<Vec<_>, _>>()?;
        let blocks = chain.tick(AT)?.seqno - before;
        if round > 0 {
            seconds += elapsed;
            if round == 1 {
                println!("blocks (= durable commits) per {WALLETS} transfers: {blocks}");
            }
        }
    }
    Ok(seconds)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cores = std::thread::available_parallelism()?.get();
    if cores != 1 {
        return Err(format!("this measures one core and may use {cores}: run it with `taskset -c 0`").into());
    }
    let wallets: Vec<Wallet> = (0..WALLETS)
        .map(|index| {
            let mut seed = [1; 32];
            seed[..4].copy_from_slice(&index.to_be_bytes());
            Wallet::new(seed, NetworkId::LOCAL)
        })
        .collect::<Result<_, _>>()?;
    let genesis = || Genesis {
        accounts: wallets.iter().map(|wallet| (wallet.address(), Nanoton::from_ton(100))).collect(),
        time: AT,
    };
    let clock = || std::sync::Arc::new(ManualClock::new(AT));
    let folder = tempfile::tempdir()?;
    let durable = LocalChain::open_with_clock(folder.path(), genesis(), clock())?;
    let memory = LocalChain::in_memory(genesis(), clock())?;
    let transfers = f64::from(WALLETS * ROUNDS);
    let (on_disk, in_memory) = (measure(&durable, &wallets)?, measure(&memory, &wallets)?);
    durable.check()?;
    println!("durable:   {:>7.0} transfers/s, {:.0} transactions/s", transfers / on_disk, 2.0 * transfers / on_disk);
    println!(
        "in memory: {:>7.0} transfers/s; durable takes {:.2}x its time",
        transfers / in_memory,
        on_disk / in_memory
    );
    if transfers / on_disk < LEAST {
        return Err(format!("fewer than {LEAST} durable transfers a second").into());
    }
    Ok(())
}
