//! The chain's side of a fleet's history: real contracts on the real local chain, on a clock that the history sets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cocoon_attestation::{Digest, EnclaveKey, ProviderAddress, UnixTime};
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::{CheckpointAnchor, SettlementReceipt, Signature, Verdict, Voucher};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::provider::ClaimItem;
use cocoon_settlement::contracts::{ChannelInit, ProviderInit, RegistryInit, registry};
use cocoon_settlement::local::{Clock as _, Genesis, LocalChain, ManualClock};
use cocoon_settlement::wallet::{OutMessage, Wallet};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, ops};
use cocoon_transparency::replay::Kind;

use super::history::{DAY, History, IMAGE, MODEL, Renewal, START, enclave_seed, verdict_seed};
use super::{Expected, NODES, THRESHOLD};

/// Enclaves of one Provider: it holds at most 512.
pub const PER_PROVIDER: usize = 500;
/// Attestations that one message of the owner's wallet brings.
const AT_ONCE: usize = 200;
const PURSE: Nanoton = Nanoton::from_ton(10_000_000);
const DEPOSIT: Nanoton = Nanoton::from_ton(50);
const PRICES: Prices = Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 };
const OWNER: [u8; 32] = [0xa0; 32];
const GOVERNANCE: [u8; 32] = [0xa1; 32];
const CLIENT: [u8; 32] = [0xa2; 32];
/// Seconds that an attestation lasts: a day, and time to renew it.
const LIFETIME: u64 = 30 * 3_600;

/// Verifiers' positions and signatures.
type Signatures = Vec<(u8, Signature)>;

/// A fleet's contracts.
pub struct FleetChain {
    /// The chain.
    pub chain: Arc<LocalChain>,
    clock: Arc<ManualClock>,
    /// The Registry.
    pub registry: Address,
    /// Providers.
    pub providers: Vec<Address>,
    /// Channels.
    pub channels: Vec<Address>,
    owner: Account,
    client: Account,
    governance: Account,
    /// Number of the attestation that comes next, by enclave.
    generations: BTreeMap<usize, u32>,
    /// The verifier set that signs verdicts from here on.
    pub set_epoch: u32,
    /// Transactions that were made, and how long they took.
    pub seconds: f64,
    /// Attestations that were sent.
    pub attestations: u64,
}

fn wallet(seed: [u8; 32]) -> Result<Wallet> {
    Ok(Wallet::new(seed, NetworkId::LOCAL)?)
}

fn registry_init() -> Result<RegistryInit> {
    let verifiers = (0..NODES).map(|node| {
        let key = SigningKey::from_seed(&verdict_seed(node)).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(key.public())
    });
    Ok(RegistryInit {
        network: NetworkId::LOCAL,
        governance: wallet(GOVERNANCE)?.address(),
        time_lock: 0,
        threshold: THRESHOLD,
        max_lifetime: 172_800,
        verifiers: verifiers.collect::<Result<_>>()?,
        images: vec![IMAGE],
        models: vec![MODEL],
    })
}

/// The Provider of an enclave, known before anything is deployed.
///
/// # Errors
/// The parameters are none.
pub fn providers(count: usize) -> Result<Vec<ProviderInit>> {
    let registry = registry_init()?.address()?;
    let owner = wallet(OWNER)?.address();
    let init = |n: usize| ProviderInit {
        network: NetworkId::LOCAL,
        registry,
        owner,
        claim_window: 259_200,
        salt: Digest::of(&[b"fleet provider", &(n as u64).to_be_bytes()]).0,
    };
    Ok((0..count).map(init).collect())
}

/// The Provider that claims name, by enclave.
///
/// # Errors
/// The parameters are none.
pub fn provider_of(enclaves: usize) -> Result<impl Fn(usize) -> ProviderAddress + Send + Sync + use<>> {
    let addresses: Vec<Address> =
        providers(enclaves.div_ceil(PER_PROVIDER))?.iter().map(ProviderInit::address).collect();
    Ok(move |enclave: usize| addresses[enclave / PER_PROVIDER].into())
}

impl FleetChain {
    /// Deploys the contracts; the chain lives in `folder`, or in memory.
    ///
    /// # Errors
    /// The chain refuses something.
    pub async fn deploy(folder: Option<&Path>, enclaves: usize) -> Result<Self> {
        let clock = Arc::new(ManualClock::new(UnixTime(START - DAY)));
        let accounts = [OWNER, GOVERNANCE, CLIENT].into_iter().map(|seed| Ok((wallet(seed)?.address(), PURSE)));
        let genesis = Genesis { accounts: accounts.collect::<Result<_>>()?, time: clock.now() };
        let chain = match folder {
            Some(folder) => LocalChain::open_with_clock(folder, genesis, clock.clone())?,
            None => LocalChain::in_memory(genesis, clock.clone())?,
        };
        let chain = Arc::new(chain);
        let account = |seed| Account::new(chain.clone() as Arc<dyn Chain>, seed);
        let (owner, governance, client) = (account(OWNER)?, account(GOVERNANCE)?, account(CLIENT)?);
        let init = registry_init()?;
        let (registry, report) = ops::deploy_registry(&governance, &init).await?;
        report.success()?;
        let mut fleet = Self {
            chain: chain.clone(),
            clock,
            registry,
            providers: Vec::new(),
            channels: Vec::new(),
            owner,
            client,
            governance,
            generations: BTreeMap::new(),
            set_epoch: 0,
            seconds: 0.0,
            attestations: 0,
        };
        for init in providers(enclaves.div_ceil(PER_PROVIDER))? {
            let (provider, report) = ops::deploy_provider(&fleet.owner, &init).await?;
            report.success()?;
            ops::stake(&fleet.owner, &provider, Nanoton::from_ton(100)).await?.success()?;
            let channel = fleet.channel_init(provider, init.salt)?;
            ops::open_channel(&fleet.client, &channel, DEPOSIT).await?.success()?;
            fleet.providers.push(provider);
            fleet.channels.push(channel.address());
        }
        Ok(fleet)
    }

    /// What a Channel of the client's with a Provider starts with.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn channel_init(&self, provider: Address, salt: [u8; 32]) -> Result<ChannelInit> {
        Ok(ChannelInit {
            network: NetworkId::LOCAL,
            provider,
            owner: self.owner.address(),
            client: self.client.address(),
            client_key: SigningKey::from_seed(&CLIENT).map_err(|error| anyhow::anyhow!("{error}"))?.public(),
            close_delay: 259_200,
            salt,
        })
    }

    /// The verdict on a renewal, and the signatures of its signers.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn verdict(&self, renewal: &Renewal, generation: u32) -> Result<(Verdict, Signatures)> {
        let verdict = Verdict {
            network: NetworkId::LOCAL,
            registry: self.registry,
            provider: self.providers[renewal.enclave / PER_PROVIDER],
            enclave_key: Self::key(renewal.enclave)?,
            evidence_id: renewal.evidence_id,
            image: IMAGE,
            model_root: MODEL,
            generation,
            until: renewal.time.plus(LIFETIME),
            expiry: UnixTime(START + (renewal.day + 1) * DAY + 3_600),
            set_epoch: self.set_epoch,
        };
        let signatures = Self::signed(&verdict, &renewal.signers)?;
        Ok((verdict, signatures))
    }

    /// Signatures of nodes on a verdict.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn signed(verdict: &Verdict, signers: &[u8]) -> Result<Signatures> {
        signers.iter().map(|node| Ok((*node, verdict.sign(&verdict_seed(usize::from(*node)))?))).collect()
    }

    /// Brings every renewal's verdicts before the Registry and anchors the logs' checkpoints, day by day.
    ///
    /// # Errors
    /// The chain refuses something.
    pub async fn attest(&mut self, history: &History, mut told: impl FnMut(u64)) -> Result<()> {
        let days = history.renewals.iter().map(|renewal| renewal.day).max().unwrap_or(0);
        for day in 0..=days {
            self.attest_day(history, day, &mut told).await?;
            self.anchor_day(history, day, 0..NODES).await?;
        }
        Ok(())
    }

    /// Brings one day's verdicts before the Registry.
    ///
    /// # Errors
    /// The chain refuses something.
    pub async fn attest_day(&mut self, history: &History, day: u64, mut told: impl FnMut(u64)) -> Result<()> {
        let started = std::time::Instant::now();
        let mut today = Vec::new();
        for renewal in history.renewals.iter().filter(|renewal| renewal.day == day && !renewal.signers.is_empty()) {
            let next = self.next(renewal.enclave);
            let (verdict, signatures) = self.verdict(renewal, next)?;
            let body = registry::attest(0, &verdict, &signatures)?;
            today.push((renewal.time, OutMessage::new(self.registry, ops::ATTEST_VALUE, Some(body), None)));
        }
        for some in today.chunks(AT_ONCE) {
            let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
            self.clock.set(last.0.plus(60).max(first.0));
            let messages: Vec<OutMessage> = some.iter().map(|(_, message)| message.clone()).collect();
            let report = self.owner.send_all(&messages).await?;
            self.attestations += some.len() as u64;
            if let Some((account, code)) = report.aborted {
                anyhow::bail!("{account} refused an attestation with exit code {code}");
            }
            told(self.attestations);
        }
        self.clock.set(UnixTime(START + (day + 1) * DAY + 120));
        self.seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// The number of an enclave's next attestation, which is taken.
    pub fn next(&mut self, enclave: usize) -> u32 {
        let next = self.generations.entry(enclave).or_default();
        *next += 1;
        *next - 1
    }

    /// Anchors what some nodes' logs were at the end of a day.
    ///
    /// # Errors
    /// The chain refuses something.
    pub async fn anchor_day(&mut self, history: &History, day: u64, nodes: std::ops::Range<usize>) -> Result<()> {
        let started = std::time::Instant::now();
        for (_, node, size, root) in history.heads.iter().filter(|(of, node, ..)| *of == day && nodes.contains(node)) {
            let log = &history.logs[*node];
            self.anchor(*node, cocoon_transparency::replay::origin(&log.key), *size, root).await?;
        }
        self.seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Anchors a checkpoint of the log of a name with a node's verdict key.
    ///
    /// # Errors
    /// The chain refuses it.
    pub async fn anchor(&self, node: usize, origin: &str, size: u64, root: &Digest) -> Result<()> {
        let checkpoint = CheckpointAnchor {
            network: NetworkId::LOCAL,
            registry: self.registry,
            origin: Digest::of(&[origin.as_bytes()]),
            tree_size: size,
            root: *root,
            time: self.clock.now(),
        };
        let signature = checkpoint.sign(&verdict_seed(node))?;
        let index = u8::try_from(node)?;
        ops::anchor(&self.client, &self.registry, index, &checkpoint, &signature).await?.success()?;
        Ok(())
    }

    /// A voucher and a receipt, both signed.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn item(&self, enclave: usize, sequence: u64, total: Nanoton, time: UnixTime) -> Result<ClaimItem> {
        let place = enclave / PER_PROVIDER;
        let (provider, channel) = (self.providers[place], self.channels[place]);
        let seed = enclave_seed(enclave);
        let key = SigningKey::from_seed(&seed).map_err(|error| anyhow::anyhow!("{error}"))?;
        let enclave_key = EnclaveKey(key.public());
        let network = NetworkId::LOCAL;
        let voucher = Voucher {
            network,
            channel,
            enclave_key,
            cap: Nanoton::from_ton(1),
            prices: PRICES,
            expiry: time.plus(60 * DAY),
        };
        let receipt = SettlementReceipt { network, provider, channel, enclave_key, sequence, total, time };
        Ok(ClaimItem {
            voucher_signature: voucher.sign(&CLIENT)?,
            receipt_signature: receipt.sign(&seed)?,
            voucher,
            receipt,
        })
    }

    /// Claims what some enclaves earned, twice over two days, and one receipt once more than there is to it.
    ///
    /// # Errors
    /// The chain refuses something.
    pub async fn claim(&mut self, history: &History, enclaves: &[usize], faults: bool) -> Result<Vec<Expected>> {
        let started = std::time::Instant::now();
        let last = history.renewals.iter().map(|renewal| renewal.time).max().context("no renewal")?;
        let mut expected = Vec::new();
        for (sequence, total) in [(1, Nanoton(30_000_000)), (2, Nanoton(70_000_000))] {
            for enclave in enclaves {
                let item = self.item(*enclave, sequence, total, last.plus(100 + sequence))?;
                ops::claim(&self.owner, &item.receipt.provider.clone(), &[item]).await?.success()?;
            }
        }
        if faults {
            let enclave = *enclaves.first().context("no enclave claims")?;
            let item = self.item(enclave, 2, Nanoton(70_000_000), last.plus(102))?;
            ops::claim(&self.owner, &item.receipt.provider.clone(), &[item]).await?.success()?;
            expected.push(Expected { kind: Kind::DoubleClaim, node: None, leaf: None, evidence_id: None });
        }
        self.seconds += started.elapsed().as_secs_f64();
        ensure!(!self.channels.is_empty(), "no channel");
        Ok(expected)
    }

    /// Claims one receipt: what an enclave had earned by a time, under a number.
    ///
    /// # Errors
    /// The chain refuses it.
    pub async fn pay(&self, enclave: usize, sequence: u64, total: Nanoton, time: UnixTime) -> Result<()> {
        let item = self.item(enclave, sequence, total, time)?;
        ops::claim(&self.owner, &item.receipt.provider.clone(), &[item]).await?.success()?;
        Ok(())
    }

    /// Ends an enclave's attestation.
    ///
    /// # Errors
    /// The chain refuses it.
    pub async fn revoke(&self, enclave: usize, void: bool) -> Result<()> {
        let key = Self::key(enclave)?;
        ops::revoke(&self.owner, &self.providers[enclave / PER_PROVIDER], &key, void).await?.success()?;
        Ok(())
    }

    /// An enclave's identity key.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn key(enclave: usize) -> Result<EnclaveKey> {
        let key = SigningKey::from_seed(&enclave_seed(enclave)).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(EnclaveKey(key.public()))
    }

    /// The chain's time.
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Sets the clock.
    pub fn set(&self, time: UnixTime) {
        self.clock.set(time);
    }

    /// The Provider's owner.
    pub fn owner(&self) -> &Account {
        &self.owner
    }

    /// The Channels' client.
    pub fn client(&self) -> &Account {
        &self.client
    }

    /// The Registry's governance.
    pub fn governance(&self) -> &Account {
        &self.governance
    }
}
