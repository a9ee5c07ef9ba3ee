//! Keeps one enclave running, attested and announced.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cocoon_protocol::wire::{self, Announcement, EnclaveEvidence};
use hyper::Method;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attest::{Attestation, Parties, attest};
use crate::back_off::BackOff;
use crate::launch::{LaunchSpec, RunningEnclave};
use crate::{Error, Ready, Shared, Status, room};

/// How often the guest's process is looked at.
const WATCH: Duration = Duration::from_millis(100);
/// How often gateways are told, and the key statement is read again.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub(crate) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut back_off = BackOff::default();
    while !*stop.borrow() {
        let started = Instant::now();
        let why = tokio::select! {
            result = live(&shared) => match result { Ok(never) => match never {}, Err(error) => error.to_string() },
            _ = stop.changed() => break,
        };
        tracing::warn!(why, "the enclave is started again");
        shared.status.send_replace(Status::Starting { why: Some(why) });
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
    let renew = Instant::now() + Duration::from_secs(lifetime * 2 / 3);
    let end = Instant::now() + Duration::from_secs(lifetime);
    let mut statement = attestation.statement.clone();
    loop {
        let announcement = announcement(shared, &attestation, &statement.to_bytes());
        shared.status.send_replace(Status::Ready(Box::new(Ready {
            evidence_id: attestation.evidence_id,
            enclave_key: attestation.claims.enclave_key,
            pid: running.pid(),
            base_url: running.base_url.clone(),
            announcement: announcement.clone(),
        })));
        announce(shared, &announcement).await;
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
        if Instant::now() >= renew {
            match attest(&parties(shared), &running.base_url).await {
                Ok(renewed) => return Ok(renewed),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(error) => tracing::warn!(%error, "the attestation could not be renewed yet"),
            }
        }
        let url = format!("{}{}", running.base_url, wire::EVIDENCE_PATH);
        match shared.http.call(Method::GET, &url, &[], Bytes::new()).await {
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

/// Tells every gateway. One that does not answer misses a heartbeat; the others list the enclave meanwhile.
async fn announce(shared: &Shared, announcement: &Announcement) {
    let Ok(body) = serde_json::to_vec(announcement) else { return };
    for gateway in &shared.config.gateway_urls {
        let url = format!("{gateway}{}", wire::ANNOUNCEMENTS_PATH);
        let headers = [("content-type", "application/json")];
        match shared.http.call(Method::PUT, &url, &headers, body.clone().into()).await {
            Ok((status, _)) if status < 300 => {}
            Ok((status, _)) => tracing::warn!(url, status, "a gateway refused the announcement"),
            Err(error) => tracing::warn!(%error, "a gateway does not answer"),
        }
    }
}
