//! The power goes out at every single write of a block: afterwards the block is there, whole, or it never was.

use std::io;
use std::sync::{Arc, Mutex};

use cocoon_attestation::types::UnixTime;
use redb::StorageBackend;

use super::store::Store;
use super::{Genesis, LocalChain, ManualClock};
use crate::account::Account;
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::chain::Chain;
use crate::wallet::Wallet;

const START: UnixTime = UnixTime(1_790_000_000);
const GIVER: [u8; 32] = [1; 32];
const TO: Address = Address::basechain([7; 32]);

/// A disk that stops after a number of operations, and remembers what was synced by then.
#[derive(Debug, Clone)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    current: Vec<u8>,
    synced: Vec<u8>,
    operations_left: usize,
}

impl Disk {
    fn new(image: Vec<u8>, operations_left: usize) -> Self {
        Self(Arc::new(Mutex::new(Platter { synced: image.clone(), current: image, operations_left })))
    }

    fn change(&self, work: impl FnOnce(&mut Platter)) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        match platter.operations_left.checked_sub(1) {
            None => return Err(io::Error::other("the power is out")),
            Some(left) => platter.operations_left = left,
        }
        work(&mut platter);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0.lock().unwrap().current[offset as usize..][..out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|platter| platter.current.resize(len as usize, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|platter| platter.synced.clone_from(&platter.current))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|platter| platter.current[offset as usize..][..data.len()].copy_from_slice(data))
    }
}

fn open(disk: &Disk) -> Result<Arc<LocalChain>, crate::Error> {
    let giver = Wallet::new(GIVER, NetworkId::LOCAL)?.address();
    let genesis = Genesis { accounts: vec![(giver, Nanoton::from_ton(100))], time: START };
    LocalChain::start(Store::on(disk.clone())?, genesis, Arc::new(ManualClock::new(START))).map(Arc::new)
}

#[tokio::test]
async fn a_block_is_whole_or_not_there_wherever_the_power_goes_out() {
    let disk = Disk::new(Vec::new(), usize::MAX);
    let chain = open(&disk).unwrap();
    Account::new(chain.clone(), GIVER).unwrap().send(TO, Nanoton::from_ton(1), None, None).await.unwrap();
    let request = Wallet::new(GIVER, NetworkId::LOCAL)
        .unwrap()
        .request(1, START.plus(60), &[crate::wallet::OutMessage::new(TO, Nanoton::from_ton(1), None, None)], false)
        .unwrap();
    drop(chain);
    let image = disk.0.lock().unwrap().current.clone();

    let (mut without, mut with) = (0, 0);
    for operations in 0.. {
        let disk = Disk::new(image.clone(), operations);
        let acknowledged = match open(&disk) {
            Ok(chain) => chain.send(request.clone()).await.is_ok(),
            Err(_) => false,
        };
        let power_left = disk.0.lock().unwrap().operations_left > 0;
        let survivors = {
            let platter = disk.0.lock().unwrap();
            [platter.synced.clone(), platter.current.clone()]
        };
        for survivor in survivors {
            let chain = open(&Disk::new(survivor, usize::MAX)).unwrap();
            chain.check().unwrap();
            let seqno = chain.head().await.unwrap().seqno;
            let arrived = chain.account(&TO).await.unwrap().balance;
            let trace = chain.trace(&request.repr_hash().0).await.unwrap();
            match seqno {
                1 => assert!(!acknowledged && arrived == Nanoton::from_ton(1) && trace.is_none()),
                2 => assert!(arrived == Nanoton::from_ton(2) && trace.unwrap().transactions.len() == 2),
                other => panic!("block {other}"),
            }
            if seqno == 1 { without += 1 } else { with += 1 }
        }
        if power_left {
            break;
        }
    }
    assert!(without > 4 && with > 1, "the outage missed the block: {without} without, {with} with it");
}
