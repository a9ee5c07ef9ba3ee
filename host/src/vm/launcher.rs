//! A virtual machine behind the trait by which a host starts its guests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cocoon_protocol::wire;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::command::enclave_config;
use super::development::EmulatedCpu;
use super::monitor::Vm;
use super::{Plan, Tee};
use crate::{EnclaveLauncher, Error, Guest, LaunchSpec, RunningEnclave};

/// How long a guest may take to boot and to load its model.
const READY: Duration = Duration::from_secs(1_800);
/// How long its power button gets.
const PATIENCE: Duration = Duration::from_secs(10);
const TRY: Duration = Duration::from_millis(250);

/// Starts a guest in a virtual machine. Its model is in its image.
pub struct VmLauncher {
    plan: Plan,
    cpu: Option<Arc<dyn EmulatedCpu>>,
}

impl VmLauncher {
    /// A launcher of this guest.
    pub fn new(plan: Plan) -> Self {
        Self { plan, cpu: None }
    }

    /// With somebody who plays the CPU of a development guest. **Not confidential.**
    #[must_use]
    pub fn with_cpu(mut self, cpu: Arc<dyn EmulatedCpu>) -> Self {
        self.cpu = Some(cpu);
        self
    }

    fn failed(&self, why: impl ToString) -> Error {
        let data = &self.plan.config.data;
        Error::Launch { binary: self.plan.config.image.clone(), why: why.to_string(), log: data.join("console.log") }
    }

    /// Where the host reaches the guest, and what passes it on.
    fn address(&self) -> Result<(SocketAddr, Option<JoinHandle<()>>), Error> {
        let network = &self.plan.config.network;
        match (network.tcp, network.vsock) {
            (Some(address), _) => Ok((address, None)),
            (None, Some(cid)) => bridge(cid, network.port.into())
                .map(|(address, task)| (address, Some(task)))
                .map_err(|error| self.failed(error)),
            (None, None) => Err(self.failed("it has no network")),
        }
    }
}

impl EnclaveLauncher for VmLauncher {
    fn launch(&self, spec: &LaunchSpec) -> Result<RunningEnclave, Error> {
        let mut command = self.plan.command.clone();
        if self.plan.config.enclave.is_none() {
            command.args.extend(enclave_config(&spec.config));
        }
        let mut vm = Vm::start(&command, &self.plan.config.data).map_err(|error| self.failed(error))?;
        if let (Tee::Development, Some(cpu)) = (self.plan.config.tee, &self.cpu) {
            cpu.attach(&self.plan.config.data, vm.pid()).map_err(|error| self.failed(error))?;
        }
        let (address, bridge) = self.address()?;
        let until = Instant::now() + READY;
        while !answers(address) {
            if let Some(death) = vm.ended() {
                return Err(self.failed(death.why));
            }
            if spec.given_up.load(Ordering::Relaxed) {
                return Err(self.failed("the host stops"));
            }
            if Instant::now() > until {
                return Err(self.failed("it does not become ready"));
            }
            std::thread::sleep(TRY);
        }
        Ok(RunningEnclave::new(format!("http://{address}"), Box::new(VmGuest { vm, bridge })))
    }
}

/// Whether an HTTP server is behind an address. QEMU accepts connections before its guest does, so only an answer counts.
pub(crate) fn answers(address: SocketAddr) -> bool {
    let talk = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, TRY)?;
        stream.set_read_timeout(Some(TRY * 8))?;
        write!(stream, "GET {} HTTP/1.1\r\nhost: guest\r\nconnection: close\r\n\r\n", wire::EVIDENCE_PATH)?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/")
    };
    talk().unwrap_or(false)
}

/// Passes connections to a port of this machine's loopback on to a guest's virtual socket.
pub(crate) fn bridge(cid: u32, port: u32) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let runtime = tokio::runtime::Handle::try_current().map_err(std::io::Error::other)?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let task = runtime.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = near.set_nodelay(true);
                match far(cid, port).await {
                    Ok(mut far) => drop(tokio::io::copy_bidirectional(&mut near, &mut far).await),
                    Err(error) => tracing::debug!(%error, cid, port, "the guest's virtual socket does not answer"),
                }
            });
        }
    });
    Ok((address, task))
}

/// A connection to the guest. Tokio has no type for virtual sockets, and a stream is read and written alike in every family.
async fn far(cid: u32, port: u32) -> std::io::Result<tokio::net::UnixStream> {
    let socket = tokio::task::spawn_blocking(move || cocoon_host_device::vsock_connect(cid, port)).await??;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

struct VmGuest {
    vm: Vm,
    bridge: Option<JoinHandle<()>>,
}

impl Guest for VmGuest {
    fn pid(&self) -> Option<u32> {
        Some(self.vm.pid())
    }

    fn ended(&mut self) -> Option<String> {
        self.vm.ended().map(|death| death.why)
    }

    fn kill(&mut self) {
        self.vm.stop(PATIENCE);
        if let Some(bridge) = self.bridge.take() {
            bridge.abort();
        }
    }
}
