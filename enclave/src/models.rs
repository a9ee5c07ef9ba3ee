//! The models of an enclave.

use cocoon_attestation::Digest;
use cocoon_engine::Engine;

/// A loaded model.
pub struct Model {
    /// The name that clients ask for.
    pub name: String,
    /// Root over its files.
    pub root: Digest,
    /// The engine that holds it.
    pub engine: Engine,
}

/// All models that are served.
pub struct Models(Vec<Model>);

impl Models {
    /// At least one.
    pub fn new(models: Vec<Model>) -> Self {
        Self(models)
    }

    /// The model of this name.
    pub fn get(&self, name: &str) -> Option<&Model> {
        self.0.iter().find(|model| model.name == name)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|model| model.name.as_str())
    }
}
