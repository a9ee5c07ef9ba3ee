/// Why a policy could not be used, or a result not be written for others. Evidence never makes an error: whatever it is, it gets an [`crate::Appraisal`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The policy is no TOML, has a key that is unknown, or a value of another shape.
    #[error("policy: {0}")]
    Policy(String),
    /// A named root is no X.509 certificate.
    #[error("a root must be one X.509 certificate in DER or PEM: {0}")]
    Root(String),
    /// An attestation result for other systems cannot be made.
    #[error("attestation result: {0}")]
    Ear(String),
}
