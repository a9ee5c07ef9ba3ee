//! Every operation on nearly empty contracts costs on the local chain what it costs on TON's own emulator, to the unit of gas and the
//! nanoton, everything counted. The same steps as in `settlement/contracts/tests/costs.test.mjs`, which writes the file of figures.

use std::collections::BTreeMap;
use std::path::Path;

use cocoon_attestation::types::{Digest, EnclaveKey};
use cocoon_settlement::account::{Account, TxReport};
use cocoon_settlement::cells::{CheckpointAnchor, SettlementReceipt, Verdict, Voucher};
use cocoon_settlement::contracts::{self, Change, ChannelInit, ClaimItem, Listed};
use cocoon_settlement::wallet::OutMessage;
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};

use crate::world::{CLIENT, DAY, ENCLAVE, IMAGE, START, World, public, ton, verifier};

/// Gas and fees of each operation that the file names and nobody has measured yet.
struct Figures(BTreeMap<String, (u64, u64)>);

impl Figures {
    fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/operation-costs.json");
        let mut groups: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        Self(serde_json::from_value(groups["small"].take()).unwrap())
    }

    /// The report is of a success, and as dear as the file says.
    fn are(&mut self, name: &str, report: TxReport) {
        let report = report.success().unwrap();
        let expected = self.0.remove(name).unwrap_or_else(|| panic!("{name} is not in the file"));
        assert_eq!((report.gas_used, report.fees.0), expected, "{name}");
    }
}

/// Eight enclaves, the first that of the world.
fn enclave(number: u8) -> [u8; 32] {
    [ENCLAVE[0] + number; 32]
}

fn key(number: u8) -> EnclaveKey {
    EnclaveKey(public(&enclave(number)))
}

impl World {
    fn verdict_for(&self, number: u8) -> Verdict {
        Verdict { enclave_key: key(number), ..self.verdict() }
    }

    /// What an enclave earned by its receipt of this turn, under its voucher of that one.
    fn earned(&self, number: u8, turn: u64, promised: u64) -> ClaimItem {
        let cap = ton("2").checked_add(Nanoton(promised)).unwrap();
        let voucher = Voucher { enclave_key: key(number), cap, ..self.voucher() };
        let total = Nanoton(100_000_000 * turn);
        let receipt = SettlementReceipt { enclave_key: key(number), sequence: turn, total, ..self.receipt() };
        self.signed(voucher, &CLIENT, receipt, &enclave(number))
    }

    /// Rent that the time until now has brought is paid, so that what follows can be measured without.
    async fn settle_rent(&self, channel: Address) {
        for to in [self.registry, self.provider, channel] {
            for from in [&self.governance, &self.owner, &self.client, &self.payer] {
                from.send_all(&[OutMessage { bounce: true, ..OutMessage::new(to, ton("0.05"), None, None) }])
                    .await
                    .unwrap();
            }
        }
    }
}

/// A wallet deploys with its first message; that is not what is measured.
async fn deployed(account: &Account) {
    account.send(account.address(), ton("0.01"), None, None).await.unwrap().success().unwrap();
}

#[tokio::test]
async fn every_operation_costs_what_it_costs_on_tons_emulator() {
    let (world, mut figures) = (World::new().await, Figures::read());
    let (registry, provider, channel) = (&world.registry, &world.provider, world.channel.address());
    deployed(&world.client).await;
    deployed(&world.payer).await;
    // Acts at once, because there was none.
    let lock = Change::TimeLock(2 * DAY as u32);
    ops::propose(&world.governance, registry, &lock).await.unwrap().success().unwrap();

    figures.are("open a Channel", ops::open_channel(&world.client, &world.channel, ton("20")).await.unwrap());
    figures.are("top up", ops::top_up(&world.client, &channel, ton("1")).await.unwrap());
    let fund = Some(contracts::fund(0).unwrap());
    figures.are("fund", world.owner.send(*provider, ton("0.1"), fund, None).await.unwrap());
    let verdict = Verdict { until: START.plus(DAY - 60), ..world.verdict() };
    figures.are("attest", world.attest(&verdict, &[0, 1, 2]).await);
    let renewal = Verdict { generation: 1, ..world.verdict() };
    figures.are("renew", world.attest(&renewal, &[4, 1, 3]).await);
    for number in 1..8 {
        world.attest(&world.verdict_for(number), &[0, 1, 2]).await.success().unwrap();
    }

    figures.are("claim", world.claim(&[world.earned(0, 1, 1)]).await);
    figures.are("claim again", world.claim(&[world.earned(0, 2, 1)]).await);
    let items = |numbers: std::ops::Range<u8>, turn, promised| -> Vec<ClaimItem> {
        numbers.map(|number| world.earned(number, turn, promised)).collect()
    };
    figures.are("claim, 2 new keys", world.claim(&items(1..3, 1, 1)).await);
    figures.are("claim, 5 new keys", world.claim(&items(3..8, 1, 1)).await);
    let mut turn = 3;
    for count in 2..6 {
        figures.are(&format!("claim, {count} new vouchers"), world.claim(&items(0..count, turn, turn)).await);
        figures.are(&format!("claim, {count} again"), world.claim(&items(0..count, turn + 1, turn)).await);
        turn += 2;
    }
    let all = [items(0..5, turn, turn - 2), items(5..8, turn, 1)].concat();
    figures.are("claim, 8 again", world.claim(&all).await);

    figures.are("stake", ops::stake(&world.owner, provider, ton("10")).await.unwrap());
    figures.are("unstake", ops::unstake(&world.owner, provider, ton("4")).await.unwrap());
    figures.are("withdraw", ops::withdraw(&world.owner, provider).await.unwrap());
    figures.are("revoke", ops::revoke(&world.owner, provider, &key(1), false).await.unwrap());
    let revoked = ops::revoke_key(&world.governance, registry, provider, &key(2), true).await.unwrap();
    figures.are("revoke_key", revoked);
    let said = |sequence, total| {
        let receipt = SettlementReceipt { enclave_key: key(3), sequence, total: Nanoton(total), ..world.receipt() };
        let signature = receipt.sign(&enclave(3)).unwrap();
        (receipt, signature)
    };
    let ((earlier, first), (later, second)) = (said(1, 2), said(2, 1));
    let slashed = ops::slash(&world.payer, provider, (&earlier, &first), (&later, &second)).await.unwrap();
    // What is burned arrives where no contract is.
    figures.are("slash", TxReport { aborted: None, ..slashed });

    let allow = Change::Allow(Listed::Model(IMAGE));
    figures.are("propose", ops::propose(&world.governance, registry, &allow).await.unwrap());
    figures.are("cancel", ops::cancel(&world.governance, registry, 0).await.unwrap());
    for (name, tree_size) in [("anchor, first", 10), ("anchor", 11)] {
        let checkpoint = CheckpointAnchor {
            network: NetworkId::LOCAL,
            registry: *registry,
            origin: Digest([0x44; 32]),
            tree_size,
            root: Digest([0x55; 32]),
            time: START,
        };
        let signature = checkpoint.sign(&verifier(0)).unwrap();
        figures.are(name, ops::anchor(&world.payer, registry, 0, &checkpoint, &signature).await.unwrap());
    }
    figures.are("tighten", ops::tighten(&world.governance, registry, &[1], 3, DAY as u32 - 1).await.unwrap());
    ops::propose(&world.governance, registry, &allow).await.unwrap().success().unwrap();
    figures.are("start close", ops::start_close(&world.client, &channel).await.unwrap());
    world.clock.advance(3 * DAY);
    world.settle_rent(channel).await;
    figures.are("execute", ops::execute(&world.payer, registry, 1).await.unwrap());
    figures.are("forbid", ops::forbid(&world.governance, registry, Listed::Model(IMAGE)).await.unwrap());
    figures.are("finish close", ops::finish_close(&world.client, &channel).await.unwrap());
    world.clock.advance(20 * DAY);
    world.settle_rent(channel).await;
    figures.are("delete", ops::delete_channel(&world.payer, &channel).await.unwrap());
    figures.are("prune", ops::prune(&world.payer, provider, &key(4)).await.unwrap());
    let another = ChannelInit { salt: [8; 32], ..world.channel.clone() };
    ops::open_channel(&world.client, &another, ton("1")).await.unwrap().success().unwrap();
    figures.are("release", ops::release_channel(&world.owner, provider, &another.address()).await.unwrap());
    assert_eq!(figures.0, BTreeMap::new(), "not measured here");
}
