//! SNP appraisal beside the `sev` crate's OpenSSL path, in one run, each in turn, on the same report and chain. The peer checks
//! two certificate signatures, the root's own, and the report's; it looks at no dates, no revocation, no key usage, no policy.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{DevPlatform, SnpEndorsementSpec, SnpSpec};
use cocoon_verifier::{Outcome, Policy, appraise_snp};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

const AT: UnixTime = UnixTime(1_790_000_000);
const ROUNDS: usize = 400;

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let platform = DevPlatform::from_seed([7; 32]);
    let policy = Policy { roots: vec![platform.snp_ark_der()], ..Policy::default() };
    let report = platform.snp_report(&SnpSpec::default());
    let chain = platform.snp_endorsements(&SnpEndorsementSpec::default());
    let ours = || {
        let result = appraise_snp(&report, &chain.vek, &chain.ca, chain.crl.as_deref(), &policy, AT);
        assert_eq!(result.outcome, Outcome::Accepted);
    };
    let theirs = || {
        let read = |der: &[u8]| Certificate::from_der(der).expect("a certificate");
        let ca = ca::Chain { ask: read(&chain.ca[0]), ark: read(&chain.ca[1]) };
        let chain = Chain { ca, vek: read(&chain.vek) };
        let report = AttestationReport::from_bytes(&report).expect("a report");
        (&chain, &report).verify().expect("it holds");
        black_box(&report);
    };
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 20 {
        for (work, times) in [(&ours as &dyn Fn(), &mut one), (&theirs, &mut other)] {
            let started = Instant::now();
            work();
            if round >= 20 {
                times.push(started.elapsed());
            }
        }
    }
    let (ours, theirs) = (median(&mut one), median(&mut other));
    println!("\n| SNP, cold, one thread | us, p50 | per second |\n|---|---|---|");
    println!("| this verifier, with revocation list and policy | {ours:.1} | {:.0} |", 1e6 / ours);
    println!("| sev 8.0.0, OpenSSL | {theirs:.1} | {:.0} |", 1e6 / theirs);
    println!("\nThis verifier is {:.2} times as fast.", theirs / ours);
}
