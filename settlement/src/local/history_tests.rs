//! The promises of the contracts, as properties of random histories: several parties who send what they should and what they
//! should not, messages that arrive late and out of order, and a clock that jumps.
//!
//! Order is kept between two accounts, as TON keeps it, and nowhere else. `COCOON_HISTORY_SEED` makes another history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_executor::ParsedConfig;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::dict::Dict;
use tycho_types::models::{
    Account, AccountState, IntMsgInfo, Message, MsgInfo, OwnedMessage, ShardAccount, StateInit, TxInfo,
};

use super::config;
use super::execute::{Delivery, deliver, empty_account, envelope};
use super::getter;
use crate::address::{Address, NetworkId};
use crate::amount::{Nanoton, Prices};
use crate::cells::{CheckpointAnchor, SettlementReceipt, Signature, Verdict, Voucher};
use crate::chain::StackValue;
use crate::contracts::{
    self, Change, ChannelInit, ClaimItem, Listed, ProviderInit, RegistryInit, channel, provider, registry,
};

const DAY: u64 = 86_400;
const START: u64 = 1_800_000_000;
const WINDOW: u64 = 3 * DAY;
const IMAGE: Digest = Digest([0x22; 32]);
const MODEL: Digest = Digest([0x33; 32]);
const TON: u64 = 1_000_000_000;
const MESSAGES: usize = 200_000;
const HISTORIES: usize = 20;
/// How much later than a key's end stake that was asked back then is free: longest attestation, claim window, a day.
const UNLOCKS: u64 = 7 * DAY + WINDOW + DAY;
/// Seeds of the keys that verifiers have or may get.
const VERIFIERS: std::ops::Range<u8> = 0x10..0x18;

/// SplitMix64: enough to wander, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn public(seed: &[u8; 32]) -> [u8; 32] {
    Ed25519KeyPair::from_seed_unchecked(seed).unwrap().public_key().as_ref().try_into().unwrap()
}

fn person(n: u8) -> Address {
    Address::basechain([0xf0 + n; 32])
}

const GOVERNANCE: u8 = 0;
const PAYER: u8 = 1;
const STRANGER: u8 = 2;
const OWNERS: [u8; 2] = [3, 4];
const CLIENTS: [u8; 3] = [5, 6, 7];

struct Enclave {
    seed: [u8; 32],
    key: EnclaveKey,
    provider: usize,
    /// What it last signed, by channel: sequence and total.
    signed: BTreeMap<usize, (u64, u64)>,
    /// Its attestation: from when on receipts are paid, and until when.
    attested: Option<(u64, u64)>,
    /// All of them: a claim that was let through may arrive after the next one.
    ever: Vec<(u64, u64)>,
    /// Declared void, or slashed.
    void: bool,
    generation: u32,
}

/// A promise or a receipt that really was signed by whom it should be.
struct Known {
    channel: usize,
    enclave: usize,
    voucher: Voucher,
    voucher_signature: Signature,
    receipt: SettlementReceipt,
    receipt_signature: Signature,
}

struct Place {
    init: ChannelInit,
    provider: usize,
    client: u8,
    seed: [u8; 32],
    /// By enclave, and never forgotten, whatever the contracts forget.
    paid: BTreeMap<usize, u64>,
    opened: Option<u64>,
    /// Deleted: the client opened another one, with a new salt.
    gone: bool,
}

struct History {
    random: Random,
    config: ParsedConfig,
    now: u64,
    lt: u64,
    accounts: BTreeMap<Address, ShardAccount>,
    /// Messages under way, by sender and recipient, in the order of sending.
    pending: BTreeMap<(Address, Address), VecDeque<Cell>>,
    registry: Address,
    providers: Vec<ProviderInit>,
    places: Vec<Place>,
    enclaves: Vec<Enclave>,
    known: Vec<Known>,
    delivered: usize,
    paid_claims: usize,
    unlocked: usize,
    /// Messages that were taken, by operation.
    kinds: BTreeMap<u32, usize>,
    refusals: BTreeMap<(u32, i32), usize>,
    /// What is unbonding at each Provider, and the latest end of an attestation when its owner last asked for stake back.
    unbonding: Vec<(u64, u64)>,
    /// When stake was asked back, by Provider.
    asked: Vec<Vec<u64>>,
    /// The newest checkpoint of each position, and whose it is.
    anchored: BTreeMap<u64, (HashBytes, u64)>,
    pruned: usize,
    attested_again: usize,
    rogues: BTreeSet<EnclaveKey>,
}

impl History {
    fn new(seed: u64) -> Self {
        let network = NetworkId::LOCAL;
        let init = RegistryInit {
            network,
            governance: person(GOVERNANCE),
            time_lock: 3_600,
            threshold: 2,
            max_lifetime: DAY as u32,
            verifiers: VERIFIERS.take(3).map(|n| public(&[n; 32])).collect(),
            images: vec![IMAGE],
            models: vec![MODEL],
        };
        let registry = init.address().unwrap();
        let providers: Vec<_> = OWNERS
            .iter()
            .map(|owner| ProviderInit {
                network,
                registry,
                owner: person(*owner),
                claim_window: WINDOW as u32,
                salt: [0; 32],
            })
            .collect();
        let mut places = Vec::new();
        for (p, provider) in providers.iter().enumerate() {
            for client in CLIENTS {
                let seed = [0x40 + client; 32];
                let init = ChannelInit {
                    network,
                    provider: provider.address(),
                    owner: provider.owner,
                    client: person(client),
                    client_key: public(&seed),
                    close_delay: WINDOW as u32,
                    salt: [p as u8; 32],
                };
                places.push(Place {
                    init,
                    provider: p,
                    client,
                    seed,
                    paid: BTreeMap::new(),
                    opened: None,
                    gone: false,
                });
            }
        }
        let mut history = Self {
            random: Random(seed),
            config: config::load().unwrap(),
            now: START,
            lt: 1_000_000,
            accounts: BTreeMap::new(),
            pending: BTreeMap::new(),
            registry,
            providers: providers.clone(),
            places,
            enclaves: Vec::new(),
            known: Vec::new(),
            delivered: 0,
            paid_claims: 0,
            unlocked: 0,
            kinds: BTreeMap::new(),
            refusals: BTreeMap::new(),
            unbonding: vec![(0, 0); 2],
            asked: vec![Vec::new(); 2],
            anchored: BTreeMap::new(),
            pruned: 0,
            attested_again: 0,
            rogues: BTreeSet::new(),
        };
        let fund = || contracts::fund(0).unwrap();
        history.send(GOVERNANCE, registry, 2 * TON, Some(fund()), Some(init.state_init().unwrap()));
        for provider in &providers {
            history.send(STRANGER, provider.address(), TON / 5, Some(fund()), Some(provider.state_init()));
        }
        history.settle();
        history
    }

    /// Puts a message of a person's on its way.
    fn send(&mut self, from: u8, to: Address, value: u64, body: Option<Cell>, init: Option<StateInit>) {
        self.lt += 10;
        let info = IntMsgInfo {
            ihr_disabled: true,
            bounce: true,
            src: person(from).into(),
            dst: to.into(),
            value: u128::from(value).try_into().map(|tokens: tycho_types::num::Tokens| tokens.into()).unwrap(),
            created_lt: self.lt,
            created_at: self.now as u32,
            ..IntMsgInfo::default()
        };
        let long = body.as_ref().is_some_and(|body| body.bit_len() > 200);
        let message = OwnedMessage {
            info: MsgInfo::Int(info),
            init,
            body: body.unwrap_or_default().into(),
            layout: long.then_some(tycho_types::models::MessageLayout { init_to_cell: true, body_to_cell: true }),
        };
        let cell = CellBuilder::build_from(message).unwrap();
        self.pending.entry((person(from), to)).or_default().push_back(cell);
    }

    /// Delivers everything that is under way, in some order.
    fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.deliver_one();
        }
    }

    fn deliver_one(&mut self) {
        let n = self.random.below(self.pending.len());
        let Some(pair) = self.pending.keys().nth(n).copied() else { return };
        let queue = self.pending.get_mut(&pair).unwrap();
        let message = queue.pop_front().unwrap();
        if queue.is_empty() {
            self.pending.remove(&pair);
        }
        self.deliver(pair.1, message);
    }

    fn balance(account: Option<&Account>) -> u128 {
        account.map_or(0, |account| account.balance.tokens.into())
    }

    fn deliver(&mut self, to: Address, cell: Cell) {
        let is_contract = to == self.registry
            || self.providers.iter().any(|provider| provider.address() == to)
            || self.places.iter().any(|place| place.init.address() == to);
        if !is_contract {
            // A person, or nobody: what arrives stays.
            return;
        }
        self.delivered += 1;
        self.lt += 100;
        let before = self.accounts.get(&to).cloned().unwrap_or_else(|| empty_account().unwrap());
        let envelope = envelope(&cell).unwrap().unwrap();
        let params = config::executor_params(self.now as u32, self.lt, [0; 32]);
        let Delivery::Done(output) = deliver(&self.config, &params, self.lt, &envelope, cell.clone(), &before).unwrap()
        else {
            panic!("internal messages are always taken");
        };
        let transaction = output.transaction.load().unwrap();
        let TxInfo::Ordinary(info) = transaction.load_info().unwrap() else { panic!("not ordinary") };
        let (old, new) = (before.load_account().unwrap(), output.new_state.load_account().unwrap());
        let message = cell.parse::<Message<'_>>().unwrap();
        let MsgInfo::Int(header) = &message.info else { panic!("not internal") };
        let mut body = message.body;
        let op = if header.bounced { 0xffff_ffff } else { body.load_u32().unwrap_or_default() };

        // Value is conserved, transaction by transaction.
        let sent: u128 = transaction
            .iter_out_msgs()
            .map(|message| match message.unwrap().info {
                MsgInfo::Int(info) => u128::from(info.value.tokens) + u128::from(info.fwd_fee),
                _ => 0,
            })
            .sum();
        let came = u128::from(header.value.tokens);
        let fees = u128::from(transaction.total_fees.tokens);
        let (had, has) = (Self::balance(old.as_ref()), Self::balance(new.as_ref()));
        assert_eq!(had + came, has + sent + fees, "value is not conserved by {op:#x} at {to}");

        // What is refused loses nothing but itself.
        let rent = info.storage_phase.as_ref().map_or(0, |phase| u128::from(phase.storage_fees_collected));
        if info.aborted {
            assert!(has + rent >= had, "{to} lost {} to a refused {op:#x}", had - has);
            assert_eq!(data_of(old.as_ref()), data_of(new.as_ref()), "a refused {op:#x} changed {to}");
            if let tycho_types::models::ComputePhase::Executed(phase) = &info.compute_phase {
                *self.refusals.entry((op, phase.exit_code)).or_default() += 1;
            }
        }
        let state = (output.new_state.clone(), new);
        self.accounts.insert(to, state.0);
        let mut paid = 0;
        for message in transaction.iter_out_msgs() {
            let message = message.unwrap();
            let MsgInfo::Int(info) = &message.info else { continue };
            let mut body = message.body;
            if body.load_u32().is_ok_and(|op| op == 0x4304_0001) {
                paid += body.load_u64().unwrap();
            }
            let tycho_types::models::IntAddr::Std(address) = &info.dst else { continue };
            let cell = CellBuilder::build_from(&message).unwrap();
            self.pending.entry((to, address.clone().into())).or_default().push_back(cell);
        }
        if !info.aborted {
            *self.kinds.entry(op).or_default() += 1;
            self.look(to, op, body, paid, &state.1);
        }
    }

    /// What a message that was taken did, held against what may happen.
    fn look(
        &mut self,
        to: Address,
        op: u32,
        mut body: tycho_types::cell::CellSlice<'_>,
        paid: u64,
        account: &Option<Account>,
    ) {
        let at = self.providers.iter().position(|provider| provider.address() == to);
        let place = self.places.iter().position(|place| place.init.address() == to);
        match (op, at, place) {
            (0x4302_0001, Some(_), _) => {
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                let generation = body.load_u32().unwrap();
                body.load_u32().unwrap();
                let until = u64::from(body.load_u32().unwrap());
                body.load_u256().unwrap();
                let payer = Address::load(&mut body).unwrap();
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                enclave.generation = generation;
                if enclave.attested.is_none() {
                    assert_eq!(payer, self.providers[enclave.provider].owner, "a stranger brought a key");
                    self.attested_again += usize::from(!enclave.ever.is_empty());
                }
                let since = enclave.attested.map_or(now - 600, |(since, _)| since);
                assert_eq!(enclave.attested.is_none(), generation == 0, "only a first verdict is of generation 0");
                enclave.attested = Some((since, until));
                enclave.ever.push((since, until));
                assert!(!enclave.void, "a void key was renewed");
            }
            (0x4302_0002, Some(_), _) => {
                body.load_u256().unwrap();
                let mut next = Some(body.load_reference_cloned().unwrap());
                while let Some(cell) = next {
                    let mut item = cell.as_slice().unwrap();
                    let key = EnclaveKey(item.load_u256().unwrap().0);
                    let enclave = self.enclaves.iter().find(|enclave| enclave.key == key).expect("a key that exists");
                    let (_, until) = enclave.attested.expect("an attested key");
                    assert!(self.now <= until + WINDOW && !enclave.void, "a claim was let through too late");
                    next = item.load_bit().unwrap().then(|| item.load_reference_cloned().unwrap());
                }
            }
            (0x4302_0007, Some(_), _) => {
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                let void = body.load_bit().unwrap();
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                enclave.void |= void;
                enclave.attested = enclave.attested.map(|(since, until)| (since, until.min(now)));
            }
            (0x4303_0001, _, Some(n)) => {
                assert!(!self.places[n].gone, "the model's clients take new salts");
                let now = self.now;
                self.places[n].opened.get_or_insert(now);
            }
            (0x4303_0002, _, Some(n)) => self.paid(n, account.as_ref().expect("a Channel"), paid),
            (0x4302_0008, Some(p), _) => {
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                let (_, until) = enclave.attested.take().expect("a known key");
                enclave.void = false;
                for asked in self.asked[p].iter().filter(|asked| **asked <= until) {
                    assert!(now > asked + UNLOCKS, "a key was forgotten before the stake behind it was free");
                }
                self.pruned += 1;
            }
            (0x4301_0008, ..) => {
                body.load_u64().unwrap();
                let index = u64::from(body.load_u8().unwrap());
                let result = self.stack(account.as_ref().expect("a Registry"), "anchor", &[StackValue::int(index)]);
                let (key, size) = (HashBytes(result[1].as_bytes32().unwrap()), result[3].as_u64().unwrap());
                let before = self.anchored.insert(index, (key, size));
                assert!(before.is_none_or(|(of, had)| of != key || had < size), "a log shrank");
            }
            (0x4302_0005, Some(p), _) => {
                body.load_u64().unwrap();
                let ends = self.enclaves.iter().filter(|enclave| enclave.provider == p);
                let last = ends.filter_map(|enclave| enclave.attested).map(|(_, until)| until).max().unwrap_or(0);
                self.unbonding[p] = (self.unbonding[p].0 + body.load_u64().unwrap(), last);
                self.asked[p].push(self.now);
            }
            (0x4302_0006, Some(p), _) => {
                let account = account.as_ref().expect("a Provider");
                let stake = self.ints(account, "stake", &[]);
                let held = Self::balance(Some(account));
                assert!(held >= u128::from(stake[0] + stake[1]), "stake was withdrawn");
                let (unbonding, backed) = self.unbonding[p];
                if unbonding > 0 && stake[1] == 0 {
                    // No receipt that it backed can be paid any more.
                    assert!(self.now > backed + WINDOW, "stake unlocked early");
                    self.unbonding[p].0 = 0;
                    self.unlocked += 1;
                }
                assert_eq!(self.unbonding[p].0, stake[1], "unbonding stake is as was asked for");
            }
            (0x4302_000a, Some(p), _) => {
                self.unbonding[p].0 = 0;
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                assert!(self.rogues.contains(&key), "an honest enclave was slashed");
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                enclave.void = true;
                enclave.attested = enclave.attested.map(|(since, until)| (since, until.min(now)));
            }
            (0x4303_0006, _, Some(n)) => {
                // The client opens another one. What it sent ten days ago has long arrived.
                let (mut init, provider) = (self.places[n].init.clone(), self.places[n].provider);
                let (client, seed) = (self.places[n].client, self.places[n].seed);
                self.places[n].gone = true;
                self.pending.retain(|(from, to), _| (*from, *to) != (init.client, init.address()));
                init.salt = [0x80 + self.places.len() as u8; 32];
                let (paid, opened) = (BTreeMap::new(), None);
                self.places.push(Place { init, provider, client, seed, paid, opened, gone: false });
            }
            _ => {}
        }
    }

    fn stack(&self, account: &Account, method: &str, args: &[StackValue]) -> Vec<StackValue> {
        let result = getter::run(&self.config, account, method, args, self.now as u32).unwrap();
        assert_eq!(result.exit_code, 0, "{method}");
        result.stack
    }

    fn ints(&self, account: &Account, method: &str, args: &[StackValue]) -> Vec<u64> {
        self.stack(account, method, args).iter().map(|value| value.as_u64().unwrap_or_default()).collect()
    }

    /// The Registry's epoch, threshold, longest attestation, and its verifiers with their seeds.
    fn rules(&self) -> (u32, usize, u64, Vec<(u8, [u8; 32])>) {
        let registry = self.account(&self.registry).expect("a Registry");
        let params = self.stack(&registry, "params", &[]);
        let int = |at: usize| params[at].as_u64().unwrap();
        let known: Vec<_> = VERIFIERS.map(|n| ([n; 32], public(&[n; 32]))).collect();
        let verifiers = Dict::<u8, HashBytes>::from(params[7].as_cell().cloned());
        let verifiers = verifiers.iter().map(|entry| {
            let (index, key) = entry.unwrap();
            (index, known.iter().find(|(_, public)| *public == key.0).expect("a key of the model's").0)
        });
        (int(4) as u32, int(5) as usize, int(6), verifiers.collect())
    }

    /// One of the Channels that are there, or may be.
    fn some_place(&mut self) -> usize {
        let of: Vec<usize> = (0..self.places.len()).filter(|n| !self.places[*n].gone).collect();
        of[self.random.below(of.len())]
    }

    /// Nobody is paid twice for a total, or without an attestation that covers the receipt, or more than client and enclave
    /// signed for; and what is paid is what is recorded.
    fn paid(&mut self, n: usize, account: &Account, mut amount: u64) {
        for (e, enclave) in self.enclaves.iter().enumerate() {
            if enclave.provider != self.places[n].provider {
                continue;
            }
            let paid = self.ints(account, "paid", &[StackValue::uint256(&enclave.key.0)])[0];
            let before = self.places[n].paid.get(&e).copied().unwrap_or(0);
            assert!(paid >= before, "a payment was taken back");
            if paid == before {
                continue;
            }
            let opened = self.places[n].opened.expect("an open Channel");
            let covered = self.known.iter().any(|known| {
                let time = known.receipt.time.0;
                known.channel == n
                    && known.enclave == e
                    && known.receipt.total.0.min(self.most(n, e)) >= paid
                    && time + 600 >= opened
                    && enclave.ever.iter().any(|(since, until)| time >= *since && time <= *until)
            });
            assert!(covered, "{paid} were paid, and nothing signed covers it");
            self.places[n].paid.insert(e, paid);
            self.paid_claims += 1;
            amount = amount.checked_sub(paid - before).expect("less was paid than was recorded");
        }
        assert_eq!(amount, 0, "more was paid than the totals rose by");
    }

    /// The highest cap that a client ever promised to an enclave.
    fn most(&self, n: usize, e: usize) -> u64 {
        let of = self.known.iter().filter(|known| known.channel == n && known.enclave == e);
        of.map(|known| known.voucher.cap.0).max().unwrap_or(0)
    }

    /// Somebody does something, sensible or not.
    fn act(&mut self) {
        match self.random.below(100) {
            0..14 => self.attest(),
            14..22 => self.top_up(),
            22..48 => self.serve(),
            48..74 => self.claim(),
            74..76 => self.close(),
            76..88 => self.provider_life(),
            88..92 => self.govern(),
            92..93 => self.anchor(),
            93..95 => self.slash(),
            95..97 => self.noise(),
            _ => {
                let jump = [1, 10, 60, 60, 60, 600, 600, 600, 600, 3_600, 3_600, 3_600, 6 * 3_600, DAY, 2 * DAY]
                    [self.random.below(15)];
                self.now += jump;
            }
        }
    }

    fn attest(&mut self) {
        let fresh = self.enclaves.is_empty() || (self.enclaves.len() < 120 && self.random.one_in(8));
        if fresh {
            let n = self.enclaves.len() as u8;
            let seed = [n, 0x80].repeat(16).try_into().unwrap();
            let provider = self.random.below(2);
            let key = EnclaveKey(public(&seed));
            let (signed, attested, ever) = (BTreeMap::new(), None, Vec::new());
            self.enclaves.push(Enclave { seed, key, provider, signed, attested, ever, void: false, generation: 0 });
        }
        let e = if fresh { self.enclaves.len() - 1 } else { self.random.below(self.enclaves.len()) };
        let (epoch, threshold, lifetime, verifiers) = self.rules();
        let enclave = &self.enclaves[e];
        let first = enclave.attested.is_none();
        let mut verdict = Verdict {
            network: NetworkId::LOCAL,
            registry: self.registry,
            provider: self.providers[enclave.provider].address(),
            enclave_key: enclave.key,
            evidence_id: Digest([e as u8; 32]),
            image: IMAGE,
            model_root: MODEL,
            generation: if enclave.attested.is_some() { enclave.generation + 1 } else { 0 },
            until: UnixTime(self.now + lifetime - self.random.below(3) as u64),
            expiry: UnixTime(self.now + 3_600),
            set_epoch: epoch,
        };
        match self.random.below(16) {
            0 => verdict.generation = self.random.below(4) as u32,
            1 => verdict.until = UnixTime(self.now + lifetime + 10),
            2 => verdict.expiry = UnixTime(self.now - 1),
            3 => verdict.image = MODEL,
            4 => verdict.set_epoch = epoch.wrapping_sub(1),
            5 => verdict.provider = self.providers[1 - self.enclaves[e].provider].address(),
            _ => {}
        }
        // A verdict for the other Provider makes the key known there, which this model does not follow.
        if verdict.provider != self.providers[self.enclaves[e].provider].address() {
            verdict.network = NetworkId::MAINNET;
        }
        // Enough of them, from anywhere on; now and then one too few, one twice, or one that nobody knows.
        let from = self.random.below(verifiers.len());
        let mut signers: Vec<_> = (0..threshold).map(|n| verifiers[(from + n) % verifiers.len()]).collect();
        match self.random.below(8) {
            0 => drop(signers.pop()),
            1 => signers.insert(0, signers[0]),
            2 => signers[0].0 = 15,
            3 => signers[0].1 = [0x77; 32],
            _ => {}
        }
        let signatures: Vec<_> = signers.iter().map(|(n, seed)| (*n, verdict.sign(seed).unwrap())).collect();
        let body = registry::attest(0, &verdict, &signatures).unwrap();
        let value = [TON / 5, TON / 50, TON / 5][self.random.below(3)];
        let payer = if first && !self.random.one_in(8) { OWNERS[self.enclaves[e].provider] } else { PAYER };
        self.send(payer, self.registry, value, Some(body), None);
    }

    /// A verifier's checkpoint, of a log that grew or did not.
    fn anchor(&mut self) {
        let (_, _, _, verifiers) = self.rules();
        let (index, seed) = verifiers[self.random.below(verifiers.len())];
        let checkpoint = CheckpointAnchor {
            network: NetworkId::LOCAL,
            registry: self.registry,
            origin: Digest(public(&seed)),
            tree_size: self.now - START + self.random.below(2_000) as u64,
            root: Digest([7; 32]),
            time: UnixTime(self.now),
        };
        let signed_by = if self.random.one_in(10) { [0x77; 32] } else { seed };
        let signature = checkpoint.sign(&signed_by).unwrap();
        let body = registry::anchor(0, index, &checkpoint, &signature).unwrap();
        self.send(STRANGER, self.registry, TON / 5, Some(body), None);
    }

    fn top_up(&mut self) {
        let n = self.some_place();
        let (init, client) = (self.places[n].init.clone(), self.places[n].client);
        let value = [TON / 2, 2 * TON, 5 * TON, 1_000][self.random.below(4)];
        self.send(client, init.address(), value, Some(channel::top_up(0).unwrap()), Some(init.state_init()));
    }

    /// A client promises, an enclave works, and both sign.
    fn serve(&mut self) {
        if self.enclaves.is_empty() {
            return;
        }
        let e = self.random.below(self.enclaves.len());
        let of: Vec<usize> = (0..self.places.len())
            .filter(|n| self.places[*n].provider == self.enclaves[e].provider && !self.places[*n].gone)
            .collect();
        let n = of[self.random.below(of.len())];
        // The enclave itself serves no longer than it is attested, unless it is broken.
        if self.enclaves[e].attested.is_none_or(|(_, until)| until < self.now) && !self.random.one_in(4) {
            return;
        }
        let cap = self.most(n, e) + self.random.next() % (TON / 4);
        let (sequence, total) = self.enclaves[e].signed.get(&n).copied().unwrap_or((0, 0));
        let total = (total + self.random.next() % (TON / 5)).min(cap.max(total));
        self.enclaves[e].signed.insert(n, (sequence + 1, total));
        let (place, enclave) = (&self.places[n], &self.enclaves[e]);
        let voucher = Voucher {
            network: NetworkId::LOCAL,
            channel: place.init.address(),
            enclave_key: enclave.key,
            cap: Nanoton(cap),
            prices: Prices { prompt: 1, cached: 2, completion: 3, reasoning: 4 },
            expiry: UnixTime(self.now + 3_600),
        };
        let receipt = SettlementReceipt {
            network: NetworkId::LOCAL,
            provider: place.init.provider,
            channel: place.init.address(),
            enclave_key: enclave.key,
            sequence: sequence + 1,
            total: Nanoton(total),
            time: UnixTime(self.now),
        };
        let (voucher_signature, receipt_signature) =
            (voucher.sign(&place.seed).unwrap(), receipt.sign(&enclave.seed).unwrap());
        self.known.push(Known { channel: n, enclave: e, voucher, voucher_signature, receipt, receipt_signature });
    }

    /// Old receipts and new, forged ones among them, with vouchers and without.
    fn claim(&mut self) {
        if self.known.is_empty() {
            return;
        }
        let recent = self.known.len().saturating_sub(1 + self.random.below(20));
        let n = self.known[recent].channel;
        let of: Vec<usize> = (0..self.known.len()).filter(|k| self.known[*k].channel == n).collect();
        let count = 1 + if self.random.one_in(4) { self.random.below(8) } else { 0 };
        let mut items = Vec::new();
        for i in 0..count {
            let k = if i == 0 { recent } else { of[of.len() - 1 - self.random.below(of.len().min(30))] };
            let known = &self.known[k];
            let mut item = ClaimItem {
                voucher: known.voucher.clone(),
                voucher_signature: known.voucher_signature,
                receipt: known.receipt.clone(),
                receipt_signature: known.receipt_signature,
            };
            match self.random.below(40) {
                0 => item.receipt.total = Nanoton(item.receipt.total.0 + TON),
                1 => item.voucher.cap = Nanoton(item.voucher.cap.0 + TON),
                2 => item.receipt_signature[5] ^= 1,
                3 => item.receipt.time = UnixTime(item.receipt.time.0 + DAY),
                _ => {}
            }
            items.push((item, !self.random.one_in(3)));
        }
        let items: Vec<_> = items.iter().map(|(item, voucher)| (item, *voucher)).collect();
        let p = self.places[n].provider;
        let from = if self.random.one_in(20) { STRANGER } else { OWNERS[p] };
        let value = [TON / 20 * items.len() as u64, TON / 2, TON / 100][self.random.below(3)];
        self.send(from, self.providers[p].address(), value, Some(provider::claim(&items).unwrap()), None);
    }

    fn close(&mut self) {
        let n = self.some_place();
        let (address, p) = (self.places[n].init.address(), self.places[n].provider);
        let anyone = [self.places[n].client, STRANGER, OWNERS[p]][self.random.below(3)];
        match self.random.below(8) {
            0..3 => self.send(anyone, address, TON / 20, Some(channel::start_close(0).unwrap()), None),
            3..5 => self.send(anyone, address, TON / 20, Some(channel::finish_close(0).unwrap()), None),
            5 => {
                let body = provider::release_channel(0, &address).unwrap();
                self.send(OWNERS[p], self.providers[p].address(), TON / 20, Some(body), None);
            }
            _ => self.send(anyone, address, TON / 20, Some(channel::delete(0).unwrap()), None),
        }
    }

    fn provider_life(&mut self) {
        let p = self.random.below(2);
        let to = self.providers[p].address();
        let from = if self.random.one_in(6) { STRANGER } else { OWNERS[p] };
        let of: Vec<usize> = (0..self.enclaves.len()).filter(|e| self.enclaves[*e].provider == p).collect();
        let key = match of.len() {
            0 => EnclaveKey([9; 32]),
            len => self.enclaves[of[self.random.below(len)]].key,
        };
        let value = [TON / 20, TON / 20, TON / 500][self.random.below(3)];
        let body = match self.random.below(50) {
            0..10 => return self.send(from, to, 3 * TON, Some(provider::stake(0).unwrap()), None),
            10..11 => provider::unstake(0, Nanoton(self.random.next() % (2 * TON))).unwrap(),
            11..30 => provider::withdraw(0).unwrap(),
            30 => provider::revoke(0, &key, self.random.one_in(2), &person(from)).unwrap(),
            31..33 => return self.send(from, to, TON / 50, Some(contracts::fund(0).unwrap()), None),
            _ => provider::prune(0, &key).unwrap(),
        };
        self.send(from, to, value, Some(body), None);
    }

    fn govern(&mut self) {
        let from = if self.random.one_in(5) { STRANGER } else { GOVERNANCE };
        let (_, threshold, lifetime, verifiers) = self.rules();
        let body = match self.random.below(24) {
            0..8 => {
                let first = VERIFIERS.start + self.random.below(4) as u8;
                let verifiers = (first..first + 4).map(|n| public(&[n; 32])).collect();
                let changes = [
                    Change::Allow(Listed::Image(Digest([self.random.below(8) as u8; 32]))),
                    Change::MaxLifetime(DAY as u32),
                    Change::TimeLock(3_600),
                    Change::Verifiers { threshold: 2, verifiers },
                ];
                registry::propose(0, &changes[self.random.below(4)]).unwrap()
            }
            8..16 => registry::execute(0, self.random.below(60) as u32).unwrap(),
            16..18 => registry::cancel(0, self.random.below(60) as u32).unwrap(),
            18..20 => registry::forbid(0, Listed::Image(Digest([self.random.below(8) as u8; 32]))).unwrap(),
            20 => {
                // At times looser, which is refused.
                let drop = if self.random.one_in(2) { vec![verifiers[0].0] } else { Vec::new() };
                let (threshold, lifetime) = (threshold as i64, lifetime as i64);
                let threshold = threshold + [0, 0, 0, 0, 1, -1][self.random.below(6)];
                let lifetime = lifetime + [0, 0, -600, 60][self.random.below(4)];
                registry::tighten(0, &drop, threshold as u8, lifetime as u32).unwrap()
            }
            _ if self.enclaves.is_empty() => return,
            _ => {
                let enclave = &self.enclaves[self.random.below(self.enclaves.len())];
                let (provider, key) = (self.providers[enclave.provider].address(), enclave.key);
                registry::revoke_key(0, &provider, &key, self.random.one_in(2)).unwrap()
            }
        };
        let value = [TON / 5, TON / 100][self.random.below(2)];
        self.send(from, self.registry, value, Some(body), None);
    }

    /// Two receipts of an enclave, honest ones mostly.
    fn slash(&mut self) {
        if self.known.is_empty() {
            return;
        }
        let k = self.random.below(self.known.len());
        let (n, e) = (self.known[k].channel, self.known[k].enclave);
        let first = self.known[k].receipt.clone();
        let of: Vec<usize> =
            (0..self.known.len()).filter(|k| self.known[*k].channel == n && self.known[*k].enclave == e).collect();
        let mut second = self.known[of[self.random.below(of.len())]].receipt.clone();
        if self.random.one_in(30) {
            // This one is broken: it signs a total that falls.
            second =
                SettlementReceipt { sequence: first.sequence + 1, total: Nanoton(first.total.0 / 2), ..first.clone() };
            if second.total < first.total {
                self.rogues.insert(first.enclave_key);
            }
        }
        let seed = self.enclaves[e].seed;
        let signed = |receipt: &SettlementReceipt| receipt.sign(&seed).unwrap();
        let body = provider::slash(0, (&first, &signed(&first)), (&second, &signed(&second))).unwrap();
        let to = self.providers[self.enclaves[e].provider].address();
        self.send(STRANGER, to, TON / 20, Some(body), None);
    }

    /// Bytes that mean nothing, from anyone to anything.
    fn noise(&mut self) {
        let to = match self.random.below(3) {
            0 => self.registry,
            1 => self.providers[self.random.below(2)].address(),
            _ => self.places[self.random.below(self.places.len())].init.address(),
        };
        let mut b = CellBuilder::new();
        b.store_u32(0x4300_0000 | (self.random.next() as u32 & 0x0007_000f)).unwrap();
        for _ in 0..self.random.below(12) {
            b.store_u64(self.random.next()).unwrap();
        }
        let value = self.random.next() % TON;
        self.send(STRANGER, to, value, Some(b.build().unwrap()), None);
    }

    /// Every client gets its money back, alone.
    fn end(&mut self) {
        self.settle();
        for n in 0..self.places.len() {
            let address = self.places[n].init.address();
            let client = self.places[n].client;
            let Some(account) = self.account(&address) else { continue };
            assert!(!self.places[n].gone, "a deleted Channel is there again");
            let state = self.ints(&account, "state", &[]);
            let promised: u64 = (0..self.enclaves.len()).map(|e| self.most(n, e)).sum();
            let paid: u64 = self.places[n].paid.values().sum();
            assert!(paid <= promised, "{paid} were paid of {promised} promised");
            if state[0] == 2 {
                continue;
            }
            if state[0] == 0 {
                self.send(client, address, TON / 20, Some(channel::start_close(0).unwrap()), None);
                self.settle();
            }
            self.now += WINDOW;
            let before = Self::balance(self.account(&address).as_ref());
            self.send(client, address, TON / 20, Some(channel::finish_close(0).unwrap()), None);
            self.settle();
            let account = self.account(&address).expect("a closed Channel keeps its state");
            assert_eq!(self.ints(&account, "state", &[])[0], 2, "the client could not close");
            let kept = Self::balance(Some(&account));
            assert!(kept <= before && kept < u128::from(TON / 10), "{kept} of {before} stayed in a closed Channel");
        }
        for provider in &self.providers {
            let account = self.account(&provider.address()).expect("a Provider");
            let stake = self.ints(&account, "stake", &[]);
            assert!(Self::balance(Some(&account)) >= u128::from(stake[0] + stake[1]), "stake is missing");
        }
    }

    fn account(&self, address: &Address) -> Option<Account> {
        let account = self.accounts.get(address)?.load_account().unwrap()?;
        matches!(account.state, AccountState::Active(_)).then_some(account)
    }
}

fn data_of(account: Option<&Account>) -> Option<Cell> {
    match &account?.state {
        AccountState::Active(state) => state.data.clone(),
        _ => None,
    }
}

#[test]
fn promises_hold_in_random_histories() {
    let seed = std::env::var("COCOON_HISTORY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let (mut delivered, mut paid, mut unlocked, mut pruned, mut again) = (0, 0, 0, 0, 0);
    let (mut kinds, mut refusals) = (BTreeMap::new(), BTreeMap::new());
    for n in 0..HISTORIES {
        let mut history = History::new(seed.wrapping_mul(1_000).wrapping_add(n as u64));
        while history.delivered < MESSAGES / HISTORIES {
            if history.pending.is_empty() || history.random.one_in(3) {
                history.act();
            } else {
                history.deliver_one();
            }
        }
        history.end();
        delivered += history.delivered;
        paid += history.paid_claims;
        unlocked += history.unlocked;
        pruned += history.pruned;
        again += history.attested_again;
        for (kind, count) in history.kinds {
            *kinds.entry(kind).or_insert(0) += count;
        }
        for (refusal, count) in history.refusals {
            *refusals.entry(refusal).or_insert(0) += count;
        }
    }
    println!(
        "{delivered} messages, {paid} payments, {unlocked} times stake came back, {pruned} keys forgotten, {again} attested again"
    );
    println!("taken {kinds:x?}");
    println!("refused {refusals:x?}");
    assert!(delivered >= MESSAGES);
    // The histories are no walk around the subject.
    assert!(paid > delivered / 200, "only {paid} payments");
    assert!(unlocked > 0, "stake never came back");
    assert!(pruned > 50 && again > 10, "{pruned} keys were forgotten and {again} attested again");
    // Every operation there is was taken.
    let to_registry = 0x4301_0001..=0x4301_0008_u32;
    let to_provider = (0x4302_0001..=0x4302_000a).filter(|op| *op != 0x4302_0009);
    let all = to_registry.chain(to_provider).chain(0x4303_0001..=0x4303_0006).chain([0x4300_0001, 0xffff_ffff]);
    for kind in all {
        assert!(kinds.get(&kind).is_some_and(|count| *count > 10), "{kind:#x}");
    }
    for code in [
        100, 101, 104, 105, 106, 107, 109, 110, 111, 112, 114, 116, 117, 118, 120, 122, 124, 126, 127, 128, 130, 131,
        132, 133, 135, 140, 141, 142,
    ] {
        assert!(refusals.keys().any(|(_, found)| *found == code), "nothing was refused with {code}");
    }
}
