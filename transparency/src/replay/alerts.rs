//! Which findings somebody was told of, on disk: each is told once, however often it is found again.

use std::collections::BTreeSet;
use std::path::Path;

use cocoon_attestation::Digest;
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::Error;

/// Identities of findings ([`super::Finding::identity`]).
const TOLD: TableDefinition<'static, &'static [u8; 32], ()> = TableDefinition::new("told");
/// Findings that are told before they are written down.
const AT_ONCE: usize = 256;

/// What was told, and what of it is not on disk yet.
pub struct Alerts {
    database: Database,
    fresh: BTreeSet<[u8; 32]>,
}

impl Alerts {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The disk failed, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let database = cocoon_settlement::database::open(path)?;
        let write = database.begin_write()?;
        write.open_table(TOLD)?;
        write.commit()?;
        Ok(Self { database, fresh: BTreeSet::new() })
    }

    /// Tells of a finding, if that was not done before. `say` comes first: one that is told twice is better than one that is never told.
    ///
    /// # Errors
    /// It could not be told, or the disk failed.
    pub fn tell<E: From<Error>>(&mut self, identity: &Digest, say: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if self.fresh.contains(&identity.0) || self.was_told(identity)? {
            return Ok(());
        }
        say()?;
        self.fresh.insert(identity.0);
        if self.fresh.len() >= AT_ONCE {
            self.write()?;
        }
        Ok(())
    }

    fn was_told(&self, identity: &Digest) -> Result<bool, Error> {
        Ok(self.database.begin_read()?.open_table(TOLD)?.get(&identity.0)?.is_some())
    }

    /// Writes down what was told.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&mut self) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(TOLD)?;
            for identity in &self.fresh {
                table.insert(identity, ())?;
            }
        }
        write.commit()?;
        self.fresh.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_what_could_not_be_told_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alerts.redb");
        let ids: Vec<Digest> = (0..1_000u64).map(|n| Digest::of(&[&n.to_be_bytes()])).collect();
        let mut alerts = Alerts::open(&path).unwrap();
        let failed = alerts.tell(&ids[0], || Err(Error::Key));
        assert!(matches!(failed, Err(Error::Key)));
        let mut told = 0;
        let mut tell = |alerts: &mut Alerts, id| {
            let send = || -> Result<(), Error> {
                told += 1;
                Ok(())
            };
            alerts.tell(id, send).unwrap();
            told
        };
        for id in ids.iter().chain(&ids) {
            tell(&mut alerts, id);
        }
        alerts.write().unwrap();
        drop(alerts);
        let mut alerts = Alerts::open(&path).unwrap();
        for id in &ids {
            assert_eq!(tell(&mut alerts, id), 1_000);
        }
    }
}
