//! Vouchers as they travel: in a header, outside the seal, because the host must check them too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_settlement::cells::Voucher;

use crate::Error;
use crate::identity::Signature;

/// A voucher with the signature of the channel's client key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedVoucher {
    /// The promise.
    pub voucher: Voucher,
    /// Ed25519 over the representation hash of the voucher's cell.
    pub signature: Signature,
}

impl SignedVoucher {
    /// Signs with the client key of this seed.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn sign(voucher: Voucher, seed: &[u8; 32]) -> Result<Self, Error> {
        let signature = voucher.sign(seed).map_err(|error| Error::Voucher(error.to_string()))?;
        Ok(Self { voucher, signature })
    }

    /// Checks the signature against the channel's client key.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn verify(&self, client_key: &[u8; 32]) -> Result<(), Error> {
        self.voucher.verify(&self.signature, client_key).map_err(|_| Error::Signature("the voucher"))
    }

    /// Hash of the voucher's cell.
    pub fn hash(&self) -> [u8; 32] {
        self.voucher.hash()
    }

    /// 64 bytes of signature, then the bag of cells.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.signature.as_slice(), &self.voucher.to_boc()].concat()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No voucher behind the signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (signature, boc) =
            bytes.split_first_chunk().ok_or_else(|| Error::malformed("a voucher", "shorter than its signature"))?;
        let voucher = Voucher::from_boc(boc).map_err(|error| Error::malformed("a voucher", error))?;
        Ok(Self { voucher, signature: *signature })
    }

    /// The value of the header `cocoon-voucher`: base64 of [`Self::to_bytes`].
    pub fn to_header(&self) -> String {
        STANDARD.encode(self.to_bytes())
    }

    /// Reads the header's value.
    ///
    /// # Errors
    /// No base64, or no voucher in it.
    pub fn from_header(value: &str) -> Result<Self, Error> {
        let bytes = STANDARD.decode(value).map_err(|_| Error::malformed("a voucher", "it is not base64"))?;
        Self::from_bytes(&bytes)
    }
}
