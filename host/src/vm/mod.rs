//! Guests in virtual machines: from a configuration and an image to a QEMU that is watched.
//!
//! - [`config`], [`image`]: what is to run. - [`command`]: QEMU's command line for it.
//! - [`monitor`], [`death`], [`console`], [`qmp`]: one life of a guest. - [`supervise`]: one life after the other.
//! - [`acpi`]: the machine's tables. - [`development`]: who measures a guest that is only emulated, and signs its quotes.
//! - [`launcher`]: the same behind [`crate::EnclaveLauncher`], for a host that has it attested.

pub mod acpi;
pub mod command;
pub mod config;
pub mod console;
pub mod death;
pub mod development;
pub mod firmware;
pub mod image;
pub mod launcher;
pub mod monitor;
pub mod qmp;
pub mod supervise;

pub use command::{CommandLine, MachineFacts, command_line};
pub use config::{ConfigError, GuestConfig, Tee};
pub use development::{DevelopmentCpu, EmulatedCpu};
pub use image::Image;
pub use launcher::VmLauncher;
pub use monitor::{StartError, Vm};

use crate::doctor::{Machine, Question, Wanted};

/// A guest whose configuration and image were checked, and the command line that starts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub config: GuestConfig,
    /// What it boots from.
    pub image: Image,
    /// QEMU.
    pub command: CommandLine,
}

impl Plan {
    /// Checks a configuration against its image and against a machine, of which only what the command line needs is asked.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to do.
    pub fn new(config: GuestConfig, machine: &dyn Machine) -> Result<Self, ConfigError> {
        config.check()?;
        let image = Image::open(&config.image, config.tee)?;
        image.check(&config)?;
        let command = command_line(&config, &image, &facts(&config, machine))?;
        Ok(Self { config, image, command })
    }

    /// What the machine must be fit for.
    pub fn wanted(&self) -> Wanted {
        wanted(&self.config, &self.image)
    }
}

/// What a machine must be fit for to run a guest.
pub fn wanted(config: &GuestConfig, image: &Image) -> Wanted {
    Wanted { firmware: Some(image.firmware.clone()), ..Wanted::from(config) }
}

fn facts(config: &GuestConfig, machine: &dyn Machine) -> MachineFacts {
    let cpus = |node: u32| machine.ask(&Question::File(&format!("/sys/devices/system/node/node{node}/cpulist"))).text();
    let given = |config: &GuestConfig| {
        config.snp.as_ref().is_some_and(|snp| snp.cbitpos.is_some() && snp.reduced_phys_bits.is_some())
    };
    let sev = (config.tee == Tee::Snp && !given(config))
        .then(|| crate::doctor::sev_capabilities(machine, &config.qemu.display().to_string()).ok())
        .flatten();
    MachineFacts { node_cpus: config.numa.and_then(cpus), sev }
}
