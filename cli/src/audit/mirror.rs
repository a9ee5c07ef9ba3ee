//! A copy of a log's files, from a node or any web server: what is there already is not fetched again, and what comes is checked for its
//! size, parts also for their name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cocoon_attestation::Digest;
use cocoon_transparency::layout::{self, LEVELS, WIDTH};
use cocoon_transparency::replay::{PartsOf, parts_of, parts_of_bundle};
use cocoon_transparency::{Folder, open_checkpoint, read_entries};
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::logs::key_of;
use super::progress::Progress;

/// Files that are fetched at once.
const AT_ONCE: usize = 16;
/// Longest file: 256 entries of 64 KiB.
const LONGEST: usize = 17 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Times that a file is asked for.
const ATTEMPTS: u32 = 4;

pub(super) struct Web {
    client: Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: String,
}

impl Web {
    pub fn new(url: &str) -> Result<Self> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider)?;
        let connector = builder.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base: url.trim_end_matches('/').to_owned() })
    }

    /// A file; `None` if there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let url = format!("{}/{name}", self.base);
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let mut wait = Duration::from_millis(250);
        for attempt in 1.. {
            let why = match tokio::time::timeout(PATIENCE, self.once(&uri)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
            };
            if attempt >= ATTEMPTS {
                bail!("{url}: {why}, {attempt} times");
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Ok(None)
    }

    async fn once(&self, uri: &Uri) -> Result<Option<Bytes>> {
        let response = self.client.get(uri.clone()).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => bail!("status {status}"),
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok(Some(body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes()))
    }
}

/// Copies a log and opens the copy.
pub(super) async fn fetch(
    url: &str,
    keys: &[String],
    copies: &Path,
    progress: &Progress,
) -> Result<(Folder, String, bool)> {
    let web = Web::new(url)?;
    let checkpoint =
        web.get(layout::CHECKPOINT).await?.with_context(|| format!("{url} has no checkpoint: it is no log"))?;
    let text = String::from_utf8(checkpoint.to_vec()).with_context(|| format!("{url}: the checkpoint is not text"))?;
    let key = match (key_of(&text, keys), keys) {
        (Some(key), _) => key,
        (None, [only]) => only.clone(),
        _ => bail!("nothing says which key signs the log at {url}: name it with --log-key, as its node prints it"),
    };
    // By place as well: two copies of one log may differ.
    let name = Digest::of(&[key.as_bytes(), b"\n", url.as_bytes()]).to_string();
    let folder = copies.join(&name[..16]);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Ok(head) = open_checkpoint(&text, &key) {
        copy(&web, &folder, head.size, progress).await?;
    }
    // Last: a copy never promises more than it holds.
    put(&folder, layout::CHECKPOINT, text.as_bytes())?;
    Ok((Folder(folder), key, false))
}

async fn copy(web: &Web, folder: &Path, size: u64, progress: &Progress) -> Result<()> {
    let mut names = Vec::new();
    for level in 0..LEVELS {
        let count = size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        names.extend((0..count / WIDTH).map(|index| (layout::hashes(level, index, WIDTH), 32 * WIDTH)));
        if !count.is_multiple_of(WIDTH) {
            names.push((layout::hashes(level, count / WIDTH, count % WIDTH), 32 * (count % WIDTH)));
        }
    }
    stream::iter(names.into_iter().filter(|(name, _)| !folder.join(name).exists()))
        .map(|(name, length)| async move {
            let found = get_or_wider(web, &name).await?;
            match found {
                // Of another length it is none: the replay finds that it is missing.
                Some((name, bytes)) if bytes.len() as u64 >= length => put(folder, &name, &bytes),
                _ => Ok(()),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let tiles: Vec<(u64, u64)> =
        (0..size.div_ceil(WIDTH)).map(|tile| (tile, (size - tile * WIDTH).min(WIDTH))).collect();
    let (count, mut done) = (tiles.len() as u64, 0);
    let mut copied =
        stream::iter(tiles).map(|(tile, width)| entries(web, folder, tile, width)).buffer_unordered(AT_ONCE);
    while let Some(parts) = copied.try_next().await? {
        let missing = parts.into_iter().filter(|part| !folder.join(layout::part(part)).exists());
        stream::iter(missing)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |part| async move { self::part(web, folder, &part).await.map(drop) })
            .await?;
        done += 1;
        progress.at(done.min(count) * WIDTH, size);
    }
    Ok(())
}

/// A file; if a log has grown meanwhile, an unfinished tile may only be there as a full one.
async fn get_or_wider(web: &Web, name: &str) -> Result<Option<(String, Bytes)>> {
    if let Some(bytes) = web.get(name).await? {
        return Ok(Some((name.to_owned(), bytes)));
    }
    let Some((full, _)) = name.split_once(".p/") else { return Ok(None) };
    Ok(web.get(full).await?.map(|bytes| (full.to_owned(), bytes)))
}

/// A tile's entries, and the parts that they name.
async fn entries(web: &Web, folder: &Path, tile: u64, width: u64) -> Result<BTreeSet<Digest>> {
    let name = layout::entries(tile, width);
    let bytes = match fs::read(folder.join(&name)) {
        Ok(bytes) => Bytes::from(bytes),
        Err(_) => match get_or_wider(web, &name).await? {
            Some((name, bytes)) => {
                put(folder, &name, &bytes)?;
                bytes
            }
            None => return Ok(BTreeSet::new()),
        },
    };
    let mut parts = BTreeSet::new();
    // An unreadable tile is the replay's business.
    let entries = read_entries(&bytes, width).or_else(|_| read_entries(&bytes, WIDTH)).unwrap_or_default();
    for entry in entries {
        let PartsOf { parts: named, bundle } = parts_of(entry);
        parts.extend(named);
        if let Some(bundle) = bundle
            && let Some(bytes) = part(web, folder, &bundle).await?
        {
            parts.extend(parts_of_bundle(&bytes));
        }
    }
    Ok(parts)
}

async fn part(web: &Web, folder: &Path, digest: &Digest) -> Result<Option<Vec<u8>>> {
    let name = layout::part(digest);
    if let Ok(bytes) = fs::read(folder.join(&name)) {
        return Ok(Some(bytes));
    }
    match web.get(&name).await? {
        Some(bytes) if Digest::of(&[&bytes]) == *digest => {
            put(folder, &name, &bytes)?;
            Ok(Some(bytes.to_vec()))
        }
        _ => Ok(None),
    }
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{:x}.unfinished", rand_suffix()));
        let unfinished = PathBuf::from(unfinished);
        fs::write(&unfinished, bytes)?;
        fs::rename(&unfinished, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Two tasks may fetch the same part at the same time.
fn rand_suffix() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
