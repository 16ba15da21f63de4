//! Whether what is stored agrees with itself: every row of an index with its record, every count with a recount,
//! every entry of the schedule with what it is for, and the chain with the log.

use std::collections::{BTreeMap, BTreeSet};

use ostiary::domain::audit::ChainHash;
use ostiary::domain::id::{ApiId, IdentityId, KeyId, NamespaceId, OverrideId, RoleId, RootKeyId, WorkspaceId};
use ostiary::domain::key::Presence;
use ostiary::domain::root_key::RootKey;
use ostiary::domain::time::{Expiry, Timestamp};
use ostiary::service::Retention;
use ostiary::store::View;
use ostiary::store::records::{LastUses, Record, event_payload};
use ostiary::store::tables::{self, Counted, Part, Table, Task};

/// More rows than any sequence leaves.
const ALL: usize = 16_000;

pub async fn all<K: Part, R: Record<K>>(view: &dyn View, table: &Table<K, R>) -> Vec<(K, R)> {
    table.list(view, &(), None, ALL).await.unwrap()
}

/// Compares two sets and says what only one of them has.
fn agree<T: Ord + std::fmt::Debug>(what: &str, is: BTreeSet<T>, should: BTreeSet<T>) -> Result<(), String> {
    let surplus: Vec<&T> = is.difference(&should).collect();
    let lacking: Vec<&T> = should.difference(&is).collect();
    if surplus.is_empty() && lacking.is_empty() {
        return Ok(());
    }
    Err(format!("{what}: too many {surplus:?}, too few {lacking:?}"))
}

pub async fn agree_with_themselves(view: &dyn View, now: u64) -> Result<(), String> {
    let root_keys: BTreeMap<_, _> = all(view, &tables::ROOT_KEYS).await.into_iter().collect();
    let keys: BTreeMap<_, _> = all(view, &tables::KEYS).await.into_iter().collect();
    let roles: BTreeMap<_, _> = all(view, &tables::ROLES).await.into_iter().collect();
    let permissions: BTreeMap<_, _> = all(view, &tables::PERMISSIONS).await.into_iter().collect();
    let apis: BTreeMap<_, _> = all(view, &tables::APIS).await.into_iter().collect();
    let identities: BTreeMap<_, _> = all(view, &tables::IDENTITIES).await.into_iter().collect();

    let digests =
        all(view, &tables::ROOT_KEY_DIGESTS).await.into_iter().map(|((digest,), row)| (digest, row)).collect();
    agree("root_key_digests", digests, root_keys.iter().map(|(row, key)| (key.digest.bytes(), *row)).collect())?;
    // Only keys that were imported are found by their digests. Nothing may be shown of their secrets.
    let digests = all(view, &tables::KEY_DIGESTS).await.into_iter().collect();
    let imported = keys.iter().filter(|(_, key)| key.start.is_empty());
    agree("key_digests", digests, imported.map(|(row, key)| ((row.0, key.digest.bytes()), row.1)).collect())?;
    let listed = all(view, &tables::API_KEYS).await.into_iter().map(|(row, ())| row).collect();
    agree("api_keys", listed, keys.iter().map(|(row, key)| (row.0, key.api, row.1)).collect())?;

    // The index of a deleted role goes in the background; keys may keep its id.
    let known = |workspace: WorkspaceId, role: RoleId| roles.contains_key(&(workspace, role));
    let listed = all(view, &tables::ROLE_KEYS).await.into_iter().map(|(row, ())| row).collect();
    let held: BTreeSet<(WorkspaceId, RoleId, KeyId)> = keys
        .iter()
        .flat_map(|(row, key)| key.roles.iter().map(|role| (row.0, *role, row.1)))
        .filter(|(workspace, role, _)| known(*workspace, *role))
        .collect();
    agree("role_keys", listed, held)?;

    let belongs = |workspace: WorkspaceId, identity: IdentityId| identities.contains_key(&(workspace, identity));
    let listed = all(view, &tables::IDENTITY_KEYS).await.into_iter().map(|(row, ())| row).collect();
    let owned = keys.iter().filter_map(|(row, key)| key.identity.map(|identity| (row.0, identity, row.1)));
    agree("identity_keys", listed, owned.filter(|(workspace, id, _)| belongs(*workspace, *id)).collect())?;

    // Every line that has a meter has one row of it, and as many holders as there are keys of it.
    let meters = all(view, &tables::METERS).await.into_iter().map(|(row, meter)| (row, meter.holders)).collect();
    let mut lines: BTreeMap<(WorkspaceId, KeyId), u64> = BTreeMap::new();
    for (row, line) in keys.iter().filter_map(|(row, key)| key.meter.map(|line| (row, line))) {
        *lines.entry((row.0, line)).or_default() += 1;
    }
    agree("meters", meters, lines.into_iter().collect())?;

    let names = all(view, &tables::ROLE_NAMES).await.into_iter().collect();
    let living = roles.iter().filter(|(_, role)| role.deleted.is_none());
    agree("role_names", names, living.map(|(row, role)| ((row.0, role.name.folded()), row.1)).collect())?;
    let slugs = all(view, &tables::PERMISSION_SLUGS).await.into_iter().collect();
    let living = permissions.iter().filter(|(_, one)| one.deleted.is_none());
    agree("permission_slugs", slugs, living.map(|(row, one)| ((row.0, one.slug.folded()), row.1)).collect())?;

    let external_ids = all(view, &tables::IDENTITY_EXTERNAL_IDS).await.into_iter().collect();
    let living = identities.iter().filter(|(_, one)| one.deleted.is_none());
    let called = living.map(|(row, one)| ((row.0, one.external_id.to_string()), row.1)).collect();
    agree("identity_external_ids", external_ids, called)?;

    let namespaces: BTreeMap<_, _> = all(view, &tables::NAMESPACES).await.into_iter().collect();
    let names = all(view, &tables::NAMESPACE_NAMES).await.into_iter().collect();
    let living = namespaces.iter().filter(|(_, one)| one.deleted.is_none());
    agree("namespace_names", names, living.map(|(row, one)| ((row.0, one.name.folded()), row.1)).collect())?;
    let overrides: BTreeMap<_, _> = all(view, &tables::OVERRIDES).await.into_iter().collect();
    let spelled = all(view, &tables::OVERRIDE_IDENTIFIERS).await.into_iter().collect();
    let spellings = overrides.iter().map(|(row, one)| ((row.0, row.1, one.pattern.spelling()), row.2));
    agree("override_identifiers", spelled, spellings.collect())?;
    let patterns = namespaces.iter().flat_map(|(row, one)| one.patterns.iter().map(|(id, _)| (row.0, row.1, *id)));
    let compared = overrides.iter().filter(|(_, one)| one.pattern.glob().is_some()).map(|(row, _)| *row);
    // Those of a deleted namespace go in the background.
    let there = |row: &(WorkspaceId, NamespaceId, OverrideId)| {
        namespaces.get(&(row.0, row.1)).is_some_and(|namespace| namespace.deleted.is_none())
    };
    agree("patterns", patterns.filter(there).collect(), compared.filter(there).collect())?;

    let mut recount: BTreeMap<(WorkspaceId, u8, [u8; 16]), u64> = BTreeMap::new();
    let mut count = |workspace, what, id| *recount.entry((workspace, what, id)).or_default() += 1;
    for (row, _) in keys.iter().filter(|(_, key)| key.is_replaced()) {
        count(row.0, 8, [0; 16]);
    }
    for (row, key) in keys.iter().filter(|(_, key)| key.is_counted()) {
        // A deleted API takes its keys off the counts at once; their rows follow.
        if apis.get(&(row.0, key.api)).is_some_and(|api| api.deleted.is_none()) {
            count(row.0, 2, key.api.bytes());
            count(row.0, 4, [0; 16]);
        }
        count(row.0, 10, key.created_by.bytes());
        key.roles.iter().filter(|role| known(row.0, **role)).for_each(|role| count(row.0, 3, role.bytes()));
        key.identity.filter(|id| belongs(row.0, *id)).into_iter().for_each(|id| count(row.0, 6, id.bytes()));
    }
    overrides.keys().for_each(|row| count(row.0, 7, row.1.bytes()));
    apis.iter().filter(|(_, api)| api.deleted.is_some()).for_each(|(row, _)| count(row.0, 9, [0; 16]));
    root_keys.iter().filter(|(_, key)| key.is_administrator()).for_each(|(row, _)| count(row.0, 1, [0; 16]));
    let one_of_its_line = |key: &RootKey| key.deleted.is_none() && key.rotated_to.is_none();
    root_keys.iter().filter(|(_, key)| one_of_its_line(key)).for_each(|(row, _)| count(row.0, 5, [0; 16]));
    let counts = all(view, &tables::COUNTS).await.into_iter();
    let counts = counts.map(|((workspace, what, id), number)| ((workspace, code(what), id), number)).collect();
    agree("counts", counts, recount.into_iter().collect())?;

    let there: BTreeSet<KeyId> = keys.keys().map(|(_, id)| *id).collect();
    let used = all(view, &tables::KEY_USAGE).await.into_iter().flat_map(|(_, LastUses(uses))| uses.into_keys());
    agree("key_usage", used.filter(|id| !there.contains(id)).collect(), BTreeSet::new())?;
    let used = all(view, &tables::ROOT_KEY_USAGE).await.into_iter().map(|(row, _)| row);
    agree("root_key_usage", used.filter(|row| !root_keys.contains_key(row)).collect(), BTreeSet::new())?;

    the_log_is_one_chain(view).await?;
    calls_are_forgotten_in_time(view).await?;

    // What is to come of each thing that is there. What has been cleared away may have left an entry that finds nothing.
    let retention = Retention::default();
    let due: BTreeSet<(u64, u8, WorkspaceId, [u8; 16])> = all(view, &tables::DUE)
        .await
        .into_iter()
        .map(|((moment, task, workspace, id), ())| (moment.millis(), task_code(task), workspace, id))
        .collect();
    let lasting = |task: u8, workspace: WorkspaceId, id: [u8; 16]| match task {
        1 | 3 => root_keys.contains_key(&(workspace, RootKeyId::from_bytes(id))),
        2 | 4 => keys.contains_key(&(workspace, KeyId::from_bytes(id))),
        5 => apis.contains_key(&(workspace, ApiId::from_bytes(id))),
        6 => roles.contains_key(&(workspace, RoleId::from_bytes(id))),
        _ => true,
    };
    // Ends of lives that have come are told of even where they have been overtaken.
    let overtaken = |moment: u64, task: u8| matches!(task, 1 | 2) && moment <= now;
    let mut should = BTreeSet::new();
    let mut expect = |expiry: Expiry, (expire, purge): (u8, u8), workspace, id| {
        if let Expiry::At(end) = expiry {
            let first = (end.millis(), expire, workspace, id);
            let then = (end.after(retention.expired).millis(), purge, workspace, id);
            should.insert(if due.contains(&first) { first } else { then });
        }
    };
    for ((workspace, id), key) in root_keys.iter().filter(|(_, key)| key.deleted.is_none()) {
        expect(key.expiry, (1, 3), *workspace, id.bytes());
    }
    for ((workspace, id), key) in keys.iter().filter(|(_, key)| key.presence == Presence::Here) {
        expect(key.expiry, (2, 4), *workspace, id.bytes());
    }
    let mut purge = |at: Timestamp, span, task: u8, workspace, id| {
        should.insert((at.after(span).millis(), task, workspace, id));
    };
    for ((workspace, id), key) in &root_keys {
        key.deleted.into_iter().for_each(|at| purge(at, retention.expired, 3, *workspace, id.bytes()));
    }
    for ((workspace, id), key) in &keys {
        match key.presence {
            Presence::Here => {}
            Presence::Deleted(at) => purge(at, retention.deleted_keys, 4, *workspace, id.bytes()),
            Presence::Gone(at) => purge(at, std::time::Duration::ZERO, 4, *workspace, id.bytes()),
            Presence::Revoked { at, .. } => purge(at, retention.expired, 4, *workspace, id.bytes()),
        }
    }
    for ((workspace, id), api) in &apis {
        api.deleted.into_iter().for_each(|at| purge(at, std::time::Duration::ZERO, 5, *workspace, id.bytes()));
    }
    for ((workspace, id), role) in &roles {
        role.deleted.into_iter().for_each(|at| purge(at, std::time::Duration::ZERO, 6, *workspace, id.bytes()));
    }
    let lasting: BTreeSet<_> = due
        .iter()
        .copied()
        .filter(|(moment, task, workspace, id)| {
            *task <= 6
                && lasting(*task, *workspace, *id)
                && (should.contains(&(*moment, *task, *workspace, *id)) || !overtaken(*moment, *task))
        })
        .collect();
    agree("due", lasting, should)
}

async fn the_log_is_one_chain(view: &dyn View) -> Result<(), String> {
    let mut events: Vec<_> = all(view, &tables::AUDIT).await.into_iter().map(|(_, event)| event).collect();
    events.sort_by_key(|event| (event.revision, event.position));
    let mut head = ChainHash::START;
    for event in &events {
        head = head.extend(&event_payload(event));
        if event.hash != head {
            return Err(format!("the chain breaks at {}", event.id));
        }
    }
    let stored = tables::AUDIT_CHAIN.read(view, &()).await.unwrap().unwrap();
    if (stored.length, stored.hash) == (events.len() as u64, head) {
        Ok(())
    } else {
        Err("the head of the chain".into())
    }
}

async fn calls_are_forgotten_in_time(view: &dyn View) -> Result<(), String> {
    let remembered = all(view, &tables::REMEMBERED).await.into_iter().map(|(row, _)| row).collect();
    let forgettable = all(view, &tables::FORGETTABLE).await.into_iter();
    agree("remembered", remembered, forgettable.map(|((_, workspace, key, call), ())| (workspace, key, call)).collect())
}

fn code(counted: Counted) -> u8 {
    match counted {
        Counted::Administrators => 1,
        Counted::KeysOfApi => 2,
        Counted::KeysOfRole => 3,
        Counted::Keys => 4,
        Counted::RootKeys => 5,
        Counted::KeysOfIdentity => 6,
        Counted::OverridesOfNamespace => 7,
        Counted::RerolledKeys => 8,
        Counted::ApisToClear => 9,
        Counted::KeysOfCreator => 10,
    }
}

fn task_code(task: Task) -> u8 {
    match task {
        Task::ExpireRootKey => 1,
        Task::ExpireKey => 2,
        Task::PurgeRootKey => 3,
        Task::PurgeKey => 4,
        Task::ClearApi => 5,
        Task::ClearRole => 6,
        Task::PurgePermission => 7,
        Task::ClearWorkspace => 8,
        Task::SettleCuts => 9,
        Task::ClearIdentity => 10,
        Task::ClearNamespace => 11,
    }
}
