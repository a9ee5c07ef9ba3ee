//! What a host staples to its evidence: endorsements from a folder, and from the vendors' services where the folder lacks one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use clap::Args;
use cocoon_attestation::{Bundle, UnixTime};
use cocoon_node::endorsements::{Endorser, Limits};

use crate::endorsements::ServiceArgs;

/// Staples what CPU and GPUs need: collateral or certificates, manifests (RIM) and revocation answers (OCSP).
pub struct Stapler(Endorser);

impl Stapler {
    /// With endorsements from there.
    pub fn new(endorser: Endorser) -> Self {
        Self(endorser)
    }
}

#[async_trait]
impl cocoon_host::Endorser for Stapler {
    async fn endorse(&self, bundle: &mut Bundle, at: UnixTime) -> Result<(), cocoon_host::Error> {
        let stapled = self.0.staple(bundle, at, false).await;
        stapled.map_err(|error| cocoon_host::Error::Endorsements(error.to_string()))
    }
}

/// Where a host gets endorsements.
#[derive(Debug, Args)]
pub struct StapleArgs {
    /// A folder of endorsements to staple to evidence, instead of the development platform's own; what it lacks is fetched into it
    #[arg(long, value_name = "DIR")]
    endorsements: Option<PathBuf>,
    /// Fetch nothing: what the folder lacks is an error
    #[arg(long, requires = "endorsements")]
    offline: bool,
    #[command(flatten)]
    services: ServiceArgs,
}

impl StapleArgs {
    /// What staples, if a folder was named.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn endorser(self) -> Result<Option<Arc<dyn cocoon_host::Endorser>>> {
        let Some(folder) = self.endorsements else {
            anyhow::ensure!(self.services.is_empty(), "name the folder that is fetched into: --endorsements DIR");
            return Ok(None);
        };
        let endorser = match self.offline {
            true => Endorser::offline(&folder)?,
            false => Endorser::online(&folder, self.services.addresses(), Limits::default())?,
        };
        Ok(Some(Arc::new(Stapler::new(endorser))))
    }
}
