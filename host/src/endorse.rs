//! Stapling endorsements to a bundle, so that it can be appraised offline for ever. The evidence id does not change by it.

use async_trait::async_trait;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, SnpEndorsementSpec};
use cocoon_attestation::{Bundle, CpuEvidence, Endorsements, UnixTime};

use crate::Error;

/// Seconds that development collateral is good for.
const COLLATERAL_SECONDS: u64 = 30 * 86_400;

/// Gets endorsements from wherever they come from.
#[async_trait]
pub trait Endorser: Send + Sync {
    /// Puts endorsements that are valid at `at` into the bundle: those of its CPU, and of its GPUs if it has any.
    ///
    /// # Errors
    /// [`Error::Endorsements`]: they are not to be had.
    async fn endorse(&self, bundle: &mut Bundle, at: UnixTime) -> Result<(), Error>;
}

/// The development platform's own endorsements, of CPUs alone. **Not confidential.**
pub struct DevEndorser(DevPlatform);

impl DevEndorser {
    /// Endorses evidence of this platform.
    pub fn new(platform: DevPlatform) -> Self {
        Self(platform)
    }
}

#[async_trait]
impl Endorser for DevEndorser {
    async fn endorse(&self, bundle: &mut Bundle, at: UnixTime) -> Result<(), Error> {
        bundle.endorsements = match &bundle.cpu {
            CpuEvidence::Tdx { .. } => {
                let issued = UnixTime(at.0.saturating_sub(3_600));
                let spec = CollateralSpec::issued(issued, at.plus(COLLATERAL_SECONDS));
                Endorsements::Tdx { collateral: self.0.tdx_collateral(&spec) }
            }
            CpuEvidence::Snp { .. } => Endorsements::Snp(self.0.snp_endorsements(&SnpEndorsementSpec::default())),
        };
        Ok(())
    }
}
