//! A local chain with a Registry, a Provider and a Channel.

use std::sync::Arc;

use cocoon_attestation::{Digest, EnclaveKey, UnixTime};
use cocoon_host::store::Store;
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::{SettlementReceipt, Verdict, Voucher};
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Clock, Genesis, LocalChain, ManualClock};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};

pub const AT: UnixTime = UnixTime(1_790_000_000);
pub const PRICES: Prices = Prices { prompt: 10, cached: 1, completion: 20, reasoning: 20 };

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

pub struct World {
    pub chain: Arc<LocalChain>,
    pub clock: Arc<ManualClock>,
    pub account: Arc<Account>,
    pub registry: Address,
    pub provider: Address,
    pub channel: Address,
}

/// A Provider with two attested enclave keys, 41 and 42, and a Channel with 10 TON; the claim window is three days.
pub async fn world() -> World {
    world_with_window(259_200).await
}

/// The same with another claim window.
pub async fn world_with_window(claim_window: u32) -> World {
    let clock = Arc::new(ManualClock::new(AT));
    let wallet = cocoon_settlement::wallet::Wallet::new([5; 32], NetworkId::LOCAL).unwrap().address();
    let accounts = vec![(wallet, Nanoton(100_000_000_000))];
    let chain = Arc::new(LocalChain::in_memory(Genesis { accounts, time: AT }, clock.clone()).unwrap());
    let account = Arc::new(Account::new(chain.clone(), [5; 32]).unwrap());
    let registry = RegistryInit {
        network: NetworkId::LOCAL,
        governance: wallet,
        time_lock: 0,
        threshold: 1,
        max_lifetime: 86_400,
        verifiers: vec![key(21).public()],
        images: vec![Digest([9; 32])],
        models: vec![Digest([3; 32])],
    };
    let registry = ops::deploy_registry(&account, &registry).await.unwrap().0;
    let provider = ProviderInit { network: NetworkId::LOCAL, registry, owner: wallet, claim_window, salt: [0; 32] };
    let provider = ops::deploy_provider(&account, &provider).await.unwrap().0;
    let channel = ChannelInit {
        network: NetworkId::LOCAL,
        provider,
        owner: wallet,
        client: wallet,
        client_key: key(31).public(),
        close_delay: 259_200,
        salt: [0; 32],
    };
    ops::open_channel(&account, &channel, Nanoton(10_000_000_000)).await.unwrap().success().unwrap();
    let world = World { chain, clock, account, registry, provider, channel: channel.address() };
    for enclave in [41, 42] {
        world.attest(key(enclave).enclave_key()).await;
    }
    world
}

impl World {
    /// The Registry takes this key for a day.
    pub async fn attest(&self, enclave_key: EnclaveKey) {
        self.attest_again(enclave_key, 0).await;
    }

    /// And for another day.
    pub async fn renew(&self, enclave: u8, generation: u32) {
        self.attest_again(key(enclave).enclave_key(), generation).await;
    }

    async fn attest_again(&self, enclave_key: EnclaveKey, generation: u32) {
        let verdict = Verdict {
            network: NetworkId::LOCAL,
            registry: self.registry,
            provider: self.provider,
            enclave_key,
            evidence_id: Digest(enclave_key.0),
            image: Digest([9; 32]),
            model_root: Digest([3; 32]),
            generation,
            until: self.clock.now().plus(80_000),
            expiry: self.clock.now().plus(3_600),
            set_epoch: 0,
        };
        let signature = verdict.sign(&[21; 32]).unwrap();
        ops::attest(&self.account, &self.registry, &verdict, &[(0, signature)]).await.unwrap().success().unwrap();
    }

    /// A promise to this enclave.
    pub fn promise(&self, enclave: u8, cap: Nanoton) -> SignedVoucher {
        self.promise_for(enclave, cap, 3_600)
    }

    /// A promise for so many seconds.
    pub fn promise_for(&self, enclave: u8, cap: Nanoton, seconds: u64) -> SignedVoucher {
        let (channel, enclave_key, network) = (self.channel, key(enclave).enclave_key(), NetworkId::LOCAL);
        let voucher = Voucher { network, channel, enclave_key, cap, prices: PRICES, expiry: AT.plus(seconds) };
        SignedVoucher::sign(voucher, &[31; 32]).unwrap()
    }

    /// What the enclave `enclave` earned by a receipt that `signer` signed.
    pub fn earn(&self, store: &Store, enclave: u8, signer: u8, cap: Nanoton, total: Nanoton) {
        store.keep_voucher(&self.promise(enclave, cap)).unwrap();
        self.receive(store, enclave, signer, 1, total, AT);
    }

    pub fn receive(&self, store: &Store, enclave: u8, signer: u8, sequence: u64, total: Nanoton, time: UnixTime) {
        let (network, provider, channel) = (NetworkId::LOCAL, self.provider, self.channel);
        let enclave_key = key(enclave).enclave_key();
        let receipt = SettlementReceipt { network, provider, channel, enclave_key, sequence, total, time };
        store.keep_receipt(&SignedSettlementReceipt::sign(receipt, &key(signer)).unwrap()).unwrap();
    }
}
