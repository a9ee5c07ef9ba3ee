use cocoon_protocol::receipt::TokenCounts;
use serde_json::{Value, json};

use super::answer::{Answer, DONE};
use super::tools::Call;
use super::*;

fn chat(extra: &str) -> Result<Generate, ApiError> {
    chat::parse(format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a secret"}}]{extra}}}"#).as_bytes())
}

const TOOL: &str = r##","tools":[{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object","properties":{"city":{"$ref":"#/definitions/c"}},"definitions":{"c":{"type":"string"}}}}}]"##;

#[test]
fn what_openai_clients_send_is_taken() {
    let request = chat(
        r#","stream":true,"stream_options":{"include_usage":true},"temperature":0,"n":2,"stop":null,"seed":-1,"min_p":0.1,
        "logit_bias":{"7":-100},"logprobs":true,"top_logprobs":3,"max_completion_tokens":5,"store":false,"user":"x","parallel_tool_calls":true"#,
    )
    .unwrap();
    assert!(request.stream && request.include_usage);
    assert_eq!((request.choices, request.max_tokens, request.sampling.seed), (2, Some(5), Some(u64::MAX)));
    assert_eq!((request.sampling.logit_bias.as_slice(), request.sampling.logprobs), (&[(7, -100.0)][..], Some(3)));
    let parts = br#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
    let Input::Chat(found) = &chat::parse(parts).unwrap().inputs[0] else { panic!() };
    assert_eq!(found.messages[0]["content"], "ab");
}

#[test]
fn a_conversation_with_tools_comes_to_the_template_as_it_expects() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"},
        {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}],"refusal":null},
        {"role":"tool","tool_call_id":"1","content":"42"}]}"#;
    let Input::Chat(found) = &chat::parse(body).unwrap().inputs[0] else { panic!() };
    assert_eq!(found.messages[1]["tool_calls"][0]["function"]["arguments"], json!({"a": 1}));
    assert_eq!(found.messages[2], json!({"role": "tool", "content": "42", "tool_call_id": "1"}));
}

#[test]
fn a_parameter_that_would_be_ignored_is_refused_by_name() {
    for (extra, name) in [
        (r#","best_guess":7"#, "best_guess"),
        (r#","prediction":{}"#, "prediction"),
        (r#","web_search_options":{}"#, "web_search_options"),
        (r#","modalities":["text","audio"]"#, "modalities"),
        (r#","stream":true,"stream_options":{"x":1}"#, "stream_options.x"),
        (r#","stream":true,"stream_options":{"include_obfuscation":true}"#, "stream_options.include_obfuscation"),
        (r#","store":true"#, "store"),
        (r#","functions":[{}]"#, "functions"),
    ] {
        let error = chat(extra).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), ("unsupported_parameter", Some(name)));
    }
    let hostile = chat(r#","a secret\nforged: 1":1"#).unwrap_err();
    assert!(!hostile.message.contains('\n'));
}

/// Two parameters that say different things, of which one would be ignored.
#[test]
fn a_contradiction_is_refused_by_name() {
    const THINKING: &str = "chat_template_kwargs.enable_thinking";
    let think = r#","chat_template_kwargs":{"enable_thinking":true}"#;
    let schema = r#","response_format":{"type":"json_object"}"#;
    for (extra, name) in [
        (r#","max_tokens":5,"max_completion_tokens":6"#.to_owned(), "max_tokens"),
        (format!("{think}{schema}"), THINKING),
        (format!(r#"{think}{TOOL},"tool_choice":"required""#), THINKING),
        (format!(r#"{think},"reasoning_effort":"none""#), THINKING),
    ] {
        let error = chat(&extra).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), ("invalid_value", Some(name)), "{extra}");
    }
    let thinking = |extra: &str| {
        let Input::Chat(found) = chat(extra).unwrap().inputs.remove(0) else { panic!() };
        (found.thinking, found.constrained)
    };
    assert_eq!(chat(r#","max_tokens":5,"max_completion_tokens":5"#).unwrap().max_tokens, Some(5));
    assert_eq!(thinking(think), (Some(true), false));
    assert_eq!(
        thinking(&format!("{think}{TOOL}")),
        (Some(true), false),
        "a call that may come leaves room for thoughts"
    );
    assert_eq!(
        thinking(r#","reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":false}"#),
        (Some(false), false)
    );
    assert_eq!(thinking(schema), (Some(false), true));
    assert_eq!(thinking(&format!(r#"{TOOL},"tool_choice":"required""#)), (Some(false), true));
}

/// Whatever lies inside messages is looked at as closely as what lies beside them.
#[test]
fn what_would_be_ignored_inside_a_message_is_refused_by_name() {
    let part = |more: &str| json!({"role": "user", "content": [serde_json::from_str::<Value>(&format!(r#"{{"type":"text","text":"a"{more}}}"#)).unwrap()]});
    let call = |outer: &str, inner: &str| -> Value {
        let text = format!(
            r#"{{"role":"assistant","tool_calls":[{{"id":"1","type":"function","function":{{"name":"f","arguments":"{{}}"{inner}}}{outer}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    let chats = |message: &Value| {
        let body = json!({"model": "m", "messages": [message, {"role": "user", "content": "x"}]});
        chat::parse(body.to_string().as_bytes()).map(drop)
    };
    for (message, name) in [
        (part(r#","cache_control":{"type":"ephemeral"}"#), "messages[0].content[0].cache_control"),
        (part(r#","annotations":[{"type":"url_citation"}]"#), "messages[0].content[0].annotations"),
        (call(r#","extra_content":{}"#, ""), "messages[0].tool_calls.extra_content"),
        (call("", r#","strict":true"#), "messages[0].tool_calls.function.strict"),
    ] {
        let error = chats(&message).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), ("unsupported_parameter", Some(name)), "{message}");
    }
    for message in
        [part(r#","annotations":[],"logprobs":[]"#), part(r#","cache_control":null"#), call(r#","index":0"#, "")]
    {
        chats(&message).unwrap_or_else(|error| panic!("{message}: {error:?}"));
    }
    let no_id = json!({"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    assert_eq!(chats(&no_id).unwrap_err().param.as_deref(), Some("messages[0].tool_calls"));

    let item = |more: &str| {
        let thoughts = format!(
            r#"{{"type":"reasoning","id":"rs_1","summary":[],"content":[{{"type":"reasoning_text","text":"hm"}}]{more}}}"#
        );
        let body = format!(r#"{{"model":"m","input":[{thoughts},{{"role":"user","content":"x"}}]}}"#);
        responses::parse(body.as_bytes()).map(|request| request.inputs.len())
    };
    assert_eq!(item(r#","status":"completed","encrypted_content":null"#).unwrap(), 1);
    let error = item(r#","encrypted_content":"secret""#).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("input[0].encrypted_content"));
}

#[test]
fn a_response_repeats_what_it_was_asked() {
    let tools = r#"[{"type":"function","name":"f","parameters":{"type":"object"},"description":"d"}]"#;
    let body = |more: &str| format!(r#"{{"model":"m","input":"x"{more}}}"#);
    let repeated = |more: &str| {
        let asked = responses::parse(body(more).as_bytes()).unwrap();
        let mut answer = Answer::new(asked.style, "m", 7, 1, true, asked.repeated);
        let whole = serde_json::from_slice::<Value>(&answer.whole(TokenCounts::default())).unwrap();
        let first = events(&answer.begin()).remove(0)["response"].take();
        for name in ["tools", "tool_choice", "parallel_tool_calls", "reasoning", "metadata", "user"] {
            assert_eq!(first[name], whole[name], "{name}");
        }
        whole
    };
    let asked = repeated(&format!(
        r#","tools":{tools},"tool_choice":"required","parallel_tool_calls":false,"metadata":{{"a":"b"}},"user":"u""#
    ));
    assert_eq!(asked["tools"], serde_json::from_str::<Value>(tools).unwrap());
    assert_eq!((&asked["tool_choice"], &asked["parallel_tool_calls"]), (&json!("required"), &json!(false)));
    assert_eq!((&asked["metadata"], &asked["user"]), (&json!({"a": "b"}), &json!("u")));
    let bare = repeated("");
    assert_eq!(
        (&bare["tools"], &bare["tool_choice"], &bare["parallel_tool_calls"]),
        (&json!([]), &json!("auto"), &json!(true))
    );
    assert_eq!(repeated(r#","reasoning":{"effort":"none"}"#)["reasoning"]["effort"], "none");
}

/// An event that says how a stream failed has its place among the others.
#[test]
fn an_error_in_a_stream_is_numbered_like_any_event() {
    let mut answer = Answer::new(Style::Response, "m", 7, 1, true, json!({}));
    let mut stream = answer.begin();
    stream.extend(answer.pieces(0, vec![Piece::Text("a".into())], None));
    stream.extend(answer.error(&ApiError::invalid("text.format", "cannot be followed")));
    let events = events(&stream);
    assert_eq!(events.last().unwrap()["type"], "error");
    assert!(events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number), "{events:?}");
    let chat = Answer::new(Style::Chat, "m", 7, 1, true, json!({})).error(&ApiError::invalid("x", "y"));
    assert!(chat.starts_with(b"data: {\"error\":"));
}

#[test]
fn a_value_out_of_range_is_refused_by_name_and_no_error_quotes_content() {
    let deep = format!(
        r#","response_format":{{"type":"json_schema","json_schema":{{"name":"n","schema":{}true{}}}}}"#,
        r#"{"items":"#.repeat(100),
        "}".repeat(100)
    );
    for (extra, name) in [
        (r#","temperature":3"#, "temperature"),
        (r#","max_tokens":0"#, "max_tokens"),
        (r#","max_tokens":-1"#, "max_tokens"),
        (r#","stop":["a","b","c","d","e"]"#, "stop"),
        (r#","stream":"yes""#, "stream"),
        (r#","messages":[]"#, "messages"),
        (r#","n":9"#, "n"),
        (r#","logit_bias":{"secret":1}"#, "logit_bias"),
        (r#","top_logprobs":3"#, "top_logprobs"),
        (r#","reasoning_effort":"high""#, "reasoning_effort"),
        (r#","response_format":{"type":"secret"}"#, "response_format.type"),
        (r#","tool_choice":"required""#, "tool_choice"),
        (r#","tools":[{"type":"function","function":{"name":"a secret"}}]"#, "tools[0].function.name"),
        (r#","tools":[{"type":"web_search"}]"#, "tools[0].type"),
        (r#","tools":[{"type":"function","function":{"name":"f","strict":true}}]"#, "tools"),
        (deep.as_str(), "response_format.json_schema.schema"),
    ] {
        let error = chat(extra).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(name), "{extra}");
        assert!(!error.message.contains("secret"));
    }
    let stop = |len: usize| chat(&format!(r#","stop":"{}""#, "a".repeat(len)));
    assert!(stop(request::MAX_STOP).is_ok());
    assert_eq!(stop(request::MAX_STOP + 1).unwrap_err().param.as_deref(), Some("stop"));
    let image = br#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://a"}}]}]}"#;
    assert_eq!(chat::parse(image).unwrap_err().param.as_deref(), Some("messages[0].content"));
    assert_eq!(chat::parse(&[b'['; 100_000]).unwrap_err().param.as_deref(), Some("body"));
}

#[test]
fn a_call_that_must_come_is_a_schema_with_its_definitions_at_the_root() {
    let named = format!(r#"{TOOL},"tool_choice":{{"type":"function","function":{{"name":"weather"}}}}"#);
    for extra in [format!(r#"{TOOL},"tool_choice":"required""#), named] {
        let request = chat(&extra).unwrap();
        assert_eq!(request.calls, Calls::Forced);
        let schema = request.sampling.schema.unwrap();
        assert_eq!(schema["properties"]["name"], json!({"const": "weather"}));
        assert_eq!(schema["properties"]["arguments"]["properties"]["city"]["$ref"], "#/$defs/c");
        assert_eq!(schema["$defs"]["c"], json!({"type": "string"}));
    }
    let unknown = format!(r#"{TOOL},"tool_choice":{{"type":"function","function":{{"name":"other"}}}}"#);
    assert_eq!(chat(&unknown).unwrap_err().param.as_deref(), Some("tool_choice"));
    assert_eq!(chat(TOOL).unwrap().calls, Calls::Tagged { several: true });
    assert_eq!(chat(&format!(r#"{TOOL},"tool_choice":"none""#)).unwrap().calls, Calls::None);
}

/// What holds a text to many patterns at once would keep the engine from everybody else.
#[test]
fn a_schema_that_joins_many_patterns_is_refused() {
    let pattern = |number: usize| json!({"type": "string", "pattern": format!("^x{{{number}}}y*$")});
    let patterns = |many: usize| (0..many).map(pattern).collect::<Vec<_>>();
    let properties = |many: usize| -> Value {
        Value::Object(patterns(many).into_iter().enumerate().map(|(n, value)| (format!("p{n}"), value)).collect())
    };
    let nested = |many: usize| {
        (1..many).fold(pattern(0), |inner, number| json!({"pattern": format!("x{number}"), "anyOf": [inner]}))
    };
    let chained = |many: usize| {
        let link =
            |n: usize| (format!("d{n}"), json!({"pattern": format!("x{n}"), "$ref": format!("#/$defs/d{}", n + 1)}));
        json!({"$ref": "#/$defs/d0", "$defs": Value::Object((0..many).map(link).chain([(format!("d{many}"), json!({}))]).collect())})
    };
    let asked = |schema: &Value| {
        let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        chat(&format!(r#","response_format":{format}"#)).map(drop)
    };
    let all = |many: usize| json!({"allOf": patterns(many)});
    for (good, bad) in [(all(8), all(9)), (nested(8), nested(9)), (chained(8), chained(9))] {
        asked(&good).unwrap_or_else(|error| panic!("{good}: {error:?}"));
        let error = asked(&bad).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("response_format.json_schema.schema"));
        assert!(error.message.contains("has 9 patterns"), "{}", error.message);
    }
    // Each by itself, as many as one likes: also behind a reference with words for people.
    let apart = json!({"type": "object", "properties": properties(100), "$defs": {"a": pattern(1)}});
    let told = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a", "description": "d"}, "b": {"anyOf": patterns(50)}}, "$defs": {"a": pattern(1)}});
    for good in [apart, told] {
        asked(&good).unwrap_or_else(|error| panic!("{good}: {error:?}"));
    }
}

/// Everything that comes out, neighbours of one kind joined, whatever the borders of what came in.
fn split(splitter: impl Fn() -> Splitter, text: &str) -> Vec<(char, String)> {
    let mut all = Vec::new();
    for size in 1..=text.len() {
        let mut splitter = splitter();
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at = (size..=rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
            pieces.extend(splitter.push(&rest[..at]));
            rest = &rest[at..];
        }
        pieces.extend(splitter.finish());
        let mut joined: Vec<(char, String)> = Vec::new();
        for piece in pieces {
            let (kind, text) = match piece {
                Piece::Text(text) => ('t', text),
                Piece::Thought(text) => ('r', text),
                Piece::Call(call) => ('c', format!("{} {}", call.name, call.arguments)),
            };
            match joined.last_mut().filter(|last| last.0 == kind && kind != 'c') {
                Some(last) => last.1.push_str(&text),
                None => joined.push((kind, text)),
            }
        }
        all.push(joined);
    }
    assert!(all.iter().all(|found| *found == all[0]), "the same in pieces of any size: {all:?}");
    all.swap_remove(0)
}

#[test]
fn thoughts_calls_and_text_are_told_apart_wherever_tokens_end() {
    let tagged = Calls::Tagged { several: true };
    let text = "<think>\nlet me é see</think>\n\nHello <b>\n<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>";
    let parts =
        |found: Vec<(char, String)>| found.into_iter().map(|(kind, text)| format!("{kind}{text}")).collect::<Vec<_>>();
    let found = parts(split(|| Splitter::new(true, false, tagged), text));
    assert_eq!(found, ["rlet me é see", "tHello <b>\n", "cf {\"a\":1}", "cg {}"]);
    let one = Calls::Tagged { several: false };
    assert_eq!(parts(split(|| Splitter::new(true, false, one), text)).len(), 3, "one call only");
    assert_eq!(
        parts(split(|| Splitter::new(false, false, Calls::None), text)),
        [format!("t{text}")],
        "nothing is told apart unasked"
    );
    assert_eq!(parts(split(|| Splitter::new(true, true, Calls::None), "hm</think>ok")), ["rhm", "tok"]);
    assert_eq!(parts(split(|| Splitter::new(true, true, Calls::None), "cut o")), ["rcut o"]);
    for broken in ["<tool_call>{\"name\":", "<tool_call>no json</tool_call>", "<tool_cal"] {
        assert_eq!(
            parts(split(|| Splitter::new(false, false, tagged), broken)),
            [format!("t{broken}")],
            "what is no call is text"
        );
    }
    assert_eq!(
        parts(split(|| Splitter::new(false, false, Calls::Forced), r#"{"name":"f","arguments":{}}"#)),
        ["cf {}"]
    );
    assert_eq!(parts(split(|| Splitter::new(false, false, Calls::Forced), r#"{"name":"f","#)), [r#"t{"name":"f","#]);
}

fn events(bytes: &[u8]) -> Vec<Value> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.split("\n\n")
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn told() -> Vec<Piece> {
    vec![
        Piece::Thought("hm".into()),
        Piece::Text("Hello ".into()),
        Piece::Text("you".into()),
        Piece::Call(Call { name: "f".into(), arguments: "{}".into() }),
    ]
}

#[test]
fn a_stream_says_the_same_as_the_whole_answer() {
    let tokens = TokenCounts { prompt: 3, cached: 0, completion: 4, reasoning: 2 };
    for style in [Style::Chat, Style::Completion, Style::Response] {
        let mut answer = Answer::new(style, "m", 7, 1, true, json!({}));
        let mut stream = answer.begin();
        for piece in told() {
            stream.extend(answer.pieces(0, vec![piece], None));
        }
        stream.extend(answer.end_choice(0, "tool_calls"));
        let end = answer.end(tokens);
        assert_eq!(end.ends_with(DONE), style != Style::Response);
        stream.extend(end);
        let whole: Value = serde_json::from_slice(&answer.whole(tokens)).unwrap();
        let events = events(&stream);
        let joined =
            |pointer: &str| events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect::<String>();
        match style {
            Style::Chat => {
                let message = &whole["choices"][0]["message"];
                assert_eq!(joined("/choices/0/delta/content"), message["content"].as_str().unwrap());
                assert_eq!(
                    joined("/choices/0/delta/reasoning_content"),
                    message["reasoning_content"].as_str().unwrap()
                );
                let call = events.iter().find_map(|event| event.pointer("/choices/0/delta/tool_calls/0")).unwrap();
                assert_eq!(call["id"], message["tool_calls"][0]["id"]);
                assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
                assert_eq!(whole["usage"]["completion_tokens_details"]["reasoning_tokens"], 2);
            }
            Style::Completion => assert_eq!(joined("/choices/0/text"), whole["choices"][0]["text"].as_str().unwrap()),
            Style::Response => {
                let last = events.last().unwrap();
                assert_eq!((last["type"].as_str(), &last["response"]), (Some("response.completed"), &whole));
                let kinds: Vec<&str> =
                    whole["output"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect();
                assert_eq!(kinds, ["reasoning", "message", "function_call"]);
                assert!(events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
            }
        }
    }
}

#[test]
fn responses_become_conversations() {
    let body = br#"{"model":"m","instructions":"be brief","input":[{"role":"user","content":[{"type":"input_text","text":"x"}]},
        {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":"42"}],
        "tools":[{"type":"function","name":"f","parameters":{"type":"object"}}],"text":{"format":{"type":"text"}}}"#;
    let request = responses::parse(body).unwrap();
    let Input::Chat(chat) = &request.inputs[0] else { panic!() };
    let roles: Vec<&str> = chat.messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!(chat.tools[0]["function"]["name"], "f");
    let stored = responses::parse(br#"{"model":"m","input":"x","store":true}"#).unwrap_err();
    assert_eq!((stored.code, stored.param.as_deref()), ("unsupported_parameter", Some("store")));
    assert!(responses::parse(br#"{"model":"m","input":"x","store":false}"#).is_ok());
    let stored = responses::parse(br#"{"model":"m","input":"x","previous_response_id":"resp_1"}"#).unwrap_err();
    assert_eq!(stored.param.as_deref(), Some("previous_response_id"));
}

#[test]
fn completions_and_embeddings_take_text_and_tokens() {
    let many = completions::parse(br#"{"model":"m","prompt":["a",[1,2]],"echo":false,"logprobs":null}"#).unwrap();
    assert!(completions::parse(br#"{"model":"m","prompt":"a","echo":true}"#).unwrap().echo);
    assert!(matches!(many.inputs.as_slice(), [Input::Text(_), Input::Tokens(_)]) && many.max_tokens == Some(16));
    for (body, name) in [
        (r#"{"model":"m","prompt":[[-1]]}"#, "prompt"),
        (r#"{"model":"m","prompt":[]}"#, "prompt"),
        (r#"{"model":"m","prompt":"x","suffix":"y"}"#, "suffix"),
        (r#"{"model":"m","prompt":"x","best_of":3}"#, "best_of"),
        // Tokens are not turned back into text.
        (r#"{"model":"m","prompt":[1,2],"echo":true}"#, "echo"),
        (r#"{"model":"m","prompt":["a",[1,2]],"echo":true}"#, "echo"),
    ] {
        assert_eq!(completions::parse(body.as_bytes()).unwrap_err().param.as_deref(), Some(name));
    }
    let list = |field: &str, many: usize| format!(r#"{{"model":"m","{field}":{}}}"#, json!(vec!["a"; many]));
    let prompts = |many| completions::parse(list("prompt", many).as_bytes()).map(|request| request.inputs.len()).ok();
    assert_eq!((prompts(64), prompts(65)), (Some(64), None));
    let texts =
        |many| completions::parse_embed(list("input", many).as_bytes()).map(|request| request.inputs.len()).ok();
    assert_eq!((texts(2_048), texts(2_049)), (Some(2_048), None));
    let embed = completions::parse_embed(br#"{"model":"m","input":"x","encoding_format":"base64"}"#).unwrap();
    assert!(embed.base64);
    let vectors = [vec![1.0, -2.0], vec![0.5, 3.0]];
    let written = |base64| -> Value {
        serde_json::from_slice(&embeddings("m", &vectors, base64, 3).flatten().collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(written(true)["data"][0]["embedding"], "AACAPwAAAMA=");
    let item = |index: usize| json!({"object": "embedding", "index": index, "embedding": vectors[index]});
    let usage = json!({"prompt_tokens": 3, "total_tokens": 3});
    let whole = json!({"object": "list", "model": "m", "usage": usage, "data": [item(0), item(1)]});
    assert_eq!(written(false), whole);
    let empty: Value = serde_json::from_slice(&embeddings("m", &[], true, 0).flatten().collect::<Vec<_>>()).unwrap();
    assert_eq!(empty["data"], json!([]));
}
