//! The steps from the kernel to the enclave, in order.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT};

use crate::files::{self, wait_for};
use crate::{Error, Listen, Parameters, Platform, network, platform, sys, verity};

/// Where the enclave finds the model.
pub const MODEL_FOLDER: &str = "/model";

const CONFIG: &str = "/run/config.toml";
const ENCLAVE: &str = "/init";

/// Brings the guest up and runs the enclave. Gives how it ended.
pub fn guest() -> Result<String, Error> {
    mount_system()?;
    let line = fs::read_to_string("/proc/cmdline").map_err(Error::file(Path::new("/proc/cmdline")))?;
    let parameters: Parameters = line.parse()?;
    if parameters.platform == Platform::Development {
        eprintln!("cocoon-init: DEVELOPMENT PLATFORM - NOT CONFIDENTIAL");
    }
    files::load_modules(parameters.platform)?;
    check_clock(parameters.platform)?;
    wait_for_entropy()?;
    mount_model(&parameters)?;
    match parameters.listen {
        Listen::Tcp { address, prefix, .. } => network::bring_up(address, prefix)?,
        Listen::Vsock { .. } => drop(wait_for("/dev/vsock", "vsock device")?),
    }
    fs::write(CONFIG, files::configuration()?).map_err(Error::file(Path::new(CONFIG)))?;
    let stdin = match parameters.platform {
        Platform::Hardware => {
            mount("configfs", "/sys/kernel/config", "configfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")?;
            Stdio::null()
        }
        Platform::Development => Stdio::from(OwnedFd::from(platform::connect()?)),
    };
    give_up_rights()?;
    run_enclave(&parameters, stdin)
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, options: &str) -> Result<(), Error> {
    sys::mount(source, target, kind, flags, options).map_err(Error::step(format!("mounting {target}")))
}

fn mount_system() -> Result<(), Error> {
    let flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mount("proc", "/proc", "proc", flags, "hidepid=2")?;
    mount("sysfs", "/sys", "sysfs", flags, "")?;
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755")?;
    // Links to the model's memory, and the configuration; neither holds prompts or keys.
    mount("tmpfs", "/tmp", "tmpfs", flags, "size=4m,mode=0700")?;
    mount("tmpfs", "/run", "tmpfs", flags, "size=1m,mode=0700")
}

/// How often the kernel is asked what it counts time by, and how long in between. Where the processor does not state the frequency of its
/// counter, as AMD's do not, the kernel measures it for a second, and counts by `tsc-early` or something else until then.
const LOOKS: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(100);

/// The enclave's time is what has passed since its beacon, so the clock must be the processor's own counter, and no device that the host
/// plays. TDX does not let the host turn that counter; with SNP it takes Secure TSC, which this guest does not ask for yet
/// (`docs/untested-on-hardware.md`).
fn check_clock(platform: Platform) -> Result<(), Error> {
    let path = Path::new("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    match platform {
        Platform::Development => Ok(()),
        Platform::Hardware => {
            settles(|| fs::read_to_string(path).map_err(Error::file(path)), || std::thread::sleep(BETWEEN))
        }
    }
}

/// Whether time is counted by the processor's counter before all looks are over.
fn settles(source: impl Fn() -> Result<String, Error>, wait: impl Fn()) -> Result<(), Error> {
    let mut other = String::new();
    for _ in 0..LOOKS {
        other = source()?;
        if other.trim() == "tsc" {
            return Ok(());
        }
        wait();
    }
    Err(Error::Unfit(format!(
        "the kernel counts time by {}, which the host can turn: this machine needs a processor whose time stamp counter is invariant (QEMU: -cpu MODEL,+invtsc)",
        other.trim()
    )))
}

/// Blocks until the kernel's generator is seeded, so that no key is made before. On hardware the kernel itself stops a confidential guest
/// whose processor gives no random numbers.
fn wait_for_entropy() -> Result<(), Error> {
    let path = Path::new("/dev/random");
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut [0; 1])).map_err(Error::file(path))
}

fn mount_model(parameters: &Parameters) -> Result<(), Error> {
    let disk = wait_for("/dev/vda", "disk with the model's image")?;
    let device = verity::open(&disk, &parameters.model)?;
    let flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mount(&device.display().to_string(), MODEL_FOLDER, "erofs", flags, "")
}

/// Capabilities have numbers below this (`capability.h`; the kernel knows fewer).
const CAPABILITIES: libc::c_ulong = 64;
/// The enclave locks its memory, and does nothing else that a capability is for.
const CAP_IPC_LOCK: libc::c_ulong = 14;

/// What neither this process nor the enclave needs again.
fn give_up_rights() -> Result<(), Error> {
    for (setting, value) in [
        ("/proc/sys/kernel/kexec_load_disabled", "1"),
        ("/proc/sys/kernel/kptr_restrict", "2"),
        ("/proc/sys/kernel/dmesg_restrict", "1"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "1"),
        ("/proc/sys/kernel/io_uring_disabled", "2"),
        ("/proc/sys/kernel/sysrq", "0"),
        ("/proc/sys/user/max_user_namespaces", "0"),
    ] {
        files::write(setting, value)?;
    }
    sys::limit(libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY).map_err(Error::step("limit of locked memory"))?;
    sys::limit(libc::RLIMIT_CORE, 0).map_err(Error::step("limit of core files"))?;
    sys::limit(libc::RLIMIT_NOFILE, 65_536).map_err(Error::step("limit of open files"))?;
    for capability in (0..CAPABILITIES).filter(|capability| *capability != CAP_IPC_LOCK) {
        match sys::drop_from_bounding_set(capability) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => break,
            result => result.map_err(Error::step("dropping capabilities"))?,
        }
    }
    sys::no_new_privileges().map_err(Error::step("no_new_privs"))?;
    mount("", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, "")?;
    mount("", "/run", "", MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "")
}

fn run_enclave(parameters: &Parameters, stdin: Stdio) -> Result<String, Error> {
    let platform = match parameters.platform {
        Platform::Hardware => "tsm",
        Platform::Development => "development",
    };
    let listen = match parameters.listen {
        Listen::Tcp { address, port, .. } => format!("{address}:{port}"),
        Listen::Vsock { port } => format!("vsock:{port}"),
    };
    let enclave = Command::new(ENCLAVE)
        .args(["serve", "--config", CONFIG, "--model", MODEL_FOLDER, "--platform", platform])
        .args(["--listen", &listen])
        .env_clear()
        // A library of the engine's wants to know where home is before it is told to load from a folder.
        .env("HOME", "/tmp")
        .stdin(stdin)
        .spawn()
        .map_err(Error::step("starting the enclave"))?;
    loop {
        match sys::reap() {
            Ok((process, how)) if process == enclave.id() => return Ok(how.to_string()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Step { step: "waiting for the enclave".into(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_kernel_may_take_a_while_to_count_by_the_processor() {
        let ask = |becomes: u32| {
            let looks = Cell::new(0);
            let source = || {
                looks.set(looks.get() + 1);
                Ok(if looks.get() > becomes { "tsc\n" } else { "tsc-early\n" }.to_owned())
            };
            (settles(source, || {}), looks.get())
        };
        assert!(matches!(ask(0), (Ok(()), 1)));
        assert!(matches!(ask(20), (Ok(()), 21)));
        let (never, looks) = ask(u32::MAX);
        assert_eq!(looks, LOOKS);
        assert!(never.unwrap_err().to_string().contains("counts time by tsc-early, which"));
        let fails = || Err(Error::Missing("no clock".into()));
        assert!(settles(fails, || {}).is_err());
    }
}
