//! A local chain with a Registry, a Provider and a Channel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cocoon_attestation::{Digest, EnclaveKey, UnixTime};
use cocoon_host::store::Store;
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::{SettlementReceipt, Verdict, Voucher};
use cocoon_settlement::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
use cocoon_settlement::local::{Clock, Genesis, LocalChain, ManualClock};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId, Prices, ops};
use tycho_types::cell::Cell;

pub const AT: UnixTime = UnixTime(1_790_000_000);
pub const PRICES: Prices = Prices { prompt: 10, cached: 1, completion: 20, reasoning: 20 };

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

/// The world's chain with a server between that a test makes fail.
pub struct Server {
    pub chain: Arc<LocalChain>,
    /// It gives neither code nor data of accounts: nothing can be foreseen.
    pub blind: AtomicBool,
    /// What a claim must carry is so many times what it is.
    pub dear: AtomicU64,
    /// External messages reach it and do not reach the chain, until they are let through.
    pub holds: AtomicBool,
    pub held: Mutex<Vec<Cell>>,
    /// What it knows of a message that it holds: `None` before the wallet has it.
    pub wallet_ran: AtomicBool,
    /// Get-methods that it was asked for.
    pub asked: Mutex<Vec<(Address, String)>>,
    /// It never answers about this account.
    pub silent_about: Mutex<Option<Address>>,
}

impl Server {
    pub fn of(world: &World) -> Arc<Self> {
        Arc::new(Self {
            chain: world.chain.clone(),
            blind: AtomicBool::new(false),
            dear: AtomicU64::new(1),
            holds: AtomicBool::new(false),
            held: Mutex::default(),
            wallet_ran: AtomicBool::new(true),
            asked: Mutex::default(),
            silent_about: Mutex::default(),
        })
    }

    /// What was asked about an account since the last time.
    pub fn asked_about(&self, account: &Address) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.into_iter().filter(|(of, _)| of == account).map(|(_, method)| method).collect()
    }

    /// What it held arrives.
    pub async fn let_through(&self) {
        self.holds.store(false, Ordering::SeqCst);
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        for message in held {
            self.chain.send(message).await.unwrap();
        }
    }
}

#[async_trait]
impl Chain for Server {
    fn network(&self) -> NetworkId {
        self.chain.network()
    }
    async fn head(&self) -> Result<BlockRef, Error> {
        self.chain.head().await
    }
    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
        self.chain.block(seqno).await
    }
    async fn account(&self, address: &Address) -> Result<AccountState, Error> {
        let state = self.chain.account(address).await?;
        Ok(match self.blind.load(Ordering::SeqCst) {
            true => AccountState { code: None, data: None, ..state },
            false => state,
        })
    }
    async fn send(&self, external: Cell) -> Result<[u8; 32], Error> {
        if self.holds.load(Ordering::SeqCst) {
            let hash = external.repr_hash().0;
            self.held.lock().unwrap().push(external);
            return Ok(hash);
        }
        self.chain.send(external).await
    }
    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error> {
        self.asked.lock().unwrap().push((*address, method.into()));
        if *self.silent_about.lock().unwrap() == Some(*address) {
            return std::future::pending().await;
        }
        let mut answer = self.chain.run_get(address, method, args).await?;
        if let ("claim_value", Some(StackValue::Int(value))) = (method, answer.stack.first_mut()) {
            *value *= self.dear.load(Ordering::SeqCst);
        }
        Ok(answer)
    }
    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, Error> {
        self.chain.transactions_before(address, before, limit).await
    }
    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        let holds = self.held.lock().unwrap().iter().any(|held| held.repr_hash().0 == *message_hash);
        match (holds, self.wallet_ran.load(Ordering::SeqCst)) {
            (true, true) => Ok(Some(Trace { transactions: Vec::new(), finished: false })),
            (true, false) => Ok(None),
            (false, _) => self.chain.trace(message_hash).await,
        }
    }
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
    /// The owner's wallet, for a host whose chain cannot show what claims would come to.
    pub fn blind(&self) -> Arc<Account> {
        let server = Server::of(self);
        server.blind.store(true, Ordering::SeqCst);
        self.over(&server)
    }

    /// The owner's wallet over a server.
    pub fn over(&self, server: &Arc<Server>) -> Arc<Account> {
        Arc::new(Account::new(server.clone(), [5; 32]).unwrap())
    }

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
