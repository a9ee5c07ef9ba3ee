//! A policy in plain sentences: what it accepts, what it refuses, and what it leaves open.

use crate::policy::{GpuPolicy, MinTcb, Policy, SnpPolicy, TdxPolicy};

impl Policy {
    /// What this policy accepts, one sentence a line, by part of the evidence.
    pub fn explain(&self) -> Vec<(&'static str, Vec<String>)> {
        let mut roots = vec![if self.roots.is_empty() {
            "Evidence must rest on the roots of Intel, AMD and NVIDIA.".to_owned()
        } else {
            format!(
                "Evidence must rest on one of {} named root(s) INSTEAD of the vendors'. Unless such a root is a vendor's own, the \
                 evidence is development evidence and NOT CONFIDENTIAL.",
                self.roots.len()
            )
        }];
        roots.push("Whatever is refused or left unchecked is listed in every result.".into());
        vec![
            ("Roots", roots),
            ("TDX quotes", tdx(&self.tdx)),
            ("SEV-SNP reports", snp(&self.snp)),
            ("NVIDIA GPUs", gpu(&self.gpu)),
            ("Claims of a bundle", self.claims()),
        ]
    }

    fn claims(&self) -> Vec<String> {
        let claims = &self.claims;
        let mut out = Vec::new();
        references(&mut out, "guest configuration", claims.config_digest.len());
        references(&mut out, "model root (besides those of the reference values)", claims.model_root.len());
        references(&mut out, "provider", claims.provider.len());
        out.push(match claims.max_beacon_age {
            Some(age) => format!("The freshness beacon may be {age} seconds old at most."),
            None => "The age of the freshness beacon is not looked at: evidence may be old.".into(),
        });
        out
    }
}

fn references(out: &mut Vec<String>, what: &str, count: usize) {
    out.push(match count {
        0 => format!("Any {what} is accepted: none is named."),
        1 => format!("The {what} must be the one that is named."),
        _ => format!("The {what} must be one of {count} that are named."),
    });
}

fn allowed(out: &mut Vec<String>, allowed: bool, what: &str, meaning: &str) {
    out.push(if allowed {
        format!("LOOSENED: {what} is accepted, though {meaning}.")
    } else {
        format!("Refused: {what}.")
    });
}

fn minimum<T: std::fmt::Display>(out: &mut Vec<String>, what: &str, least: Option<T>) {
    out.push(match least {
        Some(least) => format!("The {what} must be {least} or more."),
        None => format!("Any {what} is accepted."),
    });
}

fn tdx(policy: &TdxPolicy) -> Vec<String> {
    let mut out = vec![match policy.accept_status.as_slice() {
        [] => "No TCB status is accepted: every quote is refused.".to_owned(),
        [only] if only == "UpToDate" => "The platform must be UpToDate, says Intel.".into(),
        statuses => format!("LOOSENED: the TCB status may be {}.", statuses.join(", ")),
    }];
    out.push(match policy.accept_advisories.as_slice() {
        [] => "No advisory may apply to the platform.".into(),
        named => format!("LOOSENED: these advisories may apply: {}; no others.", named.join(", ")),
    });
    minimum(&mut out, "number of Intel's TCB evaluation", policy.min_tcb_evaluation);
    out.push(match policy.max_collateral_age {
        Some(age) => format!("The oldest part of the collateral may be {age} seconds old at most."),
        None => "Collateral counts until Intel says it is due again, however old it is.".into(),
    });
    minimum(&mut out, "version of the quoting enclave", policy.min_qe_svn);
    minimum(&mut out, "version of the PCE", policy.min_pce_svn);
    minimum(
        &mut out,
        "version of the TDX module, in each component,",
        policy.min_tee_tcb_svn.map(|svn| hex::encode(svn.0)),
    );
    allowed(&mut out, policy.allow_debug, "a guest under debugging or profiling", "the host can read it");
    allowed(&mut out, policy.allow_migration, "a guest that can be migrated", "it is as safe as its migration TD");
    allowed(&mut out, policy.allow_sept_ve, "a guest with SEPT_VE_DISABLE clear", "the host can inject #VE");
    allowed(&mut out, policy.allow_service_td, "a guest with service TDs", "it is as safe as they are");
    for (what, flag) in [
        ("Hyper-threading", policy.allow_smt),
        ("Platform keys cached by Intel", policy.allow_cached_keys),
        ("A platform that packages can be added to", policy.allow_dynamic_platform),
    ] {
        out.push(match flag {
            None => format!("{what}: no opinion, and listed as unchecked."),
            Some(true) => format!("{what}: accepted."),
            Some(false) => format!("{what}: refused."),
        });
    }
    for (what, count) in [
        ("processor (FMSPC)", policy.fmspc.len()),
        ("platform instance", policy.piid.len()),
        ("initial memory (MRTD)", policy.mrtd.len()),
        ("firmware configuration (RTMR0)", policy.rtmr0.len()),
        ("kernel (RTMR1)", policy.rtmr1.len()),
        ("command line and initial ram disk (RTMR2)", policy.rtmr2.len()),
        ("run-time register (RTMR3)", policy.rtmr3.len()),
        ("TDX module (MRSEAM)", policy.mrseam.len()),
        ("set of TD attributes", policy.td_attributes.len()),
        ("set of extended features (XFAM)", policy.xfam.len()),
        ("MRCONFIGID", policy.mrconfigid.len()),
        ("MROWNER", policy.mrowner.len()),
        ("MROWNERCONFIG", policy.mrownerconfig.len()),
        ("REPORTDATA", policy.report_data.len()),
    ] {
        references(&mut out, what, count);
    }
    let named: std::collections::BTreeSet<_> = policy.events.iter().map(|rule| rule.register).collect();
    for register in named {
        let count = policy.events.iter().filter(|rule| rule.register == register).count();
        out.push(format!(
            "Every event of RTMR{register} must come in a log and meet one of {count} rule(s), in their order."
        ));
    }
    out
}

fn snp(policy: &SnpPolicy) -> Vec<String> {
    let mut out = vec![match policy.max_vmpl {
        0 => "The report must have been asked for at privilege level 0.".to_owned(),
        most => format!("LOOSENED: the report may have been asked for at privilege levels 0 to {most}."),
    }];
    allowed(&mut out, policy.allow_debug, "a guest that may be debugged", "the host can read it");
    allowed(&mut out, policy.allow_migration, "a guest with a migration agent", "it is as safe as that agent");
    allowed(
        &mut out,
        policy.allow_provisional_firmware,
        "firmware that is not committed",
        "the host can go back behind it",
    );
    allowed(
        &mut out,
        policy.allow_tcb_mismatch,
        "a report of other versions than its key's certificate",
        "AMD did not vouch for them",
    );
    allowed(&mut out, policy.allow_masked_chip_id, "a masked chip id", "only the key tells chips apart");
    allowed(&mut out, policy.allow_vlek, "a key that AMD loaded for a cloud provider", "it belongs to no chip");
    out.push(match policy.allow_smt {
        None => "Hyper-threading: no opinion, and listed as unchecked.".into(),
        Some(true) => "Hyper-threading: accepted.".into(),
        Some(false) => "Hyper-threading: refused.".into(),
    });
    out.push(match policy.require_crl {
        true => "AMD's revocation list is demanded.".into(),
        false => "AMD's revocation list counts if it came with the evidence; otherwise revocation is unchecked.".into(),
    });
    let tcb = |tcb: MinTcb| {
        format!(
            "boot loader {}, tee {}, snp {}, microcode {}, fmc {} (Turin)",
            tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode, tcb.fmc
        )
    };
    minimum(&mut out, "reported TCB", policy.min_tcb.map(tcb));
    minimum(&mut out, "TCB at launch", policy.min_launch_tcb.map(tcb));
    minimum(
        &mut out,
        "ABI version in the guest's policy",
        policy.min_abi.map(|abi| format!("{}.{}", abi.major, abi.minor)),
    );
    minimum(&mut out, "version of the guest", policy.min_guest_svn);
    let firmware = policy.min_firmware.map(|least| format!("{}.{}.{}", least.major, least.minor, least.build));
    minimum(&mut out, "version of the SNP firmware", firmware);
    if let Some(bits) = policy.required_mitigations {
        out.push(format!("Mitigations {bits:#x} must have been there at launch, and be there now; reports before version 5 are refused."));
    }
    let (may, must) = (policy.allowed_guest_policy, policy.required_guest_policy);
    out.extend(may.map(|bits| format!("No guest policy bits but {bits:#x} may be set.")));
    out.extend(must.map(|bits| format!("The guest policy bits {bits:#x} must be set.")));
    match (policy.allowed_platform_info, policy.required_platform_info) {
        (None, None) => out.push("Platform bits: no opinion, and listed as unchecked.".into()),
        (allowed, required) => {
            out.extend(allowed.map(|bits| format!("No platform bits but {bits:#x} may be set.")));
            out.extend(required.map(|bits| format!("The platform bits {bits:#x} must be set.")));
        }
    }
    for (demanded, what) in [
        (policy.require_id_block, "The guest must have been launched with an identity block."),
        (policy.require_author_key, "An author key must have signed the identity block."),
        (policy.require_single_socket, "The guest must be bound to one socket."),
    ] {
        out.extend(demanded.then(|| what.to_owned()));
    }
    for (what, count) in [
        ("launch digest", policy.measurement.len()),
        ("HOST_DATA", policy.host_data.len()),
        ("REPORT_DATA", policy.report_data.len()),
        ("identity key", policy.id_key_digest.len()),
        ("author key", policy.author_key_digest.len()),
        ("key that signed the identity block", policy.trusted_id_keys.len() + policy.trusted_author_keys.len()),
        ("FAMILY_ID", policy.family_id.len()),
        ("IMAGE_ID", policy.image_id.len()),
        ("guest (REPORT_ID)", policy.report_id.len()),
        ("migration agent (REPORT_ID_MA)", policy.report_id_ma.len()),
        ("chip", policy.chip_id.len()),
    ] {
        references(&mut out, what, count);
    }
    out
}

fn gpu(policy: &GpuPolicy) -> Vec<String> {
    let mut out = Vec::new();
    allowed(
        &mut out,
        policy.allow_unappraised,
        "GPU evidence without its certificates",
        "nothing says that it is a GPU's",
    );
    out.push(if policy.require_rims {
        "NVIDIA's manifests for driver and VBIOS are demanded, and every golden measurement must match.".into()
    } else {
        "Golden measurements must match where NVIDIA's manifests came with the evidence; without them firmware and devtools mode are unchecked.".to_owned()
    });
    out.push(if policy.require_ocsp {
        "NVIDIA's word (OCSP) is demanded on every certificate that its service knows, and must be good and current.".into()
    } else {
        "A certificate that NVIDIA's service (OCSP) calls revoked is refused; where no answer came along, revocation is unchecked.".to_owned()
    });
    out.push(match policy.mode.as_slice() {
        [] => "Any known mode is accepted (one GPU, several, several with protected PCIe).".into(),
        modes => format!("The mode must be one of {modes:?}."),
    });
    references(&mut out, "driver version", policy.driver_version.len());
    references(&mut out, "VBIOS version", policy.vbios_version.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(toml: &str) -> String {
        let policy = Policy::from_toml(toml).expect("a policy");
        policy.explain().into_iter().flat_map(|(_, lines)| lines).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_default_is_strict_and_every_loosening_is_called_one() {
        let strict = said("");
        assert!(!strict.contains("LOOSENED"), "{strict}");
        assert!(strict.contains("must be UpToDate"));
        for loose in [
            "[tdx]\naccept_status = [\"UpToDate\", \"OutOfDate\"]",
            "[tdx]\naccept_advisories = [\"INTEL-SA-1\"]",
            "[tdx]\nallow_debug = true",
            "[tdx]\nallow_migration = true",
            "[tdx]\nallow_sept_ve = true",
            "[tdx]\nallow_service_td = true",
            "[snp]\nmax_vmpl = 1",
            "[snp]\nallow_debug = true",
            "[snp]\nallow_migration = true",
            "[snp]\nallow_provisional_firmware = true",
            "[snp]\nallow_tcb_mismatch = true",
            "[snp]\nallow_masked_chip_id = true",
            "[snp]\nallow_vlek = true",
            "[gpu]\nallow_unappraised = true",
        ] {
            assert_eq!(said(loose).matches("LOOSENED").count(), 1, "{loose}");
        }
    }

    #[test]
    fn what_is_named_is_demanded() {
        let mrtd = "11".repeat(48);
        assert!(said(&format!("[tdx]\nmrtd = [\"{mrtd}\"]")).contains("The initial memory (MRTD) must be the one"));
        assert!(said("[gpu]\nrequire_rims = true").contains("manifests for driver and VBIOS are demanded"));
        let rules = "[tdx]\nevents = [{ register = 3 }, { register = 3, kind = \"x\" }]";
        assert!(said(rules).contains("Every event of RTMR3 must come in a log and meet one of 2 rule(s)"));
        assert!(said("[snp]\nmin_abi = { major = 1, minor = 55 }").contains("1.55 or more"));
        assert!(said("[claims]\nmax_beacon_age = 60").contains("60 seconds old at most"));
    }
}
