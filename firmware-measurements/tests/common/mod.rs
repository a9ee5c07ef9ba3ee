//! Where tests find evidence and firmware of others, and a small kernel and firmware of their own.
#![allow(dead_code)]

use std::io::Read;
use std::path::{Path, PathBuf};

use cocoon_attestation::{Digest, Measurement};
use serde_json::Value;

/// The folder `measurements` of the vectors that `COCOON_VECTORS` names, or that lie in or beside the checkout. They are not part of
/// the project, so without the variable they may be absent; never in CI.
pub fn vectors() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("COCOON_VECTORS").map(|folder| PathBuf::from(folder).join("measurements")) {
        assert!(folder.is_dir(), "COCOON_VECTORS holds no folder {}", folder.display());
        return Some(folder);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["../shared/vectors", "../../shared/vectors"].map(|folder| root.join(folder).join("measurements"));
    let found = found.into_iter().find(|folder| folder.is_dir());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no vectors: let COCOON_VECTORS name their folder");
        eprintln!("skipped: no vectors; COCOON_VECTORS can name their folder");
    }
    found
}

/// A file of the folder that `COCOON_FIRMWARE` names, for what is too large to keep: kernels, firmware of distributions. It must
/// have the digest that the vectors state.
pub fn firmware(name: &str, sha256: &str) -> Option<Vec<u8>> {
    let Some(folder) = std::env::var_os("COCOON_FIRMWARE").map(PathBuf::from) else {
        eprintln!("skipped: COCOON_FIRMWARE can name a folder with {name} of SHA-256 {sha256}");
        return None;
    };
    let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name} in COCOON_FIRMWARE: {error}"));
    assert_eq!(Digest::of(&[&bytes]).to_string(), sha256, "{name} is another file than the vectors are of");
    Some(bytes)
}

/// A file, unpacked where its name says that it is packed.
pub fn read(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut out = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => lzma_rust2::XzReader::new(bytes.as_slice(), true).read_to_end(&mut out).expect("xz"),
        Some("gz") => flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut out).expect("gzip"),
        _ => return bytes,
    };
    out
}

pub fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&read(folder, name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

pub fn digest(value: &Value) -> Digest {
    text(value).parse().expect("SHA-256")
}

pub fn measurement(value: &Value) -> Measurement {
    text(value).parse().expect("SHA-384")
}

/// The smallest bzImage that is one: a PE header, a boot header of protocol 2.15, a version, and `body` as its only section.
pub fn kernel(version: &str, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &1_u16.to_le_bytes()); // one section
    put(0x54, &0xa0_u16.to_le_bytes()); // length of the optional header
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 60, &0x1000_u32.to_le_bytes()); // length of the headers
    put(0x58 + 108, &6_u32.to_le_bytes()); // directories
    put(0xf8 + 16, &(body.len() as u32).to_le_bytes());
    put(0xf8 + 20, &0x1000_u32.to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x20e, &0x100_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &0x7f_u16.to_le_bytes());
    put(0x300, version.as_bytes());
    out.extend_from_slice(body);
    out
}

/// A GUID's bytes from its text.
pub fn guid(text: &str) -> [u8; 16] {
    let bytes = hex::decode(text.replace('-', "")).expect("hex");
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    order.map(|n| bytes[n])
}

/// A firmware image as small as one can be that has everything: 64 KiB with variables, drivers, and metadata of TDX and SEV.
#[derive(Clone)]
pub struct Image {
    /// What the drivers' volume holds.
    pub drivers: Vec<u8>,
    /// Names of variables.
    pub variables: Vec<&'static str>,
    /// Whether there is a region for kernel hashes.
    pub kernel_hashes: bool,
}

impl Default for Image {
    /// What OVMF of edk2-stable202502 for SEV and TDX at once would be.
    fn default() -> Self {
        let texts = [b" initrd=initrd\0".as_slice(), b"etc/boot/\0"].concat();
        let guids = [
            "7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1", // drivers' volume
            "462caa21-7614-4503-836e-8ab6f4662331", // UiApp
            "4de79437-abd2-427f-b835-d5b172d2045b", // hashes of kernel, initial ram disk, command line
            "44baf731-3a2f-4bd7-9af1-41e29169781d",
            "97d02dd8-bd20-4c94-aa78-e7714d36ab2a",
        ];
        Self { drivers: [texts, guids.map(guid).concat()].concat(), variables: vec![], kernel_hashes: true }
    }
}

pub const SMBIOS_MEASUREMENT: &str = "d27fed59-abb4-4fed-bead-2a878c7e4a7e";

impl Image {
    pub fn bytes(&self) -> Vec<u8> {
        const SIZE: usize = 0x10000;
        let mut out = vec![0xff; SIZE];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        // Variables: a volume's header, then the store.
        put(48, &0x48_u16.to_le_bytes());
        put(0x48, &guid("aaf32c78-947b-439a-a180-2e144ec37792"));
        put(0x58, &0x1000_u32.to_le_bytes());
        let mut at = 0x48 + 28;
        for name in &self.variables {
            let name: Vec<u8> = format!("{name}\0").encode_utf16().flat_map(u16::to_le_bytes).collect();
            let mut header = [0; 60];
            header[..3].copy_from_slice(&[0xaa, 0x55, 0x3f]);
            header[36..40].copy_from_slice(&(name.len() as u32).to_le_bytes());
            header[40..44].copy_from_slice(&4_u32.to_le_bytes());
            put(at, &[&header[..], &name, &[1, 2, 3, 4]].concat());
            at = (at + 64 + name.len()).next_multiple_of(4);
        }
        // Drivers: a section of LZMA.
        let options = lzma_rust2::LzmaOptions { dict_size: 1 << 16, ..Default::default() };
        let size = Some(self.drivers.len() as u64);
        let mut packed = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, size).expect("LZMA");
        std::io::Write::write_all(&mut packed, &self.drivers).expect("LZMA");
        let packed = packed.finish().expect("LZMA");
        let length = (24 + packed.len() as u32).to_le_bytes();
        put(0x3000, &[length[0], length[1], length[2], 2]);
        put(0x3004, &guid("ee4e5898-3914-4259-9d6e-dc7bd79403cf"));
        put(0x3014, &[24, 0, 1, 0]);
        put(0x3018, &packed);
        // Metadata.
        let four_gib = 1_u64 << 32;
        let sections: [(u32, u32, u64, u64, u32, u32); 4] = [
            (0x2000, 0xe000, four_gib - 0xe000, 0xe000, 0, 1),
            (0, 0x2000, four_gib - 0x10000, 0x2000, 1, 0),
            (0, 0, 0x81_0000, 0x1_0000, 3, 0),
            (0, 0, 0x80_9000, 0x2000, 2, 0),
        ];
        put(0xf000, b"TDVF");
        put(0xf008, &1_u32.to_le_bytes());
        put(0xf00c, &4_u32.to_le_bytes());
        for (n, (offset, len, address, size, kind, attributes)) in sections.into_iter().enumerate() {
            let mut section = [offset.to_le_bytes(), len.to_le_bytes()].concat();
            section.extend(address.to_le_bytes());
            section.extend(size.to_le_bytes());
            section.extend(kind.to_le_bytes());
            section.extend(attributes.to_le_bytes());
            put(0xf010 + 32 * n, &section);
        }
        let mut regions: Vec<[u32; 3]> =
            vec![[0x80_0000, 0x9000, 1], [0x80_d000, 0x1000, 2], [0x80_e000, 0x1000, 3], [0x80_f000, 0x1000, 4]];
        if self.kernel_hashes {
            regions.push([0x81_0000, 0x1000, 0x10]);
        }
        put(0xf100, b"ASEV");
        put(0xf108, &1_u32.to_le_bytes());
        put(0xf10c, &(regions.len() as u32).to_le_bytes());
        for (n, region) in regions.iter().enumerate() {
            put(0xf110 + 12 * n, region.map(u32::to_le_bytes).as_flattened());
        }
        // The table of GUIDs.
        let entries: [(&str, u32); 4] = [
            ("e47a6535-984a-4798-865e-4685a7bf8ec2", (SIZE - 0xf000) as u32),
            ("dc886566-984a-4798-a75e-5585a7bf67cc", (SIZE - 0xf100) as u32),
            ("00f771de-1a7e-4fcb-890e-68c77e2fb44e", 0x80_b004),
            ("7255371f-3a3b-4b04-927b-1da6efa8d454", if self.kernel_hashes { 0x81_0c00 } else { 0 }),
        ];
        let mut table = Vec::new();
        for (name, value) in entries {
            table.extend(value.to_le_bytes());
            table.extend(22_u16.to_le_bytes());
            table.extend(guid(name));
        }
        table.extend((table.len() as u16 + 18).to_le_bytes());
        table.extend(guid("96b582de-1fb2-45f7-baea-a366c55a082d"));
        put(SIZE - 32 - table.len(), &table);
        out
    }
}

/// The tables of a machine with so many vCPUs, as short as they can be.
pub fn acpi_tables(vcpus: u8, without: &[u8]) -> Vec<u8> {
    let mut apic = vec![0; 8];
    (0..vcpus).for_each(|n| apic.extend([0, 8, n, n, 1, 0, 0, 0]));
    apic.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    let bodies: [(&[u8; 4], Vec<u8>); 6] = [
        (b"FACS", vec![0; 28]),
        (b"DSDT", b"some AML".to_vec()),
        (b"FACP", vec![0; 208]),
        (b"APIC", apic),
        (b"MCFG", vec![0; 24]),
        (b"WAET", vec![0; 4]),
    ];
    let mut out = Vec::new();
    let mut add = |signature: &[u8], body: &[u8]| {
        out.extend_from_slice(signature);
        out.extend((body.len() as u32 + 36).to_le_bytes());
        out.extend([0; 28]);
        out.extend_from_slice(body);
    };
    let bodies: Vec<_> = bodies.into_iter().filter(|(signature, _)| signature.as_slice() != without).collect();
    bodies.iter().for_each(|(signature, body)| add(*signature, body));
    add(b"RSDT", &vec![0; 4 * (bodies.len() - 2)]);
    out.resize(0x20000, 0);
    out
}
