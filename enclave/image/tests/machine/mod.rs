//! A machine under software emulation that boots an image with its real firmware, and the development platform outside it, which plays the
//! CPU. **Not confidential.**

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::dev::cpu::{DevCpu, Launch, Tee};
use cocoon_image::guest::{self, GuestImage, Recipe};
use cocoon_init::{CONFIG_NAME, Listen, PORT_NAME, Platform};

/// How long a boot may take before it counts as hanging. Emulation is some fifty times slower than hardware, and machines are shared.
const PATIENCE: Duration = Duration::from_secs(900);

/// A provider's configuration.
pub const CONFIG: &str = "network = -217\nmodel_name = \"cocoon-demo\"\nchannel_code_depth = 3\n\
    provider = \"0:0000000000000000000000000000000000000000000000000000000000000001\"\n\
    channel_code_hash = \"0000000000000000000000000000000000000000000000000000000000000002\"\n";

/// The model of this repository.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run these tests by `make image-test`")).into()
}

/// Builds the image of the development platform.
pub fn build(out: &Path) -> GuestImage {
    build_from(&variable("COCOON_PACKAGES"), out)
}

/// The same from packages of another folder, where they are fetched to unless they are there.
pub fn build_from(packages: &Path, out: &Path) -> GuestImage {
    let recipe = Recipe {
        enclave: variable("COCOON_ENCLAVE_BIN"),
        model: demo_model(),
        platform: Platform::Development,
        listen: "tcp,10.0.2.15/24,8443".parse::<Listen>().unwrap(),
        name: "cocoon-enclave".into(),
        version: "test".into(),
    };
    guest::build(&recipe, packages, out).unwrap()
}

/// A running machine; switched off when this is dropped.
pub struct Machine {
    qemu: Child,
    console: Receiver<String>,
    seen: String,
    port: u16,
}

impl Machine {
    /// Boots the image in a folder. Its CPU signs with a marker in MRTD's place, so that a quote shows where it came from.
    pub fn boot(folder: &Path, image: &GuestImage, config: Option<&Path>, marker: u8) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (socket, file) = (folder.join("quotes.sock"), |name: &Path| folder.join(name).display().to_string());
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", &format!("{}M", image.memory_mib)])
            .args(["-bios", &file(&image.firmware), "-kernel", &file(&image.kernel), "-initrd", &file(&image.initrd)])
            .args(["-append", &image.cmdline])
            .args(["-drive", &format!("if=virtio,format=raw,readonly=on,file={}", file(&image.model_image))])
            .args(["-netdev", &format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:8443")])
            .args(["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-serial-pci"])
            .args(["-chardev", &format!("socket,id=quotes,server=on,wait=off,path={}", socket.display())])
            .args(["-device", &format!("virtserialport,chardev=quotes,name={PORT_NAME}")]);
        if let Some(config) = config {
            qemu.args(["-fw_cfg", &format!("name={CONFIG_NAME},file={}", config.display())]);
        }
        let mut qemu = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("QEMU");
        let (sender, console) = mpsc::channel();
        let stdout = BufReader::new(qemu.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let launch = Launch { mrtd: [marker; 48], ..Launch::default() };
        std::thread::spawn(move || {
            let cpu = DevCpu::new(DevPlatform::from_seed([7; 32]), Tee::Tdx, launch);
            for _ in 0..600 {
                match UnixStream::connect(&socket) {
                    Ok(stream) => return drop(cpu.serve(stream)),
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        });
        Self { qemu, console, seen: String::new(), port }
    }

    /// Reads the console up to a line with this text.
    pub fn wait_for(&mut self, text: &str) {
        loop {
            match self.console.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen += &format!("{line}\n");
                    if line.contains(text) {
                        return;
                    }
                }
                Err(error) => panic!("{text:?} does not come ({error}); the console so far:\n{}", self.seen),
            }
        }
    }

    /// Waits until the machine has switched itself off, and gives all that it said.
    pub fn until_off(mut self) -> String {
        while let Ok(line) = self.console.recv_timeout(PATIENCE) {
            self.seen += &format!("{line}\n");
        }
        assert!(self.qemu.wait().unwrap().success(), "QEMU failed:\n{}", self.seen);
        std::mem::take(&mut self.seen)
    }

    /// Asks the enclave over HTTP/1.1 and gives status line and body.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: guest\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP answer");
        let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
        (status, answer.split_off(end + 4))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
