//! The enclave's identity key, its evidence, the keys that requests are sealed to, and its clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cocoon_attestation::binding::{gpu_digest, gpu_nonce};
use cocoon_attestation::tsm::{self, Tsm};
use cocoon_attestation::{Bundle, Claims, Digest, EvidenceId, UnixTime};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::sealed::Receiver;
use cocoon_protocol::statement::{KeyStatement, SignedKeyStatement};
use cocoon_protocol::wire::{AttestRequest, EnclaveEvidence};

use crate::config::Config;
use crate::gpu::{self, Gpus};

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The platform gave no report.
    #[error(transparent)]
    Evidence(#[from] cocoon_attestation::Error),
    /// A GPU gave no report.
    #[error(transparent)]
    Gpu(#[from] gpu::Error),
    /// A key could not be made.
    #[error(transparent)]
    Protocol(#[from] cocoon_protocol::Error),
    /// Nobody has asked for evidence yet, or it has expired.
    #[error("no valid evidence: the host must ask for an attestation first")]
    NotAttested,
}

struct Attested {
    evidence_id: EvidenceId,
    bundle: Vec<u8>,
    statement: SignedKeyStatement,
    until: UnixTime,
    beacon: (UnixTime, Instant),
}

/// Who signs evidence: the CPU, and the GPUs if there are any.
struct Platform {
    tsm: Box<dyn Tsm>,
    gpus: Box<dyn Gpus>,
}

/// Makes evidence and keeps what hangs on it.
pub struct Attester {
    config: Config,
    config_digest: Digest,
    model_root: Digest,
    key: SigningKey,
    receiver: Receiver,
    platform: Mutex<Platform>,
    state: Mutex<Option<Attested>>,
    /// The evidence before the newest: clients that appraised it are served until it ends.
    previous: Mutex<Option<(EvidenceId, UnixTime)>>,
}

impl Attester {
    /// An enclave with a new identity key that no one outside this process will ever hold.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(
        config: Config,
        config_digest: Digest,
        model_root: Digest,
        tsm: Box<dyn Tsm>,
        gpus: Box<dyn Gpus>,
    ) -> Result<Self, Error> {
        Ok(Self {
            config,
            config_digest,
            model_root,
            key: SigningKey::generate()?,
            receiver: Receiver::new(),
            platform: Mutex::new(Platform { tsm, gpus }),
            state: Mutex::new(None),
            previous: Mutex::new(None),
        })
    }

    fn state(&self) -> MutexGuard<'_, Option<Attested>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The measured configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The identity key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The root of the model that was loaded.
    pub fn model_root(&self) -> Digest {
        self.model_root
    }

    /// Opens requests sealed to this enclave.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Time by the last beacon and the machine's monotonic clock since: the host cannot set it back.
    ///
    /// # Errors
    /// There was no beacon yet.
    pub fn now(&self) -> Result<UnixTime, Error> {
        self.state().as_ref().map(clock).ok_or(Error::NotAttested)
    }

    /// The evidence under which something may be signed now, and the time.
    ///
    /// # Errors
    /// There is none, or its time is over.
    pub fn attested(&self) -> Result<(EvidenceId, UnixTime), Error> {
        let state = self.state();
        let attested = state.as_ref().ok_or(Error::NotAttested)?;
        let now = clock(attested);
        if now > attested.until { Err(Error::NotAttested) } else { Ok((attested.evidence_id, now)) }
    }

    /// The evidence of this id, if something may still be signed under it, and the time. `None` if this enclave has no such evidence.
    ///
    /// # Errors
    /// There is no evidence, or its time is over.
    pub fn attested_as(&self, id: &str) -> Result<Option<(EvidenceId, UnixTime)>, Error> {
        let (current, now) = self.attested()?;
        if current.to_string() == id {
            return Ok(Some((current, now)));
        }
        let previous = *self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(previous.filter(|(known, until)| known.to_string() == id && now <= *until).map(|(known, _)| (known, now)))
    }

    /// Makes new evidence on a beacon, with the same identity key and a new key to seal to. Blocks while the platform signs.
    ///
    /// # Errors
    /// The platform gives no report.
    pub fn attest(&self, request: &AttestRequest) -> Result<EnclaveEvidence, Error> {
        let started = Instant::now();
        let mut claims = Claims {
            enclave_key: self.key.enclave_key(),
            provider: self.config.provider.into(),
            model_name: self.config.model_name.clone(),
            model_root: self.model_root,
            config_digest: self.config_digest,
            beacon: request.beacon,
            nonce_root: request.nonce_root,
            gpu_digest: None,
        };
        let bundle = {
            let mut platform = self.platform.lock().unwrap_or_else(PoisonError::into_inner);
            let (gpu, gpu_endorsements) = gpu::taken_apart(platform.gpus.reports(gpu_nonce(&claims))?);
            claims.gpu_digest = gpu_digest(&gpu);
            let claims = claims.to_cbor();
            let tsm::Collected { cpu, event_log, endorsements } = tsm::collect(platform.tsm.as_mut(), &claims)?;
            Bundle { claims, cpu, gpu, event_log, endorsements, gpu_endorsements }
        };
        let evidence_id = bundle.evidence_id();
        let mut state = self.state();
        // An old beacon must not set the clock back.
        let beacon = match state.as_ref() {
            Some(before) if clock(before) > request.beacon.time => before.beacon,
            _ => (request.beacon.time, started),
        };
        let now = beacon.0.plus(beacon.1.elapsed().as_secs());
        let statement = self.statement(evidence_id, now)?;
        let evidence = EnclaveEvidence { bundle: bundle.to_cbor(), key_statement: statement.clone() };
        if let Some(before) = state.as_ref().filter(|before| before.evidence_id != evidence_id) {
            let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
            *previous = Some((before.evidence_id, before.until));
        }
        *state = Some(Attested {
            evidence_id,
            bundle: evidence.bundle.clone(),
            statement,
            until: request.beacon.time.plus(self.config.attestation_lifetime),
            beacon,
        });
        Ok(evidence)
    }

    /// Current evidence, with a key statement that is good for a while: the key rotates when half its time is over.
    ///
    /// # Errors
    /// There is no evidence yet.
    pub fn evidence(&self) -> Result<EnclaveEvidence, Error> {
        let mut state = self.state();
        let attested = state.as_mut().ok_or(Error::NotAttested)?;
        let now = clock(attested);
        if now.plus(self.config.key_lifetime / 2) > attested.statement.statement.not_after {
            attested.statement = self.statement(attested.evidence_id, now)?;
        }
        Ok(EnclaveEvidence { bundle: attested.bundle.clone(), key_statement: attested.statement.clone() })
    }

    fn statement(&self, evidence_id: EvidenceId, now: UnixTime) -> Result<SignedKeyStatement, Error> {
        let epoch = self.receiver.rotate(now, self.config.key_lifetime, self.config.key_overlap)?;
        let statement = KeyStatement {
            evidence_id,
            key_config: epoch.key_config,
            not_before: epoch.not_before,
            not_after: epoch.not_after,
        };
        Ok(statement.sign(&self.key))
    }
}

fn clock(attested: &Attested) -> UnixTime {
    attested.beacon.0.plus(attested.beacon.1.elapsed().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuReport;
    use cocoon_attestation::Beacon;
    use cocoon_attestation::dev::{DevPlatform, GpuChainSpec, GpuSpec};
    use cocoon_attestation::tsm::{PROVIDER_TDX, TsmReport};

    struct Fixed;

    impl Tsm for Fixed {
        fn report(&mut self, data: &[u8; 64], _: Option<u32>) -> Result<TsmReport, cocoon_attestation::Error> {
            Ok(TsmReport { provider: PROVIDER_TDX.into(), outblob: data.to_vec(), auxblob: None, generation: 1 })
        }
    }

    fn attester_with(lifetime: u64, gpus: Box<dyn Gpus>) -> Attester {
        let config = Config {
            attestation_lifetime: lifetime,
            ..toml::from_str(
                "network = -217\nprovider = \"0:0000000000000000000000000000000000000000000000000000000000000001\"\n\
                 channel_code_hash = \"0000000000000000000000000000000000000000000000000000000000000002\"\n\
                 channel_code_depth = 3\nmodel_name = \"m\"",
            )
            .unwrap()
        };
        Attester::new(config, Digest::ZERO, Digest::ZERO, Box::new(Fixed), gpus).unwrap()
    }

    fn attester(lifetime: u64) -> Attester {
        attester_with(lifetime, Box::new(gpu::NoGpus))
    }

    /// A GPU of the development platform.
    struct DevGpus(DevPlatform);

    impl Gpus for DevGpus {
        fn reports(&mut self, nonce: [u8; 32]) -> Result<Vec<GpuReport>, gpu::Error> {
            let chain = self.0.gpu_chain(&GpuChainSpec::default());
            let report = self.0.gpu_report(&GpuSpec { nonce, ..GpuSpec::default() });
            Ok(vec![GpuReport { report, chain }])
        }
    }

    #[test]
    fn claims_and_gpu_reports_commit_to_one_another() {
        let enclave = attester_with(86_400, Box::new(DevGpus(DevPlatform::from_seed([7; 32]))));
        let bundle = Bundle::from_cbor(&enclave.attest(&request(1_000)).unwrap().bundle).unwrap();
        let claims = bundle.claims().unwrap();
        assert_eq!((bundle.gpu.len(), bundle.gpu_endorsements.chains.len()), (1, 1));
        assert_eq!(claims.gpu_digest, gpu_digest(&bundle.gpu));
        assert!(
            bundle.gpu.iter().all(|report| report[4..36] == gpu_nonce(&claims)),
            "the SPDM request holds the nonce"
        );
    }

    fn request(time: u64) -> AttestRequest {
        AttestRequest {
            beacon: Beacon { seqno: 1, root_hash: Digest::ZERO, time: UnixTime(time) },
            nonce_root: Digest::ZERO,
        }
    }

    #[test]
    fn nothing_is_signed_before_evidence_or_after_its_end() {
        let enclave = attester(86_400);
        assert!(matches!(enclave.attested(), Err(Error::NotAttested)));
        enclave.attest(&request(1_000)).unwrap();
        enclave.attested().unwrap();
        let expired = attester(0);
        expired.attest(&request(1_000)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        assert!(matches!(expired.attested(), Err(Error::NotAttested)));
    }

    #[test]
    fn an_old_beacon_does_not_set_the_clock_back() {
        let enclave = attester(86_400);
        enclave.attest(&request(5_000)).unwrap();
        enclave.attest(&request(1_000)).unwrap();
        assert!(enclave.now().unwrap() >= UnixTime(5_000));
    }

    #[test]
    fn new_evidence_keeps_the_identity_and_changes_the_key_to_seal_to() {
        let enclave = attester(86_400);
        let first = enclave.attest(&request(1_000)).unwrap();
        let second = enclave.attest(&request(2_000)).unwrap();
        let claims = |evidence: &EnclaveEvidence| Bundle::from_cbor(&evidence.bundle).unwrap().claims().unwrap();
        assert_eq!(claims(&first).enclave_key, claims(&second).enclave_key);
        assert_ne!(first.key_statement.statement.key_config, second.key_statement.statement.key_config);
        assert_eq!(enclave.evidence().unwrap(), second, "a fresh key is not rotated again");
        for evidence in [&first, &second] {
            let id = evidence.key_statement.statement.evidence_id.to_string();
            assert!(enclave.attested_as(&id).unwrap().is_some(), "clients of both are served");
        }
        assert!(enclave.attested_as("another").unwrap().is_none());
    }
}
