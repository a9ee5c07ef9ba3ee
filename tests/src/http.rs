//! The least of HTTP that a test needs: one request, one connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Sends a chat completion to a proxy and reads the whole stream. `None` unless it came to its end, `[DONE]`.
pub fn chat(base: &str, prompt: &str) -> Option<String> {
    let address = base.strip_prefix("http://")?.split('/').next()?;
    let body = serde_json::json!({
        "model": "cocoon-demo", "stream": true, "temperature": 0,
        "messages": [{"role": "user", "content": prompt}],
    })
    .to_string();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    (answer.starts_with("HTTP/1.0 200") && answer.ends_with("data: [DONE]\n\n")).then_some(answer)
}
