//! `cocoon-image`: builds the files that a guest is launched from.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use cocoon_image::{debian, guest};
use cocoon_init::{Listen, Platform};

#[derive(Parser)]
#[command(version, about = "Builds guest images of Cocoon; the same inputs give the same bytes")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch the pinned packages of Debian
    Packages {
        /// Where they are kept
        #[arg(long, env = "COCOON_PACKAGES")]
        packages: PathBuf,
    },
    /// Build an image
    Build {
        /// The guest's binary
        #[arg(long, env = "COCOON_ENCLAVE_BIN")]
        enclave: PathBuf,
        /// The model folder
        #[arg(long)]
        model: PathBuf,
        /// Who signs evidence
        #[arg(long, value_enum)]
        platform: PlatformName,
        /// The vsock port at which the enclave listens, in a guest without a network interface; else TCP port 8443 at 10.0.2.15/24
        #[arg(long)]
        vsock: Option<u32>,
        /// Name of the image
        #[arg(long, default_value = "cocoon-enclave")]
        name: String,
        /// Where packages are kept; what is missing is fetched
        #[arg(long, env = "COCOON_PACKAGES")]
        packages: PathBuf,
        /// The image's folder
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum PlatformName {
    /// Intel TDX or AMD SEV-SNP
    Hardware,
    /// The development platform: NOT CONFIDENTIAL
    Development,
}

/// The guest's address in QEMU's user network, and the same wherever else: it is measured.
const ADDRESS: Listen = Listen::Tcp { address: Ipv4Addr::new(10, 0, 2, 15), prefix: 24, port: 8443 };

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Packages { packages } => {
            for package in debian::pinned()? {
                println!("{}", package.fetch(&packages)?.display());
            }
        }
        Command::Build { enclave, model, platform, vsock, name, packages, out } => {
            let platform = match platform {
                PlatformName::Hardware => Platform::Hardware,
                PlatformName::Development => Platform::Development,
            };
            let listen = vsock.map_or(ADDRESS, |port| Listen::Vsock { port });
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let recipe = guest::Recipe { enclave, model, platform, listen, name, version };
            let image = guest::build(&recipe, &packages, &out)?;
            for (file, digest) in &image.sha256 {
                println!("{digest}  {file}");
            }
            println!("command line: {}", image.cmdline);
        }
    }
    Ok(())
}
