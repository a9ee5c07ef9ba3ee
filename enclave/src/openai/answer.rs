//! Answers in OpenAI's shapes, whole and streamed.

use cocoon_engine::{FinishReason, Logprob};
use cocoon_protocol::receipt::TokenCounts;
use serde_json::{Value, json};

use super::ApiError;
use super::request::Style;
use super::tools::{Call, Piece};

/// Scores of one token: its own and the likeliest ones'.
pub type Scores = (Logprob, Vec<Logprob>);

/// What one choice has said.
#[derive(Default)]
pub struct Said {
    text: String,
    thoughts: String,
    /// Characters of text, which old log-probabilities count by.
    characters: usize,
    calls: Vec<(String, Call)>,
    called: usize,
    /// Scores, as chats have them: JSON with commas between.
    chat_scores: String,
    /// Scores, as completions have them.
    scores: Vec<Scores>,
    reason: &'static str,
}

/// How a choice ended, in OpenAI's words.
pub fn reason_text(reason: FinishReason, calls: usize) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop if calls > 0 => "tool_calls",
        FinishReason::Stop => "stop",
    }
}

/// One answer as it is written.
pub struct Answer {
    /// OpenAI's identifier; the receipt is found by it.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    style: Style,
    include_usage: bool,
    repeated: Value,
    said: Vec<Said>,
    /// Whether what was said is kept for [`Self::whole`].
    kept: bool,
    /// Bytes that it has grown by since [`Self::grown`] was asked.
    grown: usize,
    items: Vec<Value>,
    open: Option<Open>,
    sequence: u64,
}

/// An item of a response that is being streamed.
struct Open {
    id: String,
    thought: bool,
    text: String,
}

/// A random identifier with OpenAI's prefix.
pub fn identifier(prefix: &str) -> String {
    let mut random = [0; 12];
    // Without randomness identifiers repeat; nothing rests on them.
    let _ = getrandom::fill(&mut random);
    format!("{prefix}{}", hex::encode(random))
}

/// The end of a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

impl Answer {
    /// An answer of so many choices.
    pub fn new(style: Style, model: &str, created: u64, choices: usize, include_usage: bool, repeated: Value) -> Self {
        let prefix = match style {
            Style::Chat => "chatcmpl-",
            Style::Completion => "cmpl-",
            Style::Response => "resp_",
        };
        Self {
            id: identifier(prefix),
            created,
            model: model.to_owned(),
            style,
            include_usage,
            repeated,
            said: (0..choices).map(|_| Said::default()).collect(),
            kept: true,
            grown: 0,
            items: Vec::new(),
            open: None,
            sequence: 0,
        }
    }

    /// One that is only streamed: it is not kept, and there is no whole of it.
    pub fn not_kept(self) -> Self {
        Self { kept: false, ..self }
    }

    /// Bytes that what is kept has grown by since this was asked last, roughly.
    pub fn grown(&mut self) -> usize {
        std::mem::take(&mut self.grown)
    }

    fn event(&mut self, kind: &str, mut value: Value) -> Vec<u8> {
        value["type"] = kind.into();
        value["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        format!("event: {kind}\ndata: {value}\n\n").into_bytes()
    }

    fn chunk(&self, choice: Value) -> Vec<u8> {
        let object = if self.style == Style::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk =
            json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": [choice]});
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }

    fn delta(&self, choice: usize, delta: Value, scores: Option<&Scores>) -> Vec<u8> {
        let scores = scores.map(|scores| json!({"content": [chat_score(scores)], "refusal": null}));
        self.chunk(json!({"index": choice, "delta": delta, "logprobs": scores, "finish_reason": null}))
    }

    /// The beginning of a stream.
    pub fn begin(&mut self) -> Vec<u8> {
        match self.style {
            Style::Chat => {
                let role = || json!({"role": "assistant", "content": "", "refusal": null});
                (0..self.said.len()).flat_map(|choice| self.delta(choice, role(), None)).collect()
            }
            Style::Completion => Vec::new(),
            Style::Response => {
                let response = json!({"response": self.response("in_progress", None)});
                let created = self.event("response.created", response.clone());
                [created, self.event("response.in_progress", response)].concat()
            }
        }
    }

    /// Writes down what a choice said, and gives it as a stream has it.
    pub fn pieces(&mut self, choice: usize, pieces: Vec<Piece>, scores: Option<Scores>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut scores_left = scores.as_ref();
        for piece in pieces {
            match (self.style, &piece) {
                (Style::Chat, Piece::Text(text)) => {
                    out.extend(self.delta(choice, json!({"content": text}), scores_left.take()));
                }
                (Style::Chat, Piece::Thought(text)) => {
                    out.extend(self.delta(choice, json!({"reasoning_content": text}), scores_left.take()));
                }
                (Style::Completion, Piece::Text(text)) => {
                    let scores = scores_left.take().map(|scores| {
                        self.completion_scores(std::slice::from_ref(scores), self.said[choice].characters)
                    });
                    out.extend(
                        self.chunk(json!({"index": choice, "text": text, "logprobs": scores, "finish_reason": null})),
                    );
                }
                (Style::Response, Piece::Text(text)) => out.extend(self.streamed(false, text)),
                (Style::Response, Piece::Thought(text)) => out.extend(self.streamed(true, text)),
                _ => {}
            }
            let (style, kept) = (self.style, self.kept);
            match piece {
                Piece::Text(text) => {
                    self.said[choice].characters += text.chars().count();
                    if kept {
                        self.said[choice].text.push_str(&text);
                        self.grown += text.len();
                    }
                }
                Piece::Thought(text) if kept => {
                    self.said[choice].thoughts.push_str(&text);
                    self.grown += text.len();
                }
                Piece::Thought(_) => {}
                Piece::Call(call) => {
                    let id = identifier("call_");
                    if style == Style::Chat {
                        let index = self.said[choice].called;
                        let mut value = chat_call(&id, &call);
                        value["index"] = index.into();
                        out.extend(self.delta(choice, json!({"tool_calls": [value]}), None));
                    }
                    if style == Style::Response {
                        out.extend(self.streamed_call(&id, &call));
                    }
                    self.said[choice].called += 1;
                    if kept {
                        self.grown += call.name.len() + call.arguments.len();
                        self.said[choice].calls.push((id, call));
                    }
                }
            }
        }
        // The scores of a token whose text waits for the next one.
        match (scores_left, self.style) {
            (Some(scores), Style::Chat) => out.extend(self.delta(choice, json!({"content": ""}), Some(scores))),
            (Some(scores), Style::Completion) => {
                let scores = self.completion_scores(std::slice::from_ref(scores), self.said[choice].characters);
                out.extend(self.chunk(json!({"index": choice, "text": "", "logprobs": scores, "finish_reason": null})));
            }
            (None, _) | (_, Style::Response) => {}
        }
        if let Some(scores) = scores.filter(|_| self.kept) {
            self.keep_scores(choice, scores);
        }
        out
    }

    fn keep_scores(&mut self, choice: usize, scores: Scores) {
        let said = &mut self.said[choice];
        match self.style {
            Style::Chat => {
                let text = chat_score(&scores).to_string();
                self.grown += text.len() + 1;
                if !said.chat_scores.is_empty() {
                    said.chat_scores.push(',');
                }
                said.chat_scores.push_str(&text);
            }
            Style::Completion => {
                let size = |score: &Logprob| size_of::<Logprob>() + score.token.capacity() + score.bytes.capacity();
                self.grown += size(&scores.0) + scores.1.iter().map(size).sum::<usize>();
                said.scores.push(scores);
            }
            Style::Response => {}
        }
    }

    /// An error in the middle of a stream.
    pub fn error(&mut self, error: &ApiError) -> Vec<u8> {
        match self.style {
            Style::Response => {
                self.event("error", json!({"code": error.code, "message": error.message, "param": error.param}))
            }
            _ => [b"data: ".as_slice(), &error.body(), b"\n\n"].concat(),
        }
    }

    /// A choice is whole.
    pub fn end_choice(&mut self, choice: usize, reason: &'static str) -> Vec<u8> {
        self.said[choice].reason = reason;
        match self.style {
            Style::Chat => self.chunk(json!({"index": choice, "delta": {}, "logprobs": null, "finish_reason": reason})),
            Style::Completion => {
                self.chunk(json!({"index": choice, "text": "", "logprobs": null, "finish_reason": reason}))
            }
            Style::Response => self.close(),
        }
    }

    /// The end of a stream.
    pub fn end(&mut self, tokens: TokenCounts) -> Vec<u8> {
        if self.style == Style::Response {
            let status = self.status();
            let response = self.response(status, Some(tokens));
            return self.event(&format!("response.{status}"), json!({ "response": response }));
        }
        let mut out = Vec::new();
        if self.include_usage {
            let object = if self.style == Style::Chat { "chat.completion.chunk" } else { "text_completion" };
            out = data(&json!({
                "id": self.id, "object": object, "created": self.created, "model": self.model,
                "choices": [], "usage": usage(tokens),
            }));
        }
        out.extend_from_slice(DONE);
        out
    }

    /// The body of an answer that is not streamed.
    pub fn whole(&mut self, tokens: TokenCounts) -> Vec<u8> {
        let object = match self.style {
            Style::Response => return self.response(self.status(), Some(tokens)).to_string().into_bytes(),
            Style::Chat => "chat.completion",
            Style::Completion => "text_completion",
        };
        let head = json!({"object": object, "id": self.id, "created": self.created, "model": self.model, "usage": usage(tokens)});
        // Put together as text: a tree of it all would take ten times the memory.
        let mut body = head.to_string();
        body.pop();
        body.push_str(r#","choices":["#);
        for index in 0..self.said.len() {
            if index > 0 {
                body.push(',');
            }
            body.push_str(&match self.style {
                Style::Chat => chat_choice(index, &self.said[index]),
                _ => self.completion_choice(index),
            });
        }
        body.push_str("]}");
        body.into_bytes()
    }

    fn completion_choice(&self, index: usize) -> String {
        let said = &self.said[index];
        let scores = (!said.scores.is_empty()).then(|| self.completion_scores(&said.scores, 0));
        json!({"index": index, "text": said.text, "logprobs": scores, "finish_reason": said.reason}).to_string()
    }

    /// The old form of log-probabilities. `offset`: characters of text before.
    fn completion_scores(&self, scores: &[Scores], offset: usize) -> Value {
        let mut at = offset;
        let mut offsets = Vec::new();
        for (own, _) in scores {
            offsets.push(at);
            at += own.token.chars().count();
        }
        let top = |top: &Vec<Logprob>| -> Value {
            Value::Object(top.iter().map(|score| (score.token.clone(), score.logprob.into())).collect())
        };
        json!({
            "tokens": scores.iter().map(|(own, _)| own.token.as_str()).collect::<Vec<_>>(),
            "token_logprobs": scores.iter().map(|(own, _)| own.logprob).collect::<Vec<_>>(),
            "top_logprobs": scores.iter().map(|(_, best)| top(best)).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }

    // ---- responses

    fn status(&self) -> &'static str {
        if self.said.iter().any(|said| said.reason == "length") { "incomplete" } else { "completed" }
    }

    fn response(&self, status: &str, tokens: Option<TokenCounts>) -> Value {
        let output = if tokens.is_some() && self.items.is_empty() { self.whole_items() } else { self.items.clone() };
        let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let usage = tokens.map(|tokens| {
            let (prompt, completion) = (tokens.prompt + tokens.cached, tokens.completion + tokens.reasoning);
            json!({
                "input_tokens": prompt, "input_tokens_details": {"cached_tokens": tokens.cached},
                "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
                "total_tokens": prompt + completion,
            })
        });
        let mut response = json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": null,
            "incomplete_details": incomplete, "model": self.model, "output": output, "previous_response_id": null,
            "store": false, "truncation": "disabled", "usage": usage,
        });
        if let (Value::Object(response), Value::Object(repeated)) = (&mut response, &self.repeated) {
            response.extend(repeated.clone());
        }
        response
    }

    /// The items of a response that was not streamed.
    fn whole_items(&self) -> Vec<Value> {
        let mut items = Vec::new();
        for said in &self.said {
            if !said.thoughts.is_empty() {
                items.push(reasoning_item(&identifier("rs_"), &said.thoughts, "completed"));
            }
            if !said.text.is_empty() {
                items.push(message_item(&identifier("msg_"), &said.text, "completed"));
            }
            items.extend(said.calls.iter().map(|(id, call)| call_item(&identifier("fc_"), id, call, "completed")));
        }
        items
    }

    fn streamed(&mut self, thought: bool, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        if self.open.as_ref().is_some_and(|open| open.thought != thought) {
            out = self.close();
        }
        let index = self.items.len();
        if self.open.is_none() {
            let id = identifier(if thought { "rs_" } else { "msg_" });
            let item = if thought {
                json!({"type": "reasoning", "id": id, "summary": [], "content": [], "status": "in_progress"})
            } else {
                json!({"type": "message", "id": id, "status": "in_progress", "role": "assistant", "content": []})
            };
            out.extend(self.event("response.output_item.added", json!({"output_index": index, "item": item})));
            let part = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part(thought, "")});
            out.extend(self.event("response.content_part.added", part));
            self.open = Some(Open { id, thought, text: String::new() });
        }
        let Some(open) = &mut self.open else { return out };
        open.text.push_str(text);
        let mut delta = json!({"item_id": open.id, "output_index": index, "content_index": 0, "delta": text});
        if !thought {
            delta["logprobs"] = json!([]);
        }
        let kind = if thought { "response.reasoning_text.delta" } else { "response.output_text.delta" };
        out.extend(self.event(kind, delta));
        out
    }

    fn close(&mut self) -> Vec<u8> {
        let Some(open) = self.open.take() else { return Vec::new() };
        let index = self.items.len();
        let kind = if open.thought { "response.reasoning_text.done" } else { "response.output_text.done" };
        let mut done = json!({"item_id": open.id, "output_index": index, "content_index": 0, "text": open.text});
        if !open.thought {
            done["logprobs"] = json!([]);
        }
        let mut out = self.event(kind, done);
        let last = json!({"item_id": open.id, "output_index": index, "content_index": 0, "part": part(open.thought, &open.text)});
        out.extend(self.event("response.content_part.done", last));
        let item = match open.thought {
            true => reasoning_item(&open.id, &open.text, "completed"),
            false => message_item(&open.id, &open.text, "completed"),
        };
        self.items.push(item.clone());
        out.extend(self.event("response.output_item.done", json!({"output_index": index, "item": item})));
        out
    }

    fn streamed_call(&mut self, call_id: &str, call: &Call) -> Vec<u8> {
        let mut out = self.close();
        let index = self.items.len();
        let id = identifier("fc_");
        let empty = Call { name: call.name.clone(), arguments: String::new() };
        let added = json!({"output_index": index, "item": call_item(&id, call_id, &empty, "in_progress")});
        out.extend(self.event("response.output_item.added", added));
        let delta = json!({"item_id": id, "output_index": index, "delta": call.arguments});
        out.extend(self.event("response.function_call_arguments.delta", delta));
        let done = json!({"item_id": id, "output_index": index, "name": call.name, "arguments": call.arguments});
        out.extend(self.event("response.function_call_arguments.done", done));
        let item = call_item(&id, call_id, call, "completed");
        self.items.push(item.clone());
        out.extend(self.event("response.output_item.done", json!({"output_index": index, "item": item})));
        out
    }
}

fn part(thought: bool, text: &str) -> Value {
    match thought {
        true => json!({"type": "reasoning_text", "text": text}),
        false => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
    }
}

fn message_item(id: &str, text: &str, status: &str) -> Value {
    json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": [part(false, text)]})
}

fn reasoning_item(id: &str, text: &str, status: &str) -> Value {
    json!({"type": "reasoning", "id": id, "summary": [], "content": [part(true, text)], "status": status})
}

fn call_item(id: &str, call_id: &str, call: &Call, status: &str) -> Value {
    json!({"type": "function_call", "id": id, "call_id": call_id, "name": call.name, "arguments": call.arguments, "status": status})
}

fn chat_call(id: &str, call: &Call) -> Value {
    json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

fn chat_choice(index: usize, said: &Said) -> String {
    let content = if said.text.is_empty() && !said.calls.is_empty() { Value::Null } else { said.text.as_str().into() };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !said.thoughts.is_empty() {
        message["reasoning_content"] = said.thoughts.as_str().into();
    }
    if !said.calls.is_empty() {
        message["tool_calls"] = said.calls.iter().map(|(id, call)| chat_call(id, call)).collect();
    }
    let scores = match said.chat_scores.as_str() {
        "" => "null".to_owned(),
        scores => format!(r#"{{"content":[{scores}],"refusal":null}}"#),
    };
    let reason = Value::from(said.reason);
    format!(r#"{{"index":{index},"message":{message},"logprobs":{scores},"finish_reason":{reason}}}"#)
}

fn chat_score((own, top): &Scores) -> Value {
    let one = |score: &Logprob| json!({"token": score.token, "logprob": score.logprob, "bytes": score.bytes});
    let mut entry = one(own);
    entry["top_logprobs"] = top.iter().map(one).collect();
    entry
}

fn data(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// Usage as chat and completions have it.
pub fn usage(tokens: TokenCounts) -> Value {
    let prompt = tokens.prompt + tokens.cached;
    let completion = tokens.completion + tokens.reasoning;
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    })
}
