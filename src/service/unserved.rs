//! What is done to a store that no server serves, by whoever can write its file: there is no caller and no permit, and
//! the operator's name stands in the log.

use crate::domain::audit::{EventName, Happening};
use crate::domain::backup::Header;
use crate::domain::id::{EventId, RootKeyId, WorkspaceId};
use crate::domain::name::Name;
use crate::domain::root_key::RootKey;
use crate::domain::secret::{Prefix, Secret};
use crate::domain::value::{Facts, Value};
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::store::{Engine, Failure, Priority, Revision, Stop, Txn, tables};
use crate::world::World;

use super::audit::{EVENTS_MAX, Log, Signature};
use super::founding::FIRST_GRANTS;
use super::housekeeping::{Drawn, settle_now};
use super::{Retention, root_keys, workspaces};

mod checking;
mod ending;

pub use checking::{Checked, Unsound, check};
pub use ending::{Ended, Ending};

/// What the log calls the revision up to which a restored store knows what was.
const BACKUP_REVISION: &str = "backup_revision";

/// A store that nobody serves.
pub struct Unserved<'a> {
    engine: &'a dyn Engine,
    world: &'a World,
}

/// A new administrator.
pub struct Recovered {
    /// Its root key, in the operator's workspace.
    pub root_key: RootKey,
    /// The secret.
    pub secret: Secret,
}

impl<'a> Unserved<'a> {
    /// One that lies in this engine.
    pub fn new(engine: &'a dyn Engine, world: &'a World) -> Self {
        Self { engine, world }
    }

    /// Makes a root key in the operator's workspace that may do everything, for whoever has lost theirs. No quota stands
    /// in its way.
    ///
    /// # Errors
    /// If the store holds no installation, or can't be written.
    pub async fn recover(&self, name: Name) -> Result<Recovered, Error> {
        let secret = Secret::issue(&Prefix::root_key(), self.world.random());
        let id = RootKeyId::from_bytes(self.world.ulid());
        let issued = secret.clone();
        let root_key = self
            .settle(move |tx, drawn| {
                let workspace = operator(tx)?.id;
                let made = workspaces::first_root_key(workspace, id, &FIRST_GRANTS, &issued, drawn.now);
                let root_key = RootKey { name: name.clone(), ..made };
                root_keys::put(tx, None, &root_key, Retention::default(), drawn.now)?;
                let target = root_keys::target(&root_key);
                let happening = Happening::made(EventName::ROOT_KEY_RECOVER, target, root_key.facts());
                record(tx, workspace, drawn, happening)?;
                Ok(root_key)
            })
            .await?;
        Ok(Recovered { root_key, secret })
    }

    /// Records that the store was made from a backup, and what else it was told to end. It ends nothing itself.
    ///
    /// # Errors
    /// If the backup holds no installation, or the store can't be written.
    pub async fn record_restore(&self, backup: &Header, endings: &[Ending]) -> Result<Revision, Error> {
        let Header { store_format: _, epoch, counter, time, written_by: _ } = backup;
        let revision = Revision { epoch: *epoch, counter: *counter };
        let facts = Facts::from([
            (BACKUP_REVISION.to_owned(), Value::Text(revision.to_string())),
            ("backup_time".to_owned(), Value::Text(time.to_string())),
            ("revoked".to_owned(), endings.iter().map(|ending| ending.name().to_owned()).collect()),
        ]);
        let recorded = self.settle(move |tx, drawn| {
            let home = operator(tx)?;
            let happening = Happening::made(EventName::STORE_RESTORE, workspaces::target(&home), facts.clone());
            record(tx, home.id, drawn, happening)?;
            Ok(tx.revision())
        });
        recorded.await
    }

    async fn settle<T, F>(&self, mut decide: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&mut Txn<'_>, Drawn) -> Result<T, Stop> + Send + 'static,
    {
        let drawn = Drawn { now: self.world.now(), first_event: EventId::from_bytes(self.world.ulids(EVENTS_MAX)) };
        Ok(settle_now(self.engine, Priority::Interactive, move |tx| decide(tx, drawn)).await?.0)
    }
}

/// What [`Unserved::record_restore`] has recorded, if this is that.
fn backup_revision(happening: &Happening) -> Option<Revision> {
    let facts = happening.after.as_ref().filter(|_| happening.event == EventName::STORE_RESTORE)?;
    match facts.get(BACKUP_REVISION)? {
        Value::Text(revision) => revision.parse().ok(),
        _ => None,
    }
}

/// The operator's workspace, which every installation has.
fn operator(tx: &mut Txn<'_>) -> Result<Workspace, Stop> {
    let nothing = || Stop::Fail(Failure::Corrupt("it holds no operator workspace".to_owned()));
    let id = tables::OPERATOR.get(tx, &())?.ok_or_else(nothing)?;
    tables::WORKSPACES.get(tx, &(id,))?.ok_or_else(nothing)
}

fn record(tx: &mut Txn<'_>, workspace: WorkspaceId, drawn: Drawn, happening: Happening) -> Result<(), Stop> {
    Log::open(workspace, Signature::of_operator(), drawn.now, drawn.first_event).record(tx, happening)
}
