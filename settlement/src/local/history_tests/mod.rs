//! The promises of the contracts, as properties of random histories: several parties who send what they should and what they
//! should not, messages that arrive late and out of order, and a clock that jumps.
//!
//! Order is kept between two accounts, as TON keeps it, and nowhere else. `COCOON_HISTORY_SEED` makes other histories. One of them
//! is written whole to the folder that `COCOON_TRACES` names, for TON's own emulator to do the same.

mod books;
mod client_side;
mod crowd;
mod money;
mod parties;
mod promises;
mod provider_side;
mod random;
mod registry_side;
mod state;
#[path = "../../../tests/contracts/trace.rs"]
mod trace;
mod under_way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cocoon_attestation::types::{Digest, EnclaveKey};
use tycho_executor::ParsedConfig;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::ShardAccount;

use self::books::Books;
use self::money::{PAID, REFUND};
use self::parties::{CLIENTS, Enclave, GOVERNANCE, Known, OWNERS, Place, STRANGER, person, public};
use self::random::Random;
use self::trace::Trace;
use super::config;
use crate::address::{Address, NetworkId};
use crate::contracts::{self, ChannelInit, ProviderInit, RegistryInit};

const DAY: u64 = 86_400;
const START: u64 = 1_800_000_000;
const WINDOW: u64 = 3 * DAY;
const IMAGE: Digest = Digest([0x22; 32]);
const MODEL: Digest = Digest([0x33; 32]);
const TON: u64 = 1_000_000_000;
const YEAR: u64 = 365 * DAY;
/// Messages of each history. The first is long; in the last but one a Provider is nearly full from the start; all of the last are written down, so that
/// TON's own emulator is asked for them too.
const HISTORIES: [usize; 12] =
    [100_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 4_000];
const CROWDED: usize = HISTORIES.len() - 2;
const TRACED: usize = HISTORIES.len() - 1;
/// How much later than a key's end stake that was asked back then is free: longest attestation, claim window, a day.
const UNLOCKS: u64 = 7 * DAY + WINDOW + DAY;
/// Seeds of the keys that verifiers have or may get.
const VERIFIERS: std::ops::Range<u8> = 0x10..0x18;

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
    /// Which Provider an address is.
    provider_at: BTreeMap<Address, usize>,
    places: Vec<Place>,
    /// Which Channel an address is.
    place_at: BTreeMap<Address, usize>,
    enclaves: Vec<Enclave>,
    known: Vec<Known>,
    /// Which of these are of a Channel and an enclave, oldest first.
    signed_for: BTreeMap<(usize, usize), Vec<usize>>,
    /// What contracts sent to people, in nanoton, by recipient and operation; and what of it arrived.
    sent: BTreeMap<(Address, u32), u128>,
    credits: BTreeMap<(Address, u32), u128>,
    /// Of the Registry, and of each Provider.
    books: BTreeMap<Address, Books>,
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
    /// Keys that signed what contradicts itself.
    rogues: BTreeSet<EnclaveKey>,
    /// Keys that the owner of a Provider let in there.
    let_in: BTreeSet<(usize, EnclaveKey)>,
    slashed: usize,
    /// Reports of keys that no owner of that Provider had let in.
    vain_reports: usize,
    /// How often a year passed at once.
    years: usize,
    /// Messages that cannot bounce and found their contract in debt.
    in_debt: usize,
    trace: Option<Trace>,
}

impl History {
    fn new(seed: u64, trace: Option<Trace>) -> Self {
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
        let provider_at: BTreeMap<_, _> = providers.iter().map(ProviderInit::address).zip(0..).collect();
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
                places.push(Place::new(init, p, client, seed));
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
            books: provider_at.keys().copied().chain([registry]).map(|of| (of, Books::default())).collect(),
            provider_at,
            place_at: places.iter().map(|place| place.init.address()).zip(0..).collect(),
            places,
            enclaves: Vec::new(),
            known: Vec::new(),
            signed_for: BTreeMap::new(),
            sent: BTreeMap::new(),
            credits: BTreeMap::new(),
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
            let_in: BTreeSet::new(),
            slashed: 0,
            vain_reports: 0,
            years: 0,
            in_debt: 0,
            trace,
        };
        let fund = || contracts::fund(0).unwrap();
        history.send(GOVERNANCE, registry, 2 * TON, Some(fund()), Some(init.state_init().unwrap()));
        for provider in &providers {
            history.send(STRANGER, provider.address(), TON / 5, Some(fund()), Some(provider.state_init()));
        }
        history.settle();
        history
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
                // Now and then nobody comes for so long that rent eats up what contracts hold, and more.
                let year = self.random.one_in(100);
                self.years += usize::from(year);
                self.now += if year { YEAR } else { jump };
            }
        }
    }
}

#[test]
fn promises_hold_in_random_histories() {
    let seed = std::env::var("COCOON_HISTORY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let (mut delivered, mut paid, mut unlocked, mut pruned, mut again) = (0, 0, 0, 0, 0);
    let (mut slashed, mut vain, mut credited) = (0, 0, [0; 2]);
    let (mut years, mut in_debt) = (0, 0);
    let (mut kinds, mut refusals) = (BTreeMap::new(), BTreeMap::new());
    for (n, goal) in HISTORIES.into_iter().enumerate() {
        let trace = if n == TRACED { Trace::begin("random-history") } else { None };
        let mut history = History::new(seed.wrapping_mul(1_000).wrapping_add(n as u64), trace);
        if n == CROWDED {
            history.crowd(0);
        }
        while history.delivered < goal {
            if history.pending.is_empty() || history.random.one_in(3) {
                history.act();
            } else {
                history.deliver_one();
            }
        }
        history.end();
        credited[0] += history.credited(PAID);
        credited[1] += history.credited(REFUND);
        delivered += history.delivered;
        paid += history.paid_claims;
        unlocked += history.unlocked;
        pruned += history.pruned;
        again += history.attested_again;
        slashed += history.slashed;
        vain += history.vain_reports;
        years += history.years;
        in_debt += history.in_debt;
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
    println!("{slashed} times stake was lost, {vain} times a stranger's own key was shown in vain");
    println!("{years} years passed at once; {in_debt} messages that cannot bounce paid a debt first");
    println!("taken {kinds:x?}");
    println!("refused {refusals:x?}");
    assert!(delivered >= HISTORIES.iter().sum::<usize>());
    assert!(years > 10 && in_debt > 10, "{years} years, {in_debt} debts");
    // The histories are no walk around the subject.
    assert!(paid > delivered / 200, "only {paid} payments");
    let all = [OWNERS.len(), CLIENTS.len()].map(|people| people * HISTORIES.len());
    assert_eq!(credited, all, "owners that were paid and clients that were refunded, in all histories");
    assert!(unlocked > 0, "stake never came back");
    assert!(pruned > 50 && again > 10, "{pruned} keys were forgotten and {again} attested again");
    assert!(slashed > 10 && vain > 100, "stake was lost {slashed} times and in vain asked for {vain} times");
    // Every operation there is was taken.
    let to_registry = 0x4301_0001..=0x4301_0008_u32;
    let to_provider = (0x4302_0001..=0x4302_000a).filter(|op| *op != 0x4302_0009);
    let all = to_registry.chain(to_provider).chain(0x4303_0001..=0x4303_0006).chain([0x4300_0001, 0xffff_ffff]);
    for kind in all {
        assert!(kinds.get(&kind).is_some_and(|count| *count > 10), "{kind:#x}");
    }
    for code in [
        100, 101, 104, 105, 106, 107, 109, 110, 111, 112, 114, 116, 117, 118, 120, 122, 123, 124, 125, 126, 127, 128,
        130, 131, 132, 133, 134, 135, 136, 137, 140, 141, 142,
    ] {
        assert!(refusals.keys().any(|(_, found)| *found == code), "nothing was refused with {code}");
    }
    let unknown = refusals.get(&(0x4302_000a, 124)).copied().unwrap_or(0);
    assert!(unknown > 50, "{unknown} reports were refused because the owner had not let the key in");
}
