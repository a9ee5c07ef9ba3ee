//! What roles do with the contracts: every call sends one message and waits for all that it causes.
//!
//! A [`TxReport`] is no success by itself: look at `aborted`, or call `success()`. The value attached beyond what a call
//! needs comes back within the same trace.

use cocoon_attestation::types::EnclaveKey;

use crate::account::{Account, TxReport};
use crate::address::Address;
use crate::amount::Nanoton;
use crate::cells::{CheckpointAnchor, SettlementReceipt, Signature, Verdict};
use crate::chain::Chain;
use crate::contracts::{
    Change, ChannelInit, ChannelState, ClaimItem, EnclaveRecord, Listed, PaidRecord, ProviderInit, RegistryInit,
    RegistryParams, channel, fund, provider, registry,
};
use crate::error::Error;
use crate::wallet::OutMessage;

/// Rent that a new Registry gets: years, at today's prices.
pub const REGISTRY_RENT: Nanoton = Nanoton(500_000_000);
/// Rent that a new Provider gets; each attestation tops it up to a year's.
pub const PROVIDER_RENT: Nanoton = Nanoton(100_000_000);
/// Attached to an attestation, besides what the Provider lacks of a year's rent.
pub const ATTEST_VALUE: Nanoton = Nanoton(200_000_000);
/// Attached to each item of a claim, or more where the network's prices ask for more.
pub const CLAIM_ITEM_VALUE: Nanoton = Nanoton(50_000_000);
/// Attached to governance's calls. Who lengthens a list, or anchors the first checkpoint of a log, brings the Registry up to a year's rent, and attaches
/// more where it lacks more.
pub const GOVERN_VALUE: Nanoton = Nanoton(200_000_000);
/// Attached to every other call.
pub const CALL_VALUE: Nanoton = Nanoton(50_000_000);
/// An account that owes more rent than this is frozen.
const FREEZING_DEBT: Nanoton = Nanoton(100_000_000);

/// Seconds in a year, as the contracts count them.
const YEAR: u64 = 31_536_000;

/// Contracts echo the query id, and Cocoon finds its messages by their hashes instead.
const QUERY: u64 = 0;

/// Deploys a Registry and pays its rent.
pub async fn deploy_registry(account: &Account, init: &RegistryInit) -> Result<(Address, TxReport), Error> {
    let address = init.address()?;
    let report = account.send(address, REGISTRY_RENT, Some(fund(QUERY)?), Some(init.state_init()?)).await?;
    Ok((address, report))
}

/// Deploys a Provider and pays its first rent.
pub async fn deploy_provider(account: &Account, init: &ProviderInit) -> Result<(Address, TxReport), Error> {
    init.check()?;
    let address = init.address();
    let report = account.send(address, PROVIDER_RENT, Some(fund(QUERY)?), Some(init.state_init())).await?;
    Ok((address, report))
}

/// Governance: proposes a change; without a time-lock it acts at once.
pub async fn propose(account: &Account, registry: &Address, change: &Change) -> Result<TxReport, Error> {
    let value = growing_value(&**account.chain(), registry, 1).await?;
    account.send(*registry, value, Some(registry::propose(QUERY, change)?), None).await
}

/// Anyone: carries out a proposal whose time-lock is over.
pub async fn execute(account: &Account, registry: &Address, id: u32) -> Result<TxReport, Error> {
    let value = growing_value(&**account.chain(), registry, 0).await?;
    account.send(*registry, value, Some(registry::execute(QUERY, id)?), None).await
}

/// Governance: takes a proposal back.
pub async fn cancel(account: &Account, registry: &Address, id: u32) -> Result<TxReport, Error> {
    account.send(*registry, GOVERN_VALUE, Some(registry::cancel(QUERY, id)?), None).await
}

/// Governance: forbids an image or a model at once.
pub async fn forbid(account: &Account, registry: &Address, what: Listed) -> Result<TxReport, Error> {
    account.send(*registry, GOVERN_VALUE, Some(registry::forbid(QUERY, what)?), None).await
}

/// Governance: drops verifiers by position, raises the threshold or shortens attestations, at once.
pub async fn tighten(
    account: &Account,
    registry: &Address,
    drop: &[u8],
    threshold: u8,
    max_lifetime: u32,
) -> Result<TxReport, Error> {
    let body = registry::tighten(QUERY, drop, threshold, max_lifetime)?;
    account.send(*registry, GOVERN_VALUE, Some(body), None).await
}

/// Governance: revokes an enclave key at its Provider; `void` refuses its claims too.
pub async fn revoke_key(
    account: &Account,
    registry: &Address,
    provider: &Address,
    key: &EnclaveKey,
    void: bool,
) -> Result<TxReport, Error> {
    account.send(*registry, GOVERN_VALUE, Some(registry::revoke_key(QUERY, provider, key, void)?), None).await
}

/// Anyone: anchors a log's checkpoint, signed by the verifier at this position. The first of a log brings the Registry up to a year's rent.
pub async fn anchor(
    account: &Account,
    registry: &Address,
    index: u8,
    checkpoint: &CheckpointAnchor,
    signature: &Signature,
) -> Result<TxReport, Error> {
    let chain = &**account.chain();
    let value = match registry::anchored(chain, registry, index).await? {
        Some(_) => GOVERN_VALUE,
        None => growing_value(chain, registry, 0).await?,
    };
    account.send(*registry, value, Some(registry::anchor(QUERY, index, checkpoint, signature)?), None).await
}

/// What a Registry lacks of a year's rent of what it is, or would be with `more` proposals and digests, at most.
pub async fn registry_lacks(chain: &dyn Chain, registry: &Address, more: usize) -> Result<Nanoton, Error> {
    let params = registry::params(chain, registry).await?;
    let digests = params.images.len() + params.models.len() + more;
    let proposals = registry::proposals(chain, registry).await?.len() + more;
    let rent = |seconds| registry::rent(digests, proposals, seconds);
    // What the balance does not show.
    let eaten = rent(untouched(chain, registry).await?);
    let needed = rent(YEAR).saturating_add(eaten);
    Ok(needed.saturating_sub(chain.account(registry).await?.balance))
}

/// What a Provider lacks of a year's rent with `more` keys, beside its stake, at most: up to 0.49 TON where 512 keys have lain there for long.
pub async fn provider_lacks(chain: &dyn Chain, provider: &Address, more: u16) -> Result<Nanoton, Error> {
    let keys = provider::key_count(chain, provider).await?.saturating_add(more);
    let stake = provider::stake_state(chain, provider).await?;
    // What the balance does not show.
    let eaten = provider::rent(keys, untouched(chain, provider).await?);
    let needed =
        [stake.stake, stake.unbonding, eaten].into_iter().fold(provider::rent(keys, YEAR), Nanoton::saturating_add);
    Ok(needed.saturating_sub(chain.account(provider).await?.balance))
}

/// What a message that makes a Registry larger must carry, a debt of the Registry's included; what of it is not needed comes back.
async fn growing_value(chain: &dyn Chain, registry: &Address, more: usize) -> Result<Nanoton, Error> {
    let lacks = registry_lacks(chain, registry, more).await?;
    Ok(GOVERN_VALUE.max(lacks.saturating_add(FREEZING_DEBT).saturating_add(CALL_VALUE)))
}

/// Anyone: pays a Registry's or a Provider's rent. A Registry keeps it; a Provider's owner may withdraw it.
pub async fn pay_rent(account: &Account, contract: &Address, amount: Nanoton) -> Result<TxReport, Error> {
    account.send(*contract, amount, Some(fund(QUERY)?), None).await
}

/// Adds to a Provider's stake; what the message needs of the amount is not staked.
pub async fn stake(account: &Account, provider: &Address, amount: Nanoton) -> Result<TxReport, Error> {
    account.send(*provider, amount, Some(provider::stake(QUERY)?), None).await
}

/// The owner: starts to take stake back.
pub async fn unstake(account: &Account, provider: &Address, amount: Nanoton) -> Result<TxReport, Error> {
    account.send(*provider, CALL_VALUE, Some(provider::unstake(QUERY, amount)?), None).await
}

/// The owner: takes what is neither stake nor unbonding nor a year's rent.
pub async fn withdraw(account: &Account, provider: &Address) -> Result<TxReport, Error> {
    account.send(*provider, CALL_VALUE, Some(provider::withdraw(QUERY)?), None).await
}

/// The owner: ends a key's attestation; `void` refuses its claims too.
pub async fn revoke(account: &Account, provider: &Address, key: &EnclaveKey, void: bool) -> Result<TxReport, Error> {
    let body = provider::revoke(QUERY, key, void, &account.address())?;
    account.send(*provider, CALL_VALUE, Some(body), None).await
}

/// Anyone: removes a key that nothing can need any more.
pub async fn prune(account: &Account, provider: &Address, key: &EnclaveKey) -> Result<TxReport, Error> {
    account.send(*provider, CALL_VALUE, Some(provider::prune(QUERY, key)?), None).await
}

/// Anyone: shows two receipts of one enclave that cannot both be true.
pub async fn slash(
    account: &Account,
    provider: &Address,
    earlier: (&SettlementReceipt, &Signature),
    later: (&SettlementReceipt, &Signature),
) -> Result<TxReport, Error> {
    account.send(*provider, CALL_VALUE, Some(provider::slash(QUERY, earlier, later)?), None).await
}

/// Registers an enclave key by a verdict and signatures, each with the position of its verifier. The first time from the Provider's
/// owner; anyone may pay for a renewal. Who pays brings the Provider up to a year's rent, stake apart; what is not needed comes back.
pub async fn attest(
    account: &Account,
    registry: &Address,
    verdict: &Verdict,
    signatures: &[(u8, Signature)],
) -> Result<TxReport, Error> {
    // A debt that it may owe besides is less than what of this is not needed for gas.
    // A Provider that cannot be asked refuses, or is none: the contracts say so.
    let lacks = provider_lacks(&**account.chain(), &verdict.provider, 1).await.unwrap_or_default();
    let value = ATTEST_VALUE.saturating_add(lacks);
    account.send(*registry, value, Some(registry::attest(QUERY, verdict, signatures)?), None).await
}

/// Deploys a Channel with a deposit.
pub async fn open_channel(account: &Account, init: &ChannelInit, deposit: Nanoton) -> Result<TxReport, Error> {
    init.check()?;
    account.send(init.address(), deposit, Some(channel::top_up(QUERY)?), Some(init.state_init())).await
}

/// Adds to a Channel's deposit; refused once it is closing.
pub async fn top_up(account: &Account, channel: &Address, amount: Nanoton) -> Result<TxReport, Error> {
    account.send(*channel, amount, Some(channel::top_up(QUERY)?), None).await
}

/// Claims what up to eight receipts of one Channel have earned: all of it or nothing. The payments arrive at the Provider's owner, who must be the sender. Vouchers
/// that the Channel has paid on before are left out, which saves fees.
pub async fn claim(account: &Account, provider: &Address, items: &[ClaimItem]) -> Result<TxReport, Error> {
    account.send_all(&[claim_message(&**account.chain(), provider, items).await?]).await
}

/// The message by which the Provider's owner claims, as [`claim`] sends it.
pub async fn claim_message(chain: &dyn Chain, provider: &Address, items: &[ClaimItem]) -> Result<OutMessage, Error> {
    let mut parts = Vec::with_capacity(items.len());
    for item in items {
        // Not knowing what the Channel has verified only makes the claim dearer.
        let known = channel::paid(chain, &item.receipt.channel, &item.receipt.enclave_key).await;
        let known = known.unwrap_or_default();
        parts.push((item, (known.cap, known.expiry) != (item.voucher.cap, item.voucher.expiry)));
    }
    let body = provider::claim(&parts)?;
    let value = items.iter().map(|_| CLAIM_ITEM_VALUE).sum::<Nanoton>();
    let value = value.max(provider::claim_value(chain, provider, items.len()).await?);
    Ok(OutMessage::new(*provider, value, Some(body), None))
}

/// Closes a Channel at once in favour of its client; the Provider's owner only. It carries [`close_value`].
pub async fn release_channel(account: &Account, provider: &Address, channel: &Address) -> Result<TxReport, Error> {
    let value = close_value(&**account.chain(), channel).await?;
    account.send(*provider, value, Some(provider::release_channel(QUERY, channel)?), None).await
}

/// What a message that closes a Channel must carry. Out of what it holds the Channel keeps the rent of the time that it stays closed, 0.08 TON at
/// most; where rent has eaten that already, the message brings it. The Channel keeps it then, and its client gets what is left when it is deleted.
pub async fn close_value(chain: &dyn Chain, channel: &Address) -> Result<Nanoton, Error> {
    let (state, terms) = (channel::state(chain, channel).await?, channel::terms(chain, channel).await?);
    let needed = channel::closed_rent(state.keys, terms.close_delay);
    // What the balance does not show: rent since the last transaction, and what the account may owe before TON freezes it.
    let since = untouched(chain, channel).await?;
    let sure = state.balance.saturating_sub(channel::rent(state.keys, since)).saturating_sub(FREEZING_DEBT);
    Ok(if sure >= needed { CALL_VALUE } else { CALL_VALUE.saturating_add(needed) })
}

/// Seconds since an account's last transaction, when its rent was last taken.
async fn untouched(chain: &dyn Chain, account: &Address) -> Result<u64, Error> {
    let now = chain.head().await?.time;
    let last = chain.transactions(account, 1).await?.first().map_or(now, |last| last.time);
    Ok(now.0.saturating_sub(last.0))
}

/// Starts to close a Channel; its client only.
pub async fn start_close(account: &Account, channel: &Address) -> Result<TxReport, Error> {
    account.send(*channel, CALL_VALUE, Some(channel::start_close(QUERY)?), None).await
}

/// Ends a close whose delay is over: the client gets the rest. It carries [`close_value`].
pub async fn finish_close(account: &Account, channel: &Address) -> Result<TxReport, Error> {
    let value = close_value(&**account.chain(), channel).await?;
    account.send(*channel, value, Some(channel::finish_close(QUERY)?), None).await
}

/// Deletes a Channel that has been closed for long enough; its rent goes to the client.
pub async fn delete_channel(account: &Account, channel: &Address) -> Result<TxReport, Error> {
    account.send(*channel, CALL_VALUE, Some(channel::delete(QUERY)?), None).await
}

/// A Registry's parameters.
pub async fn registry_params(chain: &dyn Chain, registry: &Address) -> Result<RegistryParams, Error> {
    registry::params(chain, registry).await
}

/// What a Provider was deployed with.
pub async fn provider_terms(chain: &dyn Chain, provider: &Address) -> Result<ProviderInit, Error> {
    provider::terms(chain, provider).await
}

/// What a Channel was deployed with.
pub async fn channel_terms(chain: &dyn Chain, channel: &Address) -> Result<ChannelInit, Error> {
    channel::terms(chain, channel).await
}

/// A Provider's record of an enclave key; `None` if it was never attested.
pub async fn enclave_record(
    chain: &dyn Chain,
    provider: &Address,
    key: &EnclaveKey,
) -> Result<Option<EnclaveRecord>, Error> {
    provider::enclave(chain, provider, key).await
}

/// What a Channel holds.
pub async fn channel_state(chain: &dyn Chain, channel: &Address) -> Result<ChannelState, Error> {
    channel::state(chain, channel).await
}

/// What a Channel has paid to an enclave key.
pub async fn channel_paid(chain: &dyn Chain, channel: &Address, key: &EnclaveKey) -> Result<PaidRecord, Error> {
    channel::paid(chain, channel, key).await
}
