//! Reference values: the measurements and model roots that a release vouches for, as one signed TOML file.
//! Data model: `docs/schemas/reference-values.cddl`.
//!
//! The signature is the last line of the file, a TOML comment, and covers every byte before that line; so the file reads
//! as plain TOML whether or not somebody checks who signed it.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::types::{Digest, Measurement};

/// The schema that files of this version name.
pub const SCHEMA: &str = "cocoon/reference-values/v1";

const DOMAIN: &[u8] = b"cocoon-reference-values-v1";
const SIGNATURE_LINE: &str = "# signature ed25519 ";

/// The image that the values describe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageReference {
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// SHA-256 of the image (of the binary, where the guest is a process): what the Registry calls the image digest.
    pub digest: Digest,
}

/// Measurements of a TDX guest. A register that is absent is not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxReference {
    /// Measurement of the initial memory.
    pub mrtd: Measurement,
    /// Firmware configuration, ACPI tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr0: Option<Measurement>,
    /// Kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr1: Option<Measurement>,
    /// Command line and initial ram disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr2: Option<Measurement>,
    /// Run-time events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmr3: Option<Measurement>,
    /// What the registers were extended with, so that a difference has a name. Nothing is compared with it but what a register that
    /// differs is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventReference>,
}

/// An extension of a runtime register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventReference {
    /// RTMR index, 0 to 3.
    pub register: u8,
    /// What was measured, for people.
    pub what: String,
    /// SHA-384 that the register was extended with.
    pub digest: Measurement,
}

impl TdxReference {
    /// A guest of which the initial memory alone is known.
    pub fn of_mrtd(mrtd: Measurement) -> Self {
        Self { mrtd, rtmr0: None, rtmr1: None, rtmr2: None, rtmr3: None, events: Vec::new() }
    }

    /// The events of a register, in order.
    pub fn events_of(&self, register: u8) -> impl Iterator<Item = &EventReference> {
        self.events.iter().filter(move |event| event.register == register)
    }

    /// The runtime registers in order.
    pub fn rtmrs(&self) -> [Option<Measurement>; 4] {
        [self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3]
    }
}

/// Launch digest of an SNP guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpReference {
    /// Launch digest, the report's MEASUREMENT.
    pub measurement: Measurement,
}

/// A model that the release vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelReference {
    /// Name under which it is served.
    pub name: String,
    /// Its model root ([`crate::model`]).
    pub root: Digest,
}

/// What evidence is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    schema: String,
    /// The image.
    pub image: ImageReference,
    /// Accepted TDX guests.
    #[serde(default)]
    pub tdx: Vec<TdxReference>,
    /// Accepted SNP guests.
    #[serde(default)]
    pub snp: Vec<SnpReference>,
    /// Accepted models.
    #[serde(default)]
    pub models: Vec<ModelReference>,
}

impl ReferenceValues {
    /// Values for one image; measurements and models are added to the public fields.
    pub fn new(image: ImageReference) -> Self {
        Self { schema: SCHEMA.into(), image, tdx: Vec::new(), snp: Vec::new(), models: Vec::new() }
    }

    /// Reads TOML without looking at a signature: for files whose origin is already trusted.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let values: Self = toml::from_str(text).map_err(|error| Error::Reference(error.to_string()))?;
        if values.schema != SCHEMA {
            return Err(Error::Reference(format!(
                "schema {:?} is not {SCHEMA}, the one this version reads",
                values.schema
            )));
        }
        Ok(values)
    }

    /// Writes TOML.
    pub fn to_toml(&self) -> String {
        // Plain strings and lists of tables: nothing here that TOML could refuse.
        toml::to_string(self).unwrap_or_default()
    }

    /// TOML with a last line `# signature ed25519 <public key> <signature>`, signed with an Ed25519 seed.
    pub fn to_signed(&self, seed: &[u8; 32]) -> Result<String, Error> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| Error::Reference("the signing key is no Ed25519 seed".into()))?;
        let text = self.to_toml();
        let signature = key.sign(&[DOMAIN, text.as_bytes()].concat());
        let public = hex::encode(key.public_key().as_ref());
        Ok(format!("{text}{SIGNATURE_LINE}{public} {}\n", hex::encode(signature.as_ref())))
    }

    /// Reads a signed file, and only if one of `signers` (Ed25519 public keys) signed it.
    pub fn from_signed(text: &str, signers: &[[u8; 32]]) -> Result<Self, Error> {
        let unsigned =
            || Error::Reference("the file has no signature line at its end; get the signed file of the release".into());
        let start = text.rfind(SIGNATURE_LINE).ok_or_else(unsigned)?;
        let (body, line) = text.split_at(start);
        let mut words = line[SIGNATURE_LINE.len()..].trim_end_matches('\n').split(' ');
        let mut word = || words.next().and_then(|word| hex::decode(word).ok()).ok_or_else(unsigned);
        let (public, signature) = (word()?, word()?);
        if words.next().is_some() || !(body.is_empty() || body.ends_with('\n')) {
            return Err(unsigned());
        }
        if !signers.iter().any(|signer| signer.as_slice() == public) {
            let public = hex::encode(public);
            return Err(Error::Reference(format!("signed by {public}, which is none of the keys you trust")));
        }
        UnparsedPublicKey::new(&ED25519, &public).verify(&[DOMAIN, body.as_bytes()].concat(), &signature).map_err(
            |_| Error::Reference("the signature does not match: the file was changed after it was signed".into()),
        )?;
        Self::from_toml(body)
    }
}
