//! The first process of the guest: everything between the kernel and the enclave.
//!
//! `cocoon-enclave` is `/init` of the initial ram disk. Started as process 1 it becomes [`run`]: it loads the kernel modules, mounts what
//! the enclave needs, opens the model's image under the root hash of the measured command line, sets up the one network interface, gives
//! up what it will not need again, starts itself once more as `cocoon-enclave serve`, and waits. There is no shell and no other program in
//! the guest. When the enclave ends, or anything here fails, the machine is switched off: a guest never runs on without its enclave.
//!
//! - [`parameters`]: what the measured command line says. - [`start`]: the steps, in order. - [`verity`]: the model's image.
//! - [`network`], [`platform`], [`files`]: the interface, the development platform's port, kernel modules and the configuration.
//! - `sys`: the system calls, and all unsafe code.

mod error;
mod files;
mod network;
pub mod parameters;
mod platform;
mod start;
mod sys;
mod verity;

pub use error::Error;
pub use files::{CONFIG_NAME, MODULES_FOLDER, MODULES_LIST, ModuleName};
pub use parameters::{Listen, Parameters, Platform, VerityImage};
pub use platform::PORT_NAME;
pub use start::MODEL_FOLDER;

/// Whether this process is the first one of its machine, and so has to [`run`].
pub fn is_first_process() -> bool {
    // Containers have a first process too; only a kernel starts it in the root of an initial ram disk that holds our modules.
    std::process::id() == 1 && std::path::Path::new(MODULES_FOLDER).is_dir()
}

/// Brings the guest up, runs the enclave, and switches the machine off when it ends.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
        eprintln!("cocoon-init: panicked at {place}; switching off");
        sys::power_off()
    }));
    match start::guest() {
        Ok(how) => eprintln!("cocoon-init: the enclave ended ({how}); switching off"),
        Err(error) => eprintln!("cocoon-init: {error}; switching off"),
    }
    sys::power_off()
}
