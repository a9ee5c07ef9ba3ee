//! The proxy as programs meet it: beside another holder of the same channel, under load, from a browser, and asked wrongly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cocoon_tests::http;
use cocoon_tests::up::Up;
use serde_json::Value;

/// Sends one raw request; gives status and body.
fn raw(base: &str, request: &str) -> (u16, String) {
    let (status, answer) = raw_whole(base, request);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Sends one raw request; gives status and everything that came.
fn raw_whole(base: &str, request: &str) -> (u16, String) {
    let authority = base.trim_start_matches("http://").split('/').next().expect("an authority");
    let mut stream = TcpStream::connect(authority).expect("the proxy listens");
    stream.write_all(request.replace("{host}", authority).as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer)
}

fn post(host: &str, more: &str) -> String {
    let body = r#"{"model":"cocoon-demo","temperature":0,"messages":[{"role":"user","content":"What is Cocoon?"}]}"#;
    post_body(host, more, body)
}

fn post_body(host: &str, more: &str, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn code(body: &str) -> String {
    let json = body.find('{').map(|at| &body[at..=body.rfind('}').unwrap_or(at)]).unwrap_or_default();
    let value: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert!(value["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{body}");
    value["error"]["code"].as_str().unwrap_or_default().to_owned()
}

const JSON: &str = "content-type: application/json\r\n";

#[test]
fn what_comes_from_elsewhere_or_is_asked_wrongly_is_refused_in_openais_words() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let base = up.proxy();
    let good = raw(base, &post("{host}", JSON));
    assert_eq!(good.0, 200, "{}", good.1);
    assert_eq!(raw(base, &post("localhost", &format!("{JSON}origin: http://localhost:3000\r\n"))).0, 200);
    for (request, status, expected) in [
        (post("attacker.example", JSON), 403, "foreign_origin"),
        (post("{host}", &format!("{JSON}origin: http://attacker.example\r\n")), 403, "foreign_origin"),
        (post("{host}", &format!("{JSON}origin: null\r\n")), 403, "foreign_origin"),
        (post("{host}", "content-type: text/plain\r\n"), 415, "unsupported_media_type"),
        (
            "GET /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".into(),
            405,
            "method_not_allowed",
        ),
        ("GET /v2 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".into(), 404, "unknown_path"),
        (
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: {{host}}\r\n{JSON}connection: close\r\ncontent-length: 2000000\r\n\r\n{}",
                " ".repeat(2_000_000)
            ),
            413,
            "request_too_large",
        ),
    ] {
        let (found, body) = raw(base, &request);
        assert_eq!(found, status, "{}: {body}", &request[..80.min(request.len())]);
        assert_eq!(code(&body), expected);
    }
}

/// A response repeats the format that it was asked for: with a long one its last event takes several pieces of the sealed answer.
#[test]
fn a_long_last_event_comes_whole() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let schema = serde_json::json!({"type": "string", "enum": ["yes"], "description": "long ".repeat(8_000)});
    let body = serde_json::json!({"model": "cocoon-demo", "input": "x", "stream": true, "max_output_tokens": 20,
        "text": {"format": {"type": "json_schema", "name": "long", "schema": schema}}});
    let request = format!(
        "POST /v1/responses HTTP/1.0\r\nhost: {{host}}\r\n{JSON}content-length: {}\r\n\r\n{body}",
        body.to_string().len()
    );
    let (status, said) = raw(up.proxy(), &request);
    assert_eq!(status, 200, "{said}");
    let last = said.trim_end().rsplit("\n\n").next().unwrap();
    let (kind, event) = last.split_once("\ndata: ").expect("an event");
    assert_eq!(kind, "event: response.completed");
    let event: Value = serde_json::from_str(event).expect("the whole of it");
    assert_eq!(event["response"]["text"]["format"]["schema"], schema);
    assert_eq!(event["response"]["output"][0]["content"][0]["text"], "\"yes\"");
}

/// A schema that the engine cannot follow is refused in one way, streamed or not.
#[test]
fn a_schema_that_cannot_be_followed_is_refused_with_a_status() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let impossible = serde_json::json!({"type": "string", "pattern": "(unclosed"});
    let format = serde_json::json!({"type": "json_schema", "json_schema": {"name": "n", "schema": impossible}});
    let messages = serde_json::json!([{"role": "user", "content": "x"}]);
    let tool = serde_json::json!({"type": "function", "function":
        {"name": "f", "parameters": {"type": "object", "properties": {"a": impossible}}}});
    let cases = [
        ("chat/completions", serde_json::json!({"messages": messages, "response_format": format}), "response_format"),
        (
            "chat/completions",
            serde_json::json!({"messages": messages, "tools": [tool], "tool_choice": "required"}),
            "tools",
        ),
        (
            "responses",
            serde_json::json!({"input": "x", "text": {"format": {"type": "json_schema", "name": "n", "schema": impossible}}}),
            "text.format",
        ),
    ];
    for (path, mut body, param) in cases {
        for stream in [false, true] {
            body["model"] = "cocoon-demo".into();
            body["stream"] = stream.into();
            let request = format!(
                "POST /v1/{path} HTTP/1.0\r\nhost: {{host}}\r\n{JSON}content-length: {}\r\n\r\n{body}",
                body.to_string().len()
            );
            let (status, said) = raw_whole(up.proxy(), &request);
            assert_eq!(status, 400, "{path}, streamed {stream}: {said}");
            let (head, error) = said.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("application/json") && !head.contains("cocoon-receipt-id"), "{head}");
            let error: Value = serde_json::from_str(error).unwrap();
            assert_eq!(
                (&error["error"]["param"], &error["error"]["type"]),
                (&param.into(), &"invalid_request_error".into()),
                "{path}, streamed {stream}"
            );
        }
    }
}

/// Sequence and total, in nanoton, of the receipt of an answer, which the proxy gives by the answer's header; and what that answer cost.
fn receipt(base: &str, whole: &str) -> (u64, u64, u64) {
    let id =
        whole.lines().find_map(|line| line.strip_prefix("cocoon-receipt-id: ")).expect("a receipt's identifier").trim();
    let (status, body) = raw(base, &format!("GET /v1/receipts/{id} HTTP/1.0\r\nhost: {{host}}\r\n\r\n"));
    assert_eq!(status, 200, "{body}");
    let value: Value = serde_json::from_str(&body).unwrap();
    let number =
        |path: &str| value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} of {value}"));
    (number("/settlement/sequence"), number("/settlement/total_nanoton"), number("/charge_nanoton"))
}

fn ask(path: &str, body: &Value) -> String {
    format!(
        "POST /v1/{path} HTTP/1.0\r\nhost: {{host}}\r\n{JSON}content-length: {}\r\n\r\n{body}",
        body.to_string().len()
    )
}

/// The engine gives up on an answer, or its enclave is killed in the middle of one: neither is in the total that the enclave signs, in what the
/// client has verified, or in what the host can claim.
#[test]
fn an_answer_that_failed_is_not_charged() {
    let data = tempfile::tempdir().unwrap();
    let mut up = Up::start(data.path());
    let base = up.proxy().to_owned();
    let messages = serde_json::json!([{"role": "user", "content": "What is Cocoon?"}]);
    let good = serde_json::json!({"model": "cocoon-demo", "temperature": 0, "messages": messages});
    let paid = |expected: u64, before: u64| {
        let (status, whole) = raw_whole(&base, &ask("chat/completions", &good));
        assert_eq!(status, 200, "{whole}");
        let (sequence, total, charge) = receipt(&base, &whole);
        assert_eq!(
            (sequence, total),
            (expected, before + charge),
            "nothing but this answer was charged since the last"
        );
        assert!(charge > 0);
        total
    };
    let first = paid(1, 0);
    let format = |schema: Value| {
        let format = serde_json::json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        serde_json::json!({"model": "cocoon-demo", "temperature": 0, "messages": messages, "response_format": format})
    };
    for stream in [false, true] {
        let mut body = format(serde_json::json!({"type": "string", "pattern": "(unclosed"}));
        body["stream"] = stream.into();
        let (status, whole) = raw_whole(&base, &ask("chat/completions", &body));
        assert!(status == 400 && !whole.contains("cocoon-receipt-id"), "{whole}");
    }
    let second = paid(2, first);

    // An answer that could go on for long, and whose enclave does not live as long.
    let mut long = good.clone();
    (long["stream"], long["logit_bias"]) = (true.into(), serde_json::json!({"0": -100, "2": -100}));
    let authority = base.trim_start_matches("http://").split('/').next().unwrap();
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.write_all(ask("chat/completions", &long).replace("{host}", authority).as_bytes()).unwrap();
    let (mut come, mut piece) = (Vec::new(), [0; 4_096]);
    while come.len() < 4_096 {
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&come));
        come.extend_from_slice(&piece[..length]);
    }
    let killed = Command::new("kill").args(["-KILL", &up.enclave_pid().to_string()]).status().unwrap();
    assert!(killed.success());
    stream.read_to_end(&mut come).unwrap();
    let come = String::from_utf8_lossy(&come).into_owned();
    assert!(!come.contains("[DONE]") && come.contains(r#""code":"answer_broken""#), "{come}");
    let id =
        come.lines().find_map(|line| line.strip_prefix("cocoon-receipt-id: ")).expect("announced before it failed");
    let (status, body) = raw(&base, &format!("GET /v1/receipts/{} HTTP/1.0\r\nhost: {{host}}\r\n\r\n", id.trim()));
    assert_eq!((status, code(&body).as_str()), (404, "receipt_not_found"));

    assert_eq!(up.interrupt(), Some(0));
    let client = cocoon_client::state::State::open(&data.path().join("client/client.redb")).unwrap();
    let host = cocoon_host::store::Store::open(&data.path().join("host/host.redb")).unwrap();
    let charged: Vec<_> = client
        .accounts()
        .unwrap()
        .into_iter()
        .map(|(channel, enclave, account)| {
            let kept = host.receipt(&channel, &enclave).unwrap().map(|kept| kept.receipt.total.0);
            (account.total.0, kept)
        })
        .filter(|charged| *charged != (0, None))
        .collect();
    assert_eq!(
        charged,
        [(second, Some(second))],
        "client and host hold the two answers that were whole, and nothing else"
    );
}

#[test]
fn sixteen_requests_at_once_are_all_answered_whole() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let asking: Vec<_> = (0..16)
        .map(|_| {
            let proxy = up.proxy().to_owned();
            std::thread::spawn(move || raw(&proxy, &post("{host}", JSON)))
        })
        .collect();
    for thread in asking {
        let (status, body) = thread.join().unwrap();
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(r#""finish_reason":"stop""#), "{body}");
    }
}

struct Proxy(Child, String);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `cocoon proxy` in a process of its own.
fn proxy(config: &Path) -> Proxy {
    let mut child = Command::new(cocoon_tests::cocoon_binary())
        .args(["proxy", "--listen", "127.0.0.1:0", "--config"])
        .arg(config)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the cocoon binary runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let base = line.trim().rsplit(' ').next().unwrap().to_owned();
    Proxy(child, base)
}

/// A warning before the limit, all that fits under it, a clear refusal at it, and nothing spent beyond.
#[test]
fn spending_has_a_limit() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let config: toml::Table = std::fs::read_to_string(data.path().join("client.toml")).unwrap().parse().unwrap();
    let step = config["voucher_step"].as_integer().unwrap();
    // It costs all that is set aside for it.
    let eight = r#"{"model":"cocoon-demo","temperature":0,"max_tokens":8,"messages":[{"role":"user","content":"What is Cocoon?"}]}"#;
    let limited = |name: &str, limit: i64| {
        let mut limited = config.clone();
        limited.insert("spending_limit".into(), limit.into());
        limited.insert("data".into(), name.into());
        let path = data.path().join(format!("{name}.toml"));
        std::fs::write(&path, limited.to_string()).unwrap();
        proxy(&path)
    };
    let ask = |proxy: &Proxy| raw_whole(&proxy.1, &post_body("{host}", JSON, eight));
    let answer = |name: &str, limit: i64| ask(&limited(name, limit));
    let much = limited("much", 10 * step);
    let (status, whole) = ask(&much);
    assert!(status == 200 && !whole.contains("cocoon-spending-warning"), "{whole}");
    let (status, whole) = answer("near", step + step / 10);
    assert!(status == 200 && whole.contains("cocoon-spending-warning"), "{whole}");
    let receipt = |proxy: &Proxy, whole: &str| -> (i64, i64) {
        let id = whole.lines().find_map(|line| line.strip_prefix("cocoon-receipt-id: ")).expect("a receipt").trim();
        let (status, body) = raw(&proxy.1, &format!("GET /v1/receipts/{id} HTTP/1.0\r\nhost: {{host}}\r\n\r\n"));
        let receipt: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{status} {error}: {body}"));
        let number = |value: &Value| value.as_i64().expect("nanoton");
        (number(&receipt["charge_nanoton"]), number(&receipt["settlement"]["total_nanoton"]))
    };
    let (status, whole) = ask(&much);
    assert_eq!(status, 200, "{whole}");
    let (charge, total) = receipt(&much, &whole);
    drop(much);
    // Far less than a step, and room for three more answers. This proxy knows nothing of what the other ones spent.
    let limit = total + 3 * charge + charge / 2;
    assert!(charge > 1 && limit < step / 2, "{limit} of {step}");
    let little = limited("little", limit);
    for number in 1..=3 {
        let (status, whole) = ask(&little);
        assert_eq!(status, 200, "answer {number}: {whole}");
        assert!(whole.contains("cocoon-spending-warning"), "{whole}");
        assert_eq!(receipt(&little, &whole), (charge, total + number * charge));
    }
    for _ in 0..2 {
        let (status, whole) = ask(&little);
        assert_eq!(status, 402, "{whole}");
        assert_eq!(code(&whole), "spending_limit_reached");
    }
    drop(little);
    let (status, whole) = answer("after", 10 * step);
    assert_eq!(status, 200, "{whole}");
    drop(up);
}

/// `cocoon proxy` in a process of its own shares the channel with `cocoon up`'s client and knows nothing of what that spent.
#[test]
fn a_second_proxy_on_the_same_channel_is_answered_at_once() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    for _ in 0..40 {
        http::chat(up.proxy(), "How am I charged?").expect("an answer");
    }
    let proxy = proxy(&data.path().join("client.toml"));
    for _ in 0..3 {
        let (status, body) = raw(&proxy.1, &post("{host}", JSON));
        assert_eq!(status, 200, "{body}");
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let mut up = Up::start(data.path());
    assert_eq!(up.interrupt(), Some(0));
    let path = data.path().join("client.toml");
    let good: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    let cases: [(&str, toml::Value, &str); 6] = [
        ("gateways", toml::Value::Array(Vec::new()), "`gateways` is empty"),
        ("gateways", toml::Value::Array(vec!["foo".into()]), "no http:// URL"),
        ("required_logs", 99.into(), "`required_logs` is 99"),
        ("voucher_step", 0.into(), "`voucher_step`"),
        ("network", (-1).into(), "`network` is -1"),
        ("unknown", 1.into(), "unknown field"),
    ];
    for (key, value, expected) in cases {
        let mut bad = good.clone();
        bad.insert(key.into(), value);
        let bad_path = data.path().join("bad.toml");
        std::fs::write(&bad_path, bad.to_string()).unwrap();
        let child = Command::new(cocoon_tests::cocoon_binary())
            .args(["proxy", "--listen", "127.0.0.1:0", "--config"])
            .arg(&bad_path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut proxy = Proxy(child, String::new());
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match proxy.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "{key}: it serves"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        proxy.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!status.success() && said.contains(expected), "{key}: {said}");
    }
}
