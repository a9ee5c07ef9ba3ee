//! From a running guest to a key that is registered on-chain.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cocoon_attestation::{Beacon, Bundle, Claims, Digest, EvidenceId, UnixTime};
use cocoon_protocol::statement::SignedKeyStatement;
use cocoon_protocol::wire::{self, AttestRequest, EnclaveEvidence, NodeRefusal, SignedVerdict};
use cocoon_protocol::work::{self, Stamp};
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::{Signature, Verdict};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::RegistryParams;
use cocoon_settlement::{Address, ops};
use futures::future::join_all;
use hyper::Method;
use tokio::time::Instant;

use crate::Error;
use crate::endorse::Endorser;
use crate::net::{Http, peer};
use crate::store::Store;

/// How long a guest may take to make evidence: its CPU, and each of its GPUs, signs.
const EVIDENCE: Duration = Duration::from_secs(120);
/// How long a node may take. The others are asked meanwhile.
const VERDICT: Duration = Duration::from_secs(60);

/// A guest with evidence that the Registry has accepted.
#[derive(Clone, Debug)]
pub struct Attestation {
    /// Its evidence.
    pub evidence_id: EvidenceId,
    /// What the evidence claims.
    pub claims: Claims,
    /// The bundle with endorsements.
    pub bundle: Vec<u8>,
    /// The key to seal to.
    pub statement: SignedKeyStatement,
    /// When the registration ends.
    pub until: UnixTime,
    /// When it was begun, by this host's clock: as old as the beacon, from which the registration counts.
    pub begun: Instant,
    /// The image that was measured, as the Registry lists it.
    pub image: Digest,
}

/// Has the guest make evidence on the chain's newest block.
///
/// # Errors
/// The chain or the guest does not answer.
pub async fn collect_evidence(enclave: &str, chain: &dyn Chain) -> Result<EnclaveEvidence, Error> {
    let head = chain.head().await?;
    let beacon = Beacon { seqno: head.seqno, root_hash: head.root_hash, time: head.time };
    let request = AttestRequest { beacon, nonce_root: Digest::ZERO };
    let url = format!("{enclave}{}", wire::ATTEST_PATH);
    let (status, body) =
        Http::new(None)?.call_within(EVIDENCE, Method::POST, &url, &[], request.to_cbor().into()).await?;
    if status != 200 {
        return Err(peer(&url, format!("no evidence, status {status}; the guest's log says why")));
    }
    Ok(EnclaveEvidence::from_cbor(&body)?)
}

/// What an attestation needs besides the guest.
pub(crate) struct Parties<'a> {
    pub(crate) http: &'a Http,
    pub(crate) endorser: &'a dyn Endorser,
    pub(crate) nodes: &'a [String],
    pub(crate) account: &'a Account,
    pub(crate) registry: &'a Address,
    pub(crate) provider: &'a Address,
    pub(crate) store: &'a Store,
}

/// Evidence, endorsements, verdicts, registration.
pub(crate) async fn attest(parties: &Parties<'_>, enclave: &str) -> Result<Attestation, Error> {
    let chain = parties.account.chain().as_ref();
    let begun = Instant::now();
    let evidence = collect_evidence(enclave, chain).await?;
    let mut bundle = Bundle::from_cbor(&evidence.bundle)?;
    let claims = bundle.claims()?;
    let named = Address::from(claims.provider);
    if named != *parties.provider {
        let why = format!(
            "it works for the provider {named}, and this host is {}'s: launch it with its own",
            parties.provider
        );
        return Err(peer(enclave, why));
    }
    // A guest that outlives its host is found again with the key that it has.
    if parties.store.contradicted(&claims.enclave_key)? {
        return Err(Error::Equivocation { enclave: claims.enclave_key.to_string() });
    }
    parties.endorser.endorse(&mut bundle, claims.beacon.time).await?;
    let encoded = bundle.to_cbor();
    let params = ops::registry_params(chain, parties.registry).await?;
    let (verdict, signatures) = verdicts(parties, &encoded, claims.beacon.time, &params).await?;
    ops::attest(parties.account, parties.registry, &verdict, &signatures).await?.success()?;
    Ok(Attestation {
        evidence_id: bundle.evidence_id(),
        claims,
        bundle: encoded,
        statement: evidence.key_statement,
        until: verdict.until,
        begun,
        image: verdict.image,
    })
}

/// Asks every node, and takes the verdict that enough of them signed.
async fn verdicts(
    parties: &Parties<'_>,
    bundle: &[u8],
    time: UnixTime,
    params: &RegistryParams,
) -> Result<(Verdict, Vec<(u8, Signature)>), Error> {
    let needed = usize::from(params.threshold);
    let mut groups: Vec<(Verdict, Vec<(u8, Signature)>)> = Vec::new();
    let mut why = Vec::new();
    let stamped = bundle.to_vec();
    let stamp = tokio::task::spawn_blocking(move || Stamp::make(&stamped, time).to_header()).await.unwrap_or_default();
    let stamp = &stamp;
    let asked =
        parties.nodes.iter().map(|node| async move { (node, verdict(parties.http, node, bundle, stamp).await) });
    for (node, answer) in join_all(asked).await {
        match answer {
            // A node that signs with another key than the Registry knows must not spoil what the others signed.
            Ok((index, verdict, signature))
                if params.verifiers.get(&index).is_none_or(|key| verdict.verify(&signature, key).is_err()) =>
            {
                why.push(format!("{node} does not sign with the key that the Registry has at place {index}"));
            }
            Ok((index, verdict, signature)) => match groups.iter_mut().find(|(known, _)| *known == verdict) {
                Some((_, signatures)) if signatures.iter().any(|(known, _)| *known == index) => {}
                Some((_, signatures)) => signatures.push((index, signature)),
                None => groups.push((verdict, vec![(index, signature)])),
            },
            Err(error) => why.push(error.to_string()),
        }
    }
    let best = groups.into_iter().max_by_key(|(_, signatures)| signatures.len());
    match best {
        Some((verdict, mut signatures)) if signatures.len() >= needed => {
            signatures.truncate(needed);
            Ok((verdict, signatures))
        }
        best => {
            let signed = best.map_or(0, |(_, signatures)| signatures.len());
            let why = match why[..] {
                [] if parties.nodes.is_empty() => "no node is configured".into(),
                [] => "the nodes that answer do not agree, or are the same one".into(),
                _ => why.join("; "),
            };
            Err(Error::Verdicts { signed, needed, why })
        }
    }
}

async fn verdict(http: &Http, node: &str, bundle: &[u8], stamp: &str) -> Result<(u8, Verdict, Signature), Error> {
    let url = format!("{node}{}", wire::APPRAISE_PATH);
    let headers = [("content-type", wire::CBOR), (work::HEADER, stamp)];
    let (status, body) =
        http.call_within(VERDICT, Method::POST, &url, &headers, Bytes::copy_from_slice(bundle)).await?;
    if status != 200 {
        let why = match serde_json::from_slice::<NodeRefusal>(&body) {
            Ok(refusal) => format!("{}: {}", refusal.outcome, refusal.reason),
            Err(_) => format!("status {status}: {}", String::from_utf8_lossy(&body)),
        };
        return Err(peer(&url, why));
    }
    let unreadable = || peer(&url, "its verdict cannot be read");
    let signed: SignedVerdict = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    let verdict = Verdict::from_boc(&STANDARD.decode(&signed.verdict).map_err(|_| unreadable())?)?;
    let mut signature = [0; 64];
    hex::decode_to_slice(&signed.signature, &mut signature).map_err(|_| unreadable())?;
    Ok((signed.index, verdict, signature))
}
