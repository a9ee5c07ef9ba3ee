//! Real guests under QEMU's emulation: console, supervision, clean stop, and why they died. Without QEMU these say what to install.
//!
//! The guest is a boot sector, written out here: it prints a line on the serial port and then does what its test needs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cocoon_host::vm::acpi;
use cocoon_host::vm::development::{EmulatedCpu, MeasureError};
use cocoon_host::vm::supervise::{self, Event};
use cocoon_host::vm::{CommandLine, GuestConfig, Plan, StartError, Tee, Vm, VmLauncher};
use cocoon_host::{EnclaveLauncher, LaunchSpec};

const PATIENCE: Duration = Duration::from_secs(300);

/// Whether QEMU is here. In CI it must be.
fn qemu() -> bool {
    let there = std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "QEMU is missing: apt-get install qemu-system-x86 (8.2 or newer; on Debian 12 from backports)"
    );
    if !there {
        eprintln!("not run: apt-get install qemu-system-x86");
    }
    there
}

/// What a guest does after its line.
#[derive(Clone, Copy)]
enum Then {
    /// Powers off, as ACPI of this machine type does.
    PowerOff,
    /// Resets itself through the keyboard controller.
    Reset,
    /// Waits for ever, and does not look at its power button.
    Wait,
}

/// Code in real mode, followed by its message, at this address of its segment.
fn code(start: &[u8], at: u16, line: &str, then: Then) -> Vec<u8> {
    let mut code = start.to_vec();
    // mov si,message; mov dx,0x3f8; next: lodsb; test al,al; jz done; out dx,al; jmp next; done:
    code.extend([0xbe, 0, 0, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]);
    match then {
        // SLP_EN of PM1a_CNT (ICH9 at 0x600, set up by SeaBIOS): mov dx,0x604; mov ax,0x2000; out dx,ax
        Then::PowerOff => code.extend([0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef]),
        // mov al,0xfe; out 0x64,al
        Then::Reset => code.extend([0xb0, 0xfe, 0xe6, 0x64]),
        Then::Wait => {}
    }
    // wait: hlt; jmp wait
    code.extend([0xf4, 0xeb, 0xfd]);
    let message = at + u16::try_from(code.len()).unwrap();
    code[start.len() + 1..start.len() + 3].copy_from_slice(&message.to_le_bytes());
    code.extend(line.bytes());
    code.extend(*b"\r\n\0");
    code
}

/// A disk with this boot sector.
fn sector(line: &str, then: Then) -> Vec<u8> {
    // cli; xor ax,ax; mov ds,ax
    let mut disk = code(&[0xfa, 0x31, 0xc0, 0x8e, 0xd8], 0x7c00, line, then);
    disk.resize(510, 0);
    disk.extend([0x55, 0xaa]);
    // A disk of one sector is none to the BIOS.
    disk.resize(1 << 20, 0);
    disk
}

/// A file with the header of a Linux kernel (boot protocol 2.3) and this code at its real-mode entry.
fn kernel(line: &str, then: Then) -> Vec<u8> {
    const ENTRY: usize = 0x200;
    const HEADER_END: usize = 0x268;
    let mut file = vec![0; HEADER_END];
    file[0x1f1] = 4;
    file[0x1fe..0x202].copy_from_slice(&[0x55, 0xaa, 0xeb, 0x66]);
    file[0x202..0x208].copy_from_slice(b"HdrS\x03\x02");
    file[0x211] = 1;
    file[0x22c..0x230].copy_from_slice(&0x37ff_ffff_u32.to_le_bytes());
    // cli; push cs; pop ds: the segment begins at the entry.
    file.extend(code(&[0xfa, 0x0e, 0x1f], u16::try_from(HEADER_END - ENTRY).unwrap(), line, then));
    file.resize(5 * 512 + 4096, 0);
    file
}

/// The guest's own command line is for images; this one boots a sector with the same console, control socket and sandbox.
fn command(folder: &Path, disk: &[u8]) -> CommandLine {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("disk");
    std::fs::write(&path, disk).unwrap();
    let qmp = format!("socket,id=qmp,path={},server=on,wait=off", folder.join("qmp.sock").display());
    let drive = format!("if=ide,format=raw,readonly=off,file={}", path.display());
    let args = [
        "-no-user-config",
        "-nodefaults",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-display",
        "none",
        "-no-reboot",
        "-accel",
        "tcg",
        "-machine",
        "pc-q35-8.2",
        "-m",
        "64M",
        "-drive",
        &drive,
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
        "-chardev",
        &qmp,
        "-mon",
        "chardev=qmp,mode=control",
    ];
    CommandLine { program: "qemu-system-x86_64".into(), args: args.map(str::to_owned).into() }
}

fn started(line: &str, then: Then) -> (tempfile::TempDir, Vm) {
    let folder = tempfile::tempdir().unwrap();
    let vm = Vm::start(&command(folder.path(), &sector(line, then)), folder.path()).unwrap();
    (folder, vm)
}

fn console(folder: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(folder.join("console.log")).unwrap_or_default()).into_owned()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_guest_that_switches_itself_off_leaves_its_last_words() {
    if !qemu() {
        return;
    }
    let (folder, mut vm) = started("goodbye from the guest", Then::PowerOff);
    let death = wait_for("the guest does not end", || vm.ended());
    assert!(death.why.contains("switched itself off") && death.why.contains("goodbye from the guest"), "{}", death.why);
    assert!(death.again && !death.wanted);
    assert!(console(folder.path()).contains("goodbye from the guest\r\n"), "{}", console(folder.path()));
}

#[test]
fn a_kernel_that_panics_is_told_from_its_console() {
    if !qemu() {
        return;
    }
    let (_folder, mut vm) =
        started("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", Then::Reset);
    let death = wait_for("the guest does not end", || vm.ended());
    assert!(death.why.contains("panicked") && death.why.contains("the enclave, ended"), "{}", death.why);
}

#[test]
fn a_guest_that_ignores_its_power_button_is_stopped_all_the_same() {
    if !qemu() {
        return;
    }
    let (folder, mut vm) = started("waiting", Then::Wait);
    wait_for("the guest does not start", || console(folder.path()).contains("waiting").then_some(()));
    assert_eq!(vm.ended(), None);
    let death = vm.stop(Duration::from_millis(300));
    assert!(death.wanted && !death.again && death.why.contains("told to end"), "{}", death.why);
    drop(vm);
    let again = Vm::start(&command(folder.path(), &sector("again", Then::Wait)), folder.path());
    assert!(again.is_ok(), "a stopped guest leaves its folder free");
}

#[test]
fn a_qemu_that_is_killed_is_told() {
    if !qemu() {
        return;
    }
    let (_folder, mut vm) = started("waiting", Then::Wait);
    assert!(std::process::Command::new("kill").args(["-9", &vm.pid().to_string()]).status().unwrap().success());
    let death = wait_for("the guest does not end", || vm.ended());
    assert!(death.why.contains("signal 9") && death.again, "{}", death.why);
}

#[test]
fn a_guest_that_is_dropped_runs_no_longer() {
    if !qemu() {
        return;
    }
    let (_folder, vm) = started("waiting", Then::Wait);
    let process = PathBuf::from(format!("/proc/{}", vm.pid()));
    assert!(process.exists());
    drop(vm);
    assert!(!process.exists());
}

#[test]
fn one_folder_is_for_one_guest() {
    if !qemu() {
        return;
    }
    let (folder, _vm) = started("waiting", Then::Wait);
    match Vm::start(&command(folder.path(), &sector("second", Then::Wait)), folder.path()) {
        Err(StartError::Folder { why, .. }) => assert!(why.contains("another guest"), "{why}"),
        other => panic!("{:?}", other.map(|vm| vm.pid())),
    }
}

/// A host that is killed takes no guest with it: the next one ends what it finds in its folder.
#[test]
fn a_guest_whose_host_was_killed_is_ended_by_the_next() {
    if !qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let line = command(folder.path(), &sector("orphan", Then::Wait));
    let mut orphan = std::process::Command::new(&line.program)
        .args(&line.args)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let socket = folder.path().join("qmp.sock");
    // Bound, and listening too.
    wait_for("the orphan does not start", || {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let name = socket.to_str().unwrap();
        sockets.lines().any(|line| line.ends_with(name) && line.contains(" 00010000 ")).then_some(())
    });
    let vm = Vm::start(&command(folder.path(), &sector("next", Then::Wait)), folder.path());
    let ended = wait_for("the orphan runs on", || orphan.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    assert!(vm.is_ok(), "{:?}", vm.err());
}

/// A guest whose configuration was checked, with a boot sector in the place of its image.
fn plan(folder: &Path, command: CommandLine) -> Plan {
    let text = format!(
        "name = \"try\"\ntee = \"development\"\nimage = \"image\"\ndata = \"{}\"\nvcpus = 1\nmemory = \"256M\"\nnetwork = {{ tcp = \"127.0.0.1:18443\", port = 1 }}\n",
        folder.display()
    );
    let path = folder.join("guest.toml");
    std::fs::write(&path, text).unwrap();
    let config = GuestConfig::read(&path).unwrap();
    assert_eq!(config.tee, Tee::Development);
    let image = cocoon_host::vm::Image {
        firmware: "none".into(),
        kernel: "none".into(),
        initrd: "none".into(),
        cmdline: String::new(),
        model: None,
        listen: None,
        memory_mib: 0,
    };
    Plan { config, image, command }
}

/// SeaBIOS, which QEMU comes with: installed, or unpacked beside the QEMU of `scripts/vm-tools`.
fn seabios() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&path).filter(|bin| bin.join("qemu-system-x86_64").is_file());
    let beside = beside.filter_map(|bin| Some(bin.parent()?.to_owned()));
    let folders = beside.flat_map(|root| [root.join("usr/share"), root.join("share")]).chain(["/usr/share".into()]);
    let mut files = folders.flat_map(|share| ["seabios", "qemu"].map(|name| share.join(name).join("bios-256k.bin")));
    files.find(|file| file.is_file()).expect("QEMU comes with SeaBIOS")
}

/// A guest of a whole configuration, whose kernel says this.
fn whole(folder: &Path, line: &str, then: Then) -> Plan {
    let image = folder.join("image");
    std::fs::create_dir(&image).unwrap();
    std::fs::copy(seabios(), image.join("firmware")).unwrap();
    std::fs::write(image.join("vmlinuz"), kernel(line, then)).unwrap();
    std::fs::write(image.join("initrd"), [0; 4096]).unwrap();
    std::fs::write(image.join("model"), vec![0; 1 << 20]).unwrap();
    std::fs::write(folder.join("enclave.toml"), "network = -217\n").unwrap();
    let manifest = "kernel = \"vmlinuz\"\ninitrd = \"initrd\"\nfirmware = \"firmware\"\ncmdline = \"quiet root=ab12\"\n\
                    model_image = \"model\"\nverity_root = \"ab12\"\n";
    std::fs::write(image.join("image.toml"), manifest).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "name = \"try\"\ntee = \"development\"\nimage = \"image\"\ndata = \"data\"\nvcpus = 2\nmemory = \"256M\"\n\
         machine = \"pc-q35-8.2\"\nnetwork = {{ tcp = \"127.0.0.1:{port}\", port = 8443 }}\n"
    );
    let path = folder.join("guest.toml");
    std::fs::write(&path, config).unwrap();
    Plan::new(GuestConfig::read(&path).unwrap(), &cocoon_host::doctor::Live::default()).unwrap()
}

/// The command line that a configuration gives is one that QEMU takes, and its kernel runs.
#[test]
fn a_whole_configuration_runs() {
    if !qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plan = whole(folder.path(), "a kernel of this image", Then::PowerOff);
    let mut vm = Vm::start(&plan.command, &plan.config.data).unwrap_or_else(|error| panic!("{error}"));
    let death = wait_for("the guest does not end", || vm.ended());
    assert!(death.why.contains("switched itself off") && death.why.contains("a kernel of this image"), "{}", death.why);
}

/// The tables follow the machine that is asked for, whatever it would boot.
#[test]
fn the_tables_of_a_machine_are_read_out_of_another_one_like_it() {
    if !qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = whole(folder.path(), "never booted", Then::Wait).command;
    let dump = |command: &CommandLine| acpi::dump(std::process::Command::new(&command.program), &command.args);
    let two = dump(&command).unwrap();
    assert_eq!(two.tables.vcpus().unwrap(), 2);
    assert!(two.qemu.major >= 8);
    assert_eq!(dump(&command).unwrap(), two, "the same machine has the same tables");
    let smp = command.args.iter().position(|arg| arg == "-smp").unwrap() + 1;
    command.args[smp] = "3".into();
    let three = dump(&command).unwrap();
    assert_eq!(three.tables.vcpus().unwrap(), 3);
    assert_ne!(three.tables, two.tables);
    command.args[smp] = "0".into();
    let error = dump(&command).unwrap_err().to_string();
    assert!(error.contains("it ended: ") && error.contains("CPU"), "QEMU's own words: {error}");
    assert!(!folder.path().join("data/console.log").exists(), "nothing of the guest itself ran");
}

/// A CPU that only says which guest it was given.
struct Cpu(mpsc::Sender<u32>);

impl EmulatedCpu for Cpu {
    fn attach(&self, guest: &Path, pid: u32) -> Result<(), MeasureError> {
        assert!(std::os::unix::net::UnixStream::connect(guest.join("quotes.sock")).is_ok());
        self.0.send(pid).unwrap();
        Ok(())
    }
}

/// The host's launcher hands the guest its configuration and somebody who answers for quotes, and says why it never came up.
#[test]
fn a_host_is_told_why_its_guest_did_not_come_up() {
    if !qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plan = whole(folder.path(), "no enclave here", Then::PowerOff);
    let (asked, quotes) = mpsc::channel();
    let launcher = VmLauncher::new(plan).with_cpu(Arc::new(Cpu(asked)));
    let spec = LaunchSpec {
        config: folder.path().join("enclave.toml"),
        model: folder.path().join("image/model"),
        log: folder.path().join("log"),
        given_up: Default::default(),
    };
    let error = launcher.launch(&spec).err().expect("nothing listens in this guest").to_string();
    assert!(error.contains("no enclave here") && error.contains("console.log"), "{error}");
    assert_ne!(quotes.recv_timeout(PATIENCE).expect("somebody plays the CPU"), 0);
}

#[test]
fn a_guest_that_ends_is_started_again_until_it_is_stopped() {
    if !qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(folder.path(), command(folder.path(), &sector("one life", Then::PowerOff)));
    let (stop, stopped) = mpsc::channel();
    let mut events = Vec::new();
    let mut lives = 0;
    supervise::run(&plan, &stopped, Duration::from_millis(100), |event| {
        if matches!(event, Event::Ended { .. }) {
            lives += 1;
            if lives == 2 {
                stop.send(()).unwrap();
            }
        }
        events.push(event);
    })
    .unwrap();
    let waits: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Ended { why, again_in } => {
                assert!(why.contains("one life"), "{why}");
                Some(again_in.as_millis())
            }
            _ => None,
        })
        .collect();
    assert_eq!(waits, [200, 400], "{events:?}");
    assert!(matches!(events.last(), Some(Event::Stopped { .. })));
    assert_eq!(console(folder.path()).matches("one life").count(), 2, "both lives are kept");
}

#[test]
fn a_guest_that_cannot_start_is_not_tried_again_and_says_what_to_do() {
    if !qemu() {
        return;
    }
    let cases = [("pc-q35-8.2", "pc-q35-99.9", "pinned machine type"), ("tcg", "nothing", "QEMU ended")];
    for (from, to, part) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(folder.path(), &sector("never", Then::Wait));
        *command.args.iter_mut().find(|arg| *arg == from).unwrap() = to.into();
        let (_stop, stopped) = mpsc::channel();
        let error =
            supervise::run(&plan(folder.path(), command), &stopped, Duration::ZERO, |event| panic!("{event:?}"))
                .unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = CommandLine { program: "cocoon-no-such-qemu".into(), args: Vec::new() };
    let error = Vm::start(&missing, folder.path()).err().unwrap().to_string();
    assert!(error.contains("doctor"), "{error}");
}
