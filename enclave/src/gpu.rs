//! Evidence of the machine's GPUs: each signs a report over a nonce that commits to the claims, and the claims commit to the reports
//! (`cocoon_attestation::binding`), so that neither side can be taken from another machine unseen.

use cocoon_attestation::GpuEndorsements;

/// Why a GPU gives no evidence.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}; GPU evidence needs NVIDIA's driver and confidential mode")]
pub struct Error {
    /// What was asked for.
    what: &'static str,
    /// What the driver said.
    why: String,
}

/// What one GPU says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuReport {
    /// SPDM request and signed response.
    pub report: Vec<u8>,
    /// The GPU's certificates, PEM, leaf first.
    pub chain: Vec<u8>,
}

/// The GPUs of this machine.
pub trait Gpus: Send {
    /// A report of each, in a fixed order, over this nonce. Blocks while they sign.
    ///
    /// # Errors
    /// One of them gives none.
    fn reports(&mut self, nonce: [u8; 32]) -> Result<Vec<GpuReport>, Error>;
}

/// A machine without any.
pub struct NoGpus;

impl Gpus for NoGpus {
    fn reports(&mut self, _: [u8; 32]) -> Result<Vec<GpuReport>, Error> {
        Ok(Vec::new())
    }
}

/// The reports, and the chains that go with them into a bundle.
pub fn taken_apart(reports: Vec<GpuReport>) -> (Vec<Vec<u8>>, GpuEndorsements) {
    let (reports, chains) = reports.into_iter().map(|gpu| (gpu.report, gpu.chain)).unzip();
    (reports, GpuEndorsements { chains, ..GpuEndorsements::default() })
}

#[cfg(feature = "nvidia")]
mod nvml {
    use super::{Error, GpuReport, Gpus};
    use nvml_wrapper::Nvml;

    /// NVIDIA's GPUs, through the driver's management library (NVML), which is loaded when it is first asked for. Not yet run on a GPU in
    /// confidential mode: `docs/untested-on-hardware.md`.
    pub struct NvmlGpus(Nvml);

    impl NvmlGpus {
        /// Loads NVML.
        ///
        /// # Errors
        /// There is no driver.
        pub fn open() -> Result<Self, Error> {
            Nvml::init().map(Self).map_err(|error| failed("NVML does not load", &error))
        }
    }

    impl NvmlGpus {
        /// Lets the GPUs take work: in confidential mode they refuse it until the guest has said so.
        ///
        /// # Errors
        /// The driver refuses.
        pub fn accept_work(&self) -> Result<(), Error> {
            let first = self.0.device_by_index(0).map_err(|error| failed("there is no GPU", &error))?;
            first.set_confidential_compute_state(true).map_err(|error| failed("the GPUs take no work", &error))
        }
    }

    /// What the driver says of one GPU. A question that it does not answer is answered with its error.
    #[derive(Debug, serde::Serialize)]
    pub struct GpuState {
        name: String,
        uuid: String,
        vbios: String,
        driver: String,
        /// Whether confidential mode is on.
        confidential: String,
        /// Whether its debugging mode, which protects nothing, is on.
        devtools: String,
        /// Bytes of an attestation report.
        report: String,
        /// Bytes of its certificates.
        certificates: String,
    }

    fn said<T: ToString>(answer: Result<T, nvml_wrapper::error::NvmlError>) -> String {
        answer.map_or_else(|error| format!("not said: {error}"), |answer| answer.to_string())
    }

    impl NvmlGpus {
        /// All GPUs of the machine, for people; changes nothing.
        pub fn describe(&self) -> Vec<GpuState> {
            let gpus = (0..self.0.device_count().unwrap_or(0)).filter_map(|index| self.0.device_by_index(index).ok());
            gpus.map(|gpu| GpuState {
                name: said(gpu.name()),
                uuid: said(gpu.uuid()),
                vbios: said(gpu.vbios_version()),
                driver: said(self.0.sys_driver_version()),
                confidential: said(gpu.is_cc_enabled()),
                devtools: said(gpu.is_cc_dev_mode_enabled()),
                report: said(
                    gpu.confidential_compute_gpu_attestation_report([0; 32]).map(|it| it.attestation_report.len()),
                ),
                certificates: said(
                    gpu.confidential_compute_gpu_certificate().map(|it| it.attestation_cert_chain.len()),
                ),
            })
            .collect()
        }
    }

    fn failed(what: &'static str, error: &nvml_wrapper::error::NvmlError) -> Error {
        Error { what, why: error.to_string() }
    }

    impl Gpus for NvmlGpus {
        fn reports(&mut self, nonce: [u8; 32]) -> Result<Vec<GpuReport>, Error> {
            let count = self.0.device_count().map_err(|error| failed("the GPUs cannot be counted", &error))?;
            (0..count)
                .map(|index| {
                    let gpu = self.0.device_by_index(index).map_err(|error| failed("a GPU is lost", &error))?;
                    let report = gpu
                        .confidential_compute_gpu_attestation_report(nonce)
                        .map_err(|error| failed("a GPU gives no attestation report", &error))?;
                    let chain = gpu
                        .confidential_compute_gpu_certificate()
                        .map_err(|error| failed("a GPU gives no certificates", &error))?;
                    Ok(GpuReport { report: report.attestation_report, chain: chain.attestation_cert_chain })
                })
                .collect()
        }
    }
}

#[cfg(feature = "nvidia")]
pub use nvml::{GpuState, NvmlGpus};
