//! Why a guest is no more, in one line: from how QEMU ended, what it said, its last events and the guest's last words.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What was seen of a guest.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Last lines of QEMU's standard error.
    pub stderr: Vec<String>,
    /// Last lines of the guest's console.
    pub console: Vec<String>,
    /// `reason` of the last SHUTDOWN event.
    pub shutdown: Option<String>,
    /// What a GUEST_PANICKED event said.
    pub panicked: Option<String>,
    /// The machine has run: QEMU got as far as its control socket.
    pub ran: bool,
    /// It was told to stop.
    pub stopping: bool,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// One line.
    pub why: String,
    /// It was asked for.
    pub wanted: bool,
    /// Another start can go better. It cannot where QEMU refused its command line or its machine.
    pub again: bool,
}

/// A part of what QEMU or the guest says, and what it means.
type Known = (&'static str, &'static str);

/// What QEMU says when it ends by itself.
const QEMU: &[Known] = &[
    (
        "Could not access KVM kernel module: No such file",
        "KVM is not there: modprobe kvm_intel or kvm_amd, after switching virtualisation on in the BIOS",
    ),
    ("Could not access KVM kernel module: Permission denied", "this user may not use KVM: add it to the group kvm"),
    ("failed to initialize kvm", "KVM does not work on this machine: `cocoon host doctor` says why"),
    (
        "KVM_TDX_CAPABILITIES failed",
        "KVM has no TDX: boot with kvm_intel.tdx=1; `cocoon host doctor` says what is missing",
    ),
    (
        "KVM_TDX_INIT_VM failed",
        "the TDX module refused this guest: fewer vcpus, or update the BIOS, which carries the module",
    ),
    ("tdx-guest' not found", "this QEMU has no TDX: install 10.1 or newer"),
    ("sev-snp-guest' not found", "this QEMU has no SEV-SNP: install 9.1 or newer"),
    ("invalid object type", "this QEMU is too old for this guest: `cocoon host doctor` says which it needs"),
    ("is not a valid object type", "this QEMU is too old for this guest: `cocoon host doctor` says which it needs"),
    (
        "SNP_LAUNCH_START",
        "AMD's secure processor refused the guest's policy: check snp.policy, and `cocoon host doctor`",
    ),
    ("SNP_LAUNCH_FINISH", "AMD's secure processor refused the finished guest: check snp.id_block and snp.id_auth"),
    ("SNP_LAUNCH_UPDATE", "AMD's secure processor refused the guest's memory: free memory, and check the firmware"),
    ("failed to open /dev/sev", "/dev/sev is not this user's: give it to the group kvm"),
    (
        "unsupported machine type",
        "this QEMU does not have the pinned machine type: install a newer one, or use reference values for another `machine`",
    ),
    (
        "unable to set guest cid: Address already in use",
        "another guest has this context id: choose another network.vsock",
    ),
    (
        "vhost-vsock: failed to open vhost device",
        "/dev/vhost-vsock is missing or not this user's: modprobe vhost_vsock",
    ),
    ("Could not set up host forwarding rule", "the port of network.tcp is taken: choose another"),
    (
        "cannot bind memory to host NUMA nodes",
        "the NUMA node has too little memory: lower memory, or choose another numa",
    ),
    ("unable to map backing store for guest RAM", "there are too few huge pages: see `cocoon host doctor --config`"),
    ("cannot set up guest memory", "there is too little memory: lower memory"),
    ("Cannot allocate memory", "memory could not be had or locked: lower memory, or raise the limit of locked memory"),
    ("vfio: error getting device", "the GPU is in use or not bound to vfio-pci: `cocoon host doctor` says which"),
    ("vfio", "the GPU could not be passed on: `cocoon host doctor` says what is wrong with it"),
    ("iommufd", "/dev/iommu could not be used: `cocoon host doctor` says why"),
    ("Could not open", "a file of the image cannot be opened"),
    ("could not load kernel", "the kernel of the image cannot be read"),
    ("could not load PC BIOS", "the firmware of the image cannot be read"),
];

/// What a guest says last.
const GUEST: &[Known] = &[
    ("Unable to mount root fs", "it found no root: its initial ram disk does not fit its kernel"),
    ("No working init found", "its initial ram disk has no program to start"),
    ("Attempted to kill init", "its first program, the enclave, ended"),
    ("Out of memory", "it has too little memory for its model: raise memory"),
    ("verity", "its model disk is not the one it was built for"),
    ("System is deadlocked on memory", "it has too little memory: raise memory"),
];

fn known(lines: &[String], table: &[Known]) -> Option<(String, &'static str)> {
    table.iter().find_map(|(part, meaning)| {
        let line = lines.iter().rev().find(|line| line.contains(part))?;
        Some((line.clone(), *meaning))
    })
}

/// The line in which a kernel says why it stops.
fn panic(console: &[String]) -> Option<String> {
    const PANIC: &str = "Kernel panic - not syncing: ";
    let line = console.iter().rev().find(|line| line.contains(PANIC))?;
    Some(line.split_once(PANIC)?.1.to_owned())
}

/// Says it.
pub fn explain(status: ExitStatus, seen: &Seen) -> Death {
    if seen.stopping {
        return Death { why: how_stopped(status, seen), wanted: true, again: false };
    }
    let again = |why: String| Death { why, wanted: false, again: true };
    if let Some(signal) = status.signal() {
        let meaning = match signal {
            9 => ", most likely by the kernel for want of memory: see dmesg",
            31 => ": it made a system call that its sandbox forbids",
            6 | 11 => ": a fault of QEMU's",
            _ => "",
        };
        return again(format!("QEMU was killed by signal {signal}{meaning}{}", said(&seen.stderr)));
    }
    if status.code() != Some(0) {
        let why = match known(&seen.stderr, QEMU) {
            Some((line, meaning)) => format!("QEMU ended: {meaning} ({line})"),
            None => format!("QEMU ended with {}{}", status.code().unwrap_or(-1), said(&seen.stderr)),
        };
        return Death { why, wanted: false, again: seen.ran };
    }
    if let Some(reason) = panic(&seen.console) {
        let meaning = known(&seen.console, GUEST).map(|(_, meaning)| format!(": {meaning}")).unwrap_or_default();
        return again(format!("the guest's kernel panicked, {reason:?}{meaning}"));
    }
    if let Some(panicked) = &seen.panicked {
        return again(format!("the guest reported a fatal error ({panicked}){}", last(&seen.console)));
    }
    let meaning = known(&seen.console, GUEST).map(|(_, meaning)| format!(": {meaning}")).unwrap_or_default();
    again(match seen.shutdown.as_deref() {
        Some("guest-shutdown") => format!("the guest switched itself off{meaning}{}", last(&seen.console)),
        Some("guest-reset") => {
            format!("the guest restarted itself, which ends it here{meaning}{}", last(&seen.console))
        }
        Some("host-signal") => "QEMU was told to end by a signal from outside".into(),
        Some("host-qmp-quit") => "QEMU was told to end at its control socket by somebody else".into(),
        Some(other) => format!("the guest ended ({other}){}", last(&seen.console)),
        None => format!("QEMU ended without a word{}", last(&seen.console)),
    })
}

fn how_stopped(status: ExitStatus, seen: &Seen) -> String {
    match (status.signal(), seen.shutdown.as_deref()) {
        (Some(signal), _) => format!("stopped: it did not end by itself, and was killed (signal {signal})"),
        (None, Some("guest-shutdown")) => "stopped: the guest switched itself off".into(),
        _ => "stopped: QEMU was told to end".into(),
    }
}

fn said(stderr: &[String]) -> String {
    stderr.last().map(|line| format!(": {line}")).unwrap_or_default()
}

fn last(console: &[String]) -> String {
    console.last().map(|line| format!("; its last words: {line:?}")).unwrap_or_else(|| "; it wrote nothing".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|line| (*line).to_owned()).collect()
    }

    fn failed(stderr: &str) -> Death {
        explain(code(1), &Seen { stderr: lines(&[stderr]), ..Seen::default() })
    }

    fn ended(shutdown: &str, console: &[&str]) -> Death {
        explain(
            code(0),
            &Seen { shutdown: Some(shutdown.into()), console: lines(console), ran: true, ..Seen::default() },
        )
    }

    #[test]
    fn what_qemu_says_is_translated() {
        let cases = [
            (
                "qemu-system-x86_64: -accel kvm: Could not access KVM kernel module: No such file or directory",
                "modprobe",
            ),
            ("qemu-system-x86_64: -accel kvm: failed to initialize kvm: Permission denied", "doctor"),
            ("qemu-system-x86_64: KVM_TDX_CAPABILITIES failed: Invalid argument", "kvm_intel.tdx=1"),
            ("qemu-system-x86_64: -object {...}: invalid object type: tdx-guest", "too old"),
            (
                "qemu-system-x86_64: sev_snp_launch_start: SNP_LAUNCH_START ret=-5 fw_error=7 'Policy is not allowed'",
                "snp.policy",
            ),
            ("qemu-system-x86_64: unsupported machine type: \"pc-q35-99.0\"", "pinned machine type"),
            (
                "qemu-system-x86_64: -device vhost-vsock-pci,guest-cid=3: vhost-vsock: unable to set guest cid: Address already in use",
                "context id",
            ),
            (
                "qemu-system-x86_64: -netdev user,id=net0: Could not set up host forwarding rule 'tcp:127.0.0.1:80-:80'",
                "network.tcp",
            ),
            (
                "qemu-system-x86_64: -device vfio-pci,host=0000:41:00.0: vfio 0000:41:00.0: error bind device fd=30",
                "GPU",
            ),
            ("qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory", "huge pages"),
        ];
        for (stderr, part) in cases {
            let death = failed(stderr);
            assert!(death.why.contains(part), "{stderr}: {}", death.why);
            assert!(death.why.contains(stderr), "QEMU's own words are kept");
            assert!(!death.again, "a second start would end alike: {stderr}");
        }
        let death = failed("qemu-system-x86_64: something new");
        assert_eq!(death.why, "QEMU ended with 1: qemu-system-x86_64: something new");
    }

    #[test]
    fn a_qemu_that_fails_while_its_guest_runs_is_started_again() {
        let death = explain(code(1), &Seen { ran: true, ..Seen::default() });
        assert!(death.again);
    }

    #[test]
    fn signals_are_translated() {
        let death = explain(ExitStatus::from_raw(9), &Seen { ran: true, ..Seen::default() });
        assert!(death.why.contains("signal 9") && death.why.contains("memory") && death.again, "{}", death.why);
        let death = explain(ExitStatus::from_raw(31), &Seen::default());
        assert!(death.why.contains("sandbox"), "{}", death.why);
    }

    #[test]
    fn a_guests_last_words_are_read() {
        let death = ended(
            "guest-reset",
            &[
                "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
                "[    1.3] Rebooting in 1 seconds..",
            ],
        );
        assert!(
            death.why.contains("VFS: Unable to mount root fs") && death.why.contains("initial ram disk"),
            "{}",
            death.why
        );
        let death = ended("guest-reset", &["Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"]);
        assert!(death.why.contains("the enclave, ended"), "{}", death.why);
        let death = ended("guest-shutdown", &["goodbye"]);
        assert_eq!(death.why, "the guest switched itself off; its last words: \"goodbye\"");
        let death =
            ended("guest-shutdown", &["device-mapper: verity: 254:0: data block 7 is corrupted", "reboot: Power down"]);
        assert!(death.why.contains("model disk"), "{}", death.why);
        let death = ended("guest-reset", &[]);
        assert!(death.why.contains("it wrote nothing"), "{}", death.why);
    }

    #[test]
    fn a_fatal_error_of_a_trust_domain_is_told() {
        let seen = Seen { panicked: Some("tdx, error-code 0x1".into()), ran: true, ..Seen::default() };
        assert!(explain(code(0), &seen).why.contains("error-code 0x1"));
    }

    #[test]
    fn a_stop_that_was_asked_for_is_no_accident() {
        for (status, shutdown, part) in [
            (code(0), Some("guest-shutdown"), "switched itself off"),
            (code(0), Some("host-qmp-quit"), "told to end"),
            (ExitStatus::from_raw(9), None, "killed"),
        ] {
            let death =
                explain(status, &Seen { stopping: true, shutdown: shutdown.map(str::to_owned), ..Seen::default() });
            assert!(death.wanted && !death.again && death.why.contains(part), "{}", death.why);
        }
    }
}
