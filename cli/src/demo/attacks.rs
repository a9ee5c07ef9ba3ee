//! Six attacks. Each uses the real parts, changes one thing, and reports the reason of the part that refused it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cocoon_attestation::{Bundle, CpuEvidence};
use cocoon_client::{Appraised, Error};
use cocoon_host::{DevEndorser, EnclaveLauncher, LaunchSpec, ProcessLauncher};
use cocoon_protocol::statement::SignedKeyStatement;
use cocoon_protocol::wire::{self, EnclaveEvidence};
use cocoon_settlement::cells::Verdict;
use cocoon_settlement::contracts::exit;
use cocoon_settlement::{Nanoton, ops};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::data::DataDir;
use crate::network::{ATTESTATION_LIFETIME, Network, PRICES, Tee};
use crate::ui::Ui;

/// What the attacks are made on.
pub(super) struct World<'a> {
    pub(super) network: &'a Network,
    pub(super) data: &'a DataDir,
    pub(super) enclave_binary: PathBuf,
    pub(super) model: PathBuf,
    pub(super) tee: Tee,
    pub(super) prompt: &'a str,
}

/// How they ended.
pub(super) struct Refusals {
    pub(super) reasons: BTreeMap<&'static str, String>,
    pub(super) all_refused: bool,
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).context("base64")
}

pub(super) async fn run(world: &World<'_>, ui: Ui) -> Refusals {
    let mut refusals = Refusals { reasons: BTreeMap::new(), all_refused: true };
    refusals.add("swapped_model", "the host swaps the model's weights", swapped_model(world).await, ui);
    refusals.add("other_enclave", "the host runs another enclave binary", other_enclave(world).await, ui);
    refusals.add("flipped_bit", "one bit of the quote is flipped", flipped_bit(world).await, ui);
    refusals.add("short_of_k", "a verdict with one signature short of k", short_of_k(world).await, ui);
    refusals.add("replayed", "the host sends a sealed request twice", replayed(world).await, ui);
    refusals.add("over_cap", "a request past its voucher's cap", over_cap(world).await, ui);
    refusals
}

impl Refusals {
    fn add(&mut self, name: &'static str, what: &str, result: Result<String>, ui: Ui) {
        match result {
            Ok(reason) => {
                ui.line(format!("  ok  {what}"));
                ui.detail(format!("refused: {reason}"));
                self.reasons.insert(name, reason);
            }
            Err(error) => {
                ui.line(format!("  !!  {what}: NOT REFUSED AS IT SHOULD BE: {error:#}"));
                self.reasons.insert(name, format!("NOT REFUSED: {error:#}"));
                self.all_refused = false;
            }
        }
    }
}

/// The client's reason for refusing evidence, if it was the expected check that refused.
async fn client_refuses(
    world: &World<'_>,
    bundle: &Bundle,
    statement: &SignedKeyStatement,
    check: &str,
) -> Result<String> {
    match world.network.client.appraise(&bundle.to_cbor(), statement, PRICES).await {
        Ok(_) => bail!("the client accepted it"),
        Err(Error::Refused { check: found, reason }) if found == check => {
            Ok(format!("client and verifier nodes, {reason}"))
        }
        Err(other) => bail!("refused for another reason: {other}"),
    }
}

/// Every verifier node must refuse it too, by the same check.
fn nodes_refuse(world: &World<'_>, bundle: &Bundle, check: &str) -> Result<()> {
    let bundle = bundle.to_cbor();
    for (index, node) in world.network.nodes.iter().enumerate() {
        match tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(node.appraise(&bundle))) {
            Ok(_) => bail!("verifier node {index} signed a verdict for it"),
            Err(cocoon_node::Error::Refused(refused)) if refused.reason.starts_with(&format!("{check}: ")) => {}
            Err(other) => bail!("verifier node {index} refused it for another reason: {other}"),
        }
    }
    Ok(())
}

/// Launches a guest beside the good one and has it make evidence.
async fn rogue(world: &World<'_>, binary: &Path, model: &Path, folder: &Path) -> Result<(Bundle, SignedKeyStatement)> {
    let launcher = ProcessLauncher::new(binary.to_owned(), world.network.platform.clone(), world.tee.cpu());
    let spec = LaunchSpec {
        config: world.network.guest_config.clone(),
        model: model.to_owned(),
        log: folder.join("rogue.log"),
        given_up: Default::default(),
    };
    let running =
        tokio::task::spawn_blocking(move || launcher.launch(&spec)).await?.context("launching the rogue guest")?;
    let evidence: EnclaveEvidence =
        cocoon_host::collect_evidence(&running.base_url, world.network.chain.as_ref()).await?;
    let mut bundle = Bundle::from_cbor(&evidence.bundle)?;
    let endorser = DevEndorser::new(world.network.platform.clone());
    cocoon_host::Endorser::endorse(&endorser, &mut bundle, cocoon_client::SystemClock::time()).await?;
    Ok((bundle, evidence.key_statement))
}

async fn swapped_model(world: &World<'_>) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("model");
    std::fs::create_dir(&model)?;
    for entry in std::fs::read_dir(&world.model)? {
        let entry = entry?;
        std::fs::copy(entry.path(), model.join(entry.file_name()))?;
    }
    // One byte of one weight.
    let weights = model.join("model.safetensors");
    let mut bytes = std::fs::read(&weights)?;
    *bytes.last_mut().context("an empty model")? ^= 1;
    std::fs::write(&weights, bytes)?;
    let (bundle, statement) = rogue(world, &world.enclave_binary, &model, folder.path()).await?;
    nodes_refuse(world, &bundle, "reference.model-root")?;
    client_refuses(world, &bundle, &statement, "reference.model-root").await
}

async fn other_enclave(world: &World<'_>) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let binary = folder.path().join("cocoon-enclave");
    std::fs::copy(&world.enclave_binary, &binary)?;
    // It does just what the real one does, but it is another file: one byte more.
    let mut file = std::fs::OpenOptions::new().append(true).open(&binary)?;
    std::io::Write::write_all(&mut file, b"\0")?;
    drop(file);
    let (bundle, statement) = rogue(world, &binary, &world.model, folder.path()).await?;
    nodes_refuse(world, &bundle, "reference.measurement")?;
    client_refuses(world, &bundle, &statement, "reference.measurement").await
}

async fn flipped_bit(world: &World<'_>) -> Result<String> {
    let announcement = world.network.host.announcement().context("no announcement")?;
    let mut bundle = Bundle::from_cbor(&decode(&announcement.bundle)?)?;
    let statement = SignedKeyStatement::from_bytes(&decode(&announcement.key_statement)?)?;
    // A measured field that no policy here looks at: only the signature can notice. TDX: RTMR3; SNP: HOST_DATA.
    let check = match &mut bundle.cpu {
        CpuEvidence::Tdx { quote } => {
            quote[48 + 472] ^= 1;
            "tdx.signature"
        }
        CpuEvidence::Snp { report } => {
            report[0xc0] ^= 1;
            "snp.signature"
        }
    };
    nodes_refuse(world, &bundle, check)?;
    client_refuses(world, &bundle, &statement, check).await
}

async fn short_of_k(world: &World<'_>) -> Result<String> {
    let network = world.network;
    let announcement = network.host.announcement().context("no announcement")?;
    let bundle = Bundle::from_cbor(&decode(&announcement.bundle)?)?;
    let claims = bundle.claims()?;
    let record = ops::enclave_record(network.chain.as_ref(), &network.provider, &claims.enclave_key).await?;
    let record = record.context("the enclave is not registered")?;
    let params = ops::registry_params(network.chain.as_ref(), &network.registry).await?;
    let now = cocoon_client::SystemClock::time();
    // A verdict that would be good: the next generation, a later end, signed by one node whose key leaked.
    let verdict = Verdict {
        network: cocoon_settlement::NetworkId::LOCAL,
        registry: network.registry,
        provider: network.provider,
        enclave_key: claims.enclave_key,
        evidence_id: bundle.evidence_id().0,
        image: network.references.image.digest,
        model_root: claims.model_root,
        generation: record.generation + 1,
        until: now.plus(ATTESTATION_LIFETIME),
        expiry: now.plus(3_600),
        set_epoch: params.set_epoch,
    };
    let signature = verdict.sign(&world.data.secret("node-0-verdict")?)?;
    let report = ops::attest(&network.provider_account, &network.registry, &verdict, &[(0, signature)]).await?;
    let after = ops::enclave_record(network.chain.as_ref(), &network.provider, &claims.enclave_key).await?;
    if after.is_none_or(|after| after.generation != record.generation) {
        bail!("the Registry let it through");
    }
    match report.aborted {
        Some((at, code)) if at == network.registry => {
            Ok(format!("Registry, exit code {code}: {}", exit::reason(code).unwrap_or("unknown")))
        }
        other => bail!("it failed elsewhere: {other:?}"),
    }
}

async fn enclave(world: &World<'_>) -> Result<Appraised> {
    let (enclaves, refused) = world.network.client.enclaves().await?;
    enclaves.into_iter().next().with_context(|| format!("no enclave: {refused:?}"))
}

fn chat(world: &World<'_>) -> Vec<u8> {
    let message = json!({"role": "user", "content": world.prompt});
    json!({"model": world.network.model_name, "messages": [message], "temperature": 0}).to_string().into_bytes()
}

async fn replayed(world: &World<'_>) -> Result<String> {
    let client = &world.network.client;
    let enclave = enclave(world).await?;
    let voucher = client.voucher(&enclave).await?;
    let call = client.seal(&enclave, voucher.clone(), "POST", "/v1/chat/completions", chat(world))?;
    let sealed = Bytes::from(call.body.clone());
    let (head, _, receipt) = client.send(call).await?.whole().await?;
    if head.status != 200 || receipt.is_none() {
        bail!("the first time it was not answered");
    }
    let request = Request::post(format!("{}{}", world.network.urls.gateway, wire::RELAY_PATH))
        .header(wire::ENCLAVE_HEADER, enclave.evidence_id.to_string())
        .header(wire::VOUCHER_HEADER, voucher.to_header())
        .header("content-type", wire::SEALED_REQUEST)
        .body(Full::new(sealed))?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    let refusal: wire::Refusal =
        serde_json::from_slice(&body).with_context(|| format!("status {status} without a reason"))?;
    if status != 409 {
        bail!("status {status}: {}", refusal.error);
    }
    Ok(format!("enclave, status {status}: {}; {}", refusal.error, refusal.what_to_do))
}

async fn over_cap(world: &World<'_>) -> Result<String> {
    let client = &world.network.client;
    let enclave = enclave(world).await?;
    let before = client.account(&enclave)?;
    // One nanoton more than it has earned already pays for no token.
    let voucher = client.voucher_with_cap(&enclave, before.total.saturating_add(Nanoton(1)))?;
    let call = client.seal(&enclave, voucher, "POST", "/v1/chat/completions", chat(world))?;
    let (head, body, receipt) = client.send(call).await?.whole().await?;
    if head.status != 402 || receipt.is_some() {
        bail!("status {}", head.status);
    }
    let error: Value = serde_json::from_slice(&body)?;
    if error["error"]["code"] != "voucher_cap_reached" {
        bail!("another reason: {}", error["error"]["code"]);
    }
    Ok(format!("enclave, status 402 inside the seal: {}", error["error"]["message"].as_str().unwrap_or_default()))
}
