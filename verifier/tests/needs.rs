//! Which endorsements evidence asks for, and the first look at what a service gave.

mod common;

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SnpSpec, TdxSpec};
use cocoon_verifier::needs::{self, Need, PckCa, SnpVersions};
use cocoon_verifier::roots::Product;
use common::{collateral, platform};
use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode, Sequence};

fn gpu(alter: impl FnOnce(&mut GpuSpec, &mut GpuChainSpec)) -> Result<Vec<Need>, String> {
    let (mut report, mut chain) = (GpuSpec::default(), GpuChainSpec::default());
    alter(&mut report, &mut chain);
    needs::of_gpu(&platform().gpu_report(&report), &platform().gpu_chain(&chain))
}

/// Names of the manifests among them.
fn rims(needs: &[Need]) -> Vec<&str> {
    needs.iter().filter_map(|need| if let Need::Rim { id } = need { Some(id.as_str()) } else { None }).collect()
}

#[test]
fn a_tdx_quote_asks_for_its_platforms_collateral() {
    let quote = TdxSpec::default();
    let needs = needs::of_tdx(&platform().tdx_quote(&quote)).expect("a quote");
    let [need @ Need::TdxCollateral { fmspc, ca }] = &needs[..] else { panic!("{needs:?}") };
    assert_eq!((*fmspc, *ca), (quote.pck.fmspc, PckCa::Platform));
    assert_eq!(need.path(), format!("tdx/{}-platform.json", hex::encode(fmspc)));
    let spec = collateral();
    let json = platform().tdx_collateral(&spec);
    let due = need.look(&json).expect("it is for this platform").expect("it lapses");
    assert!(due.0 > spec.tcb_info.issue_date.0 && due.0 <= spec.tcb_info.next_update.0, "{due}");
    assert_eq!(needs::look_by_path(&need.path(), &json), Ok(Some(due)));
    let other = Need::TdxCollateral { fmspc: [9; 6], ca: PckCa::Processor };
    assert!(other.look(&json).is_err() && needs::look_by_path(&other.path(), &json).is_err());
    assert!(other.path().ends_with("-processor.json"));
    assert!(needs::of_tdx(b"no quote").is_err());
    assert!(need.ocsp_request().is_none());
}

#[test]
fn processors_are_of_product_lines() {
    for (family, models, product) in [
        (0x19, [0x00, 0x0f], Some(Product::Milan)),
        (0x19, [0x10, 0x1f], Some(Product::Genoa)),
        (0x19, [0xa0, 0xaf], Some(Product::Genoa)),
        (0x1a, [0x00, 0x1f], Some(Product::Turin)),
        (0x19, [0x20, 0x9f], None),
        (0x1a, [0x20, 0xff], None),
        (0x18, [0x00, 0x10], None),
    ] {
        assert_eq!(models.map(|model| Product::from_cpuid(family, model)), [product; 2], "{family:#x}");
    }
}

#[test]
fn an_snp_report_asks_for_its_key_its_chain_and_the_revocation_list() {
    let spec = SnpSpec::default();
    let report = platform().snp_report(&spec);
    let product = Product::Milan;
    let tcb = spec.reported_tcb;
    let (bootloader, tee, snp, microcode) = (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode);
    let tcb = SnpVersions { fmc: None, bootloader, tee, snp, microcode };
    let key = Need::SnpKey { product, chip_id: spec.chip_id.to_vec(), tcb };
    let expected = vec![Need::SnpChain { product, vlek: false }, Need::SnpCrl { product, vlek: false }, key.clone()];
    assert_eq!(needs::of_snp(&report, None), Ok(expected));
    let versions = format!("{bootloader}.{tee}.{snp}.{microcode}");
    assert_eq!(key.path(), format!("snp/Milan/{}-{versions}.der", hex::encode(spec.chip_id)));
    let turin = Need::SnpKey { product: Product::Turin, chip_id: vec![1; 8], tcb: SnpVersions { fmc: Some(3), ..tcb } };
    assert_eq!(turin.path(), format!("snp/Turin/0101010101010101-3.{versions}.der"));
    assert_eq!(Need::SnpChain { product, vlek: true }.path(), "snp/Milan/vlek-chain.pem");
    assert_eq!(Need::SnpCrl { product, vlek: false }.path(), "snp/Milan/vcek.crl");

    // Version 2 does not say which product it is of.
    let old = platform().snp_report(&SnpSpec { version: 2, ..SnpSpec::default() });
    assert!(needs::of_snp(&old, None).is_err());
    assert_eq!(needs::of_snp(&old, Some(Product::Milan)), needs::of_snp(&report, None));

    let chain = platform().snp_endorsements(&Default::default());
    assert_eq!(key.look(&chain.vek), Ok(None));
    assert_eq!(needs::look_by_path(&key.path(), &chain.vek), Ok(None));
    assert!(key.look(&chain.ca[0]).is_err(), "a certificate of somebody else");
    assert!(key.look(b"nothing").is_err());
    let list = chain.crl.expect("a revocation list");
    let need = Need::SnpCrl { product, vlek: false };
    let due = need.look(&list).expect("a revocation list").expect("it lapses");
    assert!(due > UnixTime(0));
    assert_eq!(needs::look_by_path(&need.path(), &list), Ok(Some(due)));
    assert!(need.look(&chain.vek).is_err());
    let pem: String = chain.ca.iter().map(|der| pem(der)).collect();
    let need = Need::SnpChain { product, vlek: false };
    assert_eq!(need.look(pem.as_bytes()), Ok(None));
    assert!(need.look(&chain.ca[0]).is_err(), "one certificate is no chain");
    assert_eq!(needs::split(pem.as_bytes()), Ok(chain.ca));
    assert!(needs::look_by_path("snp/Milan/readme.txt", b"").is_err());
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[test]
fn a_gpu_asks_for_the_manifests_of_its_driver_and_vbios_and_about_its_chain() {
    let needs = gpu(|_, _| {}).expect("a GPU");
    assert_eq!(rims(&needs), ["NV_GPU_DRIVER_GH100_580.159.03", "NV_GPU_VBIOS_1010_0205_862_9600740020"]);
    assert_eq!(needs.len(), 2 + 3, "all but the root and the GPU's own certificate");
    let blackwell = gpu(|_, chain| {
        chain.architecture = "GB100".into();
        chain.fwid_arcs = vec![2, 23, 133, 5, 4, 1, 1];
    });
    assert_eq!(rims(&blackwell.expect("a GPU"))[0], "NV_GPU_CC_DRIVER_GB100_580.159.03");
    for field in [3, 6, 15] {
        assert!(gpu(|report, _| drop(report.opaque.remove(&field))).is_err(), "without field {field}");
    }
    // What would make another path or address of the name.
    for version in ["../1", "1/2", "1 2", "1\u{e9}"] {
        let named = gpu(|report, _| drop(report.opaque.insert(3, [version.as_bytes(), &[0]].concat())));
        assert!(named.is_err(), "{version}");
    }
    let longest =
        |length: usize| gpu(|report, _| drop(report.opaque.insert(3, [&vec![b'1'; length][..], &[0]].concat())));
    let room = 100 - "NV_GPU_DRIVER_GH100_".len();
    assert!(longest(room).is_ok() && longest(room + 1).is_err());

    let manifest = platform().gpu_manifest(&RimSpec::driver());
    assert_eq!(needs::of_rim(&manifest).expect("a manifest").len(), 3);
    assert!(needs::of_rim(b"<no/>").is_err());
    assert_eq!(needs[0].look(&manifest), Ok(None));
    assert_eq!(needs::look_by_path(&needs[0].path(), &manifest), Ok(None));
    assert!(needs[1].look(&manifest).is_err(), "the driver's manifest is not the VBIOS's");
    assert_eq!(needs[1].look(&platform().gpu_manifest(&RimSpec::vbios())), Ok(None));
}

#[derive(Sequence)]
struct OcspRequest {
    tbs: TbsRequest,
}

#[derive(Sequence)]
struct TbsRequest {
    requests: Vec<Request>,
}

#[derive(Sequence)]
struct Request {
    id: CertId,
}

#[derive(Sequence)]
struct CertId {
    hash: Hash,
    name: OctetString,
    key: OctetString,
    serial: Any,
}

#[derive(Sequence)]
struct Hash {
    algorithm: ObjectIdentifier,
    parameters: Any,
}

#[test]
fn an_ocsp_question_names_the_certificate_and_an_answer_must_be_about_it() {
    let needs = gpu(|_, _| {}).expect("a GPU");
    let ocsp: Vec<_> = needs.iter().filter(|need| matches!(need, Need::Ocsp { .. })).collect();
    let subjects = [OcspSubject::Firmware, OcspSubject::Provisioner, OcspSubject::Model];
    for (n, need) in ocsp.iter().enumerate() {
        let der = need.ocsp_request().expect("a question");
        let request = OcspRequest::from_der(&der).expect("an OCSPRequest (RFC 6960 section 4.1)");
        let [Request { id }] = &request.tbs.requests[..] else { panic!("one question") };
        assert_eq!(id.hash.algorithm.to_string(), "2.16.840.1.101.3.4.2.2");
        assert_eq!((id.name.as_bytes().len(), id.key.as_bytes().len()), (48, 48));
        let spec = OcspSpec::new(subjects[n]);
        let answer = platform().gpu_ocsp(&spec);
        assert_eq!(need.look(&answer), Ok(spec.next_update));
        assert_eq!(needs::look_by_path(&need.path(), &answer), Ok(spec.next_update));
        let today = OcspSpec { next_update: None, ..spec };
        assert_eq!(need.look(&platform().gpu_ocsp(&today)), Ok(Some(today.this_update.plus(86_400))));
        for other in ocsp.iter().filter(|other| *other != need) {
            assert!(other.look(&answer).is_err());
            assert_ne!(other.path(), need.path());
        }
    }
    assert!(ocsp[0].look(b"no answer").is_err());
}

#[test]
fn a_path_asks_for_what_it_names() {
    let quote = platform().tdx_quote(&TdxSpec::default());
    let [collateral] = &needs::of_tdx(&quote).unwrap()[..] else { panic!("collateral") };
    let processor = Need::TdxCollateral { fmspc: [0xab; 6], ca: PckCa::Processor };
    let list = |product, vlek| Need::SnpCrl { product, vlek };
    for need in [collateral, &processor, &list(Product::Genoa, false), &list(Product::Turin, true)] {
        assert_eq!(Need::of_path(&need.path()).as_ref(), Some(need));
    }
    for other in [
        "",
        "tdx",
        "tdx/ab-platform.json",
        "tdx/C0C000000000-platform.json",
        "tdx/c0c000000000-other.json",
        "other/c0c000000000-platform.json",
        "snp/Rome/vcek.crl",
        "snp/Milan-B0/vcek.crl",
        "snp/Milan/vcek-chain.pem",
        "nvidia/rim/NV_GPU_DRIVER_GH100_580.xml",
        "../tdx/c0c000000000-platform.json",
    ] {
        assert_eq!(Need::of_path(other), None, "{other}");
    }
}
