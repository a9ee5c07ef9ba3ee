//! CPU models that QEMU gives an SNP guest, as far as they are measured: the signature that CPUID reports.

use std::str::FromStr;

use crate::Error;

/// Models of QEMU's `builtin_x86_defs` with SEV-SNP: name, newest known version, family, model, stepping. A version changes
/// features, not the signature.
const MODELS: [(&str, u32, u32, u32, u32); 5] = [
    ("EPYC", 5, 23, 1, 2),
    ("EPYC-Rome", 5, 23, 49, 0),
    ("EPYC-Milan", 3, 25, 1, 1),
    ("EPYC-Genoa", 2, 25, 17, 0),
    ("EPYC-Turin", 1, 26, 0, 0),
];

/// A CPU model, by the signature that its guest sees in EAX of CPUID leaf 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuModel(u32);

impl CpuModel {
    /// From EAX of CPUID leaf 1, for a model that has no name here.
    pub fn from_signature(signature: u32) -> Self {
        Self(signature)
    }

    /// EAX of CPUID leaf 1.
    pub fn signature(self) -> u32 {
        self.0
    }
}

/// AMD, "CPUID Specification" (25481), Fn0000_0001_EAX.
const fn signature(family: u32, model: u32, stepping: u32) -> u32 {
    let (low, extended) = if family > 0xf { (0xf, family - 0xf) } else { (family, 0) };
    (extended << 20) | ((model >> 4) << 16) | (low << 8) | ((model & 0xf) << 4) | stepping
}

impl FromStr for CpuModel {
    type Err = Error;

    /// A name of QEMU's, such as `EPYC-v4`, `EPYC-Milan` or `EPYC-IBPB`, or a signature such as `0x800f12`.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(digits) = text.strip_prefix("0x") {
            let signature = u32::from_str_radix(digits, 16).ok();
            return signature
                .map(Self)
                .ok_or_else(|| Error::malformed("CPU signature", format!("{text:?} is not 32 bits in hex")));
        }
        let (name, version) = match text.rsplit_once("-v") {
            Some((name, version)) => (name, version.parse().unwrap_or(0)),
            // The name that QEMU had for EPYC-v2 before there were versions.
            None if text == "EPYC-IBPB" => ("EPYC", 2),
            None => (text, 1),
        };
        let known = MODELS.iter().find(|(model, newest, ..)| *model == name && (1..=*newest).contains(&version));
        known.map(|(_, _, family, model, stepping)| Self(signature(*family, *model, *stepping))).ok_or_else(|| {
            let names: Vec<_> = MODELS.iter().map(|(name, newest, ..)| format!("{name}[-v1 to -v{newest}]")).collect();
            Error::Unsupported(format!(
                "CPU model {text:?}; known are {}, or give EAX of CPUID leaf 1 as 0x...",
                names.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_processors() {
        let of = |name: &str| name.parse::<CpuModel>().unwrap().signature();
        assert_eq!(of("EPYC"), 0x0080_0f12);
        assert_eq!([of("EPYC-v4"), of("EPYC-IBPB"), of("0x800f12")], [0x0080_0f12; 3]);
        assert_eq!(of("EPYC-Rome"), 0x0083_0f10);
        assert_eq!(of("EPYC-Milan-v2"), 0x00a0_0f11);
        assert_eq!(of("EPYC-Genoa-v1"), 0x00a1_0f10);
        assert_eq!(of("EPYC-Turin"), 0x00b0_0f00);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for name in ["", "EPYC-v0", "EPYC-v99", "EPYC-Rome-vx", "host", "EPYC-Zen9", "0x1ffffffff", "-v1"] {
            assert!(name.parse::<CpuModel>().is_err(), "{name}");
        }
    }
}
