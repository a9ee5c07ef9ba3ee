//! The main job: accepted evidence, sealed prompt, streamed answer, verified receipt, paid claim.

use anyhow::{Context, Result, bail};
use cocoon_client::SystemClock;
use cocoon_protocol::receipt::FullReceipt;
use cocoon_protocol::statement::SignedKeyStatement;
use cocoon_settlement::{Nanoton, ops};
use serde_json::{Value, json};

use crate::network::Network;
use crate::ui::Ui;

/// What came of it.
pub struct Job {
    /// What the model said.
    pub answer: String,
    /// What the enclave charged for it, verified.
    pub receipt: FullReceipt,
    /// What the contract paid.
    pub paid: Nanoton,
    /// What that took.
    pub gas: u64,
}

struct Balances {
    provider: Nanoton,
    channel: Nanoton,
    paid: Nanoton,
}

/// Does it on a running network.
///
/// # Errors
/// A part of it does not hold.
pub async fn run(network: &Network, prompt: &str, ui: Ui) -> Result<Job> {
    ui.heading("Evidence, appraised by the client itself");
    evidence(network, ui).await?;

    ui.heading("A sealed prompt");
    ui.line(format!("  you ask     {prompt}"));
    let (answer, receipt) = ask(network, prompt, ui).await?;

    ui.heading("The receipt, verified");
    let tokens = &receipt.tokens;
    ui.line(format!(
        "  tokens      {} prompt, {} cached, {} completion",
        tokens.prompt, tokens.cached, tokens.completion
    ));
    ui.line(format!("  charge      {}", receipt.charge));
    ui.line(format!("  model root  {}", receipt.model_root));
    ui.line(format!("  evidence    {}", receipt.evidence_id));
    ui.line("  signed by the attested key; request, answer, prices and total agree with what this client sent, got and promised");

    ui.heading("The claim");
    let before = balances(network, &receipt).await?;
    let step = ui.step("the provider claims with voucher and receipt");
    let claim = network.host.claim_all().await.context("the claim")?;
    step.done(format!("{} gas, {} in fees for all its transactions", claim.gas, claim.fees));
    let after = balances(network, &receipt).await?;
    let paid = after.paid.checked_sub(before.paid).context("the channel's record of payments fell")?;
    ui.line(format!("  channel     {} -> {}", before.channel, after.channel));
    ui.line(format!("  provider    {} -> {}", before.provider, after.provider));
    ui.line(format!("  paid        {paid}"));
    if paid != receipt.settlement.receipt.total.saturating_sub(before.paid) {
        bail!("the contract paid {paid}, and the receipts say {}", receipt.settlement.receipt.total);
    }
    Ok(Job { answer, receipt, paid, gas: claim.gas })
}

/// Shows what the client's appraisal checked and what it did not.
async fn evidence(network: &Network, ui: Ui) -> Result<()> {
    let announcement = network.host.announcement().context("the host has announced no enclave")?;
    let bundle = super::attacks::decode(&announcement.bundle)?;
    let config = network.client.config();
    let statement = SignedKeyStatement::from_bytes(&super::attacks::decode(&announcement.key_statement)?)?;
    // The client's whole decision: evidence, reference values, registration on TON, inclusion in logs, prices.
    network.client.appraise(&bundle, &statement, announcement.prices).await?;
    // The same evidence once more, for what a client keeps to itself: the list of checks.
    let result =
        cocoon_verifier::appraise_bundle(&bundle, &config.policy, config.references.as_ref(), SystemClock::time());
    let appraisal = result.appraisal;
    ui.line(format!("  outcome     {} ({} checks)", appraisal.outcome, appraisal.checks.len()));
    if let Some(status) = &appraisal.tcb_status {
        ui.line(format!("  TCB         {status}"));
    }
    let claims = result.claims.context("accepted evidence has claims")?;
    ui.line(format!("  model       {} with root {}", claims.model_name, claims.model_root));
    ui.line(format!("  key         {}", claims.enclave_key));
    ui.line(format!("  beacon      block {} of TON: the evidence cannot be older", claims.beacon.seqno));
    let record = ops::enclave_record(network.chain.as_ref(), &network.provider, &claims.enclave_key).await?;
    let record = record.context("the enclave's key is not registered")?;
    ui.line(format!("  registered  on TON until {}, generation {}", record.until, record.generation));
    ui.line(format!("  logged      proved to the client by {} verifier nodes' logs or more", config.required_logs));
    for unchecked in &appraisal.unchecked {
        ui.detail(format!("not checked: {} ({})", unchecked.id, unchecked.why));
    }
    Ok(())
}

async fn ask(network: &Network, prompt: &str, ui: Ui) -> Result<(String, FullReceipt)> {
    let body = json!({
        "model": network.model_name,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "stream": true,
    });
    let started = std::time::Instant::now();
    let body = body.to_string().into_bytes();
    let mut answer = network.client.call("POST", "/v1/chat/completions", Some(&network.model_name), body).await?;
    let (mut text, mut pending, mut first) = (String::new(), Vec::new(), None);
    ui.raw("  it answers  ");
    while let Some(piece) = answer.next().await? {
        pending.extend_from_slice(&piece);
        while let Some(end) = pending.windows(2).position(|window| window == b"\n\n") {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            let Some(Ok(event)) = event.strip_prefix(b"data: ").map(serde_json::from_slice::<Value>) else { continue };
            if let Some(delta) =
                event.pointer("/choices/0/delta/content").and_then(Value::as_str).filter(|delta| !delta.is_empty())
            {
                first.get_or_insert_with(|| started.elapsed());
                ui.raw(delta);
                text.push_str(delta);
            }
        }
    }
    ui.line("");
    if let Some(first) = first {
        ui.detail(format!(
            "first token after {} ms, all after {} ms",
            first.as_millis(),
            started.elapsed().as_millis()
        ));
    }
    let signed = answer.finish().await?.context("an answer without a receipt")?;
    if text.trim().is_empty() {
        bail!("the model said nothing");
    }
    Ok((text, signed.receipt))
}

async fn balances(network: &Network, receipt: &FullReceipt) -> Result<Balances> {
    let key = receipt.settlement.receipt.enclave_key;
    Ok(Balances {
        provider: network.provider_account.balance().await?,
        channel: ops::channel_state(network.chain.as_ref(), &network.channel).await?.balance,
        paid: ops::channel_paid(network.chain.as_ref(), &network.channel, &key).await?.paid,
    })
}
