//! Writes good evidence into `corpus/`, for the fuzzer to start from.

mod common;

use std::path::Path;

use common::WORLD;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let policy = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.example.toml"))?;
    for (target, seed) in [
        ("tdx_quote", &WORLD.quote),
        ("collateral", &WORLD.collateral),
        ("snp_report", &WORLD.report),
        ("snp_certificates", &WORLD.chain.vek),
        ("gpu_report", &WORLD.gpu_report),
        ("gpu_chain", &WORLD.gpu_chain),
        ("rim", &WORLD.rims[0]),
        ("ocsp", &WORLD.ocsp),
        ("bundle", &WORLD.bundle),
        ("policy", &policy),
    ] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("good"), seed)?;
    }
    Ok(())
}
