//! What a firmware image does with what it is given. Its drivers are compressed, and some differ from release to release and from
//! build to build in ways that decide what is measured; so the image itself is asked, and not a version number.

use std::io::Read;

use lzma_rust2::LzmaReader;
use memchr::memmem::find;

use crate::Error;
use crate::bytes::Bytes;
use crate::efi::{DRIVERS_VOLUME, UI_APP};
use crate::guid::Guid;
use crate::kernel_hashes;

const WHAT: &str = "compressed firmware volume";
/// A section whose contents are LZMA (edk2, `gLzmaCustomDecompressGuid`).
const LZMA: Guid = Guid::new(0xee4e_5898, 0x3914, 0x4259, [0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf]);
const GUIDED_SECTION: u8 = 2;
const MAX_VOLUME: u64 = 64 << 20;
const MAX_VOLUMES: usize = 4;
/// For the dictionary; edk2's own is 16 MiB.
const MAX_MEMORY_KIB: u32 = 64 << 10;

/// The driver that measures SMBIOS tables (edk2, `MdeModulePkg/Universal/SmbiosMeasurementDxe`).
const SMBIOS_MEASUREMENT: Guid =
    Guid::new(0xd27f_ed59, 0xabb4, 0x4fed, [0xbe, 0xad, 0x2a, 0x87, 0x8c, 0x7e, 0x4a, 0x7e]);

/// How a firmware tells the kernel that there is an initial ram disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdArgument {
    /// ` initrd=initrd` behind the command line (up to edk2-stable202502, at least).
    Behind,
    /// `initrd=initrd ` in front of it (newer).
    InFront,
}

/// What a firmware image does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// It verifies kernel, initial ram disk and command line against the hashes in SNP's launch digest. Where it does not, the
    /// hashes are measured and mean nothing.
    pub verifies_kernel_hashes: bool,
    /// It takes the kernel as the user gave it from QEMU 10 and later, rather than with the header that QEMU wrote.
    pub takes_unpatched_kernel: bool,
    /// How it names the initial ram disk to the kernel; none if it loads no kernel directly.
    pub initrd_argument: Option<InitrdArgument>,
    /// It measures SMBIOS tables, which vary with the machine's memory.
    pub measures_smbios: bool,
    /// Its boot menu is edk2's own, so that `Boot0000` is known.
    pub standard_boot_menu: bool,
}

/// What was found in the images of the guest's firmware (`enclave/image/packages.toml`), by their SHA-256.
const KNOWN: [(&str, Inspection); 2] = [
    // OVMF.fd of Debian's ovmf 2025.02-8+deb13u1.
    (
        "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db",
        Inspection {
            verifies_kernel_hashes: false,
            takes_unpatched_kernel: true,
            initrd_argument: Some(InitrdArgument::Behind),
            measures_smbios: false,
            standard_boot_menu: true,
        },
    ),
    // OVMF.amdsev.fd of Debian's ovmf-amdsev 2026.08+ds-2.
    (
        "3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f",
        Inspection {
            verifies_kernel_hashes: true,
            takes_unpatched_kernel: true,
            initrd_argument: Some(InitrdArgument::InFront),
            measures_smbios: false,
            standard_boot_menu: true,
        },
    ),
];

impl Inspection {
    /// What [`Inspection::of`] finds in an image with this SHA-256, where that is known beforehand.
    pub fn known(sha256: &[u8; 32]) -> Option<Self> {
        let name: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        KNOWN.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
    }

    /// Looks into an image. Takes about a tenth of a second: it is decompressed for this.
    ///
    /// # Errors
    /// The image has no compressed volume of edk2's, or a damaged one.
    pub fn of(image: &[u8]) -> Result<Self, Error> {
        let volumes = packed(image)?.into_iter().map(unpack).collect::<Result<Vec<_>, _>>()?;
        let holds = |needle: &[u8]| volumes.iter().any(|volume| find(volume, needle).is_some());
        let initrd_argument = match (holds(b" initrd=initrd\0"), holds(b"initrd=initrd \0")) {
            (true, false) => Some(InitrdArgument::Behind),
            (false, true) => Some(InitrdArgument::InFront),
            (false, false) => None,
            (true, true) => {
                return Err(Error::Unsupported("a firmware that names initial ram disks in two ways".into()));
            }
        };
        Ok(Self {
            verifies_kernel_hashes: KERNEL_HASHES.iter().all(|guid| holds(&guid.0)),
            takes_unpatched_kernel: holds(b"etc/boot/\0"),
            initrd_argument,
            measures_smbios: holds(&SMBIOS_MEASUREMENT.0),
            standard_boot_menu: holds(&DRIVERS_VOLUME.0) && holds(&UI_APP.0),
        })
    }

    /// Refuses a kernel that this firmware would load unverified.
    ///
    /// # Errors
    /// The firmware does not verify hashes of kernels.
    pub fn require_verified_kernel(&self) -> Result<(), Error> {
        demand_verified_kernel(self.verifies_kernel_hashes)
    }
}

/// The same for an image that nobody has looked into yet. No more of it is decompressed than it takes to see that the firmware verifies.
///
/// # Errors
/// As for [`Inspection::of`] and [`Inspection::require_verified_kernel`].
pub fn require_verified_kernel(image: &[u8]) -> Result<(), Error> {
    let mut missing = KERNEL_HASHES.to_vec();
    for packed in packed(image)? {
        let (mut volume, mut reader) = (Vec::new(), reader(packed)?);
        while !missing.is_empty() {
            // What was read last may hold the beginning of what is looked for.
            let from = volume.len().saturating_sub(15);
            if reader.by_ref().take(PIECE).read_to_end(&mut volume).map_err(broken)? == 0 {
                break;
            }
            missing.retain(|guid| find(&volume[from..], &guid.0).is_none());
        }
    }
    demand_verified_kernel(missing.is_empty())
}

/// What a firmware that verifies them looks kernel, initial ram disk and command line up by.
const KERNEL_HASHES: [Guid; 3] = [kernel_hashes::KERNEL, kernel_hashes::INITRD, kernel_hashes::CMDLINE];
/// How much is decompressed at a time.
const PIECE: u64 = 256 << 10;

fn demand_verified_kernel(verified: bool) -> Result<(), Error> {
    if verified {
        return Ok(());
    }
    Err(Error::Unsupported(
        "a kernel with this firmware, which measures hashes of it and never compares them: the host could load another. \
         Use an OVMF built from OvmfPkg/AmdSev (Debian: ovmf-amdsev)"
            .into(),
    ))
}

/// The compressed volumes of an image.
fn packed(image: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let bytes = Bytes::new(WHAT, image);
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(offset) = image.get(from..).and_then(|rest| find(rest, &LZMA.0)) {
        let guid = (from + offset) as u64;
        from += offset + 16;
        // Section header: length (u24) and type (u8), then the GUID, the offset of the data (u16), attributes (u16).
        let Some(section) = guid.checked_sub(4) else { continue };
        let [a, b, c, kind] = bytes.array(section)?;
        if kind != GUIDED_SECTION {
            continue;
        }
        let (len, data) = (u64::from(u32::from_le_bytes([a, b, c, 0])), u64::from(bytes.u16(guid + 16)?));
        let packed = len.checked_sub(data).ok_or_else(|| bytes.malformed("it is shorter than its header"))?;
        found.push(bytes.slice(section + data, packed)?);
        if found.len() > MAX_VOLUMES {
            return Err(bytes.malformed(format!("there are more than {MAX_VOLUMES}")));
        }
    }
    if found.is_empty() {
        return Err(Error::Unsupported(
            "a firmware without a volume compressed as edk2 does: what it measures is not known".into(),
        ));
    }
    Ok(found)
}

fn broken(error: std::io::Error) -> Error {
    Error::malformed(WHAT, format!("it cannot be decompressed: {error}"))
}

fn reader(packed: &[u8]) -> Result<impl Read, Error> {
    let bytes = Bytes::new(WHAT, packed);
    let size = bytes.u64(5)?;
    if size > MAX_VOLUME {
        return Err(bytes.malformed(format!("it says that it has {size} bytes")));
    }
    let reader = LzmaReader::new_mem_limit(packed, MAX_MEMORY_KIB, None).map_err(broken)?;
    Ok(reader.take(MAX_VOLUME))
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, Error> {
    let mut volume = Vec::with_capacity(Bytes::new(WHAT, packed).u64(5)?.min(MAX_VOLUME) as usize);
    reader(packed)?.read_to_end(&mut volume).map_err(broken)?;
    // Most of a volume is room that no file takes.
    let used = volume.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
    volume.truncate(used);
    Ok(volume)
}
