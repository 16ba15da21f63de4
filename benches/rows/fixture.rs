//! Stores that are filled without a server, many times faster than by importing.
//!
//! The API, the role and one key are made by ostiary itself. All other keys are that one, with secrets, ids and whatever
//! else a row wants of its own, in ascending order of both digests and ids.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use ostiary::domain::id::{ApiId, Reference};
use ostiary::domain::key::Key;
use ostiary::domain::limit::{Application, Limit, Limits, Rate};
use ostiary::domain::name::Name;
use ostiary::domain::network::AllowList;
use ostiary::domain::secret::Secret;
use ostiary::domain::value::Metadata;
use ostiary::service::caller::Call;
use ostiary::service::keys::KeyDraft;
use ostiary::service::{Capacity, Ostiary as Product, Purging, Retention, Run, founding};
use ostiary::store::redb::{RedbEngine, RedbOptions};
use ostiary::store::tables::{self, Counted, Task};
use ostiary::store::txn::ROWS_WRITTEN_MAX;
use ostiary::store::{Decision, Engine, Priority, Stop, Txn};
use ostiary::world::World;

use crate::Failed;
use crate::bench::Bench;
use crate::ostiary::Store;
use crate::population::Population;
use crate::raw::Template;

/// Transactions under way at a time: more than the writer takes into one commit.
const IN_FLIGHT: usize = 1_024;
/// Says in a kept store that it is whole, and which API the keys are in.
const COMPLETE: &str = "api-id";

/// A store with keys, and no server.
pub struct Fixture {
    pub store: Store,
    pub api_id: String,
}

/// Fills a store.
pub struct Loader {
    engine: Arc<RedbEngine>,
    key: Key,
    template: Template,
}

impl Fixture {
    /// A store with so many keys, the same in every run and so kept for the next, if the command line says where.
    pub async fn plain(bench: &Bench, population: &Population) -> Result<Self, Failed> {
        let kept =
            bench.options.fixture.as_ref().map(|directory| directory.join(format!("plain-{}", population.number())));
        if let Some(fixture) = kept.as_deref().and_then(Self::found) {
            return Ok(fixture);
        }
        let store = match &bench.options.fixture {
            None => Store::new()?,
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                Store::within(directory)?
            }
        };
        let (store, api_id) = prepared(store).await?;
        let loader = Loader::open(&store, &api_id).await?;
        loader.load(population, |_, _| {}).await?;
        loader.close().await;
        match kept {
            None => Ok(Self { store, api_id }),
            Some(place) => {
                std::fs::write(store.data.join(COMPLETE), &api_id)?;
                Ok(Self { store: store.keep(&place)?, api_id })
            }
        }
    }

    fn found(place: &Path) -> Option<Self> {
        let api_id = std::fs::read_to_string(place.join(COMPLETE)).ok()?;
        Some(Self { store: Store::kept(place.to_owned()), api_id })
    }
}

/// Founds a store and makes an API and a role in it.
pub async fn prepared(store: Store) -> Result<(Store, String), Failed> {
    let ostiary = store.serve()?;
    let api_id = ostiary.prepare().await?;
    Ok((ostiary.kill(), api_id))
}

impl Loader {
    /// Opens a store that has the API and the role, and makes a key in it to be copied.
    pub async fn open(store: &Store, api_id: &str) -> Result<Self, Failed> {
        let options = RedbOptions::new(store.file(), 0);
        let engine = Arc::new(RedbEngine::open(options)?);
        let shared: Arc<dyn Engine> = Arc::<RedbEngine>::clone(&engine);
        let stored = founding::stored_instant(shared.as_ref()).await.map_err(told)?;
        let world = Arc::new(World::real(stored));
        let capacity = Capacity { cache_bytes: 1 << 20, windows: 1_000 };
        let product =
            Product::open(shared, world, Retention::default(), Purging::Allowed, capacity).await.map_err(told)?;
        let secret = Secret::presented(store.root_key()?);
        let call = Call { remote: Some([127, 0, 0, 1].into()), ..Call::default() };
        let caller = product.authenticate(&secret, call).await.map_err(told)?;
        let mut commits = engine.changes(product.head());
        let done = product.create_key(&caller, draft(api_id)?, Run::Apply).await.map_err(told)?;
        let commit = commits.next().await.ok_or("no commit")??;
        let key = done.answer.key.key;
        let rows = commit.rows.iter().filter_map(|(name, value)| Some((name.to_vec(), value.as_ref()?.to_vec())));
        let template = Template { id: key.id.bytes(), digest: key.digest.bytes(), rows: rows.collect() };
        Ok(Self { engine, key, template })
    }

    /// Puts all these keys in, each varied by its place.
    pub async fn load(&self, population: &Population, vary: impl Fn(usize, &mut Key)) -> Result<(), Failed> {
        let number = population.number();
        let make = |place: usize| {
            let secret = Secret::presented(population.secret(place).to_owned());
            let mut key = Key { id: population.id(place), ..self.key.clone() };
            (key.digest, key.start) = (secret.digest(), secret.start());
            vary(place, &mut key);
            key
        };
        let most = (0..number.min(64)).map(|place| rows(&make(place))).max().unwrap_or(1);
        let at_once = ROWS_WRITTEN_MAX / most;
        let counts = RefCell::new(BTreeMap::new());
        let chunks = futures::stream::iter((0..number).step_by(at_once)).map(|first| {
            let keys: Vec<Key> = (first..number.min(first + at_once)).map(make).collect();
            for (counted, id) in keys.iter().flat_map(counted) {
                counts.borrow_mut().entry((counted as u8, id)).or_insert((counted, 0)).1 += 1;
            }
            let body = Box::new(move |tx: &mut Txn<'_>| {
                keys.iter().try_for_each(|key| put(tx, key))?;
                Ok(Decision::Commit)
            });
            self.engine.transact(Priority::Interactive, body)
        });
        chunks.buffer_unordered(IN_FLIGHT).try_for_each(async |_| Ok(())).await?;
        let workspace = self.key.workspace;
        for ((_, id), (counted, more)) in counts.into_inner() {
            let body = Box::new(move |tx: &mut Txn<'_>| {
                let row = (workspace, counted, id);
                let before = tables::COUNTS.get(tx, &row)?.unwrap_or_default();
                tables::COUNTS.put(tx, &row, &(before + more))?;
                Ok(Decision::Commit)
            });
            self.engine.transact(Priority::Interactive, body).await?;
        }
        Ok(())
    }

    /// The rows that one `CreateKey` writes.
    pub fn template(&self) -> Template {
        self.template.clone()
    }

    /// Leaves the store to a server.
    pub async fn close(self) {
        self.engine.close().await;
    }
}

/// How many rows a key has.
fn rows(key: &Key) -> usize {
    2 + key.roles.len() + usize::from(key.identity.is_some()) + usize::from(key.expiry.moment().is_some())
}

/// What a key counts for.
fn counted(key: &Key) -> Vec<(Counted, [u8; 16])> {
    let mut counted = vec![
        (Counted::Keys, [0; 16]),
        (Counted::KeysOfApi, key.api.bytes()),
        (Counted::KeysOfCreator, key.created_by.bytes()),
    ];
    counted.extend(key.roles.iter().map(|role| (Counted::KeysOfRole, role.bytes())));
    counted.extend(key.identity.map(|identity| (Counted::KeysOfIdentity, identity.bytes())));
    counted
}

/// Writes a key, as `ostiary::service::keys` does.
fn put(tx: &mut Txn<'_>, key: &Key) -> Result<(), Stop> {
    let (workspace, id) = (key.workspace, key.id);
    tables::KEYS.put(tx, &(workspace, id), &Key { written: tx.revision().counter, ..key.clone() })?;
    tables::API_KEYS.put(tx, &(workspace, key.api, id), &())?;
    for role in &key.roles {
        tables::ROLE_KEYS.put(tx, &(workspace, *role, id), &())?;
    }
    if let Some(identity) = key.identity {
        tables::IDENTITY_KEYS.put(tx, &(workspace, identity, id), &())?;
    }
    if let Some(moment) = key.expiry.moment() {
        tables::DUE.put(tx, &(moment, Task::ExpireKey, workspace, id.bytes()), &())?;
    }
    Ok(())
}

/// The key that the others are like, as `row` of an import would make it.
fn draft(api_id: &str) -> Result<KeyDraft, Failed> {
    let flawed = |flaw| format!("{flaw:?}");
    let calls = Limit {
        name: Name::new("calls", 1..=128).map_err(flawed)?,
        rate: Rate::new(1_000_000_000, Duration::from_secs(3_600)).map_err(flawed)?,
        application: Application::Always,
    };
    Ok(KeyDraft {
        api: ApiId::parse(api_id).map_err(flawed)?,
        name: Name::new("", 0..=255).map_err(flawed)?,
        prefix: None,
        metadata: Metadata::default(),
        roles: vec![Reference::Name("reader".to_owned())],
        permissions: Vec::new(),
        enabled: true,
        expiry: None,
        allowed: AllowList::default(),
        external_id: None,
        credits: None,
        limits: Limits::collect([calls]).map_err(flawed)?,
    })
}

fn told(error: impl std::fmt::Debug) -> Failed {
    format!("{error:?}").into()
}
