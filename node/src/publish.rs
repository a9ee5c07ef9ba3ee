//! One task appends, in batches: what arrives while a checkpoint is being cosigned goes into the next one.

use std::sync::Arc;
use std::time::Duration;

use cocoon_attestation::{Digest, EvidenceId};
use cocoon_transparency::Log;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::Error;
use crate::peers::{PAUSE, Peers};
use crate::store::{Record, Store};

/// Leaves that are appended with one sync at most.
const BATCH: usize = 4_096;
/// A checkpoint is cosigned anew at least so often, so that its witnesses' times show that it is current.
const RENEWAL: Duration = Duration::from_secs(60);

/// Longest that anybody waits for a checkpoint.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pending {
    id: EvidenceId,
    entry: Vec<u8>,
    parts: Vec<(Digest, Vec<u8>)>,
    record: Record,
    done: oneshot::Sender<Result<Record, Error>>,
}

/// Hands leaves to the task that appends.
pub(crate) struct Publisher {
    queue: mpsc::Sender<Pending>,
    /// Size of the tree whose checkpoint was published last.
    published: watch::Receiver<u64>,
}

impl Publisher {
    /// Starts the task, which ends with its handle or with the last sender.
    pub fn start(log: Arc<Log>, store: Arc<Store>, peers: Peers) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(BATCH);
        let (publish, published) = watch::channel(log.published().map_or(0, |head| head.tree.size));
        let task = tokio::spawn(run(log, store, peers, waiting, publish));
        (Self { queue, published }, task)
    }

    /// Appends a leaf; it and its record are on disk when this returns, and a checkpoint over it is published.
    pub async fn append(
        &self,
        id: EvidenceId,
        entry: Vec<u8>,
        parts: Vec<(Digest, Vec<u8>)>,
        record: Record,
    ) -> Result<Record, Error> {
        let stopped = || Error::Interrupted("the node is stopping".into());
        let (done, answer) = oneshot::channel();
        self.queue.send(Pending { id, entry, parts, record, done }).await.map_err(|_| stopped())?;
        let record = answer.await.map_err(|_| stopped())??;
        self.published(record.leaf_index).await?;
        Ok(record)
    }

    /// Waits until a checkpoint is published over a leaf.
    pub async fn published(&self, leaf: u64) -> Result<(), Error> {
        let mut published = self.published.clone();
        match timeout(PATIENCE, published.wait_for(|size| *size > leaf)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Interrupted("the node is stopping".into())),
            Err(_) => Err(Error::Interrupted("no checkpoint was published in time".into())),
        }
    }
}

async fn run(
    log: Arc<Log>,
    store: Arc<Store>,
    mut peers: Peers,
    mut waiting: mpsc::Receiver<Pending>,
    publish: watch::Sender<u64>,
) {
    let mut renewal = Instant::now();
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            count = waiting.recv_many(&mut batch, BATCH) => if count == 0 { return },
            () = tokio::time::sleep_until(renewal) => {}
        }
        if !batch.is_empty() {
            let (log, store) = (log.clone(), store.clone());
            if tokio::task::spawn_blocking(move || append(&log, &store, batch)).await.is_err() {
                return;
            }
        }
        match checkpoint(&log, &mut peers).await {
            Ok((size, witnesses)) => {
                publish.send_replace(size);
                // Witnesses that did not answer are asked again as soon as that may help.
                renewal = Instant::now() + if witnesses < peers.count() { PAUSE } else { RENEWAL };
            }
            Err(error) => {
                tracing::error!(%error, "no checkpoint was published");
                renewal = Instant::now() + PAUSE;
            }
        }
    }
}

/// Appends a batch and answers everybody in it.
fn append(log: &Log, store: &Store, mut batch: Vec<Pending>) {
    let mut write = || -> Result<(), Error> {
        let parts =
            batch.iter().flat_map(|pending| pending.parts.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
        log.add_parts(parts)?;
        let entries = batch.iter_mut().map(|pending| std::mem::take(&mut pending.entry)).collect();
        let first = log.append(entries)?;
        for (index, pending) in (first..).zip(&mut batch) {
            pending.record.leaf_index = index;
        }
        let records: Vec<_> = batch.iter().map(|pending| (pending.id, pending.record.clone())).collect();
        store.put(&records, Some(log.size()))
    };
    let written = write().map_err(|error| error.to_string());
    if let Err(error) = &written {
        tracing::error!(error, "leaves were not appended");
    }
    for Pending { record, done, .. } in batch {
        // Whoever gave up waiting finds the record in the store.
        let _gone = done.send(written.clone().map(|()| record).map_err(Error::Store));
    }
}

/// Signs the newest head, has it cosigned by those who answer in time, and publishes it: its size, and how many cosigned it.
async fn checkpoint(log: &Arc<Log>, peers: &mut Peers) -> Result<(u64, usize), Error> {
    let signing = log.clone();
    let head = blocking(move || signing.head()).await?;
    let cosignatures = peers.cosign(log, &head).await;
    let (publishing, done) = (log.clone(), (head.tree.size, cosignatures.len()));
    blocking(move || publishing.publish(&head, &cosignatures)).await?;
    Ok(done)
}

pub(crate) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, cocoon_transparency::Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(job).await;
    Ok(done.map_err(|error| Error::Interrupted(error.to_string()))??)
}
