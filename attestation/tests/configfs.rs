//! The configfs-tsm client against a fake that behaves as the kernel does, one misbehaviour at a time.

use std::io::ErrorKind;

use cocoon_attestation::tsm::{CertTable, ConfigfsTsm, FakeTsm, PROVIDER_SNP, PROVIDER_TDX, Tsm, TsmReport, collect};
use cocoon_attestation::{CpuEvidence, Endorsements, Error, binding};

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
    let (cpu, endorsements) = collect(&mut fake(PROVIDER_TDX), b"claims").unwrap();
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
    let (cpu, endorsements) = collect(&mut snp, b"claims").unwrap();
    assert_eq!(cpu.as_bytes().len(), 1184, "padding behind the report is cut off");
    let Endorsements::Snp(snp) = endorsements else { panic!("certificates expected") };
    assert_eq!((snp.vek, snp.ca), (vec![1], vec![vec![2]]));
    assert_eq!(collect(&mut fake(PROVIDER_SNP), b"claims").unwrap().1, Endorsements::None, "no table");
    let mut cut = FakeTsm::new(PROVIDER_SNP, report, Some(table.to_bytes()[..30].to_vec()));
    assert!(collect(&mut cut, b"claims").is_err(), "a malformed table");
}
