//! The negative suite: numbered cases, each good evidence of the development platform with one thing altered. Numbers never change
//! their meaning; new cases go to the end of their part.
#![allow(dead_code, reason = "the test and the example each use their own part")]

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{
    CertSpec, CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspStatus, OcspSubject, Responder,
    RimSpec, SignedBy, SnpEndorsementSpec, SnpSpec, SnpTcb, Td15, TdxSpec, serial,
};

/// When every case is appraised.
pub const AT: UnixTime = UnixTime(1_790_000_000);

/// What a case is made of: a name for each file, and its content.
pub enum Files {
    Tdx { quote: Vec<u8>, collateral: Vec<u8> },
    Snp { report: Vec<u8>, vek: Vec<u8>, ca: Vec<Vec<u8>>, crl: Option<Vec<u8>> },
    Gpu { report: Vec<u8>, chain: Vec<u8>, rims: Vec<Vec<u8>>, ocsp: Vec<Vec<u8>> },
}

/// One numbered case.
pub struct Case {
    /// Such as `tdx-017`.
    pub id: String,
    /// What was altered.
    pub what: String,
    /// `accepted`, `refused`, `invalid` or `malformed`.
    pub expect: &'static str,
    /// The check that says so.
    pub check: &'static str,
    pub files: Files,
}

const INVALID: &str = "invalid";
const REFUSED: &str = "refused";
const MALFORMED: &str = "malformed";

struct Suite {
    platform: DevPlatform,
    cases: Vec<Case>,
}

/// Every case, in order. The roots of [`DevPlatform::from_seed`] with seven thirty-two times must be named.
pub fn cases() -> Vec<Case> {
    let mut suite = Suite { platform: DevPlatform::from_seed([7; 32]), cases: Vec::new() };
    suite.tdx();
    suite.snp();
    suite.gpu();
    suite.ocsp();
    suite.ocsp();
    suite.cases
}

fn good_collateral() -> CollateralSpec {
    CollateralSpec::issued(UnixTime(AT.0 - 3600), AT.plus(86_400))
}

fn attributes(bits: u64) -> [u8; 8] {
    bits.to_le_bytes()
}

impl Suite {
    fn add(&mut self, part: &str, what: impl Into<String>, expect: &'static str, check: &'static str, files: Files) {
        let number = self.cases.iter().filter(|case| case.id.starts_with(part)).count() + 1;
        self.cases.push(Case { id: format!("{part}-{number:03}"), what: what.into(), expect, check, files });
    }

    fn quote(&mut self, what: &str, expect: &'static str, check: &'static str, alter: fn(&mut TdxSpec)) {
        let mut spec = TdxSpec::default();
        alter(&mut spec);
        let quote = self.platform.tdx_quote(&spec);
        let collateral = self.platform.tdx_collateral(&good_collateral());
        self.add("tdx", what, expect, check, Files::Tdx { quote, collateral });
    }

    fn collateral(&mut self, what: &str, expect: &'static str, check: &'static str, alter: fn(&mut CollateralSpec)) {
        let mut spec = good_collateral();
        alter(&mut spec);
        let (quote, collateral) = (self.platform.tdx_quote(&TdxSpec::default()), self.platform.tdx_collateral(&spec));
        self.add("tdx", what, expect, check, Files::Tdx { quote, collateral });
    }

    fn quote_bytes(&mut self, what: &str, expect: &'static str, check: &'static str, alter: impl FnOnce(&mut Vec<u8>)) {
        let mut quote = self.platform.tdx_quote(&TdxSpec::default());
        alter(&mut quote);
        let collateral = self.platform.tdx_collateral(&good_collateral());
        self.add("tdx", what, expect, check, Files::Tdx { quote, collateral });
    }

    fn tdx(&mut self) {
        self.quote("quote signed by another key", INVALID, "tdx.signature", |s| s.quote_signed_by = SignedBy::Another);
        self.quote("QE report signed by another key", INVALID, "tdx.qe-report", |s| s.qe_signed_by = SignedBy::Another);
        self.quote("QE report binds another key", INVALID, "tdx.qe-report", |s| s.qe.report_data = Some([0; 64]));
        self.quote("PCK signed by another key", INVALID, "tdx.certificates", |s| {
            s.pck.certificate.signed_by = SignedBy::Another
        });
        self.quote("PCK issuer signed by another key", INVALID, "tdx.certificates", |s| {
            s.pck_ca.signed_by = SignedBy::Another
        });
        self.quote("PCK expired", INVALID, "tdx.certificates", |s| s.pck.certificate.not_after = UnixTime(AT.0 - 1));
        self.quote("PCK not valid yet", INVALID, "tdx.certificates", |s| {
            s.pck.certificate.not_before = UnixTime(AT.0 + 1)
        });
        self.quote("PCK issuer expired", INVALID, "tdx.certificates", |s| s.pck_ca.not_after = UnixTime(AT.0 - 1));
        self.quote("PCK is a CA", INVALID, "tdx.certificates", |s| s.pck.certificate.ca = Some(true));
        self.quote("PCK issuer is no CA", INVALID, "tdx.certificates", |s| s.pck_ca.ca = Some(false));
        self.quote("other FMSPC", INVALID, "tdx.tcb-info", |s| s.pck.fmspc[0] ^= 1);
        self.quote("other PCEID", INVALID, "tdx.pce-id", |s| s.pck.pce_id = [1, 0]);
        self.quote("components differ from CPUSVN", INVALID, "tdx.pck-tcb", |s| s.pck.tcb_components[0] = 0);
        self.quote("QE of another signer", INVALID, "tdx.qe-identity", |s| s.qe.mr_signer[0] ^= 1);
        self.quote("QE of another product", INVALID, "tdx.qe-identity", |s| s.qe.isv_prod_id = 1);
        self.quote("QE under debugging", INVALID, "tdx.qe-identity", |s| s.qe.attributes[0] |= 2);
        self.quote("QE with other MISCSELECT", INVALID, "tdx.qe-identity", |s| s.qe.misc_select = 1);
        self.quote("QE of no level", INVALID, "tdx.qe-identity", |s| s.qe.isv_svn = 0);
        self.quote("QE out of date", REFUSED, "tdx.tcb-status", |s| s.qe.isv_svn = 2);
        self.quote("version 3", MALFORMED, "tdx.format", |s| s.header.version = 3);
        self.quote("TEE type SGX", MALFORMED, "tdx.format", |s| s.header.tee_type = 0);
        self.quote("attestation key type 3", INVALID, "tdx.signature-data", |s| s.header.attestation_key_type = 3);
        self.quote("another QE vendor", INVALID, "tdx.signature-data", |s| s.header.qe_vendor_id[0] ^= 1);
        self.quote("header claims a newer QE", INVALID, "tdx.header-svn", |s| s.header.qe_svn = 5);
        self.quote("header claims a newer PCE", INVALID, "tdx.header-svn", |s| s.header.pce_svn = 14);
        self.quote("module of another signer", INVALID, "tdx.module", |s| s.body.mr_signer_seam[0] = 1);
        self.quote("module with attributes", INVALID, "tdx.module", |s| s.body.seam_attributes[0] = 1);
        self.quote("module that TCB info does not know", INVALID, "tdx.module", |s| s.body.tee_tcb_svn[1] = 9);
        self.quote("module of no level", INVALID, "tdx.module", |s| s.body.tee_tcb_svn[0] = 0);
        self.quote("module out of date", REFUSED, "tdx.tcb-status", |s| s.body.tee_tcb_svn[0] = 2);
        self.quote("debug", REFUSED, "tdx.debug", |s| s.body.td_attributes = attributes(1 << 28 | 1));
        self.quote("profiling, bit 4", REFUSED, "tdx.debug", |s| s.body.td_attributes = attributes(1 << 28 | 1 << 4));
        self.quote("profiling, bit 5", REFUSED, "tdx.debug", |s| s.body.td_attributes = attributes(1 << 28 | 1 << 5));
        self.quote("migratable", REFUSED, "tdx.migration", |s| s.body.td_attributes = attributes(1 << 28 | 1 << 29));
        self.quote("SEPT_VE_DISABLE clear", REFUSED, "tdx.sept-ve-disable", |s| s.body.td_attributes = [0; 8]);
        self.quote("service TD extension", REFUSED, "tdx.service-td", |s| {
            s.body.td_attributes = attributes(1 << 28 | 1 << 17)
        });
        self.quote("unknown attribute", REFUSED, "tdx.attributes", |s| {
            s.body.td_attributes = attributes(1 << 28 | 1 << 40)
        });
        self.quote("service TD bound", REFUSED, "tdx.service-td", |s| {
            s.header.version = 5;
            s.td15 = Some(Td15 { mr_service_td: [1; 48], ..Td15::default() });
        });
        self.collateral("PCK revoked", INVALID, "tdx.certificates", |s| s.pck_crl.revoked = vec![serial::PCK]);
        self.collateral("PCK issuer revoked", INVALID, "tdx.certificates", |s| {
            s.root_crl.revoked = vec![serial::PCK_PLATFORM_CA]
        });
        self.collateral("TCB signer revoked", INVALID, "tdx.certificates", |s| {
            s.root_crl.revoked = vec![serial::TCB_SIGNER]
        });
        self.collateral("root revoked", INVALID, "tdx.certificates", |s| s.root_crl.revoked = vec![serial::ROOT]);
        self.collateral("root's list signed by another", INVALID, "tdx.certificates", |s| {
            s.root_crl.signed_by = SignedBy::Another
        });
        self.collateral("PCK's list signed by another", INVALID, "tdx.certificates", |s| {
            s.pck_crl.signed_by = SignedBy::Another
        });
        self.collateral("root's list due", INVALID, "tdx.certificates", |s| {
            s.root_crl.next_update = UnixTime(AT.0 - 1)
        });
        self.collateral("PCK's list due", INVALID, "tdx.certificates", |s| s.pck_crl.next_update = UnixTime(AT.0 - 1));
        self.collateral("root's list of tomorrow", INVALID, "tdx.certificates", |s| {
            s.root_crl.this_update = UnixTime(AT.0 + 1)
        });
        self.collateral("PCK's list of tomorrow", INVALID, "tdx.certificates", |s| {
            s.pck_crl.this_update = UnixTime(AT.0 + 1)
        });
        self.collateral("TCB signer expired", INVALID, "tdx.certificates", |s| {
            s.tcb_signer.not_after = UnixTime(AT.0 - 1)
        });
        self.collateral("TCB signer signed by another", INVALID, "tdx.certificates", |s| {
            s.tcb_signer.signed_by = SignedBy::Another
        });
        self.collateral("TCB signer is a CA", INVALID, "tdx.certificates", |s| s.tcb_signer.ca = Some(true));
        self.collateral("TCB info signed by another", INVALID, "tdx.tcb-info", |s| {
            s.tcb_info_signed_by = SignedBy::Another
        });
        self.collateral("TCB info expired", INVALID, "tdx.tcb-info", |s| s.tcb_info.next_update = UnixTime(AT.0 - 1));
        self.collateral("TCB info of tomorrow", INVALID, "tdx.tcb-info", |s| {
            s.tcb_info.issue_date = UnixTime(AT.0 + 1)
        });
        self.collateral("TCB info of SGX", INVALID, "tdx.tcb-info", |s| s.tcb_info.id = "SGX".into());
        self.collateral("TCB info of another kind", INVALID, "tdx.tcb-type", |s| s.tcb_info.tcb_type = 1);
        self.collateral("TCB info without levels", INVALID, "tdx.tcb-level", |s| s.tcb_info.tcb_levels.clear());
        self.collateral("TCB status nobody knows", INVALID, "tdx.tcb-info", |s| {
            s.tcb_info.tcb_levels[0].tcb_status = "Fine".into()
        });
        self.collateral("platform revoked", INVALID, "tdx.tcb-level", |s| {
            s.tcb_info.tcb_levels[0].tcb_status = "Revoked".into()
        });
        self.collateral("platform out of date", REFUSED, "tdx.tcb-status", |s| {
            s.tcb_info.tcb_levels[0].tcb_status = "OutOfDate".into()
        });
        self.collateral("software hardening needed", REFUSED, "tdx.tcb-status", |s| {
            s.tcb_info.tcb_levels[0].tcb_status = "SWHardeningNeeded".into()
        });
        self.collateral("configuration needed", REFUSED, "tdx.tcb-status", |s| {
            s.tcb_info.tcb_levels[0].tcb_status = "ConfigurationNeeded".into()
        });
        self.collateral("an advisory applies", REFUSED, "tdx.advisories", |s| {
            s.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00001".into()]
        });
        self.collateral("QE identity signed by another", INVALID, "tdx.qe-identity", |s| {
            s.qe_identity_signed_by = SignedBy::Another
        });
        self.collateral("QE identity expired", INVALID, "tdx.qe-identity", |s| {
            s.qe_identity.next_update = UnixTime(AT.0 - 1)
        });
        self.collateral("QE identity of tomorrow", INVALID, "tdx.qe-identity", |s| {
            s.qe_identity.issue_date = UnixTime(AT.0 + 1)
        });
        self.collateral("QE identity of SGX", INVALID, "tdx.qe-identity", |s| s.qe_identity.id = "QE".into());
        self.quote_bytes("a byte behind the quote", MALFORMED, "tdx.format", |quote| quote.push(1));
        self.quote_bytes("cut in the body", MALFORMED, "tdx.format", |quote| quote.truncate(400));
        self.quote_bytes("cut in the signature data", MALFORMED, "tdx.format", |quote| quote.truncate(1000));
        self.quote_bytes("empty", MALFORMED, "tdx.format", Vec::clear);
        // One bit in every field that the attestation key signs.
        for (field, at) in [
            ("user data", 28),
            ("TEE_TCB_SVN", 48),
            ("MRSEAM", 64),
            ("MRSIGNERSEAM", 112),
            ("SEAMATTRIBUTES", 160),
            ("TDATTRIBUTES", 168),
            ("XFAM", 176),
            ("MRTD", 184),
            ("MRCONFIGID", 232),
            ("MROWNER", 280),
            ("MROWNERCONFIG", 328),
            ("RTMR0", 376),
            ("RTMR1", 424),
            ("RTMR2", 472),
            ("RTMR3", 520),
            ("REPORTDATA", 568),
            ("REPORTDATA's end", 631),
        ] {
            self.quote_bytes(&format!("bit flipped in {field}"), INVALID, "tdx.signature", |quote| quote[at] ^= 0x10);
        }
        self.quote_bytes("bit flipped in the signature", INVALID, "tdx.signature", |quote| quote[640] ^= 1);
        self.quote_bytes("bit flipped in the attestation key", INVALID, "tdx.signature", |quote| quote[700] ^= 1);
        self.quote_bytes("bit flipped in the QE's report", INVALID, "tdx.qe-report", |quote| quote[780] ^= 1);
        self.quote_bytes("bit flipped in the QE report's signature", INVALID, "tdx.qe-report", |quote| {
            quote[1160] ^= 1
        });
        self.quote_bytes("bit flipped in the QE's authentication data", INVALID, "tdx.qe-report", |quote| {
            quote[1230] ^= 1
        });
    }

    fn report(&mut self, what: &str, expect: &'static str, check: &'static str, alter: impl FnOnce(&mut SnpSpec)) {
        let mut spec = SnpSpec::default();
        alter(&mut spec);
        let report = self.platform.snp_report(&spec);
        self.snp_case(what, expect, check, report, &SnpEndorsementSpec::default());
    }

    fn endorsed(
        &mut self,
        what: &str,
        expect: &'static str,
        check: &'static str,
        alter: impl FnOnce(&mut SnpEndorsementSpec),
    ) {
        let mut spec = SnpEndorsementSpec::default();
        alter(&mut spec);
        let report = self.platform.snp_report(&SnpSpec::default());
        self.snp_case(what, expect, check, report, &spec);
    }

    fn snp_case(
        &mut self,
        what: &str,
        expect: &'static str,
        check: &'static str,
        report: Vec<u8>,
        spec: &SnpEndorsementSpec,
    ) {
        let chain = self.platform.snp_endorsements(spec);
        self.add("snp", what, expect, check, Files::Snp { report, vek: chain.vek, ca: chain.ca, crl: chain.crl });
    }

    fn snp(&mut self) {
        let older = SnpTcb { microcode: 218, ..SnpTcb::default() };
        self.report("signed by another key", INVALID, "snp.signature", |s| s.signed_by = SignedBy::Another);
        self.report("another signature algorithm", INVALID, "snp.signature", |s| s.signature_algorithm = 2);
        self.report("says VLEK, signed by VCEK", INVALID, "snp.signing-key", |s| s.signing_key = 1);
        self.report("says no key", INVALID, "snp.signing-key", |s| s.signing_key = 7);
        self.report("version 1", MALFORMED, "snp.format", |s| s.version = 1);
        self.report("version 6", MALFORMED, "snp.format", |s| s.version = 6);
        self.report("another processor", INVALID, "snp.product", |s| s.cpuid = [0x1a, 0x02, 0x01]);
        self.report("another chip", INVALID, "snp.chip-id", |s| s.chip_id = [9; 64]);
        self.report("debug", REFUSED, "snp.debug", |s| s.policy |= 1 << 19);
        self.report("migration agent allowed", REFUSED, "snp.migration", |s| s.policy |= 1 << 18);
        self.report("migration agent there", REFUSED, "snp.migration", |s| s.report_id_ma = [1; 32]);
        self.report("guest policy bit 17 clear", REFUSED, "snp.policy", |s| s.policy &= !(1 << 17));
        for vmpl in 1..=3 {
            self.report(&format!("privilege level {vmpl}"), REFUSED, "snp.vmpl", |s| s.vmpl = vmpl);
        }
        self.report("TCB not the certificate's", REFUSED, "snp.tcb", |s| {
            (s.reported_tcb, s.current_tcb, s.committed_tcb) = (older, older, older);
        });
        self.report("firmware not committed", REFUSED, "snp.provisional-firmware", |s| s.current_firmware[0] ^= 1);
        self.report("TCB not committed", REFUSED, "snp.provisional-firmware", |s| s.committed_tcb = older);
        self.report("chip id masked", REFUSED, "snp.masked-chip-id", |s| {
            s.mask_chip_key = true;
            s.chip_id = [0; 64];
        });
        self.endorsed("VCEK signed by another", INVALID, "snp.chain", |s| s.vcek.signed_by = SignedBy::Another);
        self.endorsed("ASK signed by another", INVALID, "snp.chain", |s| s.ask.signed_by = SignedBy::Another);
        self.endorsed("VCEK expired", INVALID, "snp.validity", |s| s.vcek.not_after = UnixTime(AT.0 - 1));
        self.endorsed("VCEK not valid yet", INVALID, "snp.validity", |s| s.vcek.not_before = UnixTime(AT.0 + 1));
        self.endorsed("ASK expired", INVALID, "snp.validity", |s| s.ask.not_after = UnixTime(AT.0 - 1));
        self.endorsed("VCEK is a CA", INVALID, "snp.key-usage", |s| s.vcek.ca = Some(true));
        self.endorsed("ASK is no CA", INVALID, "snp.key-usage", |s| s.ask.ca = Some(false));
        self.endorsed("VCEK of another chip", INVALID, "snp.chip-id", |s| s.hwid = vec![9; 64]);
        self.endorsed("VCEK of another TCB", REFUSED, "snp.tcb", |s| s.tcb = older);
        self.endorsed("VCEK of another product", INVALID, "snp.product", |s| s.product = "Genoa-B1".into());
        self.endorsed("VCEK of no product", INVALID, "snp.product", |s| s.product = "Naples".into());
        self.endorsed("ASK revoked", INVALID, "snp.revocation", |s| {
            s.crl.as_mut().expect("a list").revoked = vec![serial::ASK]
        });
        self.endorsed("list signed by another", INVALID, "snp.revocation", |s| {
            s.crl.as_mut().expect("a list").signed_by = SignedBy::Another
        });
        self.endorsed("list due", INVALID, "snp.revocation", |s| {
            s.crl.as_mut().expect("a list").next_update = UnixTime(AT.0 - 1)
        });
        self.endorsed("list of tomorrow", INVALID, "snp.revocation", |s| {
            s.crl.as_mut().expect("a list").this_update = UnixTime(AT.0 + 1)
        });
        let good = self.platform.snp_report(&SnpSpec::default());
        for (field, at) in [
            ("guest SVN", 0x04),
            ("policy", 0x08),
            ("FAMILY_ID", 0x10),
            ("IMAGE_ID", 0x20),
            ("VMPL", 0x30),
            ("CURRENT_TCB", 0x38),
            ("PLATFORM_INFO", 0x40),
            ("REPORT_DATA", 0x50),
            ("REPORT_DATA's end", 0x8f),
            ("MEASUREMENT", 0x90),
            ("HOST_DATA", 0xc0),
            ("ID_KEY_DIGEST", 0xe0),
            ("AUTHOR_KEY_DIGEST", 0x110),
            ("REPORT_ID", 0x140),
            ("REPORT_ID_MA", 0x160),
            ("REPORTED_TCB", 0x180),
            ("CPUID stepping", 0x18a),
            ("CHIP_ID", 0x1a0),
            ("COMMITTED_TCB", 0x1e0),
            ("current firmware", 0x1e8),
            ("committed firmware", 0x1ec),
            ("LAUNCH_TCB", 0x1f0),
            ("r", 0x2a0),
            ("s", 0x2e8),
        ] {
            let mut report = good.clone();
            report[at] ^= 0x10;
            self.snp_case(
                &format!("bit flipped in {field}"),
                INVALID,
                "snp.signature",
                report,
                &SnpEndorsementSpec::default(),
            );
        }
        for (field, at) in [
            ("reserved after the key's kind", 0x4c),
            ("reserved after CPUID", 0x190),
            ("reserved at the end", 0x250),
            ("behind r", 0x2d8),
            ("behind s", 0x320),
            ("behind the signature", 0x400),
        ] {
            let mut report = good.clone();
            report[at] ^= 0x10;
            self.snp_case(
                &format!("bit set: {field}"),
                MALFORMED,
                "snp.format",
                report,
                &SnpEndorsementSpec::default(),
            );
        }
        for (what, report) in
            [("cut", good[..1183].to_vec()), ("a byte too long", [&good[..], &[0]].concat()), ("empty", Vec::new())]
        {
            self.snp_case(what, MALFORMED, "snp.format", report, &SnpEndorsementSpec::default());
        }
    }

    fn gpu_case(
        &mut self,
        what: &str,
        expect: &'static str,
        check: &'static str,
        alter: impl FnOnce(&mut GpuSpec, &mut GpuChainSpec, &mut Vec<RimSpec>),
    ) {
        let (mut report, mut chain, mut rims) =
            (GpuSpec::default(), GpuChainSpec::default(), vec![RimSpec::driver(), RimSpec::vbios()]);
        alter(&mut report, &mut chain, &mut rims);
        let rims = rims.iter().map(|spec| self.platform.gpu_manifest(spec)).collect();
        let (report, chain) = (self.platform.gpu_report(&report), self.platform.gpu_chain(&chain));
        self.add("gpu", what, expect, check, Files::Gpu { report, chain, rims, ocsp: Vec::new() });
    }

    /// One answer of NVIDIA's service among good evidence.
    fn ocsp_case(
        &mut self,
        what: &str,
        expect: &'static str,
        check: &'static str,
        subject: OcspSubject,
        alter: impl FnOnce(&mut OcspSpec),
    ) {
        let mut spec = OcspSpec::new(subject);
        alter(&mut spec);
        let files = Files::Gpu {
            report: self.platform.gpu_report(&GpuSpec::default()),
            chain: self.platform.gpu_chain(&GpuChainSpec::default()),
            rims: vec![self.platform.gpu_manifest(&RimSpec::driver())],
            ocsp: vec![self.platform.gpu_ocsp(&spec)],
        };
        self.add("gpu", what, expect, check, files);
    }

    fn ocsp(&mut self) {
        for (subject, what, check) in [
            (OcspSubject::Gpu, "GPU", "gpu.revocation"),
            (OcspSubject::Firmware, "boot ROM", "gpu.revocation"),
            (OcspSubject::Provisioner, "provisioner", "gpu.revocation"),
            (OcspSubject::Model, "model", "gpu.revocation"),
            (OcspSubject::RimSigner, "manifest's signer", "gpu.driver-rim-revocation"),
            (OcspSubject::RimL3, "manifest's issuer", "gpu.driver-rim-revocation"),
            (OcspSubject::RimCa, "manifest's authority", "gpu.driver-rim-revocation"),
        ] {
            self.ocsp_case(&format!("{what} revoked"), INVALID, check, subject, |spec| {
                spec.status = OcspStatus::Revoked(UnixTime(AT.0 - 1))
            });
            self.ocsp_case(&format!("{what} unknown to the service"), INVALID, check, subject, |spec| {
                spec.status = OcspStatus::Unknown
            });
        }
        let mut model = |what: &str, alter: fn(&mut OcspSpec)| {
            self.ocsp_case(what, INVALID, "gpu.revocation", OcspSubject::Model, alter);
        };
        model("answer signed by another", |spec| spec.signed_by = SignedBy::Another);
        model("answer by somebody not certified for it", |spec| spec.responder = Responder::Unauthorised);
        model("answer by a delegate of another", |spec| spec.certificate.signed_by = SignedBy::Another);
        model("answer by a delegate of the past", |spec| spec.certificate.not_after = UnixTime(AT.0 - 1));
        model("answer that was due again", |spec| spec.next_update = Some(UnixTime(AT.0 - 1)));
        model("answer of the future", |spec| spec.this_update = UnixTime(AT.0 + 1));
        model("answer of two days ago, without a next one", |spec| {
            (spec.this_update, spec.next_update) = (UnixTime(AT.0 - 172_800), None)
        });
    }

    fn gpu(&mut self) {
        self.gpu_case("signed by another key", INVALID, "gpu.signature", |r, _, _| r.signed_by = SignedBy::Another);
        self.gpu_case("chain of another GPU", INVALID, "gpu.signature", |_, c, _| c.gpu = 1);
        self.gpu_case("other firmware than certified", INVALID, "gpu.fwid", |_, c, _| c.fwid = Some([1; 48]));
        self.gpu_case("no firmware certified", INVALID, "gpu.fwid", |_, c, _| c.fwid = None);
        self.gpu_case("leaf expired", INVALID, "gpu.certificates", |_, c, _| c.leaf.not_after = UnixTime(AT.0 - 1));
        self.gpu_case("leaf signed by another", INVALID, "gpu.certificates", |_, c, _| {
            c.leaf.signed_by = SignedBy::Another
        });
        self.gpu_case("leaf is a CA", INVALID, "gpu.certificates", |_, c, _| c.leaf.ca = Some(true));
        for n in 0..3 {
            self.gpu_case(&format!("authority {n} signed by another"), INVALID, "gpu.certificates", |_, c, _| {
                c.authorities[n].signed_by = SignedBy::Another
            });
            self.gpu_case(&format!("authority {n} expired"), INVALID, "gpu.certificates", |_, c, _| {
                c.authorities[n].not_after = UnixTime(AT.0 - 1)
            });
            self.gpu_case(&format!("authority {n} is no CA"), INVALID, "gpu.certificates", |_, c, _| {
                c.authorities[n].ca = Some(false)
            });
        }
        self.gpu_case("a switch by its certificate", INVALID, "gpu.architecture", |_, c, _| {
            c.architecture = "LS10".into()
        });
        self.gpu_case("a switch by its fields", INVALID, "gpu.architecture", |r, _, _| {
            drop(r.opaque.insert(24, vec![1]))
        });
        self.gpu_case("an architecture without evidence", INVALID, "gpu.architecture", |_, c, _| {
            c.architecture = "AD102".into()
        });
        self.gpu_case("an unknown mode", REFUSED, "gpu.mode", |r, _, _| drop(r.opaque.insert(36, vec![3, 0])));
        self.gpu_case("another driver than the manifest's", REFUSED, "gpu.driver-rim", |_, _, m| {
            m[0].version = "580.159.04".into()
        });
        self.gpu_case("another VBIOS than the manifest's", REFUSED, "gpu.vbios-rim", |_, _, m| {
            m[1].version = "96.00.74.00.21".into()
        });
        self.gpu_case("manifest of another architecture", REFUSED, "gpu.driver-rim", |_, _, m| {
            m[0].product = "GB100".into()
        });
        self.gpu_case("both manifests give one index", INVALID, "gpu.measurements", |_, _, m| {
            let golden = m[0].golden[&1].clone();
            m[1].golden.insert(1, golden);
        });
        self.gpu_case("manifest signed by another", INVALID, "gpu.rim.signature", |_, _, m| {
            m[0].signed_by = SignedBy::Another
        });
        self.gpu_case("manifest's signer expired", INVALID, "gpu.rim.certificates", |_, _, m| {
            m[1].leaf.not_after = UnixTime(AT.0 - 1)
        });
        self.gpu_case("manifest's authority signed by another", INVALID, "gpu.rim.certificates", |_, _, m| {
            m[1].authorities[0].signed_by = SignedBy::Another
        });
        self.gpu_case("manifest's authority is no CA", INVALID, "gpu.rim.certificates", |_, _, m| {
            m[0].authorities[1] = CertSpec { ca: Some(false), ..CertSpec::new(22) }
        });
        for index in (0..40).step_by(3) {
            self.gpu_case(&format!("measurement {index} is another"), REFUSED, "gpu.measurements", |r, _, _| {
                r.measurements.insert(index + 1, [9; 48]);
            });
        }
    }
}
