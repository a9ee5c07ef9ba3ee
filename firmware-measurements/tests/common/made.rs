//! A kernel, firmware and ACPI tables as small as they can be, made by the tests themselves.
#![allow(dead_code)]

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
        let packed = lzma(&self.drivers);
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

/// LZMA of literals alone: as long as its input or longer, and read by every decoder (7-zip, "LZMA specification").
fn lzma(data: &[u8]) -> Vec<u8> {
    let mut coder = RangeCoder { low: 0, range: u32::MAX, cache: 0, pending: 0, out: Vec::new() };
    let (mut matches, mut literals) = ([1024_u16; 4], vec![[1024_u16; 0x100]; 8]);
    let mut previous = 0;
    for (at, byte) in data.iter().copied().enumerate() {
        coder.bit(&mut matches[at % 4], 0);
        let mut symbol = 1;
        for shift in (0..8).rev() {
            let bit = u32::from(byte >> shift & 1);
            coder.bit(&mut literals[usize::from(previous) >> 5][symbol], bit);
            symbol = symbol << 1 | bit as usize;
        }
        previous = byte;
    }
    (0..5).for_each(|_| coder.shift());
    // lc 3, lp 0, pb 2; a dictionary of 64 KiB; the length. The coder's first byte is always zero.
    [&[0x5d, 0, 0, 1, 0], (data.len() as u64).to_le_bytes().as_slice(), &coder.out].concat()
}

struct RangeCoder {
    low: u64,
    range: u32,
    cache: u8,
    pending: u64,
    out: Vec<u8>,
}

impl RangeCoder {
    fn bit(&mut self, probability: &mut u16, bit: u32) {
        let bound = (self.range >> 11) * u32::from(*probability);
        if bit == 0 {
            self.range = bound;
            *probability += (2048 - *probability) >> 5;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
            *probability -= *probability >> 5;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
    }

    fn shift(&mut self) {
        if self.low < 0xff00_0000 || self.low > u64::from(u32::MAX) {
            let carry = (self.low >> 32) as u8;
            self.out.push(self.cache.wrapping_add(carry));
            (0..self.pending).for_each(|_| self.out.push(0xff_u8.wrapping_add(carry)));
            self.pending = 0;
            self.cache = (self.low >> 24) as u8;
        } else {
            self.pending += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }
}
