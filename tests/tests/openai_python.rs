//! The official `openai` package, unmodified, against `cocoon up`.

use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_tests::up::Up;

fn run(command: &mut Command, hint: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
    assert!(
        output.status.success(),
        "{command:?} failed; {hint}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A virtual environment with the pinned packages, made once.
fn python() -> PathBuf {
    let conformance = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai");
    let python = venv.join("bin/python");
    let hint = "install Python with `apt-get install python3 python3-venv`";
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv), hint);
    }
    let requirements = conformance.join("requirements.txt");
    run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(requirements),
        "PyPI must be reachable",
    );
    python
}

#[test]
fn the_openai_package_streams_an_answer() {
    let python = python();
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/openai_stream.py");
    let said = run(Command::new(&python).arg(script).env("COCOON_PROXY", up.proxy()), "the script must work as it is");
    assert!(said.trim().len() > 20, "an answer: {said}");

    let plain = "import os, openai\n\
        c = openai.OpenAI(base_url=os.environ['COCOON_PROXY'], api_key='unused')\n\
        print([m.id for m in c.models.list()])\n\
        r = c.chat.completions.create(model='cocoon-demo', temperature=0, messages=[{'role':'user','content':'Who can read my prompt?'}])\n\
        print(r.choices[0].finish_reason, r.usage.completion_tokens > 0)\n\
        try:\n    c.chat.completions.create(model='cocoon-demo', seed=1, messages=[{'role':'user','content':'x'}])\n\
        except openai.BadRequestError as e:\n    print(e.code, e.param)\n\
        try:\n    c.chat.completions.create(model='gpt', messages=[{'role':'user','content':'x'}])\n\
        except openai.NotFoundError as e:\n    print(e.code)\n";
    let said = run(Command::new(&python).args(["-c", plain]).env("COCOON_PROXY", up.proxy()), "plain calls");
    assert_eq!(said, "['cocoon-demo']\nstop True\nunsupported_parameter seed\nmodel_not_found\n");
}
