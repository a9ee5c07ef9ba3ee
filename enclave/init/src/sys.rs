//! System calls that the standard library does not offer. All unsafe code of the guest's start is here, each call behind a safe function.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitStatus;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Mounts a file system, or changes the flags of a mount (`MS_REMOUNT`).
pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (source, target, kind, options) = (text(source)?, text(target)?, text(kind)?, text(options)?);
    // SAFETY: four strings ended by NUL that outlive the call.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast::<libc::c_void>())
    };
    check(result.into()).map(drop)
}

/// Loads a kernel module, without parameters.
pub fn load_module(module: &File) -> io::Result<()> {
    let parameters: &CStr = c"";
    // SAFETY: an open file and a string ended by NUL.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), parameters.as_ptr(), 0) };
    check(result).map(drop)
}

/// Switches the machine off at once.
pub fn power_off() -> ! {
    // SAFETY: neither call takes memory.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // Only without the right to: the kernel panics when its first process ends, and that ends the machine too.
    std::process::exit(1)
}

/// Takes a capability, by number, from every program that is started from now on. `InvalidInput`: the kernel has no such capability.
pub fn drop_from_bounding_set(capability: libc::c_ulong) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into()).map(drop)
}

/// Forbids that any program started from now on gains rights by being started.
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Sets both limits of a resource.
pub fn limit(resource: libc::__rlimit_resource_t, value: libc::rlim_t) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::setrlimit(resource, &limits) }.into()).map(drop)
}

/// Waits until some child has ended, whoever's it was, and says which and how.
pub fn reap() -> io::Result<(u32, ExitStatus)> {
    use std::os::unix::process::ExitStatusExt;
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let process = check(unsafe { libc::waitpid(-1, &mut status, 0) }.into())?;
    Ok((process as u32, ExitStatus::from_raw(status)))
}

/// Calls an ioctl on a structure that the kernel reads and writes.
///
/// `T` must be what the request is defined with, which the callers in this crate see to.
pub fn ioctl<T>(file: impl AsFd, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the structure outlives the call and, by the caller's promise, has the size that the request says.
    check(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request, std::ptr::from_mut(argument)) }.into()).map(drop)
}

fn interface(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a structure of numbers and unions of such, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: it ends the name.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn set_ipv4(socket: impl AsFd, name: &str, call: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
    let mut request = interface(name)?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes, and the kernel reads the union as the family says.
    request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
    ioctl(socket, call, &mut request)
}

/// Gives an interface its IPv4 address and network mask.
pub fn set_address(socket: impl AsFd, name: &str, address: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    set_ipv4(&socket, name, libc::SIOCSIFADDR, address)?;
    set_ipv4(&socket, name, libc::SIOCSIFNETMASK, mask)
}

/// Switches an interface on.
pub fn bring_up(socket: impl AsFd, name: &str) -> io::Result<()> {
    let mut request = interface(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl(socket, libc::SIOCSIFFLAGS, &mut request)
}
