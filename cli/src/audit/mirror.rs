//! A copy of a log's files, from a node or any web server. What is there already is not fetched again; what comes is checked: hashes for
//! their size, entries against the hashes, parts against their names. What does not hold is kept for the replay to look at, and fetched
//! anew the next time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cocoon_attestation::Digest;
use cocoon_transparency::layout::{self, LEVELS, WIDTH};
use cocoon_transparency::replay::{MOST_CHECKPOINT, PartsOf, entries_match, parts_of, parts_of_bundle};
use cocoon_transparency::{Folder, open_checkpoint};
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
/// Times that a log is begun with whose unfinished files are gone before they are fetched.
const BEGINNINGS: u32 = 6;
/// Names of the unfinished files that a copy holds.
const UNFINISHED: &str = "unfinished";

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

    async fn checkpoint(&self) -> Result<String> {
        let bytes = self.get(layout::CHECKPOINT).await?;
        let bytes = bytes.with_context(|| format!("{} has no checkpoint: it is no log", self.base))?;
        anyhow::ensure!(bytes.len() <= MOST_CHECKPOINT, "{}: the checkpoint has {} bytes", self.base, bytes.len());
        String::from_utf8(bytes.to_vec()).with_context(|| format!("{}: the checkpoint is not text", self.base))
    }
}

/// Copies a log and opens the copy; `None` if none of the keys is its.
pub(super) async fn fetch(
    url: &str,
    keys: &[String],
    copies: &Path,
    progress: &Progress,
) -> Result<Option<(Folder, String)>> {
    let web = Web::new(url)?;
    let mut text = web.checkpoint().await?;
    let key = match (key_of(&text, keys), keys) {
        (Some(key), _) => key,
        (None, [only]) => only.clone(),
        _ => return Ok(None),
    };
    // By place as well: two copies of one log may differ.
    let name = Digest::of(&[key.as_bytes(), b"\n", url.as_bytes()]).to_string();
    let folder = copies.join(&name[..16]);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for beginning in 1.. {
        // What the log did not sign is the replay's business, and promises nothing.
        let Ok(head) = open_checkpoint(&text, &key) else { break };
        // First what a log that grows takes away soon.
        let whole = unfinished(&web, &folder, head.size).await?;
        if !whole && beginning < BEGINNINGS {
            let newer = web.checkpoint().await?;
            if newer != text {
                text = newer;
                continue;
            }
        }
        copy(&web, &folder, head.size, progress).await?;
        tidy(&folder, head.size)?;
        break;
    }
    // Last: whoever is interrupted before it still has the copy of before.
    put(&folder, layout::CHECKPOINT, text.as_bytes())?;
    Ok(Some((Folder(folder), key)))
}

/// Fetches all hashes anew the next time, and holds entries against them: the copy, or the log, does not hold together.
pub(super) fn doubt(folder: &Path) -> Result<()> {
    for level in 0..LEVELS {
        match fs::remove_dir_all(folder.join(format!("tile/{level}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The unfinished files of hashes that a tree of a size has: level, index, width.
fn partial(size: u64) -> impl Iterator<Item = (u8, u64, u64)> {
    let of = move |level: u8| {
        let count = size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        (level, count / WIDTH, count % WIDTH)
    };
    (0..LEVELS).map(of).filter(|(.., width)| *width > 0)
}

fn partial_names(size: u64) -> BTreeSet<String> {
    let names = partial(size).map(|(level, index, width)| layout::hashes(level, index, width));
    names
        .chain(partial(size).filter(|(level, ..)| *level == 0).map(|(_, index, width)| layout::entries(index, width)))
        .collect()
}

/// The end of a log; `false` if something of it is not there.
async fn unfinished(web: &Web, folder: &Path, size: u64) -> Result<bool> {
    let mut names = listed(folder);
    names.extend(partial_names(size));
    put(folder, UNFINISHED, names.into_iter().collect::<Vec<_>>().join("\n").as_bytes())?;
    let mut whole = true;
    for (level, index, width) in partial(size) {
        whole &= match level {
            0 => tile(web, folder, index, width).await? == Tile::Whole,
            _ => hashes(web, folder, level, index, width, false).await?.is_some(),
        };
    }
    Ok(whole)
}

fn listed(folder: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(folder.join(UNFINISHED)).unwrap_or_default();
    text.lines().filter(|name| layout::is_name(name)).map(str::to_owned).collect()
}

/// Takes away unfinished files of smaller trees.
fn tidy(folder: &Path, size: u64) -> Result<()> {
    let kept = partial_names(size);
    for name in listed(folder).difference(&kept) {
        let path = folder.join(name);
        // What is left behind takes room and does no harm.
        let _removed = fs::remove_file(&path);
        if let Some(parent) = path.parent() {
            let _removed_if_empty = fs::remove_dir(parent);
        }
    }
    put(folder, UNFINISHED, kept.into_iter().collect::<Vec<_>>().join("\n").as_bytes())
}

/// Everything that is full. Behind the first tile of which nothing is there nothing else is asked for: a log can sign any size.
async fn copy(web: &Web, folder: &Path, size: u64, progress: &Progress) -> Result<()> {
    let full = size / WIDTH;
    let mut reached = 0;
    let mut tiles = stream::iter(0..full).map(|index| tile(web, folder, index, WIDTH)).buffered(AT_ONCE);
    while let Some(tile) = tiles.try_next().await? {
        if tile == Tile::Absent {
            break;
        }
        reached += 1;
        progress.at(reached * WIDTH, size);
    }
    drop(tiles);
    for level in 1..LEVELS {
        let count = reached.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let fetched =
            stream::iter(0..count).map(|index| hashes(web, folder, level, index, WIDTH, false)).buffered(AT_ONCE);
        fetched.try_for_each(|_| async { Ok(()) }).await?;
    }
    Ok(())
}

/// A file; if a log has grown meanwhile, an unfinished tile may only be there as a full one. `cut` takes what is wanted of that: the rest
/// is not promised yet.
async fn get_or_wider(web: &Web, name: &str, cut: impl Fn(&Bytes) -> Option<usize>) -> Result<Option<Bytes>> {
    if let Some(bytes) = web.get(name).await? {
        return Ok(Some(bytes));
    }
    let Some((full, _)) = name.split_once(".p/") else { return Ok(None) };
    let wider = web.get(full).await?;
    Ok(wider.map(|bytes| cut(&bytes).map_or(bytes.clone(), |end| bytes.slice(..end))))
}

/// Entries as far as they can be told apart, each with where it ends.
fn entries_of(bundle: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = bundle.get(at..at + 2)?;
        let entry = bundle.get(at + 2..at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])))?;
        at += 2 + entry.len();
        Some((entry, at))
    })
}

/// Where so many entries end.
fn end_of(entries: &Bytes, width: u64) -> Option<usize> {
    entries_of(entries).nth(width.checked_sub(1)? as usize).map(|(_, end)| end)
}

/// A file that is at hand, of a width or a full one.
fn at_hand(folder: &Path, name: &str) -> Option<Bytes> {
    let full = name.split_once(".p/").map_or(name, |(full, _)| full);
    fs::read(folder.join(name)).or_else(|_| fs::read(folder.join(full))).ok().map(Bytes::from)
}

/// A file of hashes, and whether it was fetched just now.
async fn hashes(
    web: &Web,
    folder: &Path,
    level: u8,
    index: u64,
    width: u64,
    anew: bool,
) -> Result<Option<(Bytes, bool)>> {
    let name = layout::hashes(level, index, width);
    let known = at_hand(folder, &name).filter(|bytes| bytes.len() as u64 >= 32 * width);
    if let (false, Some(known)) = (anew, &known) {
        return Ok(Some((known.clone(), false)));
    }
    let end = |bytes: &Bytes| Some(32 * width as usize).filter(|end| *end <= bytes.len());
    match get_or_wider(web, &name, end).await? {
        // Of another length it is none: the replay finds that it is missing.
        Some(bytes) if bytes.len() as u64 >= 32 * width => {
            put(folder, &name, &bytes)?;
            Ok(Some((bytes, true)))
        }
        _ => Ok(known.map(|known| (known, false))),
    }
}

/// What there is of a tile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tile {
    /// All of it, and it holds together.
    Whole,
    /// Something is missing or does not belong together: it is fetched anew the next time.
    Doubtful,
    /// Neither hashes nor entries.
    Absent,
}

/// A tile's hashes and entries, and the parts that these name.
async fn tile(web: &Web, folder: &Path, index: u64, width: u64) -> Result<Tile> {
    let (of_hashes, of_entries) = (layout::hashes(0, index, width), layout::entries(index, width));
    let mark = folder.join(format!("doubtful/{index}"));
    let doubtful = mark.exists();
    let there = |name: &str| folder.join(name).exists();
    if width == WIDTH && !doubtful && there(&of_hashes) && there(&of_entries) {
        return Ok(Tile::Whole);
    }
    let hashes = hashes(web, folder, 0, index, width, doubtful).await?.map(|(hashes, _)| hashes);
    let matches = |entries: &Bytes| hashes.as_ref().is_some_and(|hashes| entries_match(entries, hashes, width));
    let known = at_hand(folder, &of_entries);
    let entries = match known.as_ref().filter(|known| !doubtful && matches(known)) {
        Some(known) => Some(known.clone()),
        None => match get_or_wider(web, &of_entries, |bytes| end_of(bytes, width)).await? {
            Some(bytes) => {
                put(folder, &of_entries, &bytes)?;
                Some(bytes)
            }
            None => known,
        },
    };
    let mut tile = match (&hashes, &entries) {
        (None, None) => Tile::Absent,
        (Some(_), Some(entries)) if matches(entries) => Tile::Whole,
        _ => Tile::Doubtful,
    };
    if let Some(entries) = &entries
        && !parts_of_tile(web, folder, entries).await?
    {
        tile = Tile::Doubtful;
    }
    if tile == Tile::Doubtful && !doubtful {
        put(folder, &format!("doubtful/{index}"), b"")?;
    } else if tile == Tile::Whole && doubtful {
        fs::remove_file(&mark).with_context(|| format!("cannot remove {}", mark.display()))?;
    }
    Ok(tile)
}

/// The parts that entries name; `false` if one is not there.
async fn parts_of_tile(web: &Web, folder: &Path, bytes: &[u8]) -> Result<bool> {
    let mut parts = BTreeSet::new();
    let mut whole = true;
    // That one of them is missing is the replay's business, and none of the others'.
    for (entry, _) in entries_of(bytes) {
        let PartsOf { parts: named, bundle } = parts_of(entry);
        parts.extend(named);
        if let Some(bundle) = bundle {
            match part(web, folder, &bundle).await? {
                Some(bytes) => parts.extend(parts_of_bundle(&bytes)),
                None => whole = false,
            }
        }
    }
    parts.retain(|part| !folder.join(layout::part(part)).exists());
    let fetched =
        stream::iter(parts).map(|digest| async move { part(web, folder, &digest).await.map(|part| part.is_some()) });
    let all = fetched.buffer_unordered(AT_ONCE).try_fold(whole, |all, there| async move { Ok(all && there) });
    all.await
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
