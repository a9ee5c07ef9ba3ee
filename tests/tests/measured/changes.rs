//! Guests in which one thing is another, launched by a host that says nothing of it.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Bundle, Digest};
use cocoon_cli::network::{Network, PRICES};
use cocoon_client::SystemClock;
use cocoon_host::vm::{DevelopmentCpu, VmLauncher};
use cocoon_host::{EnclaveLauncher, Endorser, LaunchSpec, RunningEnclave, collect_evidence};
use cocoon_image::guest::model_image;
use cocoon_protocol::wire::Announcement;

use super::directory;
use super::image::{Draft, Image};

pub struct Change {
    /// What is another, for people; and the name of its folder.
    pub what: &'static str,
    alter: fn(&mut Draft),
    /// What the client must name.
    pub named: &'static [&'static str],
    /// What it must not name, because it is the same.
    pub innocent: &'static [&'static str],
}

const MEASUREMENT: &str = "reference.measurement";
const INITRD: &str = "the initial ram disk";
const CMDLINE: &str = "the command line \"";
const KERNEL: &str = "the kernel's Authenticode digest";
const MACHINE: &str = "vCPUs";
const MODEL: &str = "another model is loaded";
const DEBUG: &str = "tdx.debug";

pub const CHANGES: &[Change] = &[
    Change {
        what: "initial ram disk",
        alter: |draft| draft.alter(&draft.manifest.initrd, another_enclave),
        named: &[MEASUREMENT, INITRD],
        innocent: &[CMDLINE, KERNEL, MACHINE, MODEL, DEBUG],
    },
    Change {
        what: "command line",
        alter: |draft| {
            let looser = draft.manifest.cmdline.replace("lockdown=confidentiality", "lockdown=integrity");
            assert_ne!(looser, draft.manifest.cmdline);
            draft.manifest.cmdline = looser;
        },
        named: &[MEASUREMENT, CMDLINE, "lockdown=confidentiality"],
        innocent: &[INITRD, KERNEL, MACHINE, MODEL, DEBUG],
    },
    Change {
        what: "kernel",
        alter: |draft| draft.alter(&draft.manifest.kernel, another_kernel),
        named: &[MEASUREMENT, KERNEL],
        innocent: &[CMDLINE, INITRD, MACHINE, MODEL, DEBUG],
    },
    Change {
        what: "model, in the command line",
        alter: |draft| {
            let root = another_model(draft);
            let line = draft.manifest.cmdline.replace(&draft.manifest.verity_root.to_string(), &root.to_string());
            draft.manifest.cmdline = line;
            draft.manifest.verity_root = root;
        },
        named: &[MEASUREMENT, CMDLINE, "reference.model-root", MODEL],
        innocent: &[INITRD, KERNEL, MACHINE, DEBUG],
    },
    Change {
        what: "model, behind its back",
        alter: |draft| _ = another_model(draft),
        named: &["the guest switched itself off", "its model disk is not the one it was built for"],
        innocent: &[],
    },
    Change {
        what: "number of vCPUs",
        alter: |draft| draft.vcpus = 2,
        named: &[MEASUREMENT, "ACPI", MACHINE],
        innocent: &[CMDLINE, INITRD, KERNEL, MODEL, DEBUG],
    },
    Change {
        what: "debugging",
        alter: |draft| {
            let door = draft.image.with_file_name("debugger");
            draft.args = vec!["-gdb".into(), format!("unix:{},server=on,wait=off", door.display())];
        },
        named: &[DEBUG, "the host can read this TD"],
        innocent: &[MEASUREMENT, CMDLINE, INITRD, KERNEL, MACHINE, MODEL],
    },
];

/// Another binary: it says of itself something else, and does the same.
fn another_enclave(initrd: &mut [u8]) {
    const TEXT: &[u8] = b"answers sealed prompts inside a confidential virtual machine";
    let at = initrd.windows(TEXT.len()).position(|window| window == TEXT).expect("what the binary says of itself");
    initrd[at] = b'A';
}

/// A kernel that another person built, as its header says; the version stays.
fn another_kernel(kernel: &mut [u8]) {
    // Linux, `Documentation/arch/x86/boot.rst`: where the version's text begins, less 0x200.
    let text = 0x200 + usize::from(u16::from_le_bytes([kernel[0x20e], kernel[0x20f]]));
    let at = text + kernel[text..text + 200].iter().position(|byte| *byte == b'@').expect("built by somebody");
    kernel[at] = b'#';
}

/// A model with one bit of one weight flipped, as a disk. Gives its root.
fn another_model(draft: &Draft) -> Digest {
    let folder = draft.image.with_file_name("model");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(cocoon_tests::demo_model()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let weights = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // The lowest bit of a mantissa.
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let disk = draft.image.join(&draft.manifest.model_image);
    std::fs::remove_file(&disk).unwrap();
    Digest(model_image(&folder, &disk).unwrap().root)
}

pub struct Verdict {
    /// What the client says, or why the guest never answered.
    pub said: String,
    /// From launch to refusal.
    pub seconds: f32,
}

/// A host that launches other guests than the one that is known.
pub struct Rogue<'a> {
    pub image: &'a Image,
    pub network: &'a Network,
}

impl Rogue<'_> {
    /// Launches it, and offers it to a client in the good one's place.
    pub async fn try_it(&self, change: &Change) -> Verdict {
        let started = Instant::now();
        let plan = self.image.plan(&change.what.replace([' ', ','], "-"), change.alter);
        let folder = plan.config.data.clone();
        let cpu = Arc::new(DevelopmentCpu::new(self.network.platform.clone()));
        let launcher = VmLauncher::new(plan).with_cpu(cpu.clone());
        let spec = LaunchSpec {
            config: self.network.guest_config.clone(),
            model: Default::default(),
            log: folder.join("console.log"),
            given_up: Default::default(),
        };
        let running = tokio::task::spawn_blocking(move || launcher.launch(&spec)).await.unwrap();
        let said = match running {
            Ok(running) => self.offer(running, &cpu, &folder).await,
            Err(error) => error.to_string(),
        };
        Verdict { said, seconds: started.elapsed().as_secs_f32() }
    }

    async fn offer(&self, running: RunningEnclave, cpu: &DevelopmentCpu, folder: &std::path::Path) -> String {
        let evidence = collect_evidence(&running.base_url, self.network.chain.as_ref()).await.unwrap();
        let mut bundle = Bundle::from_cbor(&evidence.bundle).unwrap();
        cpu.endorse(&mut bundle, SystemClock::time()).await.unwrap();
        let encoded = bundle.to_cbor();
        for node in &self.network.nodes {
            assert!(
                matches!(node.appraise(&encoded).await, Err(cocoon_node::Error::Refused(_))),
                "no node signs for it"
            );
        }
        let announcement = Announcement {
            evidence_id: bundle.evidence_id().to_string(),
            host_url: running.base_url.clone(),
            models: vec![self.network.model_name.clone()],
            provider: self.network.provider,
            prices: PRICES,
            bundle: STANDARD.encode(&encoded),
            key_statement: STANDARD.encode(evidence.key_statement.to_bytes()),
        };
        let asked = directory::ask(self.network, announcement, folder).await;
        assert_eq!(asked.relayed, 0, "nothing is sent to it");
        asked.refused.expect("the client asks it all the same")
    }
}
