//! The way out, closed: once the enclave listens, its process can make no connection, no socket, and start no program. What it has then is
//! the listener and what is accepted there. So nothing that the engine can do (a model hub, a search, an image's address) reaches anything,
//! whatever asks for it. Threads that exist and those to come are bound alike, and nothing can undo it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use seccompiler::{SeccompAction, SeccompFilter, apply_filter_all_threads};

#[cfg(target_arch = "x86_64")]
const FORBIDDEN: &[libc::c_long] = &[
    libc::SYS_socket,
    // A connection that was accepted could be turned elsewhere.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    // It makes sockets without the calls above.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // It takes another process's sockets.
    libc::SYS_pidfd_getfd,
];

/// A kernel with the x32 ABI takes each call under a second number, with this bit, that a filter sees as another call of the same processor.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;
/// Numbers that x32 alone has (Linux `arch/x86/entry/syscalls/syscall_64.tbl`): execve, ptrace, process_vm_readv, process_vm_writev, execveat.
#[cfg(target_arch = "x86_64")]
const X32_ONLY: &[libc::c_long] = &[520, 521, 539, 540, 545];

/// Closes it for the whole process, for ever.
///
/// # Errors
/// The kernel has no seccomp filters, or this is another processor.
#[cfg(target_arch = "x86_64")]
pub fn close() -> Result<()> {
    let second = FORBIDDEN.iter().chain(X32_ONLY).map(|call| call | X32);
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        FORBIDDEN.iter().copied().chain(second).map(|call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        seccompiler::TargetArch::x86_64,
    )?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    apply_filter_all_threads(&program)
        .context("the kernel does not take a seccomp filter: build it with CONFIG_SECCOMP_FILTER")
}

/// Closes it for the whole process, for ever.
///
/// # Errors
/// Always: confidential guests are x86-64.
#[cfg(not(target_arch = "x86_64"))]
pub fn close() -> Result<()> {
    anyhow::bail!("the way out can be closed on x86-64 only")
}

/// Tries every way out there is, and says which went through; for the test.
pub fn probe(address: std::net::SocketAddr) -> serde_json::Value {
    use std::net::{TcpStream, UdpSocket};
    let tcp = TcpStream::connect(address).is_ok();
    let udp = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", address)).is_ok();
    let unix = std::os::unix::net::UnixDatagram::unbound().is_ok();
    let program = std::process::Command::new("/bin/true").status().is_ok();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").is_ok();
    let thread = std::thread::spawn(move || TcpStream::connect(address).is_ok()).join().unwrap_or(true);
    serde_json::json!({
        "tcp": tcp, "udp": udp, "unix": unix, "program": program, "listener": listener, "thread": thread,
    })
}
