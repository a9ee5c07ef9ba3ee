//! Every shape of model that is claimed loads in the guest binary and answers, and answers the same every time.
//!
//! The binary is one for CPUs; one with the `cuda` feature would fail the last test, and should.

use std::path::Path;
use std::process::{Command, Output};

use cocoon_tests::models::{self, Layout, Shape};
use serde_json::Value;

/// Records what the model in a folder answers.
fn record(folder: &Path) -> Output {
    Command::new(cocoon_tests::enclave_binary()).args(["record", "--model"]).arg(folder).output().unwrap()
}

fn recorded(folder: &Path) -> Vec<Value> {
    let output = record(folder);
    let (said, progress) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}{progress}", output.status);
    let known: Value = serde_json::from_slice(&std::fs::read(folder.join("known-answers.json")).unwrap()).unwrap();
    known["answers"].as_array().unwrap().clone()
}

/// Writes a model, records it in two processes and gives what both said.
fn answers(shape: Shape) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    models::write(folder.path(), shape).unwrap();
    let answers = recorded(folder.path());
    assert_eq!(answers, recorded(folder.path()), "{shape:?} is not the same twice");
    assert!(answers.len() > 1);
    answers
}

fn speaks(shape: Shape) {
    let answers = answers(shape);
    let texts: Vec<&str> = answers.iter().map(|answer| answer["answer"].as_str().unwrap()).collect();
    assert!(texts.iter().all(|text| !text.trim().is_empty()), "{shape:?}: {texts:?}");
    assert!(texts.iter().any(|text| *text != texts[0]), "{shape:?} says one thing whatever it is asked: {texts:?}");
}

#[test]
fn qwen3() {
    speaks(Shape::Qwen3);
}

#[test]
fn qwen3_with_experts() {
    speaks(Shape::Qwen3Moe(Layout::Cpu));
}

#[test]
fn deepseek_v2() {
    speaks(Shape::DeepSeekV2(Layout::Cpu));
}

#[test]
fn deepseek_v3() {
    speaks(Shape::DeepSeekV3(Layout::Cpu));
}

#[test]
fn qwen3_in_blocks_of_8_bits() {
    speaks(Shape::Qwen3GgufQ8);
}

#[test]
fn qwen3_in_blocks_of_4_bits() {
    speaks(Shape::Qwen3GgufQ4);
}

#[test]
fn qwen3_embedding() {
    let answers = answers(Shape::Embedding);
    let vector = |answer: &Value| -> Vec<f64> {
        answer["vector"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let vectors: Vec<Vec<f64>> = answers.iter().map(vector).collect();
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for vector in &vectors {
        assert_eq!(vector.len(), 128);
        assert!((product(vector, vector) - 1.0).abs() < 1e-5, "not normalised");
    }
    assert!(product(&vectors[0], &vectors[1]) < 0.99, "two texts have one vector");
}

#[test]
fn a_model_that_answers_otherwise_than_recorded_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    models::write(folder.path(), Shape::Qwen3).unwrap();
    let mut answers = recorded(folder.path());
    let check = || {
        let output = Command::new(cocoon_tests::enclave_binary())
            .args(["record", "--check", "--model"])
            .arg(folder.path())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(check().0, "as recorded");

    // The token least likely to be there: the end of the answer, which the model never says.
    let written = answers[1]["tokens"][5].take();
    answers[1]["tokens"][5] = 2.into();
    let write = |answers: &[Value]| {
        let known = serde_json::json!({ "answers": answers });
        std::fs::write(folder.path().join("known-answers.json"), known.to_string()).unwrap();
    };
    write(&answers);
    let (ready, why) = check();
    assert!(!ready && why.contains(answers[1]["question"].as_str().unwrap()) && why.contains("token 6"), "{why}");

    answers[1]["tokens"][5] = written;
    write(&answers);
    assert!(check().0, "as it was");
    std::fs::remove_file(folder.path().join("known-answers.json")).unwrap();
    assert!(check().1.contains("record it once"), "none recorded");
}

#[test]
fn what_mistral_rs_cannot_run_on_a_cpu_fails_rather_than_answers() {
    let released = [Shape::Qwen3Moe, Shape::DeepSeekV2, Shape::DeepSeekV3].map(|shape| shape(Layout::Released));
    for shape in released.into_iter().chain([Shape::Qwen3MoeGguf]) {
        let folder = tempfile::tempdir().unwrap();
        models::write(folder.path(), shape).unwrap();
        let output = record(folder.path());
        assert!(!output.status.success(), "{shape:?} answers now: say so in the module of models");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("the engine failed on it"),
            "{shape:?}: another reason"
        );
        assert!(!folder.path().join("known-answers.json").exists());
    }
}
