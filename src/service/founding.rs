//! The first start: an empty store becomes one with an operator's workspace and its first root key.

use std::sync::Arc;

use crate::domain::audit::{EventName, Happening};
use crate::domain::etag::Etag;
use crate::domain::id::{EventId, RootKeyId, WorkspaceId};
use crate::domain::name::{Name, WORKSPACE_NAME};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::domain::workspace::{Purpose, Quotas, Workspace};
use crate::error::Error;
use crate::metrics::Counters;
use crate::store::{Body, Decision, Engine, Failure, Priority, Stop, Txn, tables};
use crate::world::World;

use super::audit::{EVENTS_MAX, Log, Signature};
use super::{Capacity, Ostiary, Purging, Retention, root_keys, workspaces};

/// What the first root key of all may do: administer its own workspace, and manage all workspaces.
pub(super) const FIRST_GRANTS: [&str; 2] = ["*.*.*", "workspaces.*.*"];
/// What the operator's workspace is called at first.
const OPERATOR_NAME: &str = "default";

/// What is drawn for the first start.
struct Founding {
    workspace: WorkspaceId,
    root_key: RootKeyId,
    secret: Secret,
    page_key: [u8; 32],
    now: Timestamp,
    first_event: EventId,
}

/// Whether anything has ever been stored.
pub async fn is_empty(engine: &dyn Engine) -> Result<bool, Error> {
    let view = engine.view().await?;
    Ok(tables::OPERATOR.read(view.as_ref(), &()).await?.is_none())
}

/// The highest instant that a former run has shown and stored.
pub async fn stored_instant(engine: &dyn Engine) -> Result<Option<Timestamp>, Error> {
    let view = engine.view().await?;
    Ok(tables::CLOCK.read(view.as_ref(), &()).await?.map(Timestamp::from_millis_saturating))
}

/// The instant up to which the clock is trusted: the one stored, unless it was in doubt then.
pub async fn trusted_instant(engine: &dyn Engine) -> Result<Option<Timestamp>, Error> {
    let view = engine.view().await?;
    let doubted = tables::CLOCK_DOUBT.read(view.as_ref(), &()).await?;
    let trusted = match doubted {
        Some(_) => doubted,
        None => tables::CLOCK.read(view.as_ref(), &()).await?,
    };
    Ok(trusted.map(Timestamp::from_millis_saturating))
}

/// Makes the operator's workspace with this secret as its first root key. Where there is one already, nothing happens.
pub async fn found(engine: &dyn Engine, world: &World, secret: Secret) -> Result<(), Failure> {
    let founding = Founding {
        workspace: WorkspaceId::from_bytes(world.ulid()),
        root_key: RootKeyId::from_bytes(world.ulid()),
        secret,
        page_key: world.random(),
        now: world.now(),
        first_event: EventId::from_bytes(world.ulids(EVENTS_MAX)),
    };
    let body: Body = Box::new(move |tx| founded(tx, &founding));
    engine.transact(Priority::Interactive, body).await?;
    Ok(())
}

fn founded(tx: &mut Txn<'_>, founding: &Founding) -> Result<Decision, Stop> {
    if tables::OPERATOR.get(tx, &())?.is_some() {
        return Ok(Decision::Discard);
    }
    let Founding { workspace: id, root_key, secret, page_key, now, first_event } = founding;
    let workspace = Workspace {
        id: *id,
        name: Name::new(OPERATOR_NAME, WORKSPACE_NAME).expect("written here"),
        purpose: Purpose::Operator,
        enabled: true,
        quotas: Quotas::default(),
        created: *now,
        updated: *now,
        etag: Etag::FIRST,
        deleted: None,
        cuts: Vec::new(),
        imported: Vec::new(),
    };
    tables::PAGE_KEY.put(tx, &(), page_key)?;
    tables::OPERATOR.put(tx, &(), id)?;
    tables::CLOCK.put(tx, &(), &now.millis())?;
    tables::WORKSPACES.put(tx, &(*id,), &workspace)?;
    let root_key = workspaces::first_root_key(*id, *root_key, &FIRST_GRANTS, secret, *now);
    root_keys::put(tx, None, &root_key, Retention::default(), *now)?;
    let mut log = Log::open(*id, Signature::of_operator(), *now, *first_event);
    let made = Happening::made(EventName::WORKSPACE_CREATE, workspaces::target(&workspace), workspace.facts());
    log.record(tx, made)?;
    let made = Happening::made(EventName::ROOT_KEY_CREATE, root_keys::target(&root_key), root_key.facts());
    log.record(tx, made)?;
    Ok(Decision::Commit)
}

impl Ostiary {
    /// Opens a store that has been founded.
    pub async fn open(
        engine: Arc<dyn Engine>,
        world: Arc<World>,
        retention: Retention,
        purging: Purging,
        capacity: Capacity,
    ) -> Result<Self, Error> {
        let view = engine.view().await?;
        let operator = tables::OPERATOR.read(view.as_ref(), &()).await?;
        let page_key = tables::PAGE_KEY.read(view.as_ref(), &()).await?;
        let epoch = view.revision().epoch;
        drop(view);
        let (Some(operator), Some(page_key)) = (operator, page_key) else {
            return Err(Error::Internal("the store has not been founded".to_owned()));
        };
        let ostiary = Self {
            memory: super::Memory::new(engine.marks(), capacity.cache_bytes, epoch),
            verdicts: Counters::default(),
            engine,
            started: world.now(),
            world,
            retention,
            purging,
            operator,
            page_key,
            usage: super::usage::Ledger::default(),
            deliveries: super::deliveries::Deliveries::default(),
            meters: super::quotas::Meters::default(),
            credits: super::credits::Purses::default(),
            windows: super::windows::Registry::new(capacity.windows),
        };
        ostiary.load_windows().await?;
        Ok(ostiary)
    }

    /// The operator's workspace.
    pub fn operator(&self) -> WorkspaceId {
        self.operator
    }

    /// Stores the present instant, before which no later run will begin: a clock that is put back revives nothing. While
    /// the clock is in doubt it is kept besides up to when it was not, so that later runs doubt it as well.
    pub async fn save_time(&self) -> Result<(), Error> {
        let suspended = self.purging == Purging::Suspended;
        self.settle(move |tx, drawn| {
            match (suspended, tables::CLOCK_DOUBT.get(tx, &())?) {
                (true, None) => {
                    if let Some(trusted) = tables::CLOCK.get(tx, &())? {
                        tables::CLOCK_DOUBT.put(tx, &(), &trusted)?;
                    }
                }
                (false, Some(_)) => tables::CLOCK_DOUBT.remove(tx, &())?,
                (true, Some(_)) | (false, None) => {}
            }
            tables::CLOCK.put(tx, &(), &drawn.now.millis())
        })
        .await
    }
}
