//! The measured guest in a real machine: QEMU under emulation boots the image with its real firmware, the development platform outside it
//! measures what QEMU was given, a client that knows the image from its files alone appraises the evidence, prompts and pays. Then one
//! thing is another at a time, and the client refuses and says which. Run by `make vm`.

mod changes;
mod command;
mod directory;
mod image;

use std::time::Instant;

use cocoon_cli::data::DataDir;
use cocoon_cli::demo::job;
use cocoon_cli::network::{Network, Options, Tee, VmGuest};
use cocoon_cli::ui::{Output, Ui};
use futures::StreamExt;

use changes::{CHANGES, Rogue, Verdict};
use image::Image;

/// Machines that are emulated at once, besides the good one, which idles.
const AT_ONCE: usize = 2;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs QEMU, the enclave's binary and packages of Debian: make vm"]
async fn a_machine_proves_what_it_runs_and_whatever_differs_is_refused_by_name() {
    let started = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let image = tokio::task::spawn_blocking(move || {
        let image = Image::build(&path);
        command::up_accepts_the_same(&image);
        image
    });
    let image = image.await.unwrap();
    println!("image built and measured from its files after {:.0} s", started.elapsed().as_secs_f32());

    let data = DataDir::open(&folder.path().join("network")).unwrap();
    let ui = Ui::new(Output::Human);
    let options = Options {
        enclave: Default::default(),
        model: Default::default(),
        tee: Tee::Tdx,
        guest: String::new(),
        vm: Some(VmGuest { plan: image.plan("good", |_| {}), references: image.references.clone() }),
        tap: None,
        endorser: None,
        claims: None,
        lifetime: cocoon_cli::network::ATTESTATION_LIFETIME,
        ui,
    };
    let network = Network::start(&data, options).await.unwrap();
    println!("the machine is attested after {:.0} s", started.elapsed().as_secs_f32());
    let job = job::run(&network, "Who can read my prompt?", ui).await.unwrap();
    assert!(job.paid.0 > 0 && job.receipt.tokens.completion > 0, "the contract pays");
    assert_eq!(job.receipt.model_root, image.references.models[0].root, "the model that the image's files have");

    // The control: what refuses below accepts the good one, by the same way.
    let announcement = network.host.announcement().unwrap();
    let asked = directory::ask(&network, announcement, folder.path()).await;
    assert!(asked.refused.is_none() && asked.relayed > 0, "the good enclave is asked: {:?}", asked.refused);

    command::launch_plays_the_cpu(&image, &network, &data).await;
    println!("`cocoon host launch` has run it too after {:.0} s", started.elapsed().as_secs_f32());

    let world = Rogue { image: &image, network: &network };
    let verdicts = futures::stream::iter(CHANGES.iter().map(|change| world.try_it(change)));
    let verdicts: Vec<Verdict> = verdicts.buffered(AT_ONCE).collect().await;
    network.stop().await;
    println!("\n{:<28} after   the client says", "what is another");
    for (change, verdict) in CHANGES.iter().zip(&verdicts) {
        println!("{:<28} {:>3.0} s   {}", change.what, verdict.seconds, short(&verdict.said));
    }
    println!("\nall of it in {:.0} s; DEVELOPMENT PLATFORM - NOT CONFIDENTIAL", started.elapsed().as_secs_f32());
    for (change, verdict) in CHANGES.iter().zip(&verdicts) {
        for part in change.named {
            assert!(verdict.said.contains(part), "{}: {part:?} is not in {:?}", change.what, verdict.said);
        }
        let other = change.innocent.iter().find(|part| verdict.said.contains(**part));
        assert_eq!(other, None, "{}: named, and it is the same: {:?}", change.what, verdict.said);
    }
}

/// The end of what was said first, which is what a table has room for.
fn short(said: &str) -> String {
    const ROOM: usize = 150;
    let (_, differs) = said.split_once("what differs is ").unwrap_or(("", said));
    let (first, model) = differs.split_once("; reference.model-root: ").unwrap_or((differs, ""));
    let mut short: String = first.chars().take(ROOM).collect();
    if first.chars().nth(ROOM).is_some() {
        short.push_str("...");
    }
    format!("{short}{}{model}", if model.is_empty() { "" } else { "; model: " })
}
