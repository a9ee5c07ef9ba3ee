//! What the path does besides generating: once per request, once per token, once per enclave.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use cocoon_attestation::UnixTime;
use cocoon_cli::network::Network;
use cocoon_client::{Appraised, SystemClock};
use cocoon_protocol::identity::{self, SigningKey};
use cocoon_protocol::sealed::{InnerRequest, Receiver, RequestSealer};
use cocoon_protocol::statement::KeyStatement;
use http_body_util::{BodyExt, Full};
use hyper::Request;

use crate::ways::{Http, body, percentile};

fn micros(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(500);
    for _ in 0..500 {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed());
    }
    Ok(percentile(times, 50).as_secs_f64() * 1e6)
}

/// What a relay costs that does nothing at all: the same number of pieces as an answer has, one every half millisecond, straight
/// from their source and through one more HTTP server; the difference of the medians, in microseconds.
pub async fn hop(http: &Http, pieces: u64) -> Result<f64> {
    async fn serve(router: axum::Router) -> Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(cocoon_host::no_delay(listener), router).await });
        Ok(url)
    }
    let source = move || async move {
        let pieces = futures::stream::unfold(0, move |n| async move {
            if n == pieces {
                return None;
            }
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_micros(500))).await.ok()?;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 300])), n + 1))
        });
        axum::body::Body::from_stream(pieces)
    };
    let source = serve(axum::Router::new().route("/", axum::routing::post(source))).await?;
    let (client, target) = (http.clone(), source.clone());
    let relay = move || {
        let (client, target) = (client.clone(), target.clone());
        async move {
            let request =
                Request::post(target).body(Full::new(Bytes::new())).map_err(|_| hyper::StatusCode::BAD_GATEWAY)?;
            let answer = client.request(request).await.map_err(|_| hyper::StatusCode::BAD_GATEWAY)?;
            Ok::<_, hyper::StatusCode>(axum::body::Body::new(answer.into_body()))
        }
    };
    let relay = serve(axum::Router::new().route("/", axum::routing::post(relay))).await?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        for (times, url) in times.iter_mut().zip([&source, &relay]) {
            let started = Instant::now();
            let request = Request::post(url).body(Full::new(Bytes::from(vec![b'x'; 2_000])))?;
            http.request(request).await?.into_body().collect().await?;
            times.push(started.elapsed());
        }
    }
    let [direct, relayed] = times.map(|times| percentile(times, 50).as_secs_f64() * 1e6);
    Ok(relayed - direct)
}

/// What the path does besides generating: once per request, and once per token.
pub fn components(enclave: &Appraised, hop: f64) -> Result<()> {
    let receiver = Receiver::new();
    let epoch = receiver.rotate(UnixTime(0), 3_600, 60)?;
    let statement = KeyStatement {
        key_config: epoch.key_config,
        not_before: epoch.not_before,
        not_after: epoch.not_after,
        ..enclave.statement.clone()
    };
    let request =
        InnerRequest { method: "POST".into(), path: "/".into(), headers: Vec::new(), body: body(None, false).into() };
    let seal = || -> Result<Vec<u8>> { Ok(RequestSealer::new(&statement)?.seal(&request)?.0) };
    let sealing = micros(|| seal().map(drop))?;
    let mut sealed = (0..500).map(|_| seal()).collect::<Result<Vec<_>>>()?;
    let opening =
        micros(|| receiver.open(&sealed.pop().context("a request")?, UnixTime(0)).map(drop).context("opening"))?;
    let mut sealer = receiver.open(&seal()?, UnixTime(0))?.sealer;
    let chunk = micros(|| sealer.data(&[b'x'; 200]).map(drop).context("sealing"))?;
    let key = SigningKey::generate()?;
    let signing = micros(|| {
        std::hint::black_box(key.sign(&[7; 32]));
        Ok(())
    })?;
    let (signature, public) = (key.sign(&[7; 32]), key.public());
    let verifying = micros(|| identity::verify("a bench", &public, &[7; 32], &signature).context("verifying"))?;
    let folder = tempfile::tempdir()?;
    let mut file = std::fs::File::create(folder.path().join("synced"))?;
    let syncing = micros(|| {
        file.write_all(&[7; 512])?;
        Ok(file.sync_data()?)
    })?;
    println!("\n| part | us, p50 | how often |\n|---|---|---|");
    for (part, time, often) in [
        ("seal a request (X-Wing, client)", sealing, "once"),
        ("open a request (X-Wing, enclave)", opening, "once"),
        (
            "verify an Ed25519 signature",
            verifying,
            "voucher in host and enclave, request, settlement receipt in host and client, full receipt",
        ),
        ("make an Ed25519 signature", signing, "request, settlement receipt, full receipt"),
        ("seal one streamed token's record", chunk, "per token"),
        ("write 512 bytes and sync them to disk", syncing, "the receipt, once"),
        ("pass an answer's pieces through one bare HTTP relay", hop, "per answer: host, gateway, proxy"),
    ] {
        println!("| {part} | {time:.1} | {often} |");
    }
    Ok(())
}

/// What a client does once per enclave.
pub fn appraisals(network: &Network) -> Result<()> {
    let announcement = network.host.announcement().context("an announcement")?;
    let bundle = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &announcement.bundle)?;
    let config = network.client.config();
    let times: Vec<Duration> = (0..200)
        .map(|_| {
            let started = Instant::now();
            let result = cocoon_verifier::appraise_bundle(
                &bundle,
                &config.policy,
                config.references.as_ref(),
                SystemClock::time(),
            );
            assert_eq!(result.appraisal.outcome, cocoon_verifier::Outcome::Accepted);
            started.elapsed()
        })
        .collect();
    println!(
        "\nAppraising a TDX bundle from nothing: {:.2} ms at the median.",
        percentile(times, 50).as_secs_f64() * 1e3
    );
    Ok(())
}
