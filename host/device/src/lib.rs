//! What Linux offers only through an ioctl, a memory mapping and an address family that the standard library does not know. None of it
//! changes the machine.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of the answer to `SNP_PLATFORM_STATUS` (SEV-SNP Firmware ABI 1.55, table 38; `struct sev_user_data_snp_status`).
pub const SNP_STATUS_LEN: usize = 32;

/// `SNP_PLATFORM_STATUS` of `include/uapi/linux/psp-sev.h`.
const SNP_PLATFORM_STATUS: u32 = 9;

/// `struct sev_issue_cmd`: packed, as the kernel declares it.
#[repr(C, packed)]
struct IssueCommand {
    cmd: u32,
    data: u64,
    error: u32,
}

/// What AMD's secure processor says of SEV-SNP, as its 32 raw bytes. `device` is `/dev/sev`, opened for reading and writing.
///
/// # Errors
/// The kernel's answer; `EIO` where the firmware refused.
pub fn snp_platform_status(device: &File) -> io::Result<[u8; SNP_STATUS_LEN]> {
    let mut status = [0_u8; SNP_STATUS_LEN];
    let mut command = IssueCommand { cmd: SNP_PLATFORM_STATUS, data: ptr::from_mut(&mut status) as u64, error: 0 };
    // SAFETY: SEV_ISSUE_CMD is _IOWR('S', 0, struct sev_issue_cmd), whose layout `IssueCommand` has. For SNP_PLATFORM_STATUS the kernel
    // writes at most SNP_STATUS_LEN bytes to `data`, which points to that many, alive and borrowed by nobody until the call returns.
    unsafe {
        ioctl(device, Updater::<{ opcode::read_write::<IssueCommand>(b'S', 0) }, IssueCommand>::new(&mut command))?;
    }
    Ok(status)
}

/// The 32-bit word at a byte offset of a PCI device's first memory window. `resource` is its `resource0` in sysfs.
///
/// # Errors
/// The offset is not a multiple of four or lies outside the window, or the kernel's answer.
pub fn window_word(resource: &Path, offset: u64) -> io::Result<u32> {
    const PAGE: u64 = 4096;
    let file = File::open(resource)?;
    if !offset.is_multiple_of(4) || offset + 4 > file.metadata()?.len() {
        return Err(io::Error::other(format!("offset {offset:#x} is not a word of this window")));
    }
    let place = usize::try_from(offset % PAGE).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address of the kernel's choice, of one page that begins inside the window, read only.
    let page = unsafe {
        mmap(ptr::null_mut(), PAGE as usize, ProtFlags::READ, MapFlags::SHARED, &file, offset / PAGE * PAGE)?
    };
    // SAFETY: `place` is a multiple of four and below the page's length, so the word is aligned and inside the mapping. It is read once
    // and volatile, because the device may change it.
    let word = unsafe { page.cast::<u8>().add(place).cast::<u32>().read_volatile() };
    // SAFETY: exactly what was mapped above; nothing refers to it any more.
    unsafe { munmap(page.cast::<c_void>(), PAGE as usize)? };
    Ok(word)
}

/// A stream connected to a virtual socket: context id (2 is the host) and port. It reads, writes and polls as any stream does.
///
/// # Errors
/// The kernel's answer: there is no transport, or nothing listens there.
pub fn vsock_connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor or fails, and touches no memory.
    let socket = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `socket` is a descriptor that was just made and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `sockaddr_vm` is integers and bytes, for all of which zero is a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is of the family that it names, `length` is its size, and it outlives the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), ptr::from_ref(&address).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> (std::path::PathBuf, Vec<u8>) {
        let bytes: Vec<u8> = (0..3 * 4096_u32 / 4).flat_map(u32::to_le_bytes).collect();
        let path = std::env::temp_dir().join(format!(
            "cocoon-window-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }

    #[test]
    fn words_of_a_window_are_read_where_they_are() {
        let (path, _) = window();
        for word in [0, 1, 1023, 1024, 3071] {
            assert_eq!(window_word(&path, word * 4).unwrap(), word as u32);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn nothing_outside_a_window_is_read() {
        let (path, bytes) = window();
        for offset in [2, bytes.len() as u64, u64::from(u32::MAX)] {
            assert!(window_word(&path, offset).is_err(), "{offset:#x}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_secure_processor_is_an_error() {
        assert!(snp_platform_status(&File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn a_virtual_socket_where_nothing_listens_is_an_error() {
        assert!(vsock_connect(1, u32::MAX - 1).is_err());
    }
}
