//! Which layer stands in the way, and what its owner can do about it: a result for people.

use std::fmt;

use crate::outcome::{Appraisal, Check};

/// Who can mend what a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The bytes themselves.
    Format,
    /// Certificates and what a vendor signs: collateral, revocation lists, manifests.
    Endorsements,
    /// The hardware vendor's keys and roots.
    Root,
    /// BIOS settings.
    Bios,
    /// Microcode and processor firmware, as BIOS updates bring them.
    Microcode,
    /// The TDX module, or AMD's SNP firmware.
    Module,
    /// Intel's quoting enclave and PCE.
    Quoting,
    /// GPU firmware and driver.
    Gpu,
    /// How the guest was launched.
    Launch,
    /// What runs in the guest.
    Image,
    /// What the guest says of itself, and whether the hardware signed that.
    Binding,
    /// What the relying party asks for.
    Policy,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "format",
            Self::Endorsements => "collateral",
            Self::Root => "root of trust",
            Self::Bios => "BIOS",
            Self::Microcode => "microcode",
            Self::Module => "security module",
            Self::Quoting => "quoting enclave",
            Self::Gpu => "GPU firmware and driver",
            Self::Launch => "launch of the guest",
            Self::Image => "guest image",
            Self::Binding => "binding",
            Self::Policy => "policy",
        })
    }
}

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The check that says so.
    pub check: String,
    /// Where it has to be mended.
    pub layer: Layer,
    /// What was found.
    pub found: String,
    /// What to do.
    pub remedy: &'static str,
}

impl Appraisal {
    /// What stands in the way of acceptance, and what to do about each; empty for evidence that is accepted.
    pub fn advice(&self) -> Vec<Advice> {
        let failed = self.checks.iter().filter(|check| check.outcome.is_failure());
        let advice = failed.map(|check| {
            let (layer, remedy) = remedy(check);
            Advice { check: check.id.to_string(), layer, found: check.detail.to_string(), remedy }
        });
        advice.collect()
    }
}

/// Where and how what a check found is mended.
fn remedy(check: &Check) -> (Layer, &'static str) {
    use Layer::{Binding, Bios, Endorsements, Format, Gpu, Image, Launch, Microcode, Module, Policy, Quoting, Root};
    let says = |text: &str| check.detail.contains(text);
    match &*check.id {
        "tdx.tcb-status" | "tdx.tcb-level" if says("ConfigurationNeeded") || says("ConfigurationAndSW") => (
            Bios,
            "a BIOS setting must change, and perhaps its version: see the advisories named here, then let the platform register anew; \
             or accept this status in the policy",
        ),
        "tdx.tcb-status" | "tdx.tcb-level" if says("TDRelaunchAdvised") => {
            (Module, "the module was updated under a running guest: launch the guest again")
        }
        "tdx.tcb-status" | "tdx.tcb-level" if says("quoting enclave is") || says("the PCE has") => {
            (Quoting, "update Intel's DCAP packages on the host, then make evidence anew")
        }
        "tdx.tcb-status" | "tdx.tcb-level" if says("TDX module") || says("TDX component") => (
            Module,
            "update the TDX module (with the BIOS, or by the host's module loader), then launch the guest again",
        ),
        "tdx.tcb-status" | "tdx.tcb-level" => (
            Microcode,
            "update BIOS and microcode of the host to what the detail asks for, restart it, fetch its PCK certificate anew",
        ),
        "tdx.advisories" => (
            Microcode,
            "update BIOS, microcode and TDX module until the advisories no longer apply, or accept each by name in tdx.accept_advisories",
        ),
        "tdx.module" | "tdx.tee-tcb-svn" => (
            Module,
            "Intel does not know this TDX module, or it is no production module: install a released one, and fetch collateral anew",
        ),
        "tdx.qe-svn" | "tdx.pce-svn" | "tdx.qe-report" => {
            (Quoting, "update Intel's DCAP packages on the host, then make evidence anew")
        }
        "tdx.tcb-evaluation"
        | "tdx.collateral-age"
        | "tdx.tcb-info"
        | "tdx.qe-identity"
        | "tdx.certificates"
        | "tdx.pce-id"
        | "tdx.tcb-type"
        | "tdx.signer-subject"
        | "tdx.pck-subject"
        | "tdx.collateral-format" => (
            Endorsements,
            "fetch collateral for this very platform again (`cocoon endorsements pull`), and check the time that was given",
        ),
        "snp.validity"
        | "snp.chain"
        | "snp.key-usage"
        | "snp.revocation"
        | "snp.certificate-format"
        | "snp.certificate-tcb" => (
            Endorsements,
            "fetch the chip's certificate, AMD's chain and AMD's revocation list again (`cocoon endorsements pull`), and check the time that was given",
        ),
        "gpu.certificates"
        | "gpu.certificate-format"
        | "gpu.revocation"
        | "gpu.driver-rim-revocation"
        | "gpu.vbios-rim-revocation"
        | "gpu.ocsp-format"
        | "gpu.driver-rim"
        | "gpu.vbios-rim"
        | "rim.certificates"
        | "rim.revocation"
        | "rim.signature"
        | "rim.format"
        | "rim.ocsp-format"
        | "gpu.rim.certificates"
        | "gpu.rim.signature"
        | "gpu.rim.format"
        | "gpu.appraisal" => (
            Endorsements,
            "fetch NVIDIA's manifests for the driver and VBIOS that run, and its word on the certificates, again (`cocoon endorsements pull`)",
        ),
        "tdx.root" | "snp.root" | "gpu.root" | "rim.root" | "gpu.rim.root" => (
            Root,
            "this is no evidence of the vendor's hardware. If it is the development platform's, name its root (`--root`), knowing that nothing is confidential there",
        ),
        "snp.tcb"
        | "snp.min-tcb"
        | "snp.min-launch-tcb"
        | "snp.firmware"
        | "snp.provisional-firmware"
        | "snp.mitigations"
        | "snp.abi" => (
            Module,
            "update and commit the host's SNP firmware (BIOS, or the host's loader), fetch the certificate for that version, launch the guest again",
        ),
        "tdx.smt" | "tdx.dynamic-platform" | "tdx.cached-keys" | "snp.smt" | "snp.platform-info" => (
            Bios,
            "change the named platform setting in the BIOS and register the platform anew, or let the policy allow it",
        ),
        "tdx.debug"
        | "tdx.migration"
        | "tdx.sept-ve-disable"
        | "tdx.service-td"
        | "tdx.attributes"
        | "tdx.xfam"
        | "snp.debug"
        | "snp.migration"
        | "snp.vmpl"
        | "snp.policy"
        | "snp.guest-policy"
        | "snp.id-key"
        | "tdx.td-attributes"
        | "snp.single-socket"
        | "snp.author-key"
        | "snp.masked-chip-id"
        | "snp.vlek" => (
            Launch,
            "launch the guest with the attributes that the policy asks for: these give the host a way in, or are not what was agreed",
        ),
        "tdx.mrtd"
        | "tdx.rtmr0"
        | "tdx.rtmr1"
        | "tdx.rtmr2"
        | "tdx.rtmr3"
        | "tdx.mrseam"
        | "snp.measurement"
        | "snp.guest-svn"
        | "snp.family-id"
        | "snp.image-id"
        | "snp.id-key-digest"
        | "snp.author-key-digest"
        | "snp.id-block"
        | "reference.measurement"
        | "reference.model-root"
        | "reference.config-digest"
        | "tdx.event-log"
        | "snp.event-log"
        | "tdx.event-rules" => (
            Image,
            "another firmware, kernel, image or model runs than the policy names: launch the released one, or take the reference values of this release",
        ),
        "tdx.mrconfigid" | "tdx.mrowner" | "tdx.mrownerconfig" | "tdx.report-data" | "snp.host-data"
        | "snp.report-data" | "snp.report-id" | "snp.report-id-ma" | "reference.provider" => (
            Policy,
            "the value is not among those that the policy names: evidence of another guest, or a policy for another",
        ),
        "tdx.fmspc" | "tdx.piid" | "snp.allowed-chip" | "snp.product" | "snp.chip-id" | "gpu.architecture" => (
            Policy,
            "this machine is none of those that are meant: ask for evidence of the right one, or name this one",
        ),
        "gpu.measurements"
        | "gpu.fwid"
        | "gpu.mode"
        | "gpu.driver-version"
        | "gpu.vbios-version"
        | "gpu.all-measurements" => (
            Gpu,
            "set the GPU to confidential mode (not devtools), install the driver and VBIOS that the policy and NVIDIA's manifests name, reset it, make evidence anew",
        ),
        "binding.report-data" | "binding.gpu-digest" | "gpu.nonce" | "gpu.distinct" | "claims.freshness" => {
            (Binding, "this evidence was made for something else, or too long ago: let the enclave make evidence anew")
        }
        "bundle.endorsements" => (Endorsements, "staple endorsements to the bundle first (`cocoon endorsements pull`)"),
        "tdx.signature" | "tdx.signature-data" | "snp.signature" | "snp.signing-key" | "gpu.signature" => {
            (Format, "the evidence was altered after it was signed, or is another's: take it from its source again")
        }
        "tdx.header-svn" | "tdx.pck-tcb" => (
            Endorsements,
            "evidence and certificate disagree on versions: fetch the PCK certificate for the platform's present TCB",
        ),
        _ => {
            (Format, "these bytes are not what they are said to be: check the file, and take it from its source again")
        }
    }
}
