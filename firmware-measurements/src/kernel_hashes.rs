//! The table of hashes by which OVMF for SEV binds kernel, initial ram disk and command line to the launch digest (QEMU,
//! `target/i386/sev.c`, `build_kernel_loader_hashes`).

use cocoon_attestation::Digest;

use crate::Error;
use crate::gctx::PAGE;
use crate::guid::Guid;

const TABLE: Guid = Guid::new(0x9438_d606, 0x4f22, 0x4cc9, [0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21]);
pub(crate) const KERNEL: Guid =
    Guid::new(0x4de7_9437, 0xabd2, 0x427f, [0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b]);
pub(crate) const INITRD: Guid =
    Guid::new(0x44ba_f731, 0x3a2f, 0x4bd7, [0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d]);
pub(crate) const CMDLINE: Guid =
    Guid::new(0x97d0_2dd8, 0xbd20, 0x4c94, [0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a]);

const ENTRY: usize = 16 + 2 + 32;
const LENGTH: usize = 16 + 2 + 3 * ENTRY;
/// The table is padded to a multiple of 16 bytes.
const PADDED: usize = LENGTH.next_multiple_of(16);

/// SHA-256 of what QEMU loads directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHashes {
    /// Of the kernel's file.
    pub kernel: Digest,
    /// Of the initial ram disk's file; of nothing if there is none.
    pub initrd: Digest,
    /// Of the command line with a NUL behind.
    pub cmdline: Digest,
}

impl KernelHashes {
    /// Hashes the files. Without an initial ram disk pass an empty slice, as QEMU does.
    ///
    /// # Errors
    /// The command line holds a NUL, which no command line can.
    pub fn of(kernel: &[u8], initrd: &[u8], cmdline: &str) -> Result<Self, Error> {
        if cmdline.contains('\0') {
            return Err(Error::malformed("command line", "it holds a NUL"));
        }
        let digest = |parts: &[&[u8]]| Digest::of(parts);
        Ok(Self { kernel: digest(&[kernel]), initrd: digest(&[initrd]), cmdline: digest(&[cmdline.as_bytes(), b"\0"]) })
    }

    pub(crate) fn table(&self) -> [u8; PADDED] {
        let mut table = [0; PADDED];
        let mut header = |at: usize, guid: &Guid, length: usize| {
            table[at..at + 16].copy_from_slice(&guid.0);
            table[at + 16..at + 18].copy_from_slice(&(length as u16).to_le_bytes());
        };
        header(0, &TABLE, LENGTH);
        let entries = [(CMDLINE, &self.cmdline), (INITRD, &self.initrd), (KERNEL, &self.kernel)];
        for (n, (guid, _)) in entries.iter().enumerate() {
            header(18 + n * ENTRY, guid, ENTRY);
        }
        for (n, (_, digest)) in entries.iter().enumerate() {
            let at = 18 + n * ENTRY + 18;
            table[at..at + 32].copy_from_slice(&digest.0);
        }
        table
    }

    /// The page that holds the table at `address`.
    pub(crate) fn page(&self, address: u64) -> Result<[u8; PAGE], Error> {
        let start = (address % PAGE as u64) as usize;
        let mut page = [0; PAGE];
        let place = page.get_mut(start..start + PADDED);
        let place = place.ok_or_else(|| Error::malformed("table of kernel hashes", "it does not fit into its page"))?;
        place.copy_from_slice(&self.table());
        Ok(page)
    }
}
