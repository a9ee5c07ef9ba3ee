//! Endorsements of the node's own: what a provider staples may be older than what vendors say today.
//!
//! Appraising takes them from the folder alone, so no vendor that is slow or silent holds up an appraisal or a review. Vendors are asked
//! apart from that: about evidence whose signatures lead to a root, for a few seconds at most, and about what is in use every so often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cocoon_attestation::{Bundle, CpuEvidence, Endorsements, UnixTime};
use cocoon_verifier::{Need, needs};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::endorsements::{Endorser, Error};
use crate::turns::Turns;

/// Longest that evidence waits for vendors; then it is appraised with what there is.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a vendor did not give is not asked for again so soon.
const SILENCE: Duration = Duration::from_secs(60);
/// Questions to vendors under way at once, whoever waits for them.
const AT_ONCE: usize = 16;
/// Failures remembered: they are about evidence that a root vouches for, so there are no more of them than platforms.
const FAILURES: usize = 100_000;
/// What nobody's evidence has needed for so long is not kept fresh any more.
const UNUSED: Duration = Duration::from_secs(3_600);

/// What the node itself knows of platforms.
pub(crate) struct Own {
    vendors: Arc<Endorser>,
    /// The same folder, and nobody to ask.
    kept: Endorser,
    /// When a vendor did not give something.
    failed: Mutex<HashMap<String, Instant>>,
    /// What was looked up of late, and when.
    used: Mutex<HashMap<String, (Need, Instant)>>,
    turns: Turns<String>,
    asking: Semaphore,
}

impl Own {
    pub fn new(vendors: Arc<Endorser>) -> Self {
        Self {
            kept: vendors.kept(),
            vendors,
            failed: Mutex::default(),
            used: Mutex::default(),
            turns: Turns::default(),
            asking: Semaphore::new(AT_ONCE),
        }
    }

    /// The bundle with what the folder holds and is current; where it holds nothing, with what came along. CPU and GPUs each for itself, so
    /// that nobody who leaves out something of one escapes what is known of the other.
    pub async fn staple(&self, mut bundle: Bundle, at: UnixTime) -> Bundle {
        if let Some(endorsements) = self.cpu(&bundle, at).await {
            bundle.endorsements = endorsements;
        }
        let gpus = bundle.gpu.iter().zip(&bundle.gpu_endorsements.chains);
        let gpus: Vec<_> = gpus.map(|(report, chain)| (&report[..], &chain[..])).collect();
        if !gpus.is_empty()
            && gpus.len() == bundle.gpu.len()
            && let Ok(found) = self.kept.gpus(&gpus, at, false).await
        {
            bundle.gpu_endorsements = found;
        }
        bundle
    }

    async fn cpu(&self, bundle: &Bundle, at: UnixTime) -> Option<Endorsements> {
        match &bundle.cpu {
            CpuEvidence::Tdx { quote } => {
                Some(Endorsements::Tdx { collateral: self.kept.tdx(quote, at, false).await.ok()? })
            }
            CpuEvidence::Snp { report } => {
                // The certificate of the report's key never lapses; the one that came along is the right one, or nothing helps.
                let Endorsements::Snp(given) = &bundle.endorsements else { return None };
                let found = self.kept.snp_by(report, &given.vek, at).await.ok()?;
                Some(Endorsements::Snp(found))
            }
        }
    }

    /// Asks vendors for what a bundle needs and the folder lacks. The bundle's signatures must lead to a root ([`cocoon_verifier::is_signed`]):
    /// what is asked for stands in it.
    pub async fn fetch(&self, bundle: &Bundle, at: UnixTime) {
        let deadline = Instant::now() + PATIENCE;
        // Manifests have needs of their own, which are known once they are there.
        for _ in 0..2 {
            let missing: Vec<_> = self.needs(bundle).into_iter().filter(|need| !self.kept.has(need, at)).collect();
            if missing.is_empty() {
                return;
            }
            let asked = join_all(missing.iter().map(|need| self.ask(need, at, None)));
            match timeout_at(deadline, asked).await {
                Ok(answers) if answers.iter().all(Result::is_ok) => {}
                Ok(answers) => {
                    for error in answers.into_iter().filter_map(Result::err).flatten() {
                        tracing::warn!(evidence = %bundle.evidence_id(), %error, "no endorsements of this node's own");
                    }
                    return;
                }
                Err(_) => {
                    let seconds = PATIENCE.as_secs();
                    tracing::warn!(evidence = %bundle.evidence_id(), "vendors gave nothing within {seconds} s");
                    return;
                }
            }
        }
    }

    /// Asks vendors again about everything that is in use, lapses some day, and was asked for longer ago than `age`; says how much of it came.
    pub async fn refresh(&self, at: UnixTime, age: Duration) -> usize {
        let due: Vec<_> = {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.retain(|_, (_, last)| last.elapsed() < UNUSED);
            let old = used.values().filter(|(need, _)| self.kept.is_older(need, age));
            old.map(|(need, _)| need.clone()).collect()
        };
        let asked = stream::iter(due.into_iter().map(|need| async move {
            match self.ask(&need, at, Some(age)).await {
                Ok(()) => 1,
                Err(Some(error)) => {
                    tracing::warn!(%error, "an endorsement could not be asked for again");
                    0
                }
                Err(None) => 0,
            }
        }));
        asked.buffer_unordered(AT_ONCE / 2).fold(0, |sum, one| async move { sum + one }).await
    }

    /// Gets one thing into the folder. An error without words: it failed a moment ago, and is not asked for yet.
    async fn ask(&self, need: &Need, at: UnixTime, older_than: Option<Duration>) -> Result<(), Option<Error>> {
        let path = need.path();
        let turn = self.turns.of(&path);
        let _turn = turn.lock().await;
        let there = match older_than {
            None => self.kept.has(need, at),
            Some(age) => !self.kept.is_older(need, age),
        };
        if there {
            return Ok(());
        }
        if self.failed().get(&path).is_some_and(|at| at.elapsed() < SILENCE) {
            return Err(None);
        }
        let _place = self.asking.acquire().await.map_err(|_| None::<Error>)?;
        // Written down first: whoever waits for this gives up at some time, and then it has failed.
        {
            let mut failed = self.failed();
            if failed.len() >= FAILURES {
                failed.retain(|_, at| at.elapsed() < SILENCE);
            }
            failed.insert(path.clone(), Instant::now());
        }
        self.vendors.get(need, at, true).await.map_err(Some)?;
        self.failed().remove(&path);
        Ok(())
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a bundle needs, by its own word, but for the certificate of an SNP report's key, which came along.
    fn needs(&self, bundle: &Bundle) -> Vec<Need> {
        let mut all = match &bundle.cpu {
            CpuEvidence::Tdx { quote } => needs::of_tdx(quote).unwrap_or_default(),
            CpuEvidence::Snp { report } => {
                let needs = needs::of_snp(report, None).unwrap_or_default().into_iter();
                needs.filter(|need| !matches!(need, Need::SnpKey { .. })).collect()
            }
        };
        let mut add = |needs: Result<Vec<Need>, String>| {
            for need in needs.unwrap_or_default() {
                if !all.contains(&need) {
                    all.push(need);
                }
            }
        };
        if bundle.gpu.len() == bundle.gpu_endorsements.chains.len() {
            for (report, chain) in bundle.gpu.iter().zip(&bundle.gpu_endorsements.chains) {
                let needs = needs::of_gpu(report, chain);
                let named = needs.iter().flatten().filter_map(|need| self.kept.manifest(need));
                let theirs: Vec<_> = named.map(|manifest| needs::of_rim(&manifest)).collect();
                add(needs);
                theirs.into_iter().for_each(&mut add);
            }
        }
        all
    }

    /// Remembers what a bundle needs, so that it is kept fresh.
    pub fn note(&self, bundle: &Bundle) {
        let (needs, now) = (self.needs(bundle), Instant::now());
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for need in needs {
            used.insert(need.path(), (need, now));
        }
    }
}
