//! What the kernel's command line tells the guest. It is measured at launch, so nothing here is the host's choice.
//!
//! Each parameter begins with `cocoon.`, is there exactly once, and an unknown one is an error. [`Parameters`] writes what it reads, so the
//! builder of images and the guest cannot disagree.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::Error;

const PREFIX: &str = "cocoon.";

/// Who signs the guest's evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// The CPU: Intel TDX or AMD SEV-SNP.
    Hardware,
    /// The development platform, asked over a virtio-serial port. **Not confidential.**
    Development,
}

/// A model's image: a file system, then its dm-verity hash tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerityImage {
    /// Blocks of 4,096 bytes that hold the file system. One block with the verity superblock follows, then the tree.
    pub data_blocks: u64,
    /// Root of the SHA-256 tree, without salt.
    pub root: [u8; 32],
}

/// Where the enclave listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At an IPv4 address of the one network interface. The prefix length is of its network, which is all that the guest can reach.
    Tcp {
        /// The guest's address.
        address: Ipv4Addr,
        /// Prefix length of its network.
        prefix: u8,
        /// TCP port.
        port: u16,
    },
    /// At a port of the machine's vsock: the guest has no network interface at all.
    Vsock {
        /// vsock port.
        port: u32,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, prefix, port } => write!(f, "tcp,{address}/{prefix},{port}"),
            Self::Vsock { port } => write!(f, "vsock,{port}"),
        }
    }
}

impl FromStr for Listen {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self, Error> {
        let wrong = || invalid("listen", value, "tcp,ADDRESS/PREFIX,PORT or vsock,PORT");
        let parts: Vec<&str> = value.split(',').collect();
        match parts[..] {
            ["tcp", network, port] => {
                let (address, prefix) = network.split_once('/').ok_or_else(wrong)?;
                Ok(Self::Tcp {
                    address: address.parse().map_err(|_| wrong())?,
                    prefix: parse("listen", prefix, |prefix| (8..=30).contains(prefix))?,
                    port: parse("listen", port, |port| *port != 0)?,
                })
            }
            ["vsock", port] => Ok(Self::Vsock { port: parse("listen", port, |port| *port != 0 && *port != u32::MAX)? }),
            _ => Err(wrong()),
        }
    }
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `cocoon.platform`: `hardware` or `development`.
    pub platform: Platform,
    /// `cocoon.model`: data blocks, a comma, and the root hash in hexadecimal.
    pub model: VerityImage,
    /// `cocoon.listen`: `tcp`, address and prefix length, port; or `vsock` and port; with commas between them.
    pub listen: Listen,
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platform = match self.platform {
            Platform::Hardware => "hardware",
            Platform::Development => "development",
        };
        let VerityImage { data_blocks, root } = self.model;
        write!(
            f,
            "cocoon.platform={platform} cocoon.model={data_blocks},{} cocoon.listen={}",
            hex::encode(root),
            self.listen
        )
    }
}

impl FromStr for Parameters {
    type Err = Error;

    /// Reads a whole kernel command line; words without the prefix are the kernel's and ignored.
    fn from_str(line: &str) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        for word in line.split_ascii_whitespace() {
            let Some(parameter) = word.strip_prefix(PREFIX) else { continue };
            let Some((name, value)) = parameter.split_once('=') else {
                return Err(Error::Parameter(format!("{word} has no value")));
            };
            if found.insert(name, value).is_some() {
                return Err(Error::Parameter(format!("{PREFIX}{name} is there twice")));
            }
        }
        let mut take = |name| found.remove(name).ok_or_else(|| Error::Parameter(format!("{PREFIX}{name} is missing")));
        let parameters = Self {
            platform: platform(take("platform")?)?,
            model: model(take("model")?)?,
            listen: take("listen")?.parse()?,
        };
        match found.keys().next() {
            Some(name) => Err(Error::Parameter(format!("{PREFIX}{name} is unknown to this version"))),
            None => Ok(parameters),
        }
    }
}

fn invalid(name: &str, value: &str, expected: &str) -> Error {
    Error::Parameter(format!("{PREFIX}{name}={value} is not {expected}"))
}

fn parse<T: FromStr>(name: &str, value: &str, good: impl FnOnce(&T) -> bool) -> Result<T, Error> {
    value.parse().ok().filter(good).ok_or_else(|| invalid(name, value, "a number of its range"))
}

fn platform(value: &str) -> Result<Platform, Error> {
    match value {
        "hardware" => Ok(Platform::Hardware),
        "development" => Ok(Platform::Development),
        _ => Err(invalid("platform", value, "hardware or development")),
    }
}

/// The most blocks that a device can have: its length in sectors of 512 bytes is below 2^63.
const MOST_BLOCKS: u64 = 1 << 58;

fn model(value: &str) -> Result<VerityImage, Error> {
    let expected = "data blocks, a comma and 64 hexadecimal digits";
    let (blocks, digits) = value.split_once(',').ok_or_else(|| invalid("model", value, expected))?;
    let data_blocks = parse("model", blocks, |blocks| (1..=MOST_BLOCKS).contains(blocks))?;
    let mut root = [0; 32];
    hex::decode_to_slice(digits, &mut root).map_err(|_| invalid("model", value, expected))?;
    Ok(VerityImage { data_blocks, root })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Parameters {
        Parameters {
            platform: Platform::Development,
            model: VerityImage { data_blocks: 1_700, root: [0xab; 32] },
            listen: Listen::Tcp { address: Ipv4Addr::new(10, 0, 2, 15), prefix: 24, port: 8443 },
        }
    }

    #[test]
    fn what_is_written_is_read_among_the_kernels_own_words() {
        for (platform, listen) in
            [(Platform::Hardware, good().listen), (Platform::Development, Listen::Vsock { port: 70_000 })]
        {
            let parameters = Parameters { platform, listen, ..good() };
            assert_eq!(
                format!("console=ttyS0 quiet {parameters} panic=-1\n").parse::<Parameters>().unwrap(),
                parameters
            );
        }
    }

    #[test]
    fn whatever_is_missing_doubled_unknown_or_out_of_range_is_refused_by_name() {
        let line = good().to_string();
        let root = "ab".repeat(32);
        let cases = [
            (line.replace("cocoon.listen=", "listen="), "cocoon.listen is missing"),
            (format!("{line} cocoon.listen=vsock,1"), "cocoon.listen is there twice"),
            (format!("{line} cocoon.debug=1"), "cocoon.debug is unknown"),
            (format!("{line} cocoon.debug"), "cocoon.debug has no value"),
            (line.replace("development", "Development"), "hardware or development"),
            (line.replace("1700,", "0,"), "a number of its range"),
            (line.replace("1700,", &format!("{},", u64::MAX)), "a number of its range"),
            (line.replace(&root, &root[1..]), "64 hexadecimal digits"),
            (line.replace(&root, &format!("{root}ab")), "64 hexadecimal digits"),
            (line.replace("/24", "/31"), "a number of its range"),
            (line.replace("/24", ""), "tcp,ADDRESS/PREFIX,PORT"),
            (line.replace("10.0.2.15", "10.0.2"), "tcp,ADDRESS/PREFIX,PORT"),
            (line.replace("tcp,", "vsock,"), "tcp,ADDRESS/PREFIX,PORT"),
            (line.replace("8443", "65536"), "a number of its range"),
            (line.replace("8443", "0"), "a number of its range"),
        ];
        for (line, expected) in cases {
            let error = line.parse::<Parameters>().unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
