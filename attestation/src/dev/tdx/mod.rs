//! Intel's part: quotes, PCK certificates and collateral, under a root of the development platform.

mod collateral;
mod quote;

pub use collateral::{
    CollateralSpec, ModuleIdentity, ModuleLevel, QeIdentitySpec, QeLevel, TcbComponents, TcbInfoSpec, TcbLevel,
    TdxModule,
};
pub use quote::{PckCa, PckSpec, QeReport, QuoteHeader, Td15, TdReport, TdxSpec};

use super::certs::{CertSpec, Party, Role, certificate, serial};
use super::keys::Key;

/// FMSPC of the development platform's processors: which TCB info applies.
pub const FMSPC: [u8; 6] = [0xc0, 0xc0, 0, 0, 0, 0];

/// MRSIGNER of the development platform's quoting enclave.
pub const QE_MRSIGNER: [u8; 32] = *b"development quoting enclave sign";

/// Keys and names of Intel's part.
#[derive(Clone)]
pub(super) struct Tdx {
    root: Party,
    platform_ca: Party,
    processor_ca: Party,
    tcb_signer: Party,
    pck: Party,
    attestation: Party,
}

impl Tdx {
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        let party = |name: &str, label: &str| {
            Party::new(name, Key::p256(seed, label), Key::p256(seed, &format!("{label} impostor")))
        };
        Self {
            root: party("SGX Root CA", "tdx root"),
            platform_ca: party("SGX PCK Platform CA", "tdx pck platform ca"),
            processor_ca: party("SGX PCK Processor CA", "tdx pck processor ca"),
            tcb_signer: party("SGX TCB Signing", "tdx tcb signing"),
            pck: party("SGX PCK Certificate", "tdx pck"),
            attestation: party("", "tdx attestation key"),
        }
    }

    pub(super) fn root_der(&self) -> Vec<u8> {
        certificate(&self.root, &self.root, Role::Ca(1), &CertSpec::new(serial::ROOT), &[])
    }

    fn ca(&self, ca: PckCa) -> &Party {
        match ca {
            PckCa::Platform => &self.platform_ca,
            PckCa::Processor => &self.processor_ca,
        }
    }

    fn ca_der(&self, ca: PckCa, spec: &CertSpec) -> Vec<u8> {
        certificate(&self.root, self.ca(ca), Role::Ca(0), spec, &[])
    }
}
