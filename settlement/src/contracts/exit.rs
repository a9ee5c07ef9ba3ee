//! Exit codes of the contracts, the same in all three, and what they mean for the sender (`docs/contracts.md`).

/// Why a contract refused a message, in words for a person; `None` for codes that are not Cocoon's.
pub fn reason(code: i32) -> Option<&'static str> {
    Some(match code {
        100 => "only another account may send this message",
        101 => "the message carries too little value for what it asks: attach more, the rest comes back",
        102 => "the verdict is for another network",
        103 => "the verdict is for another Registry",
        104 => "the verdict has expired: ask the verifiers for a new one",
        105 => "the verdict was signed for another set of verifiers: ask the current set",
        106 => "the attestation is over, or would last longer than the Registry allows",
        107 => "the image is not among those that the Registry allows",
        108 => "the model is not among those that the Registry allows",
        109 => "fewer verifiers signed the verdict than the Registry demands",
        110 => "one verifier's signature was given twice",
        111 => "a signature names a verifier that the Registry does not have",
        112 => "a verifier's signature on the verdict does not verify",
        113 => "the parameters are out of their bounds",
        120 => "the verdict's generation does not follow the one on record: ask for a verdict of the next generation",
        121 => "the verdict does not extend the attestation on record",
        122 => "the enclave key is no longer active",
        123 => "there is no room for another enclave key",
        124 => "no attestation of this enclave key is on record",
        125 => "a claim holds at most eight items: split it",
        130 => "the voucher is not signed by this channel's client, or is for another channel, network or enclave",
        131 => "no voucher for this enclave key was verified before: include it",
        132 => "the receipt is later than the voucher's expiry: ask the client for a new voucher",
        133 => "the receipt is not signed by this enclave, or is for another channel, provider or network",
        134 => "the receipt is later than the end of the enclave's attestation",
        135 => "the claim window after the end of the attestation is over",
        140 => "the channel is closing or closed",
        141 => "the channel is not closing",
        142 => "it is too early: wait for the delay to pass",
        0xffff => "the contract does not know this operation",
        _ => return None,
    })
}
