//! Models, from files to an engine that has proved that it answers as it should.
//!
//! Files are read once, into memory that can no longer be changed; that memory is hashed, and the engine loads from it. So what evidence names
//! is what runs, whatever happens to the folder meanwhile.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest;
use cocoon_attestation::{Digest, ModelFile, ModelRoot, model_files};
use cocoon_engine::{Chat, Engine, EngineConfig, Event, Kind, Prompt, Sampling};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::models::{Model, Models};

/// Files of a model in memory that cannot be changed, and links to them where the engine looks. The links go when this is dropped.
pub struct Staged {
    folder: PathBuf,
    /// Root over those bytes.
    pub root: ModelRoot,
    _files: Vec<File>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Staged {
    /// Copies a model folder into sealed memory and hashes it there: files in parallel, and each file behind its own copy. The root is over the
    /// SHA-256 of whole files, so one file takes as long as one processor hashes it.
    ///
    /// # Errors
    /// A file cannot be read, or there is not enough memory.
    pub fn copy(folder: &Path) -> Result<Self> {
        let found = model_files(folder)?;
        let staging = std::env::temp_dir().join(format!("cocoon-model-{}-{:x}", std::process::id(), rand_number()?));
        std::fs::create_dir_all(&staging).with_context(|| format!("cannot write to {}", staging.display()))?;
        let mut staged = Self {
            folder: staging.clone(),
            root: ModelRoot { root: Digest::ZERO, files: Vec::new() },
            _files: Vec::new(),
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(found.len()).max(1);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let copied = std::thread::scope(|scope| -> Result<Vec<(usize, (File, ModelFile))>> {
            let work = || -> Result<Vec<(usize, (File, ModelFile))>> {
                let mut done = Vec::new();
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some((name, path)) = found.get(at) else { return Ok(done) };
                    done.push((at, sealed_copy(name, path)?));
                }
            };
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for thread in threads {
                match thread.join() {
                    Ok(done) => all.extend(done?),
                    Err(_) => bail!("a copying thread died"),
                }
            }
            all.sort_by_key(|(at, _)| *at);
            Ok(all)
        })?;
        let mut files = Vec::new();
        for (_, (file, entry)) in copied {
            let memory = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let link = staging.join(&entry.path);
            if let Some(parent) = link.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::os::unix::fs::symlink(&memory, &link)?;
            files.push(entry);
            staged._files.push(file);
        }
        staged.root = ModelRoot::of(files);
        Ok(staged)
    }

    /// Where the engine finds the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn rand_number() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// A file in sealed memory, and its line of the manifest: what is hashed is that memory, and nobody but this function writes to it.
fn sealed_copy(name: &str, path: &Path) -> Result<(File, ModelFile)> {
    let unreadable = || format!("cannot read {}", path.display());
    let unheld = || format!("cannot hold {} in memory", path.display());
    let mut from = File::open(path).with_context(unreadable)?;
    let memory = memfd_create("cocoon-model", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)?;
    let memory = File::from(memory);
    let (size, sha256) = std::thread::scope(|scope| -> Result<(u64, Digest)> {
        let (copied, pieces) = mpsc::channel();
        let hashing = scope.spawn(|| hash_behind(&memory, pieces));
        let (mut to, mut buffer) = (&memory, vec![0; PIECE]);
        loop {
            let length = match from.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                length => length.with_context(unreadable)?,
            };
            if length == 0 {
                break;
            }
            to.write_all(&buffer[..length]).with_context(unheld)?;
            // Where the other end is gone, it says below why.
            let _ = copied.send(length);
        }
        drop(copied);
        match hashing.join() {
            Ok(hashed) => hashed.with_context(unheld),
            Err(_) => bail!("a hashing thread died"),
        }
    })?;
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok((memory, ModelFile { path: name.to_owned(), size, sha256 }))
}

/// Hashes what comes into this memory, by the lengths of its pieces. Gives its size and SHA-256.
fn hash_behind(memory: &File, pieces: mpsc::Receiver<usize>) -> io::Result<(u64, Digest)> {
    let (mut context, mut buffer, mut at) = (digest::Context::new(&digest::SHA256), vec![0; PIECE], 0);
    for length in pieces {
        let piece = &mut buffer[..length];
        memory.read_exact_at(piece, at)?;
        context.update(piece);
        at += length as u64;
    }
    let mut sha256 = Digest::ZERO;
    sha256.0.copy_from_slice(context.finish().as_ref());
    Ok((at, sha256))
}

/// The file, in a model's folder, with what it has to answer.
pub const KNOWN_ANSWERS: &str = "known-answers.json";

/// What a model answers if it runs as it did when this was recorded. Part of the model root.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAnswers {
    /// Questions, each the content of one message of a user, or a text to embed.
    pub answers: Vec<KnownAnswer>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAnswer {
    /// The question.
    pub question: String,
    /// The answer, always with the likeliest token; for a model that chats. For people: what counts are its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The answer's tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// The vector; for a model that embeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
}

/// Tokens of a known answer at most.
const ANSWER_TOKENS: usize = 48;
/// The least cosine of two vectors that count as the same.
const ALIKE: f32 = 0.999;
/// How much less likely than the likeliest, in nats, a recorded token may be. Sums of floats differ in their last bits with the processor and
/// with how many answers are computed together, and where two tokens are about as likely the other one comes first; what computes wrongly is
/// off by far more.
const ABOUT_AS_LIKELY: f32 = 0.5;
/// Likeliest tokens among which a recorded one is looked for.
const LIKELIEST: usize = 20;

/// A question as a prompt. A model without a chat template continues the text.
async fn prompt(engine: &Engine, question: &str) -> Result<Prompt> {
    let messages = vec![json!({"role": "user", "content": question})];
    match engine.chat(Chat { messages, ..Chat::default() }).await {
        Err(cocoon_engine::Error::Template) => Ok(engine.text(question.to_owned()).await?),
        prompt => Ok(prompt?),
    }
}

async fn record_one(engine: &Engine, question: &str) -> Result<KnownAnswer> {
    let mut known = KnownAnswer { question: question.to_owned(), answer: None, tokens: Vec::new(), vector: None };
    if engine.kind() == Kind::Embedding {
        known.vector = Some(engine.embed(engine.text(question.to_owned()).await?, engine.turn().await?).await?);
        return Ok(known);
    }
    let prompt = prompt(engine, question).await?;
    let mut generation = engine.generate(prompt, Sampling::default(), ANSWER_TOKENS as u64).await?;
    let mut text = String::new();
    loop {
        match generation.next().await {
            Event::Token(token) => {
                known.tokens.push(token.id);
                text.push_str(&token.text);
            }
            Event::Rest(rest) => text.push_str(&rest),
            Event::Done { .. } => {
                known.answer = Some(text);
                return Ok(known);
            }
            _ => bail!("the engine failed on it"),
        }
    }
}

/// Answers one question again. Where another token comes than the recorded one, that one must have been about as likely, and the answer is
/// continued behind it.
async fn try_one(engine: Engine, known: KnownAnswer) -> Result<()> {
    if let Some(vector) = &known.vector {
        ensure!(engine.kind() == Kind::Embedding, "a vector was recorded, and this model does not embed");
        let found = engine.embed(engine.text(known.question).await?, engine.turn().await?).await?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let alike = dot(vector, &found) >= ALIKE * (dot(vector, vector) * dot(&found, &found)).sqrt();
        ensure!(vector.len() == found.len() && alike, "it has another vector here");
        return Ok(());
    }
    ensure!(!known.tokens.is_empty(), "no tokens were recorded for it");
    let prompt = prompt(&engine, &known.question).await?;
    let sampling = Sampling { logprobs: Some(LIKELIEST), ..Sampling::default() };
    let mut done = 0;
    while let Some(left) = known.tokens.get(done..).filter(|left| !left.is_empty()) {
        let prompt = prompt.followed_by(&known.tokens[..done]);
        let mut generation = engine.generate(prompt, sampling.clone(), left.len() as u64).await?;
        for expected in left {
            let Event::Token(found) = generation.next().await else { bail!("the engine ended at token {done} of it") };
            done += 1;
            if found.id == *expected {
                continue;
            }
            let (best, likeliest) = found.scores.context("the engine gave no scores")?;
            let recorded = likeliest.iter().find(|token| token.id == *expected);
            let less = recorded.map_or(f32::INFINITY, |recorded| best.logprob - recorded.logprob);
            ensure!(
                less <= ABOUT_AS_LIKELY,
                "its token {done} is another here, and the recorded one is {less:.2} nats less likely"
            );
            break;
        }
    }
    Ok(())
}

/// Asks all questions twice, `at_once` of them at a time: an engine that computes wrongly, or mixes up what it computes together, does not
/// pass.
///
/// # Errors
/// Names the first question whose answer is another.
pub async fn gate(engine: &Engine, known: &KnownAnswers, at_once: usize) -> Result<()> {
    ensure!(!known.answers.is_empty(), "{KNOWN_ANSWERS} holds no answers: record some");
    let twice: Vec<&KnownAnswer> = known.answers.iter().chain(&known.answers).collect();
    for some in twice.chunks(at_once.max(1)) {
        let trying: Vec<_> = some.iter().map(|known| tokio::spawn(try_one(engine.clone(), (*known).clone()))).collect();
        for (known, trying) in some.iter().zip(trying) {
            trying.await?.with_context(|| {
                format!(
                    "the known answer to {:?} is another here: the engine or its hardware computes wrongly, or it was recorded with other \
                     software; record the answers again if so",
                    known.question
                )
            })?;
        }
    }
    Ok(())
}

/// Loads every model that the configuration names, hashed and tried.
///
/// # Errors
/// A file is missing, an engine does not load, or a known answer is another.
pub async fn models(staged: &Staged, names: &str, limits: EngineConfig) -> Result<Models> {
    let names: Vec<&str> = names.split(',').collect();
    let mut models = Vec::new();
    for name in &names {
        ensure!(!name.is_empty() && name.trim() == *name, "model_name holds an empty name or white space");
        let folder = if names.len() == 1 { staged.folder().to_owned() } else { staged.folder().join(name) };
        ensure!(folder.is_dir(), "model_name names {name:?}, and the model folder holds no such folder");
        let known = known_answers(&folder).with_context(|| format!("{name} is not ready"))?;
        let engine = Engine::load(&folder, limits).await?;
        gate(&engine, &known, limits.waiting + 1).await.with_context(|| format!("{name} is not ready"))?;
        models.push(Model { name: (*name).to_owned(), root: staged.root.root, engine });
    }
    Ok(Models::new(models))
}

fn known_answers(folder: &Path) -> Result<KnownAnswers> {
    let path = folder.join(KNOWN_ANSWERS);
    let known = std::fs::read(&path).with_context(|| {
        format!(
            "{KNOWN_ANSWERS} is missing; record it once with `cocoon-enclave record --model FOLDER` and publish the new root"
        )
    })?;
    serde_json::from_slice(&known).with_context(|| format!("{KNOWN_ANSWERS} cannot be read"))
}

/// Compares what a model answers now with what was recorded.
///
/// # Errors
/// It cannot be loaded, nothing was recorded, or an answer is another.
pub async fn check(folder: &Path) -> Result<()> {
    let (known, limits) = (known_answers(folder)?, EngineConfig::default());
    let engine = Engine::load(folder, limits).await?;
    gate(&engine, &known, limits.waiting + 1).await
}

/// Records what a model answers now.
///
/// # Errors
/// It cannot be loaded, or the file not written.
pub async fn record(folder: &Path, questions: &[String]) -> Result<()> {
    let engine = Engine::load(folder, EngineConfig::default()).await?;
    let mut known = KnownAnswers { answers: Vec::new() };
    for question in questions {
        known.answers.push(record_one(&engine, question).await?);
    }
    let mut text = serde_json::to_string_pretty(&known)?;
    text.push('\n');
    let path = folder.join(KNOWN_ANSWERS);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn demo() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
    }

    /// A copy of the demo model.
    struct Copied(PathBuf);

    impl Copied {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("cocoon-test-{:x}", rand_number().unwrap()));
            fs::create_dir(&folder).unwrap();
            for (name, path) in model_files(&demo()).unwrap() {
                fs::copy(path, folder.join(name)).unwrap();
            }
            Self(folder)
        }
    }

    impl Drop for Copied {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Between hashing and loading the host has the folder to itself: what it puts there is not what runs.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_hashed_is_what_is_loaded_whatever_becomes_of_the_folder() {
        let folder = Copied::new();
        let limits = EngineConfig::default();
        let staged = Staged::copy(&folder.0).unwrap();
        let expected = cocoon_attestation::model_root(&demo()).unwrap().root;
        assert_eq!(staged.root.root, expected);
        // As many weights, each another: as a model of somebody else's would be.
        let weights = folder.0.join("model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[header..].rotate_left(4);
        fs::write(&weights, &bytes).unwrap();
        assert_ne!(cocoon_attestation::model_root(&folder.0).unwrap().root, expected);

        let models = models(&staged, "demo", limits).await.expect("what was hashed answers as was recorded");
        assert_eq!(models.get("demo").unwrap().root, expected);
        // The control: what lies there now is loaded by whoever reads it there, and answers otherwise.
        assert!(check(&folder.0).await.is_err(), "the swapped file answers as the hashed one");
        fs::remove_dir_all(&folder.0).unwrap();
        super::models(&staged, "demo", limits).await.expect("nor does it need the folder");
    }

    #[test]
    fn nobody_can_write_what_was_hashed_not_even_the_enclave() {
        let folder = Copied::new();
        let staged = Staged::copy(&folder.0).unwrap();
        for (name, _) in model_files(&demo()).unwrap() {
            let path = staged.folder().join(&name);
            let before = fs::read(&path).unwrap();
            assert_eq!(before, fs::read(folder.0.join(&name)).unwrap());
            let written = fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"x"));
            assert!(written.is_err(), "{name} can be written");
            let shorter = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(1));
            assert!(shorter.is_err(), "{name} can be cut");
            assert_eq!(fs::read(&path).unwrap(), before);
        }
        let links = staged.folder().to_owned();
        drop(staged);
        assert!(!links.exists(), "links outlive what they lead to");
    }
}
