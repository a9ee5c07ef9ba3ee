//! The configfs-tsm client against a fake that behaves as the kernel does, one misbehaviour at a time.

use std::io::ErrorKind;

use cocoon_attestation::dev::{DevPlatform, TdxSpec};
use cocoon_attestation::tsm::{
    CertTable, Collected, ConfigfsTsm, FakeTsm, PROVIDER_SNP, PROVIDER_TDX, Tsm, TsmReport, collect,
};
use cocoon_attestation::{CpuEvidence, Endorsements, Error, EventLog, binding, ccel};

const OURS: [u8; 64] = [1; 64];
const THEIRS: [u8; 64] = [2; 64];

/// A platform whose report is its input and the privilege level.
fn fake(provider: &str) -> FakeTsm {
    let echo = |input: &[u8; 64], level: Option<u32>| [input.as_slice(), &[level.unwrap_or(9) as u8]].concat();
    FakeTsm::new(provider, echo, None)
}

fn ask(fake: &mut FakeTsm) -> Result<TsmReport, Error> {
    let result = fake.report(&OURS, None);
    assert_eq!(fake.entries(), 0, "the entry was not removed");
    result
}

#[test]
fn a_report_answers_the_input_with_provider_and_generation() {
    let report = ask(&mut fake(PROVIDER_TDX)).unwrap();
    assert_eq!(report.outblob[..64], OURS);
    assert_eq!((report.provider.as_str(), report.auxblob, report.generation), (PROVIDER_TDX, None, 1));
}

#[test]
fn the_privilege_level_is_written_where_the_platform_has_one() {
    let mut snp = fake(PROVIDER_SNP);
    let report = snp.report(&OURS, Some(2)).unwrap();
    assert_eq!((report.outblob[64], report.generation), (2, 2));
    assert!(snp.report(&OURS, Some(4)).is_err(), "there is no level 4");
    assert!(matches!(fake(PROVIDER_TDX).report(&OURS, Some(0)), Err(Error::File { .. })), "TDX has no such attribute");
    assert_eq!(snp.entries(), 0, "a failed request cleans up as well");
}

#[test]
fn busy_platforms_are_asked_again_and_not_for_ever() {
    for busy in [ErrorKind::ResourceBusy, ErrorKind::WouldBlock, ErrorKind::Interrupted] {
        let mut fake = fake(PROVIDER_TDX);
        fake.outblob_errors = [busy; 3].into();
        assert_eq!(ask(&mut fake).unwrap().outblob[..64], OURS, "{busy:?}");
    }
    for busy in [ErrorKind::ResourceBusy, ErrorKind::WouldBlock] {
        let mut fake = fake(PROVIDER_TDX);
        fake.outblob_errors = std::iter::repeat_n(busy, 1000).collect();
        assert!(ask(&mut fake).is_err(), "{busy:?}");
    }
}

#[test]
fn other_errors_are_not_retried() {
    let mut fake = fake(PROVIDER_TDX);
    fake.outblob_errors = [ErrorKind::PermissionDenied].into();
    assert!(matches!(ask(&mut fake), Err(Error::File { .. })));
    assert!(fake.outblob_errors.is_empty());
}

#[test]
fn a_report_over_another_writers_input_is_never_returned() {
    let mut before = fake(PROVIDER_TDX);
    before.racing_inputs_before = [THEIRS; 2].into();
    assert_eq!(ask(&mut before).unwrap().outblob[..64], OURS, "raced before the report was made");
    let mut after = fake(PROVIDER_TDX);
    after.racing_inputs = [THEIRS; 2].into();
    let report = ask(&mut after).unwrap();
    assert_eq!(report.outblob[..64], OURS, "raced after the report was made");
    assert!(after.racing_inputs.is_empty());
    let mut always = fake(PROVIDER_TDX);
    always.racing_inputs_before = std::iter::repeat_n(THEIRS, 1000).collect();
    assert!(matches!(ask(&mut always), Err(Error::TsmRace(_))));
}

#[test]
fn taken_names_are_passed_over() {
    let mut fake = fake(PROVIDER_TDX);
    fake.names_taken = 3;
    assert!(ask(&mut fake).is_ok());
    fake.names_taken = 1000;
    assert!(ask(&mut fake).unwrap_err().to_string().contains("taken"));
}

#[test]
fn an_empty_report_is_an_error() {
    assert!(ask(&mut FakeTsm::new(PROVIDER_TDX, |_, _| Vec::new(), None)).is_err());
}

#[test]
fn a_guest_without_the_interface_is_told_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let error = ConfigfsTsm::new(folder.path().join("tsm/report")).report(&OURS, None).unwrap_err().to_string();
    assert!(error.contains("Linux 6.7"), "{error}");
    // A plain folder is no configfs: creating an entry makes no attributes.
    assert!(ConfigfsTsm::new(folder.path()).report(&OURS, None).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the entry was not removed");
}

#[test]
fn collected_evidence_is_bound_to_the_claims() {
    let Collected { cpu, event_log, endorsements } = collect(&mut fake(PROVIDER_TDX), b"claims").unwrap();
    assert_eq!(event_log, None, "no table");
    assert_eq!(cpu.as_bytes()[..64], binding::report_data(b"claims"));
    assert!(matches!(cpu, CpuEvidence::Tdx { .. }));
    assert_eq!(endorsements, Endorsements::None);
    assert!(collect(&mut fake("arm_cca_guest"), b"claims").unwrap_err().to_string().contains("arm_cca_guest"));
}

#[test]
fn certificates_from_an_snp_host_become_endorsements() {
    let table = CertTable(vec![(CertTable::VCEK, vec![1]), (CertTable::ARK, vec![2])]);
    let report = |_: &[u8; 64], _| vec![7; 4000];
    let mut snp = FakeTsm::new(PROVIDER_SNP, report, Some(table.to_bytes()));
    let Collected { cpu, endorsements, .. } = collect(&mut snp, b"claims").unwrap();
    assert_eq!(cpu.as_bytes().len(), 1184, "padding behind the report is cut off");
    let Endorsements::Snp(snp) = endorsements else { panic!("certificates expected") };
    assert_eq!((snp.vek, snp.ca), (vec![1], vec![vec![2]]));
    assert_eq!(collect(&mut fake(PROVIDER_SNP), b"claims").unwrap().endorsements, Endorsements::None, "no table");
    let mut cut = FakeTsm::new(PROVIDER_SNP, report, Some(table.to_bytes()[..30].to_vec()));
    assert!(collect(&mut cut, b"claims").is_err(), "a malformed table");
}

/// A table as firmware writes it: the event that names the format, then one for each of these registers.
fn table(registers: &[u32]) -> Vec<u8> {
    let spec = [b"Spec ID Event03\0".as_slice(), &[0; 8], &1_u32.to_le_bytes(), &[0x0c, 0, 48, 0, 0]].concat();
    let mut table = [1_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    table.extend([0; 20]);
    table.extend((spec.len() as u32).to_le_bytes());
    table.extend(spec);
    for register in registers {
        table.extend(register.to_le_bytes());
        table.extend(4_u32.to_le_bytes());
        table.extend([1, 0, 0, 0, 0x0c, 0]);
        table.extend([7; 48]);
        table.extend([1, 0, 0, 0, b'x']);
    }
    // Firmware clears the rest of its table to ones.
    table.extend([0xff; 64]);
    table
}

/// A quote whose registers are those of a log.
fn quote(log: &EventLog) -> Vec<u8> {
    let mut spec = TdxSpec::default();
    spec.body.rtmr = log.replay().unwrap().map(|register| register.0);
    DevPlatform::from_seed([1; 32]).tdx_quote(&spec)
}

#[test]
fn the_firmwares_log_comes_along_where_the_guest_can_see_it() {
    let (good, separator) = (table(&[1, 2, 2]), |register| (register, "EV_SEPARATOR", b"x".as_slice()));
    let expected = quote(&ccel::parse(&good).unwrap());
    let mut tdx = FakeTsm::new(PROVIDER_TDX, move |_, _| expected.clone(), None);
    tdx.ccel = Some(good);
    let log = collect(&mut tdx, b"claims").unwrap().event_log.unwrap();
    let found: Vec<_> =
        log.0.iter().map(|event| (event.register, event.kind.as_str(), event.data.as_slice())).collect();
    assert_eq!(found, [0, 1, 1].map(separator));
    // What cannot be read, or is of something else than the quote, does not keep the quote back.
    for broken in [vec![], table(&[5]), table(&[1])[..80].to_vec(), table(&[1, 2])] {
        tdx.ccel = Some(broken);
        let collected = collect(&mut tdx, b"claims").unwrap();
        assert_eq!(collected.event_log, None);
        assert!(matches!(collected.cpu, CpuEvidence::Tdx { .. }));
    }
    let mut snp = fake(PROVIDER_SNP);
    snp.ccel = Some(table(&[1]));
    assert_eq!(
        collect(&mut snp, b"claims").unwrap().event_log,
        None,
        "SNP has no registers that a log would replay to"
    );
}
