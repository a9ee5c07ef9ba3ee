//! One Registry, Provider and Channel on a local chain in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use cocoon_settlement::account::{Account, TxReport};
use cocoon_settlement::cells::{SettlementReceipt, Signature, Verdict, Voucher};
use cocoon_settlement::contracts::{ChannelInit, ClaimItem, ProviderInit, RegistryInit};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::wallet::Wallet;
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};

use crate::trace::Trace;

pub const START: UnixTime = UnixTime(1_800_000_000);
pub const DAY: u64 = 86_400;
pub const IMAGE: Digest = Digest([0x22; 32]);
pub const MODEL: Digest = Digest([0x33; 32]);
pub const CLIENT: [u8; 32] = [0x40; 32];
pub const ENCLAVE: [u8; 32] = [0x50; 32];

pub fn ton(text: &str) -> Nanoton {
    text.parse().unwrap()
}

pub fn public(seed: &[u8; 32]) -> [u8; 32] {
    Ed25519KeyPair::from_seed_unchecked(seed).unwrap().public_key().as_ref().try_into().unwrap()
}

pub fn verifier(index: u8) -> [u8; 32] {
    [0x10 + index; 32]
}

/// One for each world, named after its test.
fn trace() -> Option<Mutex<Trace>> {
    static WORLDS: AtomicUsize = AtomicUsize::new(0);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("world").replace("::", "-");
    Trace::begin(&format!("{test}-{}", WORLDS.fetch_add(1, Ordering::Relaxed))).map(Mutex::new)
}

pub struct World {
    pub chain: Arc<LocalChain>,
    pub clock: Arc<ManualClock>,
    pub governance: Account,
    pub owner: Account,
    pub client: Account,
    pub payer: Account,
    pub registry: Address,
    pub provider: Address,
    pub channel: ChannelInit,
}

impl World {
    /// Five verifiers and a threshold of three.
    pub async fn new() -> Self {
        Self::with_threshold(3).await
    }

    pub async fn with_threshold(threshold: u8) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let seeds = [[1; 32], [2; 32], [3; 32], [4; 32]];
        let address = |seed: [u8; 32]| Wallet::new(seed, NetworkId::LOCAL).unwrap().address();
        let accounts = seeds.map(|seed| (address(seed), ton("100"))).to_vec();
        let mut chain = LocalChain::in_memory(Genesis { accounts, time: START }, clock.clone()).unwrap();
        if let Some(trace) = trace() {
            chain = chain.observed_by(move |execution| trace.lock().unwrap().write(&execution.to_json()));
        }
        let chain = Arc::new(chain);
        let [governance, owner, client, payer] = seeds.map(|seed| Account::new(chain.clone(), seed).unwrap());

        let registry = RegistryInit {
            network: NetworkId::LOCAL,
            governance: governance.address(),
            time_lock: 0,
            threshold,
            max_lifetime: DAY as u32,
            verifiers: (0..5).map(|i| public(&verifier(i))).collect(),
            images: vec![IMAGE],
            models: vec![MODEL],
        };
        let (registry, report) = ops::deploy_registry(&governance, &registry).await.unwrap();
        report.success().unwrap();
        let provider = ProviderInit {
            network: NetworkId::LOCAL,
            registry,
            owner: owner.address(),
            claim_window: 3 * DAY as u32,
            salt: [0; 32],
        };
        let (provider, report) = ops::deploy_provider(&owner, &provider).await.unwrap();
        report.success().unwrap();
        let channel = ChannelInit {
            network: NetworkId::LOCAL,
            provider,
            owner: owner.address(),
            client: client.address(),
            client_key: public(&CLIENT),
            close_delay: 3 * DAY as u32,
            salt: [7; 32],
        };
        Self { chain, clock, governance, owner, client, payer, registry, provider, channel }
    }

    /// A world in which the enclave is attested and the channel holds five Toncoin.
    pub async fn ready() -> Self {
        let world = Self::new().await;
        world.attest(&world.verdict(), &[0, 1, 2]).await.success().unwrap();
        world.open("5").await;
        world
    }

    pub fn key(&self) -> EnclaveKey {
        EnclaveKey(public(&ENCLAVE))
    }

    pub fn verdict(&self) -> Verdict {
        Verdict {
            network: NetworkId::LOCAL,
            registry: self.registry,
            provider: self.provider,
            enclave_key: self.key(),
            evidence_id: Digest([0x11; 32]),
            image: IMAGE,
            model_root: MODEL,
            generation: 0,
            until: START.plus(DAY),
            expiry: START.plus(3_600),
            set_epoch: 0,
        }
    }

    pub async fn attest(&self, verdict: &Verdict, signers: &[u8]) -> TxReport {
        let signatures: Vec<(u8, Signature)> =
            signers.iter().map(|i| (*i, verdict.sign(&verifier(*i)).unwrap())).collect();
        ops::attest(&self.owner, &self.registry, verdict, &signatures).await.unwrap()
    }

    pub async fn open(&self, deposit: &str) {
        ops::open_channel(&self.client, &self.channel, ton(deposit)).await.unwrap().success().unwrap();
    }

    pub fn voucher(&self) -> Voucher {
        Voucher {
            network: NetworkId::LOCAL,
            channel: self.channel.address(),
            enclave_key: self.key(),
            cap: ton("2"),
            prices: Prices { prompt: 1, cached: 2, completion: 3, reasoning: 4 },
            expiry: START.plus(7 * DAY),
        }
    }

    pub fn receipt(&self) -> SettlementReceipt {
        SettlementReceipt {
            network: NetworkId::LOCAL,
            provider: self.provider,
            channel: self.channel.address(),
            enclave_key: self.key(),
            sequence: 1,
            total: ton("1"),
            time: START,
        }
    }

    pub fn item(&self) -> ClaimItem {
        self.signed(self.voucher(), &CLIENT, self.receipt(), &ENCLAVE)
    }

    pub fn signed(
        &self,
        voucher: Voucher,
        client: &[u8; 32],
        receipt: SettlementReceipt,
        enclave: &[u8; 32],
    ) -> ClaimItem {
        ClaimItem {
            voucher_signature: voucher.sign(client).unwrap(),
            receipt_signature: receipt.sign(enclave).unwrap(),
            voucher,
            receipt,
        }
    }

    pub async fn claim(&self, items: &[ClaimItem]) -> TxReport {
        ops::claim(&self.owner, &self.provider, items).await.unwrap()
    }

    pub async fn paid(&self) -> Nanoton {
        ops::channel_paid(&*self.chain, &self.channel.address(), &self.key()).await.unwrap().paid
    }
}
