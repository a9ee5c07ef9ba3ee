//! The development platform's port: QEMU's virtio-serial port of the name [`PORT_NAME`], at whose other end, outside the guest, somebody
//! plays the CPU. What goes through it is what `cocoon_attestation::tsm::SocketTsm` says.

use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Error;

/// Name of the port: `-device virtserialport,chardev=...,name=cocoon.quotes`.
pub const PORT_NAME: &str = "cocoon.quotes";

const PORTS: &str = "/sys/class/virtio-ports";
/// The host tells the ports' names after the driver is up.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// Opens the port, and gives the socket that the enclave takes as its standard input.
pub fn connect() -> Result<UnixStream, Error> {
    let step = || Error::step("the development platform's port");
    let port = find()?;
    let port = File::options().read(true).write(true).open(&port).map_err(Error::file(&port))?;
    let (ours, enclave) = UnixStream::pair().map_err(step())?;
    let (mut from_port, mut to_enclave) = (port.try_clone().map_err(step())?, ours.try_clone().map_err(step())?);
    let (mut from_enclave, mut to_port) = (ours, port);
    std::thread::spawn(move || {
        // The port is at its end whenever nobody outside has connected; whoever does then answers from there on.
        while io::copy(&mut from_port, &mut to_enclave).is_ok() {
            std::thread::sleep(PAUSE);
        }
        let _ = to_enclave.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_enclave, &mut to_port);
    });
    Ok(enclave)
}

fn find() -> Result<std::path::PathBuf, Error> {
    let started = Instant::now();
    loop {
        for entry in fs::read_dir(PORTS).into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim_end() == PORT_NAME {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        if started.elapsed() > PATIENCE {
            return Err(Error::Missing(format!("the host gives this machine no virtio-serial port named {PORT_NAME}")));
        }
        std::thread::sleep(PAUSE);
    }
}
