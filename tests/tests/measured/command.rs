//! The commands that run such a guest: `cocoon host launch`, which plays its CPU too, and what `cocoon up --vm` would accept.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cocoon_attestation::Bundle;
use cocoon_cli::data::DataDir;
use cocoon_cli::network::{Network, PRICES};
use cocoon_cli::up;
use cocoon_client::{Error, SystemClock};
use cocoon_host::{DevEndorser, Endorser, collect_evidence};

use super::image::Image;

const PATIENCE: Duration = Duration::from_secs(600);

struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `cocoon up --vm` measures an image to the values that `cocoon measure image` signs.
pub fn up_accepts_the_same(image: &Image) {
    let guest = up::vm(&image.config("up")).unwrap();
    assert_eq!(guest.references, image.references);
}

/// A guest that `cocoon host launch` runs proves what it is. It is in nobody's register: that is all that the client misses.
pub async fn launch_plays_the_cpu(image: &Image, network: &Network, data: &DataDir) {
    let config = image.config("launched");
    let enclave = format!("enclave = {:?}\n", network.guest_config);
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &enclave).unwrap();
    let child = Command::new(cocoon_tests::cocoon_binary())
        .args(["host", "launch", "--anyway", "--patience", "1", "--config"])
        .arg(&config)
        .arg("--platform-seed")
        .arg(data.join("secrets/development-platform"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Launched(child);
    let address = cocoon_cli::host_launch::read_plan(&config).unwrap().config.network.tcp.unwrap();
    let until = Instant::now() + PATIENCE;
    let url = format!("http://{address}");
    let evidence = loop {
        // QEMU takes connections before its guest does, and keeps them waiting.
        match tokio::time::timeout(PATIENCE / 20, collect_evidence(&url, network.chain.as_ref())).await {
            Ok(Ok(evidence)) => break evidence,
            failed => assert!(Instant::now() < until, "{:?}", failed.map(|failed| failed.err())),
        }
        assert_eq!(child.0.try_wait().unwrap(), None, "`cocoon host launch` runs on");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let mut bundle = Bundle::from_cbor(&evidence.bundle).unwrap();
    DevEndorser::new(network.platform.clone()).endorse(&mut bundle, SystemClock::time()).await.unwrap();
    match network.client.appraise(&bundle.to_cbor(), &evidence.key_statement, PRICES).await {
        Err(Error::Refused { check, .. }) => assert_eq!(check, "registration"),
        other => panic!("{:?}", other.map(|enclave| enclave.evidence_id)),
    }
    assert!(Command::new("kill").args(["-TERM", &child.0.id().to_string()]).status().unwrap().success());
    assert!(child.0.wait().unwrap().success(), "a clean stop");
}
