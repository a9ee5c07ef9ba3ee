//! Keeps one enclave running, attested and announced.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cocoon_attestation::{Digest, UnixTime};
use cocoon_protocol::announce::{self as announced_by, Announced};
use cocoon_protocol::wire::{self, Announcement, EnclaveEvidence, Refusal};
use cocoon_settlement::ops;
use futures::future::join_all;
use hyper::Method;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attest::{Attestation, Parties, attest};
use crate::back_off::BackOff;
use crate::launch::{LaunchSpec, RunningEnclave};
use crate::net::peer;
use crate::{Error, Ready, Shared, Status, owed, room};

/// How often the guest's process is looked at.
const WATCH: Duration = Duration::from_millis(100);
/// How often gateways are told, and the key statement is read again.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub(crate) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut back_off = BackOff::default();
    while !*stop.borrow() {
        let started = Instant::now();
        let error = tokio::select! {
            result = live(&shared) => match result { Ok(never) => match never {}, Err(error) => error },
            _ = stop.changed() => break,
        };
        shared.status.send_replace(Status::Starting { why: Some(error.to_string()) });
        if let Error::Withdrawn { image, .. } = error {
            tracing::error!(%error, "the enclave is not started again");
            tokio::select! {
                () = allowed_again(&shared, &image) => continue,
                _ = stop.changed() => break,
            }
        }
        tracing::warn!(%error, "the enclave is started again");
        tokio::select! {
            () = tokio::time::sleep(back_off.after(started.elapsed())) => {}
            _ = stop.changed() => break,
        }
    }
    shared.status.send_replace(Status::Starting { why: Some("the host has stopped".into()) });
}

/// One life of an enclave: launch, attest, announce, renew, until it ends.
async fn live(shared: &Arc<Shared>) -> Result<std::convert::Infallible, Error> {
    let config = &shared.config;
    let spec = LaunchSpec {
        config: config.guest_config.clone(),
        model: config.model.clone(),
        log: config.data.join("enclave.log"),
        given_up: shared.given_up.clone(),
    };
    let launcher = config.launcher.clone();
    let mut running = tokio::task::spawn_blocking(move || launcher.launch(&spec))
        .await
        .map_err(|error| Error::Store(error.to_string()))??;
    shared.condemned.store(false, Ordering::Relaxed);
    // A new life brings a new key.
    if let Err(error) = room::make(&config.account, &config.provider).await {
        tracing::warn!(%error, "no room was made for a further key");
    }
    let mut attestation = attest(&parties(shared), &running.base_url).await?;
    owed::recover(shared, &running.base_url, &attestation.claims.enclave_key).await;
    loop {
        tracing::info!(evidence = %attestation.evidence_id, until = %attestation.until, "attested");
        attestation = serve(shared, &mut running, attestation).await?;
    }
}

fn parties(shared: &Shared) -> Parties<'_> {
    let config = &shared.config;
    Parties {
        http: &shared.http,
        endorser: config.endorser.as_ref(),
        nodes: &config.node_urls,
        account: &config.account,
        registry: &config.registry,
        provider: &config.provider,
        store: &shared.store,
    }
}

/// Announces the enclave until its attestation is renewed. A renewal that fails is tried again while the old attestation lasts: nothing
/// but the guest's own end, or its attestation's, ends a guest that works.
async fn serve(
    shared: &Arc<Shared>,
    running: &mut RunningEnclave,
    attestation: Attestation,
) -> Result<Attestation, Error> {
    let lifetime = attestation.until.0.saturating_sub(attestation.claims.beacon.time.0);
    // Both count from the beacon, not from when the chain had taken the attestation, which may have been minutes later.
    let renew = attestation.begun + Duration::from_secs(lifetime * 2 / 3);
    let end = attestation.begun + Duration::from_secs(lifetime);
    let mut statement = attestation.statement.clone();
    loop {
        let announcement = announcement(shared, &attestation, &statement.to_bytes());
        let ready = Box::new(Ready {
            evidence_id: attestation.evidence_id,
            enclave_key: attestation.claims.enclave_key,
            pid: running.pid(),
            base_url: running.base_url.clone(),
            image: attestation.image,
            announcement: announcement.clone(),
        });
        // While the host stops, the guest goes on with what it has begun, and is told to nobody.
        if !shared.stopping() {
            shared.status.send_replace(Status::Ready(ready));
            announce(shared, &announcement).await;
        }
        let heartbeat = Instant::now() + HEARTBEAT;
        while Instant::now() < heartbeat {
            if let Some(how) = running.ended() {
                return Err(Error::Peer { url: "the enclave".into(), why: format!("it ended: {how}") });
            }
            if shared.condemned.load(Ordering::Relaxed) {
                return Err(Error::Equivocation { enclave: attestation.claims.enclave_key.to_string() });
            }
            tokio::time::sleep(WATCH).await;
        }
        if let Some(withdrawn) = withdrawn(shared, &attestation.image).await {
            drain(shared, running, &withdrawn).await;
            return Err(withdrawn);
        }
        if Instant::now() >= renew {
            match attest(&parties(shared), &running.base_url).await {
                Ok(renewed) => return Ok(renewed),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(error) => tracing::warn!(%error, "the attestation could not be renewed yet"),
            }
        }
        let url = format!("{}{}", running.base_url, wire::EVIDENCE_PATH);
        let asked = tokio::time::timeout(HEARTBEAT, shared.http.call(Method::GET, &url, &[], Bytes::new())).await;
        match asked.unwrap_or_else(|_| Err(peer(&url, "it does not answer in time"))) {
            Ok((200, body)) => match EnclaveEvidence::from_cbor(&body) {
                // After a renewal that failed on the way the guest already holds newer evidence than is registered.
                Ok(evidence) if evidence.key_statement.statement.evidence_id == attestation.evidence_id => {
                    statement = evidence.key_statement;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the guest's evidence cannot be read"),
            },
            Ok((status, _)) => tracing::warn!(status, "the guest gives no evidence"),
            Err(error) => tracing::warn!(%error, "the guest does not answer"),
        }
    }
}

/// The error if the Registry no longer allows an image. A chain that does not answer withdraws nothing.
async fn withdrawn(shared: &Shared, image: &Digest) -> Option<Error> {
    match ops::registry_params(shared.config.chain.as_ref(), &shared.config.registry).await {
        Ok(params) if params.images.contains(image) => None,
        Ok(params) => Some(Error::Withdrawn { image: *image, allowed: params.images }),
        Err(error) => {
            tracing::warn!(%error, "the Registry cannot be asked which images it allows");
            None
        }
    }
}

/// Lets a guest finish its open answers, while new requests are refused.
async fn drain(shared: &Shared, running: &mut RunningEnclave, withdrawn: &Error) {
    tracing::error!(error = %withdrawn, open = shared.open_answers(), "the guest finishes its open answers");
    shared.status.send_modify(|status| {
        if let Status::Ready(ready) = status {
            *status = Status::Draining { ready: ready.clone(), why: withdrawn.to_string() };
        }
    });
    while shared.open_answers() > 0 && running.ended().is_none() {
        tokio::time::sleep(WATCH).await;
    }
}

/// Waits until the Registry allows an image.
async fn allowed_again(shared: &Shared, image: &Digest) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let params = ops::registry_params(shared.config.chain.as_ref(), &shared.config.registry).await;
        if params.is_ok_and(|params| params.images.contains(image)) {
            return;
        }
    }
}

fn announcement(shared: &Shared, attestation: &Attestation, statement: &[u8]) -> Announcement {
    Announcement {
        evidence_id: attestation.evidence_id.to_string(),
        host_url: shared.relay_url(),
        models: shared.config.model_names.clone(),
        provider: shared.config.provider,
        prices: shared.config.prices,
        bundle: STANDARD.encode(&attestation.bundle),
        key_statement: STANDARD.encode(statement),
    }
}

/// Tells every gateway at once. One that does not answer misses a heartbeat; the others list the enclave meanwhile.
async fn announce(shared: &Shared, announcement: &Announcement) {
    let Ok(body) = serde_json::to_vec(announcement) else { return };
    let body = Bytes::from(body);
    let time = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let announced = Announced::sign(&body, shared.config.network, time, &shared.config.owner_key).to_header();
    let headers = [("content-type", "application/json"), (announced_by::HEADER, announced.as_str())];
    let told = shared.config.gateway_urls.iter().map(|gateway| {
        let (url, body) = (format!("{gateway}{}", wire::ANNOUNCEMENTS_PATH), body.clone());
        async move {
            match shared.http.call_within(HEARTBEAT, Method::PUT, &url, &headers, body).await {
                Ok((status, _)) if status < 300 => {}
                Ok((status, body)) => {
                    let Refusal { error, what_to_do } = serde_json::from_slice(&body).unwrap_or_else(|_| Refusal {
                        error: "it says nothing more".into(),
                        what_to_do: String::new(),
                    });
                    tracing::warn!(url, status, what_to_do, "a gateway refused the announcement: {error}");
                }
                Err(error) => tracing::warn!(%error, "a gateway does not answer"),
            }
        }
    });
    join_all(told).await;
}
