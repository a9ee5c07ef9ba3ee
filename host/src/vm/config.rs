//! What a guest is launched with: one TOML file, checked whole before anything starts.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// Why a guest cannot be launched as it is configured. Each message says what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {why}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// Settings that exclude one another, or one that is out of range; and what to do.
    #[error("{0}")]
    Setting(String),
}

fn wrong<T>(what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Setting(what.into()))
}

/// What protects a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
    /// Nothing: QEMU emulates the machine. **Not confidential.**
    Development,
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tdx => "tdx",
            Self::Snp => "snp",
            Self::Development => "development",
        })
    }
}

impl FromStr for Tee {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tdx" => Ok(Self::Tdx),
            "snp" => Ok(Self::Snp),
            "development" => Ok(Self::Development),
            _ => Err("must be tdx, snp or development".into()),
        }
    }
}

/// A count of bytes, written `512M` or `64G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// In mebibytes.
    pub fn mebibytes(self) -> u64 {
        self.0 >> 20
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no size: write mebibytes as 512M or gibibytes as 64G");
        let (digits, shift) = match (text.strip_suffix('M'), text.strip_suffix('G')) {
            (Some(digits), _) => (digits, 20),
            (_, Some(digits)) => (digits, 30),
            _ => return Err(fault()),
        };
        let count: u64 = digits.parse().map_err(|_| fault())?;
        count.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Self).ok_or_else(fault)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(1 << 30) => write!(f, "{}G", bytes >> 30),
            bytes => write!(f, "{}M", bytes >> 20),
        }
    }
}

/// A PCI device: domain, bus, device, function; `0000:41:00.0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PciAddress(String);

impl PciAddress {
    /// As sysfs writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PciAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let full = if text.len() == 7 { format!("0000:{text}") } else { text.to_owned() }.to_lowercase();
        let shape = full.len() == 12
            && full.bytes().enumerate().all(|(place, byte)| match place {
                4 | 7 => byte == b':',
                10 => byte == b'.',
                11 => (b'0'..=b'7').contains(&byte),
                _ => byte.is_ascii_hexdigit(),
            });
        if shape {
            Ok(Self(full))
        } else {
            Err(format!("{text:?} is no PCI address: write it as lspci -D does, 0000:41:00.0"))
        }
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes of a fixed length, written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> FromStr for Hex<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| format!("must be {N} bytes in hexadecimal, {} digits", N * 2))?;
        Ok(Self(bytes))
    }
}

/// Where the host's quoting service takes requests of a TD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuoteService {
    /// A virtual socket, `vsock:2:4050`.
    Vsock {
        /// Context id; 2 is the host.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// A Unix socket, `unix:/var/run/tdx-qgs/qgs.socket`.
    Unix(PathBuf),
}

impl Default for QuoteService {
    /// Where Intel's service listens unless told otherwise.
    fn default() -> Self {
        Self::Vsock { cid: 2, port: 4050 }
    }
}

impl FromStr for QuoteService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no quoting service: write vsock:CID:PORT or unix:PATH");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(fault()) };
        }
        let (cid, port) = text.strip_prefix("vsock:").and_then(|rest| rest.split_once(':')).ok_or_else(fault)?;
        Ok(Self::Vsock { cid: cid.parse().map_err(|_| fault())?, port: port.parse().map_err(|_| fault())? })
    }
}

macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
from_text!(Size, PciAddress, QuoteService, Hex<32>, Hex<48>);

/// How the host reaches the guest. The guest reaches nobody.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The guest's context id: over virtual sockets, without a network card.
    pub vsock: Option<u32>,
    /// An address of this machine that QEMU passes on: over a virtual network card.
    pub tcp: Option<SocketAddr>,
    /// Where the guest listens.
    pub port: u16,
}

/// Settings of a trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tdx {
    /// Where quotes come from.
    #[serde(default)]
    pub quotes: QuoteService,
    /// MRCONFIGID, what the guest is configured with; measured.
    pub mrconfigid: Option<Hex<48>>,
    /// MROWNER; measured.
    pub mrowner: Option<Hex<48>>,
    /// MROWNERCONFIG; measured.
    pub mrownerconfig: Option<Hex<48>>,
}

/// The guest policy that is used unless told otherwise: no debugging, no migration, SMT allowed (bit 16), bit 17 as the ABI demands.
pub const SNP_POLICY: u64 = 0x3_0000;

/// Settings of an SNP guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snp {
    /// Guest policy (SEV-SNP Firmware ABI 1.55, table 10).
    #[serde(default = "snp_policy")]
    pub policy: u64,
    /// HOST_DATA; signed in every report.
    pub host_data: Option<Hex<32>>,
    /// File of the identity block, base64.
    pub id_block: Option<PathBuf>,
    /// File of its signature, base64.
    pub id_auth: Option<PathBuf>,
    /// Bit of a page table entry that marks encryption; asked of the machine unless given.
    pub cbitpos: Option<u32>,
    /// Bits by which encryption narrows physical addresses; asked of the machine unless given.
    pub reduced_phys_bits: Option<u32>,
}

fn snp_policy() -> u64 {
    SNP_POLICY
}

impl Default for Snp {
    fn default() -> Self {
        Self {
            policy: SNP_POLICY,
            host_data: None,
            id_block: None,
            id_auth: None,
            cbitpos: None,
            reduced_phys_bits: None,
        }
    }
}

/// The file, as it is written. `docs/guides/provider.md` documents it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// Its name, in process lists and file names.
    pub name: String,
    /// What protects it.
    pub tee: Tee,
    /// The folder of its image, with `image.toml`.
    pub image: PathBuf,
    /// The enclave's own configuration, whose digest is among its claims.
    pub enclave: Option<PathBuf>,
    /// Where its console and its sockets are.
    pub data: PathBuf,
    /// Virtual processors; part of the measurement.
    pub vcpus: u16,
    /// Memory.
    pub memory: Size,
    /// How the host reaches it.
    pub network: Network,
    /// GPUs that it gets.
    #[serde(default)]
    pub gpus: Vec<PciAddress>,
    /// Address space for the GPUs' memory windows; 256G for each unless given.
    pub mmio64: Option<Size>,
    /// Size of the pages that back its memory: 2M or 1G.
    pub hugepages: Option<Size>,
    /// NUMA node of its memory and processors.
    pub numa: Option<u32>,
    /// QEMU.
    #[serde(default = "qemu")]
    pub qemu: PathBuf,
    /// QEMU's machine type; part of the measurement.
    pub machine: Option<String>,
    /// QEMU's processor model, for SNP and development; part of an SNP measurement.
    pub cpu: Option<String>,
    /// With `tee = "tdx"`.
    pub tdx: Option<Tdx>,
    /// With `tee = "snp"`.
    pub snp: Option<Snp>,
}

fn qemu() -> PathBuf {
    "qemu-system-x86_64".into()
}

/// Longest path of a Unix socket, its final zero included.
const SOCKET_PATH: usize = 108;
/// Names of the sockets in a guest's folder.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
/// The development platform's CPU is asked for quotes here.
pub(crate) const QUOTE_SOCKET: &str = "quotes.sock";

impl GuestConfig {
    /// Reads the file. Its relative paths are relative to its folder. It is not checked yet: flags may still override it.
    ///
    /// # Errors
    /// It cannot be read or is no such file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Toml { path: path.to_owned(), why: error.to_string() })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.image = folder.join(&config.image);
        config.data = folder.join(&config.data);
        config.enclave = config.enclave.map(|file| folder.join(file));
        if let Some(snp) = &mut config.snp {
            for file in [&mut snp.id_block, &mut snp.id_auth].into_iter().flatten() {
                *file = folder.join(&*file);
            }
        }
        Ok(config)
    }

    /// Refuses what cannot work or must not be.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(name) {
            return wrong(format!("name = {:?}: use up to 64 letters, digits, '-', '_' and '.'", self.name));
        }
        if self.vcpus == 0 || self.vcpus > 255 {
            return wrong(format!("vcpus = {}: a guest has 1 to 255", self.vcpus));
        }
        if self.memory < Size(256 << 20) {
            return wrong(format!("memory = {}: a guest needs 256M at least", self.memory));
        }
        let socket = self.data.join(QUOTE_SOCKET);
        if socket.as_os_str().len() >= SOCKET_PATH {
            return wrong(format!(
                "{}: the path of a socket has at most {} bytes; choose a shorter data folder",
                socket.display(),
                SOCKET_PATH - 1
            ));
        }
        self.check_network()?;
        self.check_memory()?;
        self.check_gpus()?;
        self.check_platform()?;
        if let Some(machine) = &self.machine
            && !machine.strip_prefix("pc-q35-").is_some_and(|version| version.contains('.'))
        {
            return wrong(format!(
                "machine = {machine:?} is not pinned: the measurement would change with the next QEMU. Write a version, such as pc-q35-10.1"
            ));
        }
        Ok(())
    }

    fn check_network(&self) -> Result<(), ConfigError> {
        match (self.network.vsock, self.network.tcp) {
            (Some(_), Some(_)) => wrong("network has both vsock and tcp: leave one out"),
            (None, None) => wrong("network has neither vsock nor tcp: write vsock = 42, or tcp = \"127.0.0.1:18443\""),
            (Some(0..=2 | u32::MAX), _) => wrong(
                "network.vsock: 0, 1, 2 and 4294967295 are taken; choose a number from 3 on, another for each guest",
            ),
            (Some(_), None) if self.tee == Tee::Development => wrong(
                "network.vsock needs KVM's vhost, which emulation has not: with tee = \"development\" write tcp = \"127.0.0.1:18443\"",
            ),
            (_, Some(address)) if !address.ip().is_loopback() => wrong(format!(
                "network.tcp = {address}: the guest is reached through its host alone; use an address of 127.0.0.1"
            )),
            (_, Some(address)) if address.port() == 0 => wrong("network.tcp needs a port"),
            _ if self.network.port == 0 => wrong("network.port = 0: name the port that the guest listens on"),
            _ => Ok(()),
        }
    }

    fn check_memory(&self) -> Result<(), ConfigError> {
        let Some(page) = self.hugepages else { return Ok(()) };
        if page != Size(2 << 20) && page != Size(1 << 30) {
            return wrong(format!("hugepages = {page}: x86 has pages of 2M and 1G"));
        }
        if !self.memory.0.is_multiple_of(page.0) {
            return wrong(format!("memory = {} is no multiple of hugepages = {page}", self.memory));
        }
        Ok(())
    }

    fn check_gpus(&self) -> Result<(), ConfigError> {
        if self.gpus.len() > 8 {
            return wrong("gpus: a guest gets 8 at most");
        }
        if let Some(twice) = self.gpus.iter().enumerate().find(|(place, gpu)| self.gpus[..*place].contains(gpu)) {
            return wrong(format!("gpus names {} twice", twice.1));
        }
        if !self.gpus.is_empty() && self.tee == Tee::Development {
            return wrong(
                "gpus: an emulated machine cannot have one passed through; use tee = \"tdx\" or \"snp\", or leave gpus out",
            );
        }
        match self.mmio64 {
            Some(_) if self.gpus.is_empty() => wrong("mmio64 without gpus: leave it out"),
            Some(size) if !size.0.is_power_of_two() => wrong(format!("mmio64 = {size}: must be a power of two")),
            _ => Ok(()),
        }
    }

    fn check_platform(&self) -> Result<(), ConfigError> {
        if self.tdx.is_some() && self.tee != Tee::Tdx {
            return wrong(format!("[tdx] is given and tee is {}: take one of them out", self.tee));
        }
        if self.snp.is_some() && self.tee != Tee::Snp {
            return wrong(format!("[snp] is given and tee is {}: take one of them out", self.tee));
        }
        if let (Tee::Tdx, Some(cpu)) = (self.tee, &self.cpu) {
            return wrong(format!("cpu = {cpu:?}: a trust domain has the host's processor; leave it out"));
        }
        let Some(snp) = &self.snp else { return Ok(()) };
        if snp.policy & (1 << 17) == 0 {
            return wrong(format!(
                "snp.policy = {:#x}: bit 17 must be set; {SNP_POLICY:#x} is what clients accept",
                snp.policy
            ));
        }
        if snp.policy & (1 << 19) != 0 {
            return wrong(format!(
                "snp.policy = {:#x} allows debugging (bit 19), and clients refuse it; use {SNP_POLICY:#x}",
                snp.policy
            ));
        }
        if snp.policy & (1 << 18) != 0 {
            return wrong(format!(
                "snp.policy = {:#x} allows migration (bit 18), and clients refuse it; use {SNP_POLICY:#x}",
                snp.policy
            ));
        }
        if snp.id_auth.is_some() != snp.id_block.is_some() {
            return wrong("snp.id_block and snp.id_auth go together: give both or neither");
        }
        Ok(())
    }

    /// The machine type: the one given, or the first that has what this kind of guest needs.
    pub fn machine(&self) -> &str {
        self.machine.as_deref().unwrap_or(match self.tee {
            Tee::Tdx => "pc-q35-10.1",
            Tee::Snp | Tee::Development => "pc-q35-10.0",
        })
    }

    /// Address space for the GPUs' windows.
    pub fn gpu_window(&self) -> Size {
        let each = (self.gpus.len().max(1) as u64).next_power_of_two();
        self.mmio64.unwrap_or(Size(each << 38))
    }
}
