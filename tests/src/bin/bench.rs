//! `make bench`: the whole path against mistral.rs called in-process, in the same run, and where the difference goes.
//!
//! Ways are measured in turn, one request each, so that a machine that slows down slows all of them. Figures are medians.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use cocoon_attestation::UnixTime;
use cocoon_cli::data::DataDir;
use cocoon_cli::network::{Network, Options, Tee};
use cocoon_cli::ui::{Output, Ui};
use cocoon_client::{Appraised, Client, SystemClock};
use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_protocol::identity::{self, SigningKey};
use cocoon_protocol::sealed::{InnerRequest, Receiver, RequestSealer};
use cocoon_protocol::statement::KeyStatement;
use cocoon_protocol::wire;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

const PROMPT: &str = "Who can read my prompt?";
const WARM_UP: usize = 20;

type Http = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// One answer: time to its first text, time to its end, tokens.
#[derive(Clone, Copy)]
struct Sample {
    first: Duration,
    total: Duration,
    tokens: u64,
}

/// mistral.rs called in a process of its own, a request for each line.
struct InProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl InProcess {
    fn start() -> Result<Self> {
        let mut child = Command::new(cocoon_tests::enclave_binary())
            .args(["bench-engine", "--prompt", PROMPT, "--model"])
            .arg(cocoon_tests::demo_model())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().context("piped")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self) -> Result<Sample> {
        writeln!(self.input)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let value: Value = serde_json::from_str(&line).context("the engine's baseline")?;
        let micros = |name: &str| value[name].as_u64().map(Duration::from_micros).context("a time");
        Ok(Sample {
            first: micros("ttft_us")?,
            total: micros("total_us")?,
            tokens: value["tokens"].as_u64().context("tokens")?,
        })
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn body(stream: bool) -> Vec<u8> {
    let message = json!({"role": "user", "content": PROMPT});
    json!({"model": "cocoon-demo", "messages": [message], "temperature": 0, "stream": stream}).to_string().into_bytes()
}

/// Whether a piece of the stream carries text: the first event only names the role.
fn has_text(piece: &[u8]) -> bool {
    String::from_utf8_lossy(piece)
        .split("\n\n")
        .any(|event| event.contains("\"content\":\"") && !event.contains("\"content\":\"\""))
}

/// Through the SDK to a relay: the host's or a gateway's.
async fn sdk(client: &Arc<Client>, enclave: &Appraised, relay: &str) -> Result<Sample> {
    let started = Instant::now();
    let enclave = Appraised { gateway: relay.to_owned(), ..enclave.clone() };
    let voucher = client.voucher(&enclave).await?;
    let call = client.seal(&enclave, voucher, "POST", "/v1/chat/completions", body(true))?;
    let mut answer = client.send(call).await?;
    let mut first = None;
    while let Some(piece) = answer.next().await? {
        if first.is_none() && has_text(&piece) {
            first = Some(started.elapsed());
        }
    }
    let receipt = answer.finish().await?.context("a receipt")?.receipt;
    Ok(Sample { first: first.context("text")?, total: started.elapsed(), tokens: receipt.tokens.completion })
}

/// Sealed, straight to the enclave: no host, no gateway.
async fn enclave_alone(http: &Http, client: &Arc<Client>, enclave: &Appraised, url: &str) -> Result<Sample> {
    let started = Instant::now();
    let voucher = client.voucher(enclave).await?;
    let call = client.seal(enclave, voucher.clone(), "POST", "/v1/chat/completions", body(true))?;
    let request = Request::post(format!("{url}{}", wire::SEALED_PATH))
        .header(wire::ENCLAVE_HEADER, enclave.evidence_id.to_string())
        .header(wire::VOUCHER_HEADER, voucher.to_header())
        .body(Full::new(Bytes::from(call.body.clone())))?;
    let mut frames = http.request(request).await?.into_body().into_data_stream();
    let mut decoder = Decoder::new();
    let (mut sealed, mut arrivals) = (Vec::new(), Vec::new());
    while let Some(piece) = frames.next().await {
        decoder.push(&piece?);
        while let Some(frame) = decoder.next_frame()? {
            if let Frame::Sealed(bytes) = frame {
                sealed.push(bytes);
                arrivals.push(started.elapsed());
            }
        }
    }
    // Head, role, then text: the third sealed frame.
    let first = *arrivals.get(2).context("text")?;
    Ok(Sample { first, total: started.elapsed(), tokens: 0 })
}

/// Through the proxy, as an OpenAI client would.
async fn proxy(http: &Http, url: &str) -> Result<Sample> {
    let started = Instant::now();
    let request = Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body(true))))?;
    let mut pieces = http.request(request).await?.into_body().into_data_stream();
    let mut first = None;
    while let Some(piece) = pieces.next().await {
        if has_text(&piece?) && first.is_none() {
            first = Some(started.elapsed());
        }
    }
    Ok(Sample { first: first.context("text")?, total: started.elapsed(), tokens: 0 })
}

fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

struct Way {
    name: &'static str,
    samples: Vec<Sample>,
}

impl Way {
    fn first(&self, percent: usize) -> f64 {
        percentile(self.samples.iter().map(|sample| sample.first).collect(), percent).as_secs_f64() * 1e3
    }

    fn total(&self) -> f64 {
        percentile(self.samples.iter().map(|sample| sample.total).collect(), 50).as_secs_f64() * 1e3
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let runs: usize = std::env::args().nth(1).map_or(Ok(200), |text| text.parse()).context("the number of runs")?;
    let folder = tempfile::tempdir()?;
    let data = DataDir::open(folder.path())?;
    let options = Options {
        enclave: cocoon_tests::enclave_binary(),
        model: cocoon_tests::demo_model(),
        tee: Tee::Tdx,
        tap: None,
        claims: None,
        ui: Ui::new(Output::Json),
    };
    let network = Network::start(&data, options).await?;
    let ready = network.host.ready(Duration::from_secs(60)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let proxy_url = format!("http://{}", listener.local_addr()?);
    let router = network.proxy();
    tokio::spawn(async move { axum::serve(cocoon_host::no_delay(listener), router).await });
    let http = http();
    let (enclaves, _) = network.client.enclaves().await?;
    let enclave = enclaves.into_iter().next().context("an enclave")?;
    let mut engine = InProcess::start()?;

    let names = ["mistral.rs in-process", "enclave, sealed", "+ host", "+ gateway", "+ proxy (OpenAI's API)"];
    let mut ways: Vec<Way> = names.into_iter().map(|name| Way { name, samples: Vec::new() }).collect();
    let mut tokens = 0;
    for run in 0..WARM_UP + runs {
        let base = tokio::task::block_in_place(|| engine.ask())?;
        tokens = base.tokens;
        let round = [
            base,
            enclave_alone(&http, &network.client, &enclave, &ready.base_url).await?,
            sdk(&network.client, &enclave, &network.host.url()).await?,
            sdk(&network.client, &enclave, &network.urls.gateway).await?,
            proxy(&http, &proxy_url).await?,
        ];
        if run >= WARM_UP {
            for (way, sample) in ways.iter_mut().zip(round) {
                way.samples.push(sample);
            }
        }
    }
    println!("*** {} ***\n", cocoon_cli::ui::NOT_CONFIDENTIAL);
    println!("Demo model, {tokens} tokens an answer, {runs} answers each way in turn, one at a time.\n");
    println!("| way | TTFT p50, ms | TTFT p99, ms | answer p50, ms | tokens/s | tokens/s against in-process |");
    println!("|---|---|---|---|---|---|");
    let base = ways[0].total();
    for way in &ways {
        let total = way.total();
        println!(
            "| {} | {:.2} | {:.2} | {total:.2} | {:.0} | {:.3} |",
            way.name,
            way.first(50),
            way.first(99),
            tokens as f64 / total * 1e3,
            base / total
        );
    }
    components(&enclave, hop(&http, tokens).await?)?;
    appraisals(&network)?;
    println!("\nEvidence was appraised {} times for {} requests.", network.client.appraisals(), (WARM_UP + runs) * 4);
    network.stop().await;
    Ok(())
}

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
async fn hop(http: &Http, pieces: u64) -> Result<f64> {
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
fn components(enclave: &Appraised, hop: f64) -> Result<()> {
    let receiver = Receiver::new();
    let epoch = receiver.rotate(UnixTime(0), 3_600, 60)?;
    let statement = KeyStatement {
        key_config: epoch.key_config,
        not_before: epoch.not_before,
        not_after: epoch.not_after,
        ..enclave.statement.clone()
    };
    let request = InnerRequest { method: "POST".into(), path: "/".into(), headers: Vec::new(), body: body(true) };
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
fn appraisals(network: &Network) -> Result<()> {
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
