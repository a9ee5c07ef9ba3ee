//! HKDF-SHA256 (RFC 5869), its two steps apart: HPKE and RFC 9458 label and salt each of them.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign_to_buffer};
use zeroize::Zeroizing;

use crate::Error;

const FAILED: Error = Error::Crypto("HKDF-SHA256");

/// A pseudorandom key, or as many bytes of another secret.
pub(super) type Prk32 = Zeroizing<[u8; 32]>;

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Extract, which is HMAC with the salt as its key.
pub(super) fn extract(salt: &[u8], ikm: &[u8]) -> Result<Prk32, Error> {
    let mut prk = Prk32::default();
    sign_to_buffer(&Key::new(HMAC_SHA256, salt), ikm, &mut *prk).map_err(|_| FAILED)?;
    Ok(prk)
}

/// HKDF-Expand; `info` is the parts one after another.
pub(super) fn expand<const N: usize>(prk: &Prk32, info: &[&[u8]]) -> Result<Zeroizing<[u8; N]>, Error> {
    let mut out = Zeroizing::new([0; N]);
    let prk = Prk::new_less_safe(HKDF_SHA256, &**prk);
    prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut *out)).map_err(|_| FAILED)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869 appendix A.1.
    #[test]
    fn first_vector_of_the_rfc() {
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let prk = extract(&salt, &[0x0b; 22]).unwrap();
        assert_eq!(hex::encode(*prk), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let okm = expand::<42>(&prk, &[&info[..4], &info[4..]]).unwrap();
        assert_eq!(
            hex::encode(*okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }
}
