//! A whole guest image over the shapes of machines that may run it: the reference values that policies compare evidence with, and
//! the digest that the Registry admits.

use cocoon_attestation::reference::{EventReference, ImageReference, ReferenceValues, SnpReference, TdxReference};
use cocoon_attestation::{Digest, Measurement};

use crate::Error;
use crate::event::Event;
use crate::snp::SnpMeasurements;
use crate::tdx::{Register, TdxMeasurements};

const DOMAIN: &[u8] = b"cocoon-guest-image-v1";

/// The files of an image, and the command line.
#[derive(Clone, Copy, Debug)]
pub struct ImageFiles<'a> {
    /// The kernel.
    pub kernel: &'a [u8],
    /// The initial ram disk; empty if there is none.
    pub initrd: &'a [u8],
    /// The command line.
    pub cmdline: &'a str,
    /// Firmware for TDX, if it runs there.
    pub tdx_firmware: Option<&'a [u8]>,
    /// Firmware for SEV-SNP, if it runs there.
    pub snp_firmware: Option<&'a [u8]>,
}

impl ImageFiles<'_> {
    /// What the Registry calls the image digest: SHA-256 over `"cocoon-guest-image-v1"` and the SHA-256 of kernel, initial ram disk,
    /// command line, TDX firmware and SNP firmware, in this order; 32 zero bytes for a firmware that is absent.
    pub fn digest(&self) -> Digest {
        let of = |bytes: &[u8]| Digest::of(&[bytes]);
        let firmware = |image: Option<&[u8]>| image.map_or(Digest::ZERO, of);
        let parts = [
            of(self.kernel),
            of(self.initrd),
            of(self.cmdline.as_bytes()),
            firmware(self.tdx_firmware),
            firmware(self.snp_firmware),
        ];
        let parts: Vec<&[u8]> = std::iter::once(DOMAIN).chain(parts.iter().map(|part| part.0.as_slice())).collect();
        Digest::of(&parts)
    }
}

/// Reference values under construction. Values that several shapes share are written once; their order is that of the shapes.
#[derive(Clone, Debug)]
pub struct Matrix(ReferenceValues);

impl Matrix {
    /// For an image of that name and version.
    pub fn new(name: &str, version: &str, files: &ImageFiles<'_>) -> Self {
        let image = ImageReference { name: name.into(), version: version.into(), digest: files.digest() };
        Self(ReferenceValues::new(image))
    }

    /// Adds a shape of TDX machines.
    ///
    /// # Errors
    /// A register is unknown: reference values that leave one out would accept anything in it.
    pub fn add_tdx(&mut self, shape: &str, found: &TdxMeasurements, rtmr3: bool) -> Result<(), Error> {
        let register = |n: usize| match &found.rtmr[n] {
            Register::Known { value, .. } => Ok(Some(*value)),
            Register::Unknown { reason } => {
                Err(Error::Unsupported(format!("reference values for {shape:?}: RTMR{n} is unknown: {reason}")))
            }
        };
        let entry = TdxReference {
            mrtd: found.mrtd,
            rtmr0: register(0)?,
            rtmr1: register(1)?,
            rtmr2: register(2)?,
            rtmr3: rtmr3.then_some(Measurement([0; 48])),
            events: events(found),
        };
        if !self.0.tdx.contains(&entry) {
            self.0.tdx.push(entry);
        }
        Ok(())
    }

    /// Adds a shape of SNP machines.
    pub fn add_snp(&mut self, found: &SnpMeasurements) {
        let entry = SnpReference { measurement: found.digest };
        if !self.0.snp.contains(&entry) {
            self.0.snp.push(entry);
        }
    }

    /// The reference values; models are added to their public field.
    ///
    /// # Errors
    /// No shape was added.
    pub fn finish(self) -> Result<ReferenceValues, Error> {
        if self.0.tdx.is_empty() && self.0.snp.is_empty() {
            return Err(Error::Contradiction("the image names no machine that it may run on".into()));
        }
        Ok(self.0)
    }
}

/// What went into the registers, by its meaning.
fn events(found: &TdxMeasurements) -> Vec<EventReference> {
    let of = |(register, events): (u8, &Register)| {
        let event = move |event: &Event| EventReference { register, what: event.meaning.clone(), digest: event.digest };
        events.events().iter().map(event).collect::<Vec<_>>()
    };
    (0..).zip(&found.rtmr).flat_map(of).collect()
}
