//! Whether a store is what was written, and agrees with itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::domain::audit::{ChainHash, Event};
use crate::domain::id::WorkspaceId;
use crate::store::records::{ChainHead, Record, event_payload};
use crate::store::tables::{self, Part, Table};
use crate::store::{Failure, Revision, View};

/// Rows looked at at a time.
const CHUNK: usize = 500;
/// Events of one workspace that are read ahead.
const EVENTS_AHEAD: usize = 32;

/// What is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// It can't be read, or a row is not what was written.
    #[error("{0}")]
    Unreadable(#[from] Failure),
    /// An index and what it is of don't agree.
    #[error("the table {index} does not agree with the table {table}")]
    Disagree {
        /// The index.
        index: &'static str,
        /// What it is of.
        table: &'static str,
    },
    /// An event is missing, was changed, or is in the wrong place.
    #[error("the audit log is not what was written: its chain breaks at {0}")]
    Chain(String),
}

/// A sound store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its newest revision.
    pub revision: Revision,
    /// How many rows each table has, by its tag.
    pub tables: BTreeMap<u8, u64>,
    /// The end of the chain through all events.
    pub head: ChainHead,
}

/// Looks at every row, compares the indexes with what they are of, and follows the chain through the audit log.
///
/// # Errors
/// The first thing that is wrong.
pub async fn check(view: &dyn View) -> Result<Checked, Unsound> {
    let tables = rows(view).await?;
    let indexes = Indexes { view, rows: &tables };
    indexes.of_root_keys().await?;
    indexes.of_keys().await?;
    indexes.of_names().await?;
    let head = chain(view).await?;
    Ok(Checked { revision: view.revision(), tables, head })
}

async fn rows(view: &dyn View) -> Result<BTreeMap<u8, u64>, Failure> {
    let (mut counts, mut after) = (BTreeMap::new(), None);
    loop {
        let rows = tables::rows(view, after.as_deref(), CHUNK).await?;
        for (key, value) in &rows {
            tables::examine(key, value)?;
            *counts.entry(key[0]).or_default() += 1;
        }
        if rows.len() < CHUNK {
            return Ok(counts);
        }
        after = rows.into_iter().last().map(|(key, _)| key);
    }
}

/// Compares indexes with what they are of. Each index has a row for each thing and as many rows as there are things, so
/// it has no other rows.
struct Indexes<'a> {
    view: &'a dyn View,
    rows: &'a BTreeMap<u8, u64>,
}

impl Indexes<'_> {
    async fn of_root_keys(&self) -> Result<(), Unsound> {
        let index = &tables::ROOT_KEY_DIGESTS;
        self.agree(&tables::ROOT_KEYS, index, |row, root_key| Some(((root_key.digest.bytes(),), *row))).await
    }

    async fn of_keys(&self) -> Result<(), Unsound> {
        self.agree(&tables::KEYS, &tables::API_KEYS, |row, key| Some(((row.0, key.api, row.1), ()))).await?;
        // Only keys that were imported are found by their digests. Nothing is known of what their secrets begin with.
        let imported = |row: &(WorkspaceId, _), key: &crate::domain::key::Key| {
            key.start.is_empty().then(|| ((row.0, key.digest.bytes()), row.1))
        };
        self.agree(&tables::KEYS, &tables::KEY_DIGESTS, imported).await
    }

    async fn of_names(&self) -> Result<(), Unsound> {
        self.agree(&tables::ROLES, &tables::ROLE_NAMES, |row, role| {
            role.deleted.is_none().then(|| ((row.0, role.name.folded()), row.1))
        })
        .await?;
        self.agree(&tables::PERMISSIONS, &tables::PERMISSION_SLUGS, |row, permission| {
            permission.deleted.is_none().then(|| ((row.0, permission.slug.folded()), row.1))
        })
        .await?;
        self.agree(&tables::IDENTITIES, &tables::IDENTITY_EXTERNAL_IDS, |row, identity| {
            identity.deleted.is_none().then(|| ((row.0, identity.external_id.to_string()), row.1))
        })
        .await?;
        self.agree(&tables::NAMESPACES, &tables::NAMESPACE_NAMES, |row, namespace| {
            namespace.deleted.is_none().then(|| ((row.0, namespace.name.folded()), row.1))
        })
        .await
    }

    async fn agree<K, R, L, S>(
        &self,
        table: &Table<K, R>,
        index: &Table<L, S>,
        entry: impl Fn(&K, &R) -> Option<(L, S)>,
    ) -> Result<(), Unsound>
    where
        K: Part,
        R: Record<K>,
        L: Part,
        S: Record<L> + PartialEq,
    {
        let disagree = || Unsound::Disagree { index: index.name(), table: table.name() };
        let (mut things, mut after) = (0, None);
        loop {
            let rows = table.list(self.view, &(), after.as_ref(), CHUNK).await?;
            let ended = rows.len() < CHUNK;
            for (row, thing) in &rows {
                let Some((key, should)) = entry(row, thing) else { continue };
                things += 1;
                if index.read(self.view, &key).await? != Some(should) {
                    return Err(disagree());
                }
            }
            if ended {
                break;
            }
            after = rows.into_iter().last().map(|(row, _)| row);
        }
        let entries = self.rows.get(&index.tag()).copied().unwrap_or_default();
        if entries == things { Ok(()) } else { Err(disagree()) }
    }
}

/// The events of one workspace from some place on, in their order.
struct Events {
    workspace: WorkspaceId,
    ahead: VecDeque<Event>,
}

impl Events {
    async fn next(&mut self, view: &dyn View, after: Option<(u64, u16)>) -> Result<Option<Event>, Failure> {
        if self.ahead.is_empty() {
            let after = after.map(|(revision, position)| (self.workspace, revision, position));
            let rows = tables::AUDIT.list(view, &(self.workspace,), after.as_ref(), EVENTS_AHEAD).await?;
            self.ahead = rows.into_iter().map(|(_, event)| event).collect();
        }
        Ok(self.ahead.pop_front())
    }
}

/// Follows the one chain through the events of all workspaces, which lie apart, in the order of their commits.
async fn chain(view: &dyn View) -> Result<ChainHead, Unsound> {
    let mut sources = sources(view).await?;
    let mut heads = BinaryHeap::new();
    let mut waiting = BTreeMap::new();
    for (number, source) in sources.iter_mut().enumerate() {
        if let Some(event) = source.next(view, None).await? {
            heads.push(Reverse((event.revision, event.position, number)));
            waiting.insert(number, event);
        }
    }
    let mut head = ChainHead { length: 0, hash: ChainHash::START };
    while let Some(Reverse((revision, position, number))) = heads.pop() {
        let Some(event) = waiting.remove(&number) else { continue };
        head = ChainHead { length: head.length + 1, hash: head.hash.extend(&event_payload(&event)) };
        if event.hash != head.hash {
            return Err(Unsound::Chain(event.id.to_string()));
        }
        if let Some(next) = sources[number].next(view, Some((revision, position))).await? {
            heads.push(Reverse((next.revision, next.position, number)));
            waiting.insert(number, next);
        }
    }
    let told = tables::AUDIT_CHAIN.read(view, &()).await?;
    if told.unwrap_or(ChainHead { length: 0, hash: ChainHash::START }) == head {
        Ok(head)
    } else {
        Err(Unsound::Chain("its end".to_owned()))
    }
}

/// Every workspace that has events, those that are gone included.
async fn sources(view: &dyn View) -> Result<Vec<Events>, Failure> {
    let (mut sources, mut after) = (Vec::new(), None);
    loop {
        let rows = tables::AUDIT.list(view, &(), after.as_ref(), 1).await?;
        let Some(((workspace, ..), _)) = rows.into_iter().next() else { return Ok(sources) };
        sources.push(Events { workspace, ahead: VecDeque::new() });
        after = Some((workspace, u64::MAX, u16::MAX));
    }
}
