//! The guest context of AMD's secure processor: how the launch digest grows page by page (SEV-SNP Firmware ABI,
//! SNP_LAUNCH_UPDATE, "PAGE_INFO").

use cocoon_attestation::Measurement;

pub(crate) const PAGE: usize = 4096;
/// Address under which register states are measured: all ones, as a page of 52 bits less the host's own.
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;
const UNMEASURED: [u8; 48] = [0; 48];

/// PAGE_TYPE in PAGE_INFO.
#[derive(Clone, Copy)]
#[repr(u8)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

/// A launch digest that is growing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuestContext(Measurement);

impl GuestContext {
    /// As SNP_LAUNCH_START leaves it.
    pub fn new() -> Self {
        Self(Measurement([0; 48]))
    }

    pub fn from_digest(digest: Measurement) -> Self {
        Self(digest)
    }

    pub fn digest(&self) -> Measurement {
        self.0
    }

    fn update(&mut self, kind: PageType, address: u64, contents: &[u8; 48]) {
        const LENGTH: u16 = 0x70;
        let mut info = [0; LENGTH as usize];
        info[..48].copy_from_slice(&self.0.0);
        info[48..96].copy_from_slice(contents);
        info[96..98].copy_from_slice(&LENGTH.to_le_bytes());
        info[98] = kind as u8;
        // Not an initial migration image, and no permissions for VMPL 1 to 3: 99..104 stay zero.
        info[104..].copy_from_slice(&address.to_le_bytes());
        self.0 = Measurement::of(&[&info]);
    }

    /// Pages with contents. What is short of a whole page is measured as if zeros followed.
    pub fn normal(&mut self, address: u64, data: &[u8]) {
        for (n, page) in data.chunks(PAGE).enumerate() {
            let digest = match page.len() {
                PAGE => Measurement::of(&[page]),
                short => Measurement::of(&[page, &[0; PAGE][short..]]),
            };
            self.update(PageType::Normal, address + (n * PAGE) as u64, &digest.0);
        }
    }

    /// Pages of zeros.
    pub fn zero(&mut self, address: u64, size: u64) {
        self.pages(PageType::Zero, address, size);
    }

    /// Pages of which only the address is measured.
    pub fn unmeasured(&mut self, address: u64, size: u64) {
        self.pages(PageType::Unmeasured, address, size);
    }

    fn pages(&mut self, kind: PageType, address: u64, size: u64) {
        for offset in (0..size).step_by(PAGE) {
            self.update(kind, address + offset, &UNMEASURED);
        }
    }

    /// The page of the guest's secrets.
    pub fn secrets(&mut self, address: u64) {
        self.update(PageType::Secrets, address, &UNMEASURED);
    }

    /// The page of CPUID values.
    pub fn cpuid(&mut self, address: u64) {
        self.update(PageType::Cpuid, address, &UNMEASURED);
    }

    /// A vCPU's registers.
    pub fn vmsa(&mut self, digest: &Measurement) {
        self.update(PageType::Vmsa, VMSA_ADDRESS, &digest.0);
    }
}
