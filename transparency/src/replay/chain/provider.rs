//! Providers: the attestations that they took, what became of their keys, and the claims that they passed on.

use cocoon_attestation::{Digest, EnclaveKey, UnixTime};
use cocoon_settlement::Address;
use cocoon_settlement::chain::{AccountState, TxSummary};
use cocoon_settlement::contracts::events::{ClaimedReceipt, Event};
use cocoon_settlement::contracts::{ProviderInit, initial_state, provider};

use super::super::finding::{Finding, Kind};
use super::super::utc;
use super::store::Life;
use super::{Money, Pages, ProviderFlow, Reconcile, SLACK, Sums};
use crate::Error;

/// A Provider whose history was read.
pub(super) struct Provider {
    pub flow: ProviderFlow,
    /// Seconds after an attestation in which its receipts are paid.
    pub claim_window: u64,
    /// What came later was not read.
    pub to: u64,
}

impl Reconcile<'_> {
    /// What a Provider was deployed with; `None`, and found, if it did not begin as a Provider begins.
    async fn provider_terms(
        &mut self,
        address: &Address,
        account: &AccountState,
    ) -> Result<Option<ProviderInit>, Error> {
        let (mut begun, mut ran) = (None, account.active);
        if account.active {
            begun = account.code_hash.zip(account.data.clone());
        } else {
            // What is frozen or gone does not show its data; its history shows what it was deployed with.
            let mut pages = Pages::of(address, account);
            while let Some(page) = self.page(&mut pages).await? {
                for transaction in &page {
                    ran |= transaction.carried_out();
                    let init = transaction.received.as_ref().and_then(|message| message.init.as_ref());
                    begun = begun.or(init.and_then(|init| initial_state(address, init)));
                }
            }
        }
        let terms = begun.filter(|(code, _)| *code == provider::provider_code_hash());
        let terms = terms.and_then(|(_, data)| ProviderInit::of_data(&data).ok());
        // One that was deployed with keys in it would have another address.
        let terms = terms.filter(|terms| terms.address() == *address);
        if terms.is_none() && ran {
            let detail = format!("the provider {address} does not hold a Provider's code, or did not begin as one");
            self.findings.add(Finding::new(Kind::UnknownCode, detail));
        }
        Ok(terms)
    }

    /// A Provider's attestations and revocations, and the claims that it passed on.
    pub(super) async fn provider(&mut self, address: &Address) -> Result<(), Error> {
        let account = self.input.chain.account(address).await?;
        let Some(terms) = self.provider_terms(address, &account).await? else { return Ok(()) };
        if (terms.registry, terms.network) != (self.input.registry, self.input.chain.network()) {
            // Evidence can name any account. This one takes nothing from our Registry.
            return Ok(());
        }
        let mut flow = ProviderFlow {
            address: address.to_string(),
            owner: terms.owner.to_string(),
            attestations: 0,
            revocations: 0,
            stake: 0,
            balance: account.balance.0,
            money: Money::default(),
            channels: 0,
        };
        if account.active {
            let stake = provider::stake_state(self.input.chain, address).await?;
            flow.stake = stake.stake.0.saturating_add(stake.unbonding.0);
        }
        let (mut pages, mut sums) = (Pages::of(address, &account), Sums::default());
        while let Some(page) = self.page(&mut pages).await? {
            let (mut lives, mut claims, mut channels) = (Vec::new(), Vec::new(), Vec::new());
            for transaction in &page {
                sums.add(transaction);
                let mut live = |key, life| lives.push((key, transaction.lt, transaction.time, life));
                match self.event(transaction)? {
                    Some(Event::Attested { key, until, evidence_id, .. }) if self.by_registry(transaction) => {
                        flow.attestations += 1;
                        live(key, Life::Attested(until));
                        self.attested(transaction, address, &key, &evidence_id)?;
                    }
                    Some(Event::Revoke { key, void }) => {
                        flow.revocations += 1;
                        live(key, if void { Life::Void } else { Life::Retired });
                    }
                    Some(Event::Prune { key }) => live(key, Life::Pruned),
                    Some(Event::Slash { key, channel, receipts }) => {
                        live(key, Life::Void);
                        self.slashed(transaction, address, &key, &channel, &receipts);
                    }
                    Some(Event::Claim { channel, .. }) => {
                        channels.push(channel);
                        let passed_on = transaction.out_msg_hashes.iter();
                        claims.extend(passed_on.map(|message| (*message, transaction.lt, transaction.time)));
                    }
                    _ => {}
                }
            }
            self.store.put_provider(address, &lives, &claims, &channels)?;
        }
        self.balanced(address, account.balance, &sums);
        self.result.attestations += flow.attestations;
        self.result.stake = self.result.stake.saturating_add(flow.stake);
        let provider = Provider { flow, claim_window: terms.claim_window.into(), to: pages.to };
        self.providers.insert(*address, provider);
        Ok(())
    }

    fn by_registry(&self, transaction: &TxSummary) -> bool {
        transaction.received.as_ref().is_some_and(|from| from.peer == self.input.registry)
    }

    /// An attestation must be the one that the Registry passed on in this very message, on as many verdicts as it needed.
    fn attested(
        &mut self,
        transaction: &TxSummary,
        provider: &Address,
        key: &EnclaveKey,
        evidence_id: &Digest,
    ) -> Result<(), Error> {
        self.day(transaction.time).attestations += 1;
        let verdicts = self.store.verdicts(&transaction.in_msg_hash)?;
        let detail = match verdicts.filter(|verdicts| verdicts.evidence_id == *evidence_id) {
            Some(verdicts) if verdicts.count >= verdicts.needed => return Ok(()),
            Some(verdicts) => format!(
                "{} of its verdicts have an accepted leaf behind them, {} were needed",
                verdicts.count, verdicts.needed
            ),
            // What the Registry did after it was read is not known.
            None if transaction.lt > self.registry.last_lt && transaction.time >= self.input.as_of => {
                self.result.attestations_later += 1;
                return Ok(());
            }
            None => "the Registry's history has no verdicts for it".to_owned(),
        };
        let detail = format!("enclave {} of {provider}: {detail}", Digest(key.0));
        let finding = Finding::new(Kind::AttestationWithoutQuorum, detail).of(*evidence_id);
        self.findings.add(finding.dated(transaction.time).in_transaction(&transaction.hash));
        Ok(())
    }

    /// Somebody showed two receipts that cannot both be true, and the Provider agreed.
    fn slashed(
        &mut self,
        transaction: &TxSummary,
        provider: &Address,
        key: &EnclaveKey,
        channel: &Address,
        receipts: &[ClaimedReceipt; 2],
    ) {
        let network = self.input.chain.network();
        if receipts.iter().all(|receipt| receipt.holds(network, provider, channel, key)) {
            let [one, other] = receipts;
            let detail = format!(
                "enclave {} in channel {channel}, shown to {provider}: {}",
                Digest(key.0),
                both((one.sequence, one.total.0, one.time), (other.sequence, other.total.0, other.time))
            );
            let finding = Finding::new(Kind::ReceiptsContradict, detail).dated(transaction.time);
            self.findings.add(finding.in_transaction(&transaction.hash));
        }
    }

    /// Why a receipt should not have been paid on a claim that its Provider passed on at a time, if so. The Provider decides when it
    /// passes the claim on; what happens to the key while the claim is on its way changes nothing.
    pub(super) fn covered(
        &self,
        provider: &Address,
        key: &EnclaveKey,
        receipt: &ClaimedReceipt,
        (lt, claimed): (u64, UnixTime),
    ) -> Result<Option<(Kind, String)>, Error> {
        let (mut attested, mut ended, mut pruned): (Option<(UnixTime, UnixTime)>, _, _) = (None, None, None);
        for (time, life) in self.store.life(provider, key, lt)? {
            match life {
                Life::Attested(until) if ended.is_none() => {
                    let (since, before) = attested.unwrap_or((time, UnixTime(0)));
                    attested = Some((since, before.max(until)));
                }
                // The contract attests no key anew that was revoked, until it is forgotten.
                Life::Attested(_) => {}
                Life::Retired => ended = ended.or(Some((time, false))),
                Life::Void => ended = Some((time, true)),
                Life::Pruned => (attested, ended, pruned) = (None, None, Some(time)),
            }
        }
        let without = |detail: String| Ok(Some((Kind::PayoutWithoutAttestation, detail)));
        let Some((since, until)) = attested else {
            return without(match pruned {
                Some(time) => format!("its key was removed at {} and not attested again", utc(time)),
                None => "its key was never attested there".into(),
            });
        };
        if let Some((time, void)) = ended.filter(|(time, void)| *void || receipt.time > *time) {
            let how = if void { "void" } else { "retired" };
            return Ok(Some((Kind::RevokedReceipt, format!("its key was {how} at {}", utc(time)))));
        }
        if receipt.time > until || receipt.time.plus(SLACK) < since {
            return without(format!("its key was attested from {} to {}", utc(since), utc(until)));
        }
        let until = ended.map_or(until, |(time, _)| until.min(time));
        let window = self.providers.get(provider).map_or(0, |provider| provider.claim_window);
        if claimed > until.plus(window) {
            return without(format!("its claim window was over at {}", utc(until.plus(window))));
        }
        Ok(None)
    }
}

/// Two receipts, by number, total and time.
pub(super) fn both(one: (u64, u64, UnixTime), other: (u64, u64, UnixTime)) -> String {
    let told = |(sequence, total, time): (u64, u64, UnixTime)| {
        format!("receipt {sequence} of {total} nanoton, signed {}", utc(time))
    };
    format!("{} and {}", told(one), told(other))
}
