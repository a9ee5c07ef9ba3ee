//! How long a prompt takes must not tell whether somebody has sent the same before: a cache of prompts that all channels share would say so.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::enclave::{Enclave, in_turn};
use super::world::Client;

/// Words of one token each, or nearly.
const WORDS: [&str; 16] =
    ["the", "prompt", "who", "read", "can", "what", "is", "key", "one", "for", "how", "are", "my", "and", "not", "to"];
const LENGTH: usize = 800;
const TIMES: usize = 6;
/// Tokens of an answer: few beside the time that its prompt takes.
const TOKENS: u64 = 4;

/// A prompt that differs from the others from its first words on, and has the same words.
fn prompt(number: usize) -> String {
    let mut order: Vec<&str> = WORDS.to_vec();
    let mut state = number as u64 + 1;
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
    order.iter().cycle().take(LENGTH).copied().collect::<Vec<_>>().join(" ")
}

/// A prompt with another end each round. mistral.rs's own cache serves what goes on behind something that it has kept, and not the very same
/// prompt, as the control below has shown.
fn ending(prompt: &str, round: usize) -> String {
    format!("{prompt} {}", WORDS[round])
}

/// Time until the short answer to a long prompt is there, and the tokens of the prompt.
fn answer_time(enclave: &Enclave, client: &Client, prompt: &str) -> (Duration, u64) {
    let body = json!({"model": "cocoon-demo", "temperature": 0, "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": prompt}]});
    let sealed = client.seal(&enclave.evidence, "POST", "/v1/chat/completions", &body.to_string());
    let started = Instant::now();
    let answer = enclave.ask(sealed);
    let took = started.elapsed();
    assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let receipt = answer.receipt.as_ref().unwrap().receipt.tokens;
    let usage = &answer.json()["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0), 0);
    assert_eq!((receipt.cached, usage["prompt_tokens"].as_u64()), (0, Some(receipt.prompt)));
    (took, receipt.prompt)
}

/// The least share of a new prompt's time that a repeated one takes where nothing is kept; where the whole prompt is, it takes far less.
const LEAST: f64 = 0.7;

/// mistral.rs with its own cache of prompts, in a process of its own.
struct Cached {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Cached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cached {
    fn start() -> Self {
        let mut child = Command::new(cocoon_tests::enclave_binary())
            .args([
                "bench-engine",
                "--raw",
                "--prefixes",
                "64",
                "--prompt",
                "unused",
                "--max-tokens",
                &TOKENS.to_string(),
            ])
            .arg("--model")
            .arg(cocoon_tests::demo_model())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn first_token(&mut self, prompt: &str) -> Duration {
        writeln!(self.input, "1 {prompt}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        Duration::from_micros(answer["answers"][0]["ttft_us"].as_u64().unwrap())
    }
}

/// The control: where there is such a cache, the same prompts tell by the same measure.
#[test]
fn with_a_cache_of_prompts_the_same_measure_tells() {
    let _turn = in_turn();
    let mut engine = Cached::start();
    engine.first_token(&prompt(1));
    let secret = prompt(0);
    engine.first_token(&secret);
    let (mut repeated, mut fresh) = (Vec::new(), Vec::new());
    for round in 0..TIMES {
        repeated.push(engine.first_token(&ending(&secret, round)));
        fresh.push(engine.first_token(&ending(&prompt(2 + round), round)));
    }
    let (repeated, fresh) = (median(repeated), median(fresh));
    println!("with a cache: {repeated:?} again, {fresh:?} new");
    assert!(repeated < fresh.mul_f64(LEAST), "the cache does not show: {repeated:?} again, {fresh:?} new");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_prompt_that_somebody_sent_before_takes_as_long_as_a_new_one() {
    let _turn = in_turn();
    let enclave = Enclave::shared();
    // Whose prompt it is, who wants to know, and who warms the engine up.
    let [theirs, curious, warm] = [90, 91, 92].map(|number| Client::new(&enclave.evidence, number));
    answer_time(enclave, &warm, &prompt(1));
    let secret = prompt(0);
    let (_, tokens) = answer_time(enclave, &theirs, &secret);
    assert!(tokens >= 600, "{tokens} tokens are too few to be worth a cache");
    let (mut repeated, mut fresh) = (Vec::new(), Vec::new());
    for round in 0..TIMES {
        repeated.push(answer_time(enclave, &curious, &ending(&secret, round)).0);
        let (took, length) = answer_time(enclave, &curious, &ending(&prompt(2 + round), round));
        assert!(length.abs_diff(tokens) <= 4, "prompts of one length are compared: {length} and {tokens}");
        fresh.push(took);
    }
    let (repeated, fresh) = (median(repeated), median(fresh));
    println!("{tokens} tokens: {repeated:?} again, {fresh:?} new");
    assert!(repeated >= fresh.mul_f64(LEAST), "{repeated:?} for a prompt sent before, {fresh:?} for a new one");
}
