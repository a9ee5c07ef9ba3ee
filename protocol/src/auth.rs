//! The proof inside the seal that the payer asked. A voucher travels in the open, so it is no bearer cheque: every request carries
//! an Ed25519 signature by the channel's client key over `"cocoon-request-v1" || enc || voucher hash`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::{Address, NetworkId};

use crate::Error;
use crate::identity::{self, SigningKey};
use crate::sealed::{Field, InnerRequest};
use crate::voucher::SignedVoucher;

const DOMAIN: &[u8] = b"cocoon-request-v1";
/// Inner header with the signature, hexadecimal.
pub const SIGNATURE_HEADER: &str = "cocoon-request-signature";
/// Inner header with the Channel's initial data, base64 of its bag of cells.
pub const CHANNEL_HEADER: &str = "cocoon-channel-init";
/// Inner header with the hash of the voucher that travels outside, hexadecimal.
pub const VOUCHER_HEADER: &str = "cocoon-voucher-hash";

/// The headers that prove, inside the seal, that the owner of the channel sends this very request.
pub fn headers(enc: &[u8], voucher: &SignedVoucher, channel: &ChannelInit, client: &SigningKey) -> Vec<Field> {
    let hash = voucher.hash();
    let signature = client.sign(&message(enc, &hash));
    vec![
        (SIGNATURE_HEADER.into(), hex::encode(signature)),
        (CHANNEL_HEADER.into(), STANDARD.encode(channel.to_boc())),
        (VOUCHER_HEADER.into(), hex::encode(hash)),
    ]
}

/// What the enclave knows and a request must fit.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The enclave's network.
    pub network: NetworkId,
    /// The provider it works for.
    pub provider: Address,
    /// Its identity key.
    pub enclave_key: EnclaveKey,
    /// Representation hash of the Channel's code, from the measured configuration.
    pub channel_code_hash: [u8; 32],
    /// Depth of that code.
    pub channel_code_depth: u16,
    /// The least delay of a lone close, in seconds: below it a client could close before a claim arrives.
    pub least_close_delay: u32,
}

/// Checks voucher and request against one another and against what the enclave knows. Gives the channel's initial data.
///
/// # Errors
/// What does not fit, in words that say what to do.
pub fn verify(
    expected: &Expected,
    voucher: &SignedVoucher,
    enc: &[u8],
    request: &InnerRequest,
    at: UnixTime,
) -> Result<ChannelInit, Error> {
    let refuse = |why: &str| Err(Error::Voucher(why.into()));
    let header =
        |name: &str| request.header(name).ok_or_else(|| Error::Voucher(format!("the sealed request lacks {name}")));

    let mut hash = [0; 32];
    hex::decode_to_slice(header(VOUCHER_HEADER)?, &mut hash)
        .map_err(|_| Error::malformed("a voucher hash", "not 64 digits"))?;
    if hash != voucher.hash() {
        return refuse("it is not the one that the sealed request names: it was exchanged on the way");
    }
    let boc =
        STANDARD.decode(header(CHANNEL_HEADER)?).map_err(|_| Error::malformed("channel data", "it is not base64"))?;
    let channel = ChannelInit::from_boc(&boc).map_err(|error| Error::malformed("channel data", error))?;
    let address = channel.address_with_code_hash(&expected.channel_code_hash, expected.channel_code_depth);
    let promised = &voucher.voucher;
    if address != promised.channel {
        return refuse(
            "its channel does not have the initial data in the request, or runs other code than this enclave accepts",
        );
    }
    if channel.network != expected.network || promised.network != expected.network {
        return refuse("it is for another network");
    }
    if channel.provider != expected.provider {
        return refuse("its channel pays another provider");
    }
    if channel.close_delay < expected.least_close_delay {
        return Err(Error::Voucher(format!(
            "its channel can be closed after {} s, and claims need {} s: open one with a longer delay",
            channel.close_delay, expected.least_close_delay
        )));
    }
    if promised.enclave_key != expected.enclave_key {
        return refuse("it pays another enclave: sign one for this enclave's key");
    }
    if promised.expiry < at {
        return refuse("it has expired: sign a new one");
    }
    voucher.verify(&channel.client_key)?;
    let mut signature = [0; 64];
    hex::decode_to_slice(header(SIGNATURE_HEADER)?, &mut signature)
        .map_err(|_| Error::malformed("a request signature", "not 128 digits"))?;
    identity::verify("the request", &channel.client_key, &message(enc, &hash), &signature)?;
    Ok(channel)
}

fn message(enc: &[u8], voucher_hash: &[u8; 32]) -> Vec<u8> {
    [DOMAIN, enc, voucher_hash].concat()
}
