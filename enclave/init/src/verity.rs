//! The model's image under dm-verity: every block that is read is checked against the root hash of the measured command line.
//!
//! Device-mapper is driven by its ioctls (`include/uapi/linux/dm-ioctl.h`, interface version 4).

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{Error, VerityImage, files, sys};

const CONTROL: &str = "/dev/mapper/control";
const NAME: &str = "model";
const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;

const HEADER: usize = 312;
const TARGET: usize = 40;
const PAYLOAD: usize = 1024;

const READ_ONLY: u32 = 1 << 0;

/// `_IOWR(0xfd, number, struct dm_ioctl)`.
const fn request(number: libc::c_ulong) -> libc::c_ulong {
    (3 << 30) | ((HEADER as libc::c_ulong) << 16) | (0xfd << 8) | number
}

const CREATE: libc::c_ulong = request(3);
const RESUME: libc::c_ulong = request(6);
const LOAD_TABLE: libc::c_ulong = request(9);

/// `struct dm_ioctl` with what follows it.
#[repr(C, align(8))]
struct Message([u8; HEADER + PAYLOAD]);

impl Message {
    fn new(flags: u32, targets: u32) -> Self {
        let mut message = Self([0; HEADER + PAYLOAD]);
        // version[3], data_size, data_start, target_count, open_count, flags
        let header = [4, 0, 0, (HEADER + PAYLOAD) as u32, HEADER as u32, targets, 0, flags];
        for (at, number) in header.into_iter().enumerate() {
            message.0[at * 4..at * 4 + 4].copy_from_slice(&number.to_ne_bytes());
        }
        // Behind event number, padding and the device's number, 48 bytes in: the name.
        message.0[48..48 + NAME.len()].copy_from_slice(NAME.as_bytes());
        message
    }

    /// One target: `struct dm_target_spec` and its parameters.
    fn with_target(mut self, sectors: u64, kind: &str, parameters: &str) -> Result<Self, Error> {
        let target = &mut self.0[HEADER..];
        if TARGET + parameters.len() >= target.len() || kind.len() >= 16 {
            return Err(Error::Unfit("a device-mapper target's parameters are too long".into()));
        }
        target[8..16].copy_from_slice(&sectors.to_ne_bytes());
        target[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
        target[TARGET..TARGET + parameters.len()].copy_from_slice(parameters.as_bytes());
        Ok(self)
    }
}

/// The target's parameters (kernel documentation, `admin-guide/device-mapper/verity`): nothing of the host's is believed, not even the
/// superblock.
fn parameters(device: &Path, image: &VerityImage) -> String {
    let device = device.display();
    let (blocks, tree) = (image.data_blocks, image.data_blocks + 1);
    format!("1 {device} {device} {BLOCK} {BLOCK} {blocks} {tree} sha256 {} -", hex::encode(image.root))
}

/// Makes the checked device of the disk that the host gives, and names it.
pub fn open(disk: &Path, image: &VerityImage) -> Result<PathBuf, Error> {
    let control = Path::new(CONTROL);
    let control = File::options().read(true).write(true).open(control).map_err(Error::file(control))?;
    let step =
        || Error::step(format!("dm-verity over {}: is it the image that the command line names", disk.display()));
    let sectors = image.data_blocks * (BLOCK / SECTOR);
    sys::ioctl(&control, CREATE, &mut Message::new(READ_ONLY, 0)).map_err(step())?;
    let mut table = Message::new(READ_ONLY, 1).with_target(sectors, "verity", &parameters(disk, image))?;
    sys::ioctl(&control, LOAD_TABLE, &mut table).map_err(step())?;
    sys::ioctl(&control, RESUME, &mut Message::new(READ_ONLY, 0)).map_err(step())?;
    files::wait_for("/dev/dm-0", "checked device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let message = Message::new(READ_ONLY, 1).with_target(13_600, "verity", "1 a b").unwrap().0;
        let number = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
        assert_eq!((number(0), number(12), number(16), number(20), number(28)), (4, 1336, 312, 1, 1));
        assert_eq!(&message[48..54], b"model\0");
        assert_eq!(u64::from_ne_bytes(message[320..328].try_into().unwrap()), 13_600, "sectors");
        assert_eq!(&message[336..343], b"verity\0");
        assert_eq!(&message[352..358], b"1 a b\0");
        // Numbers of the kernel's header, as strace prints them.
        assert_eq!((CREATE, RESUME, LOAD_TABLE), (0xc138_fd03, 0xc138_fd06, 0xc138_fd09));
        assert!(Message::new(0, 1).with_target(1, "verity", &"x".repeat(984)).is_err());
    }

    #[test]
    fn everything_that_the_tree_depends_on_comes_from_the_command_line() {
        let image = VerityImage { data_blocks: 1_700, root: [0xab; 32] };
        let expected = format!("1 /dev/vda /dev/vda 4096 4096 1700 1701 sha256 {} -", "ab".repeat(32));
        assert_eq!(parameters(Path::new("/dev/vda"), &image), expected);
    }
}
