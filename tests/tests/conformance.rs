//! Clients that nobody here wrote, unmodified, against `cocoon up`: the official `openai` packages of Python and Node, LangChain's and
//! LiteLLM's adapters, and `curl`. One enclave serves three models to them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cocoon_tests::models::{self, Layout, Shape};
use cocoon_tests::up::Up;
use serde_json::Value;

fn output(command: &mut Command, hint: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
    assert!(
        output.status.success(),
        "{command:?} failed; {hint}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn run(command: &mut Command, hint: &str) -> String {
    String::from_utf8(output(command, hint).stdout).expect("UTF-8")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// A virtual environment with the pinned packages, made once.
fn python() -> PathBuf {
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let python = venv.join("bin/python");
    if !python.is_file() {
        let hint = "install Python with `apt-get install python3 python3-venv`";
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv), hint);
    }
    let (wanted, installed) = (scripts().join("requirements.txt"), venv.join("installed.txt"));
    if std::fs::read(&installed).ok() != std::fs::read(&wanted).ok() {
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]);
        run(install.arg(&wanted), "PyPI must be reachable");
        std::fs::copy(&wanted, &installed).expect("the environment can be written to");
    }
    python
}

/// Models with random weights: one that embeds, and one of each kind that is loaded in its own way.
const SHAPES: [(&str, Shape); 5] = [
    ("embedder", Shape::Embedding),
    ("qwen3-gguf", Shape::Qwen3GgufQ8),
    ("qwen3-moe", Shape::Qwen3Moe(Layout::Cpu)),
    ("deepseek-v2", Shape::DeepSeekV2(Layout::Cpu)),
    ("deepseek-v3", Shape::DeepSeekV3(Layout::Cpu)),
];

/// The demo model, one whose template opens its thoughts, and the others.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("cocoon-demo");
    std::fs::create_dir(&demo).unwrap();
    for file in std::fs::read_dir(cocoon_tests::demo_model()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), demo.join(file.file_name())).unwrap();
    }
    models::thinker(&folder.path().join("thinker")).unwrap();
    for (name, shape) in SHAPES {
        models::write(&folder.path().join(name), shape).unwrap();
    }
    for name in ["thinker"].into_iter().chain(SHAPES.map(|(name, _)| name)) {
        let mut record = Command::new(cocoon_tests::enclave_binary());
        run(record.args(["record", "--model"]).arg(folder.path().join(name)), "known answers");
    }
    folder
}

struct World {
    up: Up,
    folders: [tempfile::TempDir; 2],
}

impl World {
    fn models(&self) -> &Path {
        self.folders[1].path()
    }
}

fn world() -> World {
    let (data, models) = (tempfile::tempdir().unwrap(), folder());
    World { up: Up::start_with(data.path(), models.path()), folders: [data, models] }
}

fn with<'a>(command: &'a mut Command, world: &World) -> &'a mut Command {
    command.env("COCOON_PROXY", world.up.proxy()).env("COCOON_EMBEDDER", "embedder")
}

#[test]
fn openai_for_python() {
    let (python, world) = (python(), world());
    for script in ["openai_stream.py", "openai_python.py"] {
        let said =
            run(with(Command::new(&python).arg(scripts().join(script)), &world), "the script must work as it is");
        assert!(said.trim().len() > 20, "{said}");
    }
}

#[test]
fn langchain_and_litellm() {
    let (python, world) = (python(), world());
    let mut command = Command::new(&python);
    // Neither may ask anybody else.
    command
        .arg(scripts().join("adapters.py"))
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LANGSMITH_TRACING", "false");
    let said = run(with(&mut command, &world), "the script must work as it is");
    assert!(said.contains("passed"), "{said}");
}

#[test]
fn openai_for_node() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-clients");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", "openai_node.mjs"] {
        std::fs::copy(scripts().join(file), folder.join(file)).unwrap();
    }
    let hint = "install Node 20 with npm; npm's registry must be reachable";
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder), hint);
    let said = run(
        with(Command::new("node").arg("openai_node.mjs").current_dir(&folder), &world()),
        "the script must work as it is",
    );
    assert!(said.contains("passed"), "{said}");
}

fn curl(base: &str, path: &str, body: Option<&Value>) -> (Value, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include"]).arg(format!("{base}{path}"));
    if let Some(body) = body {
        command.args(["--header", "content-type: application/json", "--data", &body.to_string()]);
    }
    let said = run(&mut command, "install curl with `apt-get install curl`");
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    (serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")), head.to_owned())
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {head}"))
}

#[test]
fn curl_and_receipts_of_several_models() {
    let world = world();
    let base = world.up.proxy();
    let (models, _) = curl(base, "/models", None);
    let names: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    let mut all: Vec<&str> = SHAPES.iter().map(|(name, _)| *name).chain(["cocoon-demo", "thinker"]).collect();
    all.sort_unstable();
    assert_eq!(names, all);
    let ask = |model: &str| {
        serde_json::json!({"model": model, "temperature": 0, "max_tokens": 20,
        "messages": [{"role": "user", "content": "What is Cocoon?"}]})
    };
    let receipt = |head: &str| curl(base, &format!("/receipts/{}", header(head, "cocoon-receipt-id")), None).0;

    let (answer, head) = curl(base, "/chat/completions", Some(&ask("cocoon-demo")));
    let usage = &answer["usage"];
    let spoken = receipt(&head);
    assert_eq!(spoken["tokens"]["completion"], usage["completion_tokens"]);
    assert_eq!((&spoken["tokens"]["reasoning"], &spoken["tokens"]["cached"]), (&0.into(), &0.into()));

    // What a model thinks is counted as such, shown apart, and has its own price.
    let (answer, head) = curl(base, "/chat/completions", Some(&ask("thinker")));
    let thought = receipt(&head);
    let details = &answer["usage"]["completion_tokens_details"];
    assert!(details["reasoning_tokens"].as_u64().unwrap() > 0, "{answer}");
    assert_eq!(thought["tokens"]["reasoning"], details["reasoning_tokens"]);
    assert!(
        answer["choices"][0]["message"]["reasoning_content"].as_str().is_some_and(|text| !text.is_empty()),
        "{answer}"
    );

    // Dense and quantised, with experts and without: from sealed memory, through the channel, as was recorded from the folder.
    for (name, shape) in SHAPES.iter().filter(|(_, shape)| *shape != Shape::Embedding) {
        let known = std::fs::read(world.models().join(name).join("known-answers.json")).unwrap();
        let known: Value = serde_json::from_slice(&known).unwrap();
        for known in known["answers"].as_array().unwrap() {
            let asked = serde_json::json!({"model": name, "temperature": 0, "max_tokens": known["tokens"].as_array().unwrap().len(),
                "messages": [{"role": "user", "content": known["question"]}]});
            let (answer, head) = curl(base, "/chat/completions", Some(&asked));
            assert_eq!(answer["choices"][0]["message"]["content"], known["answer"], "{shape:?}: {answer}");
            assert_eq!(receipt(&head)["tokens"]["completion"], answer["usage"]["completion_tokens"]);
        }
    }

    let (vectors, head) =
        curl(base, "/embeddings", Some(&serde_json::json!({"model": "embedder", "input": "What is Cocoon?"})));
    assert!(vectors["data"][0]["embedding"].as_array().unwrap().len() > 8);
    let embedded = receipt(&head);
    assert_eq!(
        (&embedded["tokens"]["prompt"], &embedded["tokens"]["completion"]),
        (&vectors["usage"]["prompt_tokens"], &0.into())
    );

    // A refusal costs nothing, and has no receipt.
    let (refused, head) = curl(base, "/chat/completions", Some(&ask("embedder")));
    assert_eq!(refused["error"]["param"], "model", "{refused}");
    assert!(!head.contains("cocoon-receipt-id"));
    let (next, head) = curl(base, "/chat/completions", Some(&ask("cocoon-demo")));
    let after = receipt(&head);
    let total =
        |receipt: &Value| receipt["settlement"]["total_nanoton"].as_u64().unwrap_or_else(|| panic!("{receipt}"));
    assert_eq!(total(&after) - total(&embedded), after["charge_nanoton"].as_u64().unwrap(), "{next}");
    let (unknown, _) = curl(base, "/receipts/chatcmpl-0", None);
    assert_eq!(unknown["error"]["code"], "receipt_not_found", "{unknown}");
}
