//! The ACPI tables of a machine: QEMU makes them, and a CPU measures them. They are read out of a second QEMU that is started with the same
//! machine under emulation, boots the same firmware as far as needed, and is thrown away. What it would boot does not change them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_firmware_measurements::AcpiTables;
use cocoon_firmware_measurements::tdx::QemuVersion;

use super::command::ENCLAVE_CONFIG;
use super::qmp::{self, Control, Events};

/// How long the firmware may take until it has enumerated PCI. Two seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(100);
/// How long QEMU may take for one answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Why there are no tables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program cannot be run, or a file or socket not used.
    #[error("QEMU for the ACPI tables: {0}")]
    Io(#[from] io::Error),
    /// QEMU does not do as it is asked.
    #[error("QEMU for the ACPI tables: {0}")]
    Qemu(String),
    /// What it gave is not what it should be.
    #[error(transparent)]
    Tables(#[from] cocoon_firmware_measurements::Error),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The tables.
    pub tables: AcpiTables,
    /// The QEMU that made them.
    pub qemu: QemuVersion,
}

/// Options that say what is booted, who looks on and where: nothing of the machine.
const BOOT: [&str; 7] = ["-kernel", "-initrd", "-append", "-name", "-mon", "-gdb", "-qmp"];
/// The same, without a value.
const FLAGS: [&str; 2] = ["-s", "-S"];

/// The machine alone of a QEMU's arguments, with nobody at its sockets.
fn machine(args: &[String]) -> Vec<String> {
    let mut machine = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let plain = arg.as_str();
        if FLAGS.contains(&plain) {
            continue;
        }
        if !["-chardev", "-netdev", "-fw_cfg"].contains(&plain) && !BOOT.contains(&plain) {
            machine.push(arg.clone());
            continue;
        }
        let Some(value) = args.next() else { continue };
        let value = match plain {
            "-chardev" => value.split(',').find(|part| part.starts_with("id=")).map(|id| format!("null,{id}")),
            "-netdev" => {
                let parts = value.split(',').filter(|part| !part.starts_with("hostfwd="));
                Some(parts.collect::<Vec<_>>().join(","))
            }
            // The guest's own configuration; the firmware's, such as the size of GPUs' windows, stays.
            "-fw_cfg" => (!value.contains(ENCLAVE_CONFIG)).then(|| value.clone()),
            _ => None,
        };
        machine.extend(value.into_iter().flat_map(|value| [plain.to_owned(), value]));
    }
    machine
}

/// Starts a QEMU with the machine of these arguments and reads its tables. The command brings program and environment. Blocks for some
/// seconds.
///
/// # Errors
/// QEMU does not start, or its firmware does not come as far as enumerating PCI.
pub fn dump(mut command: Command, args: &[String]) -> Result<Dump, Error> {
    let folder = tempfile::tempdir()?;
    let socket = |name: &str| folder.path().join(name);
    let listen = |name: &str| format!("unix:{},server=on,wait=off", socket(name).display());
    command
        .args(machine(args))
        .args(["-qmp", &listen("qmp"), "-qtest", &listen("qtest"), "-qtest-log", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut qemu = Running(command.spawn()?);
    read(&mut qemu, &socket("qmp"), &socket("qtest")).map_err(|error| qemu.last_words(error))
}

/// A QEMU that does not outlive what is asked of it.
struct Running(Child);

impl Running {
    fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Why it ended explains more than that it does not answer.
    fn last_words(&mut self, error: Error) -> Error {
        let ended = self.ended();
        let _ = self.0.kill();
        let mut said = String::new();
        if let Some(stderr) = self.0.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        match said.lines().next() {
            Some(line) if ended => Error::Qemu(format!("it ended: {line}")),
            _ => error,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(error: qmp::Error) -> Error {
    Error::Qemu(error.to_string())
}

fn read(qemu: &mut Running, control: &Path, test: &Path) -> Result<Dump, Error> {
    let until = Instant::now() + PATIENCE;
    while !control.exists() && !qemu.ended() && Instant::now() < until {
        std::thread::sleep(PAUSE);
    }
    if qemu.ended() {
        return Err(Error::Qemu("it ended at once".into()));
    }
    let (mut control, mut events) = qmp::connect(control, ANSWER, || false).map_err(said)?;
    let version = control.ask(&mut events, "query-version").map_err(said)?;
    let number = |name: &str| version["qemu"][name].as_u64().unwrap_or_default();
    let version = format!("{}.{}", number("major"), number("minor")).parse()?;
    let mut machine = Stopped::connect(test)?;
    while !enumerated(&mut control, &mut events, &mut machine)? {
        if Instant::now() > until {
            return Err(Error::Qemu(format!("the firmware has not enumerated PCI within {} s", PATIENCE.as_secs())));
        }
        control.ask(&mut events, "cont").map_err(said)?;
        std::thread::sleep(PAUSE);
    }
    let [tables, root, loader] = machine.files(["etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"])?;
    Ok(Dump { tables: AcpiTables::new(tables, root, loader)?, qemu: version })
}

/// The interrupt router of the q35's bridge (ICH9, device 31, register 0x60): 0x80 after reset. OVMF sets it for the devices that its
/// enumeration found, behind the place where it takes the tables.
const ROUTER: u32 = 0x8000_f860;
const AFTER_RESET: u32 = 0x80;

/// Stops the machine, and says whether its firmware has enumerated PCI and taken the tables.
fn enumerated(control: &mut Control, events: &mut Events, machine: &mut Stopped) -> Result<bool, Error> {
    control.ask(events, "stop").map_err(said)?;
    // The guest may be about to use the register that addresses others.
    let before = machine.port(0xcf8)?;
    machine.set_port(0xcf8, ROUTER)?;
    let router = machine.port(0xcfc)?;
    machine.set_port(0xcf8, before)?;
    Ok(router & 0xff != AFTER_RESET)
}

/// A machine whose processors stand still, at QEMU's interface for its own tests (QEMU, `docs/devel/testing/qtest.rst`).
struct Stopped(BufReader<UnixStream>);

/// Where in the guest's memory its processors, which never run again, have left nothing that is needed.
const SCRATCH: u64 = 64 << 20;
/// fw_cfg (QEMU, `docs/specs/fw_cfg.rst`): the port of its DMA interface, the list of files, and what to do.
const DMA: u16 = 0x514;
const LIST: u32 = 0x19;
const SELECT_AND_READ: u32 = 8 | 2;
const MOST_FILES: u32 = 4096;
const LARGEST_FILE: u32 = 1 << 20;

impl Stopped {
    fn connect(path: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, command: &str) -> Result<String, Error> {
        writeln!(self.0.get_mut(), "{command}")?;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            match line.trim_end().strip_prefix("OK") {
                Some(answer) => return Ok(answer.trim_start().to_owned()),
                None if line.starts_with("IRQ ") => {}
                None => return Err(Error::Qemu(format!("it answers {:?} to {command:?}", line.trim_end()))),
            }
        }
    }

    fn port(&mut self, port: u16) -> Result<u32, Error> {
        let answer = self.ask(&format!("inl {port:#x}"))?;
        let digits = answer.trim_start_matches("0x");
        u32::from_str_radix(digits, 16).map_err(|_| Error::Qemu(format!("{answer:?} is no number")))
    }

    fn set_port(&mut self, port: u16, value: u32) -> Result<(), Error> {
        self.ask(&format!("outl {port:#x} {value:#x}")).map(drop)
    }

    fn memory(&mut self, address: u64, len: u32) -> Result<Vec<u8>, Error> {
        let answer = self.ask(&format!("b64read {address:#x} {len:#x}"))?;
        let bytes = STANDARD.decode(&answer).ok().filter(|bytes| bytes.len() == len as usize);
        bytes.ok_or_else(|| Error::Qemu("it gives other memory than was asked for".into()))
    }

    /// The first bytes of an item of fw_cfg.
    fn item(&mut self, key: u32, len: u32) -> Result<Vec<u8>, Error> {
        let data = SCRATCH + 4096;
        let mut request = (key << 16 | SELECT_AND_READ).to_be_bytes().to_vec();
        request.extend(len.to_be_bytes());
        request.extend(data.to_be_bytes());
        self.ask(&format!("write {SCRATCH:#x} {:#x} 0x{}", request.len(), hex::encode(&request)))?;
        // The interface is big-endian; its second half starts the transfer.
        self.set_port(DMA, 0)?;
        self.set_port(DMA + 4, (SCRATCH as u32).swap_bytes())?;
        if self.memory(SCRATCH, 4)? != [0; 4] {
            return Err(Error::Qemu(format!("fw_cfg does not give item {key:#x}")));
        }
        self.memory(data, len)
    }

    fn files<const N: usize>(&mut self, names: [&str; N]) -> Result<[Vec<u8>; N], Error> {
        let count = self.item(LIST, 4)?.try_into().map_or(0, u32::from_be_bytes);
        if count > MOST_FILES {
            return Err(Error::Qemu(format!("fw_cfg lists {count} files")));
        }
        let list = self.item(LIST, 4 + 64 * count)?;
        let mut files = [const { Vec::new() }; N];
        for (name, file) in names.iter().zip(&mut files) {
            // Length, key, nothing, name.
            let entry = list[4..]
                .chunks_exact(64)
                .find(|entry| entry[8..].split(|byte| *byte == 0).next() == Some(name.as_bytes()));
            let entry = entry.ok_or_else(|| Error::Qemu(format!("fw_cfg has no {name}")))?;
            let len = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
            if len > LARGEST_FILE {
                return Err(Error::Qemu(format!("{name} has {len} bytes")));
            }
            *file = self.item(u16::from_be_bytes([entry[4], entry[5]]).into(), len)?;
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_stays_and_what_it_boots_goes() {
        let args = "-name x -machine pc-q35-10.0 -smp 2 -kernel k -initrd i -append quiet -gdb tcp::1 -s -S \
            -fw_cfg name=opt/cocoon/config,file=f -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=1024 \
            -netdev user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:1-:2 -device virtio-net-pci,netdev=net0 \
            -chardev socket,id=qmp,path=q,server=on,wait=off -mon chardev=qmp -chardev stdio,id=console,signal=off \
            -serial chardev:console";
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        assert_eq!(
            machine(&args).join(" "),
            "-machine pc-q35-10.0 -smp 2 -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=1024 -netdev user,id=net0,restrict=on \
             -device virtio-net-pci,netdev=net0 -chardev null,id=qmp -chardev null,id=console -serial chardev:console"
        );
    }
}
