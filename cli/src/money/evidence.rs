//! Two receipts of one enclave that cannot both be true, as a file: whoever has it can show it to the provider's contract.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::EnclaveKey;
use cocoon_host::store::Equivocation;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_settlement::account::TxReport;
use cocoon_settlement::chain::EXIT_NO_STATE;
use cocoon_settlement::contracts::{KeyState, provider};
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::PayArgs;

const SCHEMA: &str = "cocoon/equivocation/v1";

/// The file. What the receipts say themselves stands there for people.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvidenceFile {
    schema: String,
    network: NetworkId,
    provider: Address,
    channel: Address,
    enclave_key: String,
    /// The receipts with their signatures, base64.
    earlier: String,
    later: String,
}

impl From<&Equivocation> for EvidenceFile {
    fn from(found: &Equivocation) -> Self {
        let receipt = &found.earlier.receipt;
        Self {
            schema: SCHEMA.into(),
            network: receipt.network,
            provider: receipt.provider,
            channel: receipt.channel,
            enclave_key: receipt.enclave_key.to_string(),
            earlier: STANDARD.encode(found.earlier.to_bytes()),
            later: STANDARD.encode(found.later.to_bytes()),
        }
    }
}

impl EvidenceFile {
    /// Writes it to a file that is not there yet.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        super::channel::write_new(path, &format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    /// Reads a file, and sees that it is evidence: both are signed by one enclave, and they contradict one another.
    fn read(path: &Path) -> Result<Equivocation> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let file: Self = serde_json::from_str(&text).with_context(|| format!("{name} is no evidence"))?;
        ensure!(file.schema == SCHEMA, "{name} is {:?}, and this version reads {SCHEMA}", file.schema);
        let receipt = |which: &str, text: &str| -> Result<SignedSettlementReceipt> {
            let why = || format!("the {which} receipt in {name}");
            let receipt = SignedSettlementReceipt::from_bytes(&STANDARD.decode(text).with_context(why)?);
            let receipt = receipt.with_context(why)?;
            receipt.verify().with_context(why)?;
            Ok(receipt)
        };
        let (earlier, later) = (receipt("earlier", &file.earlier)?, receipt("later", &file.later)?);
        Equivocation::of(earlier, later)
            .with_context(|| format!("the two receipts in {name} can both be true: nothing can be reported with them"))
    }
}

/// Shows a provider's contract evidence against one of its enclaves.
pub(super) async fn report(path: &Path, pay: &PayArgs) -> Result<()> {
    let found = EvidenceFile::read(path)?;
    let payer = pay.open().await?;
    let (earlier, later) = (&found.earlier.receipt, &found.later.receipt);
    let (at, key) = (earlier.provider, earlier.enclave_key);
    ensure!(
        earlier.network == payer.chain.network(),
        "the receipts are of {}, and the chain is {}",
        earlier.network,
        payer.chain.network()
    );
    let owner = ops::provider_terms(&*payer.chain, &at).await.context("the provider of these receipts")?.owner;
    check_key(&payer, &at, &key).await?;
    let state = provider::stake_state(&*payer.chain, &at).await?;
    let stake = state.stake.saturating_add(state.unbonding);
    let whose = if owner == payer.account.address() { "yours" } else { "another's" };
    let ask = [
        format!("This shows the provider {at}, which is {whose}, two receipts of its enclave {key}"),
        format!("  in the channel {} that cannot both be true:", earlier.channel),
        format!("  number {} of {} and number {} of {}.", earlier.sequence, earlier.total, later.sequence, later.total),
        format!(
            "The provider loses its stake of {stake}, what unbonds included: a fifth, {} at most, comes to this wallet,",
            Nanoton(stake.0 / 5)
        ),
        "  the rest is burned, and the key is void: none of its claims is paid any more. Nobody can take that back."
            .into(),
        "Fees: about 0.012 TON.".into(),
    ];
    let before = payer.ask(&ask).await?;
    let signed = |receipt: &SignedSettlementReceipt| (receipt.receipt.clone(), receipt.signature);
    let ((a, first), (b, second)) = (signed(&found.earlier), signed(&found.later));
    let mut report = ops::slash(&payer.account, &at, (&a, &first), (&b, &second)).await?;
    let burned = burn(&mut report);
    let extra = json!({ "provider": at.to_string(), "channel": earlier.channel.to_string(), "enclave_key": key.to_string(),
                        "burned_nanoton": burned.0 });
    payer.explain("report", before, report, extra).await
}

/// What was burned. It arrives where no contract is, and that nothing ran there is no failure.
fn burn(report: &mut TxReport) -> Nanoton {
    let nobody = Address::basechain([0; 32]);
    if report.aborted == Some((nobody, EXIT_NO_STATE)) {
        report.aborted = None;
    }
    report.transactions.iter().filter(|transaction| transaction.account == nobody).map(|it| it.value_in).sum()
}

async fn check_key(payer: &super::Payer<'_>, provider: &Address, key: &EnclaveKey) -> Result<()> {
    let record = ops::enclave_record(&*payer.chain, provider, key).await?;
    let record = record.with_context(|| {
        format!("the provider does not know the enclave {key}: it never was its, or is forgotten, and backs nothing any more")
    })?;
    ensure!(
        record.state != KeyState::Slashed,
        "it was reported before: the enclave {key} has cost its provider the stake"
    );
    Ok(())
}
