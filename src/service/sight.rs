//! Looking at records, remembered ones first.
//!
//! What is seen hangs together. A sight keeps in mind how old each record is that it has seen; when all are together it
//! asks the marks again. If a commit has changed any of them meanwhile, what was seen is thrown away and everything is
//! looked at anew, in a single view. So an answer never mixes two states, and one that begins after a change was
//! acknowledged reflects it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;

use crate::domain::api::Api;
use crate::domain::card::{Card, Traits};
use crate::domain::credits::Meter;
use crate::domain::id::{PermissionId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::Key;
use crate::domain::permission::Slug;
use crate::domain::query::Query;
use crate::domain::role::{Held, Role};
use crate::domain::root_key::RootKey;
use crate::domain::secret::{Digest, Secret};
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::store::bringing::bring;
use crate::store::cache::{Cache, Entry, Place};
use crate::store::marks::{Marks, Spot};
use crate::store::records::Record;
use crate::store::shelf::{Placed, Shelf, Sought};
use crate::store::tables::{self, Part, Table};
use crate::store::{Revision, View};

use super::Ostiary;
use super::credits::{Account, Purses};
use super::keys::finding::{Found, find};
use super::usage::{LastUse, Tally};
use super::windows::Tab;

/// What neither keys nor others have taken is theirs to grow into up to this part of all.
const SPARE: u64 = 32;
/// After so many records that had to be read the room is shared anew.
const MISSES_BETWEEN: u64 = 1_024;
/// Different traits that are known before those are let go that no key has any more.
const TRAITS_MIN: usize = 1_024;
/// Permissions of a key that are all looked at, whether or not anybody asks for them.
const ALL_LOOKED_AT_MAX: usize = 64;
/// What traits that no other key has weigh in memory besides what was read of them.
const TRAITS_WEIGHT: usize = 512;
/// What it takes to note when a key was last used.
const LAST_USE_WEIGHT: usize = 64;

/// What is remembered between calls.
pub struct Memory {
    pub(super) cache: Cache,
    /// Keys, by what leads to them.
    keys: Shelf<Holder>,
    /// What both may take.
    bytes: u64,
    /// How often something had to be read.
    misses: AtomicU64,
    epoch: u64,
    traits: Mutex<Pool>,
}

/// Traits that keys have in common.
#[derive(Default)]
struct Pool {
    known: HashMap<Arc<Traits>, Arc<Group>>,
    /// How many there may be before they are sifted.
    room: usize,
}

/// A root key in memory.
#[derive(Debug)]
pub(super) struct Remembered {
    /// The record.
    pub root_key: RootKey,
    /// How it has been used since that was saved.
    pub tally: Arc<Tally>,
}

/// A key in memory.
pub(super) struct Holder {
    /// What its verdict depends on.
    pub card: Card,
    /// Where it is remembered.
    place: Place,
    /// Those of the same traits.
    pub group: Arc<Group>,
    /// When it was last found good, if that is not saved yet.
    pub last_use: Arc<LastUse>,
    /// How often it and its line have been used lately, once somebody has counted that.
    pub tab: OnceLock<Tab>,
}

impl Placed for Holder {
    fn is_at(&self, place: &Place) -> bool {
        self.place == *place
    }

    fn bring(&self) {
        // It takes three lines of memory; which of these lies in which of them is the compiler's to say.
        let Self { card, place, group, last_use, tab } = self;
        bring(&card.id);
        bring(&card.expiry);
        bring(&card.traits);
        bring(place);
        bring(group);
        bring(last_use);
        bring(tab);
    }
}

/// Keys of the same traits.
#[derive(Default)]
pub(super) struct Group {
    /// What their traits amounted to when somebody looked last.
    setting: ArcSwapOption<Setting>,
}

/// What traits amount to: the records that they name.
pub(super) struct Setting {
    /// How old the records are.
    seen: Box<[(Spot, u64)]>,
    /// The API, if there is a record of it.
    pub api: Option<Seen<Api>>,
    /// The roles that exist.
    pub roles: Box<[Seen<Role>]>,
    /// The permissions that exist, directly held or through a role: all, or those that were asked for.
    pub permissions: Box<[Slug]>,
}

impl Memory {
    /// Nothing yet, and room for so many bytes, for the store of this epoch.
    pub(super) fn new(marks: &Arc<Marks>, bytes: u64, epoch: u64) -> Self {
        let cache = Cache::new(Arc::clone(marks), bytes);
        let keys = Shelf::new(Arc::clone(marks), bytes);
        let memory = Self { cache, keys, bytes, misses: AtomicU64::new(0), epoch, traits: Mutex::default() };
        memory.share();
        memory
    }

    /// Shares the room between keys and all else: what one does not need is the other's, and of what both need keys have
    /// two thirds.
    fn share(&self) {
        let spare = self.bytes / SPARE;
        let others = (self.cache.weight() + spare).min(self.bytes / 3);
        self.keys.set_capacity(self.bytes - others);
        let keys = (self.keys.weight() + spare).min(self.bytes - self.bytes / 3);
        self.cache.set_capacity(self.bytes - keys);
    }

    /// Something had to be read, and is remembered from now on.
    fn missed(&self) {
        if self.misses.fetch_add(1, Ordering::Relaxed) % MISSES_BETWEEN == MISSES_BETWEEN - 1 {
            self.share();
        }
    }

    /// The newest revision there is.
    pub(super) fn head(&self) -> Revision {
        Revision { epoch: self.epoch, counter: self.cache.marks().head() }
    }

    /// How many records were asked for and remembered, and how many had to be read.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        self.cache.hits_and_misses()
    }

    /// A meter as a commit has left it.
    pub(super) fn meter_as_left(&self, account: Account, meter: Meter, revision: Revision) -> Entry<Meter> {
        let (_, spot) = tables::METERS.place(self.cache.marks(), &account);
        Entry { record: meter, spot, revision: revision.counter }
    }

    /// A meter, if it is remembered and still counts: the one that is known of its purse, or one that was read.
    pub(super) fn meter_in_force(&self, account: Account, of_purse: Option<Entry<Meter>>) -> Option<Entry<Meter>> {
        let marks = self.cache.marks();
        let of_purse = of_purse.filter(|meter| meter.holds(marks));
        of_purse.or_else(|| self.cache.get(&tables::METERS.place(marks, &account).0).map(|read| *read))
    }

    /// A key as it is remembered, and whether its traits are new.
    fn holder(&self, place: Place, key: &Key, last_use: Arc<LastUse>) -> (Holder, bool) {
        let mut group = None;
        let mut new = false;
        let card = Card::of(key, |traits| {
            let mut pool = self.traits.lock();
            if let Some((known, of_them)) = pool.known.get_key_value(&traits) {
                group = Some(Arc::clone(of_them));
                return Arc::clone(known);
            }
            if pool.known.len() >= pool.room {
                pool.known.retain(|traits, _| Arc::strong_count(traits) > 1);
                pool.room = TRAITS_MIN.max(2 * pool.known.len());
            }
            new = true;
            let traits = Arc::new(traits);
            let of_them = Arc::<Group>::default();
            group = Some(Arc::clone(&of_them));
            pool.known.insert(Arc::clone(&traits), of_them);
            traits
        });
        (Holder { card, place, group: group.unwrap_or_default(), last_use, tab: OnceLock::new() }, new)
    }
}

impl Setting {
    fn holds(&self, marks: &Marks) -> bool {
        self.seen.iter().all(|(spot, revision)| marks.holds(*spot, *revision))
    }
}

/// One look at some records.
pub(super) struct Sight<'a> {
    ostiary: &'a Ostiary,
    /// Whether what is remembered counts.
    remembering: bool,
    view: Option<Box<dyn View>>,
    seen: Vec<(Spot, u64)>,
    misses: u64,
}

/// A record that was looked at. It stays what it was, whatever happens to the row.
pub(super) type Seen<R> = Arc<Entry<R>>;

impl<'a> Sight<'a> {
    /// Looks at what is remembered, and at the store where nothing is.
    pub fn remembering(ostiary: &'a Ostiary) -> Self {
        Self { ostiary, remembering: true, view: None, seen: Vec::with_capacity(8), misses: 0 }
    }

    /// Looks at everything in this view.
    pub fn anew(ostiary: &'a Ostiary, view: Box<dyn View>) -> Self {
        Self { ostiary, remembering: false, view: Some(view), seen: Vec::new(), misses: 0 }
    }

    /// Includes what was looked at before.
    pub fn include<R>(&mut self, entry: &Seen<R>) {
        self.seen.push((entry.spot, entry.revision));
    }

    /// The state that all that was seen hangs together in; none if it does not.
    pub fn holds_at(&self) -> Option<Revision> {
        let memory = &self.ostiary.memory;
        memory.cache.count((self.seen.len() as u64).saturating_sub(self.misses), self.misses);
        if !self.remembering {
            return self.view.as_ref().map(|view| view.revision());
        }
        // The marks of every commit up to this one were up before it could be seen here.
        let head = memory.head();
        let marks = memory.cache.marks();
        self.seen.iter().all(|(spot, revision)| marks.holds(*spot, *revision)).then_some(head)
    }

    /// The record of a row.
    pub async fn record<K, R>(&mut self, table: &Table<K, R>, key: &K) -> Result<Option<Seen<R>>, Error>
    where
        K: Part,
        R: Record<K> + Send + Sync + 'static,
    {
        let cache = &self.ostiary.memory.cache;
        let (place, spot) = table.place(cache.marks(), key);
        if let Some(entry) = self.remembered(&place) {
            return Ok(Some(entry));
        }
        let view = self.view().await?;
        let revision = view.revision().counter;
        let Some((record, length)) = table.read_with_length(view, key).await? else { return Ok(None) };
        Ok(Some(self.keep(place, Entry { record, spot, revision }, 2 * length)))
    }

    /// A meter.
    pub async fn meter(&mut self, account: Account) -> Result<Option<Entry<Meter>>, Error> {
        let Ostiary { memory, credits, .. } = self.ostiary;
        let of_purse = credits.meter(account).filter(|meter| self.remembering && meter.holds(memory.cache.marks()));
        if let Some(meter) = of_purse {
            self.seen.push((meter.spot, meter.revision));
            return Ok(Some(meter));
        }
        Ok(self.record(&tables::METERS, &account).await?.map(|read| *read))
    }

    /// The root key with this digest.
    pub async fn root_key(&mut self, digest: Digest) -> Result<Option<Seen<Remembered>>, Error> {
        let marks = self.ostiary.memory.cache.marks();
        let by_digest = (digest.bytes(),);
        let (place, _) = tables::ROOT_KEY_DIGESTS.place(marks, &by_digest);
        if let Some(entry) = self.remembered(&place) {
            return Ok(Some(entry));
        }
        let view = self.view().await?;
        let revision = view.revision().counter;
        let Some(row) = tables::ROOT_KEY_DIGESTS.read(view, &by_digest).await? else { return Ok(None) };
        let Some((root_key, length)) = tables::ROOT_KEYS.read_with_length(view, &row).await? else { return Ok(None) };
        // The mark is that of the root key itself: its digest goes only with it.
        let (_, spot) = tables::ROOT_KEYS.place(marks, &row);
        let record = Remembered { root_key, tally: self.ostiary.usage.tally(row) };
        Ok(Some(self.keep(place, Entry { record, spot, revision }, 2 * length)))
    }

    /// The root key with this digest, and its workspace.
    pub async fn root_key_and_home(
        &mut self,
        digest: Digest,
    ) -> Result<(Option<Seen<Remembered>>, Option<Seen<Workspace>>), Error> {
        let root_key = self.root_key(digest).await?;
        let Some(home) = root_key.as_ref().map(|seen| seen.record.root_key.workspace) else { return Ok((None, None)) };
        Ok((root_key, self.record(&tables::WORKSPACES, &(home,)).await?))
    }

    /// The key that a secret belongs to.
    pub async fn holder(&mut self, home: &Workspace, secret: &Secret) -> Result<Option<Seen<Holder>>, Error> {
        let Ostiary { memory, usage, .. } = self.ostiary;
        let marks = memory.cache.marks();
        let Some(place) = place_of(home, secret) else { return Ok(None) };
        let sought = memory.keys.seek(place);
        if let Some(entry) = self.remembering.then(|| memory.keys.get(&sought)).flatten() {
            self.include(&entry);
            return Ok(Some(entry));
        }
        let view = self.view().await?;
        let revision = view.revision().counter;
        let Some(Found { key, length }) = find(view, home, secret).await? else { return Ok(None) };
        // The mark is that of the key itself: what its secret leads to goes only with it.
        let (_, spot) = tables::KEYS.place(marks, &(home.id, key.id));
        let (holder, new) = memory.holder(place, &key, usage.last_use(key.id));
        let heap = LAST_USE_WEIGHT + if new { TRAITS_WEIGHT + 2 * length } else { 0 };
        let entry = memory.keys.put(&sought, Entry { record: holder, spot, revision }, heap);
        self.missed(&entry);
        Ok(Some(entry))
    }

    /// What a key's traits amount to, as far as a query asks for that.
    pub async fn setting(&mut self, holder: &Holder, query: Option<&Query>) -> Result<Arc<Setting>, Error> {
        let traits = &holder.card.traits;
        let workspace = traits.workspace;
        let first = self.seen.len();
        let api = self.record(&tables::APIS, &(workspace, traits.api)).await?;
        let mut roles = Vec::with_capacity(traits.roles.len());
        for id in &traits.roles {
            // A role without a record is gone for good: no id is ever given twice.
            let role = self.record(&tables::ROLES, &(workspace, *id)).await?;
            roles.extend(role.filter(|role| role.record.deleted.is_none()));
        }
        let through_roles = roles.iter().flat_map(|role: &Seen<Role>| &role.record.permissions);
        let held: Vec<&Held> = traits.permissions.iter().chain(through_roles).collect();
        // Of many, most of which nobody asks for, not all are looked at.
        let all = held.len() <= ALL_LOOKED_AT_MAX;
        let asked_for = |slug: &Slug| query.is_some_and(|query| query.permissions().any(|asked| slug.covers(asked)));
        let mut permissions = Vec::new();
        for held in held {
            if (all || asked_for(&held.slug)) && self.lives(workspace, held.id).await? {
                permissions.push(held.slug.clone());
            }
        }
        let seen = self.seen[first..].into();
        let setting = Setting { seen, api, roles: roles.into(), permissions: permissions.into() };
        let setting = Arc::new(setting);
        if all {
            holder.group.setting.store(Some(Arc::clone(&setting)));
        }
        Ok(setting)
    }

    /// Whether a permission exists.
    pub async fn lives(&mut self, workspace: WorkspaceId, id: PermissionId) -> Result<bool, Error> {
        let permission = self.record(&tables::PERMISSIONS, &(workspace, id)).await?;
        Ok(permission.is_some_and(|permission| permission.record.deleted.is_none()))
    }

    /// The view that shows what is not remembered.
    pub async fn view(&mut self) -> Result<&dyn View, Error> {
        let view = match self.view.take() {
            Some(view) => view,
            None => self.ostiary.engine.view().await?,
        };
        Ok(&**self.view.insert(view))
    }

    fn remembered<R: Send + Sync + 'static>(&mut self, place: &Place) -> Option<Seen<R>> {
        let cache = &self.ostiary.memory.cache;
        let entry = self.remembering.then(|| cache.get::<R>(place)).flatten()?;
        self.include(&entry);
        Some(entry)
    }

    fn keep<R: Send + Sync + 'static>(&mut self, place: Place, entry: Entry<R>, heap: usize) -> Seen<R> {
        let entry = self.ostiary.memory.cache.put(place, entry, heap);
        self.missed(&entry);
        entry
    }

    fn missed<R>(&mut self, entry: &Seen<R>) {
        self.include(entry);
        self.misses += 1;
        self.ostiary.memory.missed();
    }
}

/// What is remembered all together: no look at the store is needed, and nothing is waited for.
pub(super) struct AtHand<'h> {
    pub holder: &'h Seen<Holder>,
    /// Present.
    pub setting: Guard<Option<Arc<Setting>>>,
    pub identity: Option<Seen<Identity>>,
    pub meter: Option<Entry<Meter>>,
    pub revision: Revision,
}

impl Memory {
    /// The root key with this digest and its workspace, if both are remembered and hang together.
    pub(super) fn root_key_at_hand(&self, digest: Digest) -> Option<(Seen<Remembered>, Seen<Workspace>)> {
        let (cache, marks) = (&self.cache, self.cache.marks());
        let root_key = cache.get::<Remembered>(&tables::ROOT_KEY_DIGESTS.place(marks, &(digest.bytes(),)).0)?;
        let home = (root_key.record.root_key.workspace,);
        let workspace = cache.get::<Workspace>(&tables::WORKSPACES.place(marks, &home).0)?;
        let hangs_together = root_key.holds(marks) && workspace.holds(marks);
        hangs_together.then(|| {
            cache.count(2, 0);
            (root_key, workspace)
        })
    }

    /// The key that a secret belongs to with all that its verdict depends on, if all of it is remembered and hangs
    /// together.
    pub(super) fn at_hand<'h>(
        &self,
        purses: &Purses,
        home: &Seen<Workspace>,
        holder: &'h Seen<Holder>,
    ) -> Option<AtHand<'h>> {
        let (cache, marks) = (&self.cache, self.cache.marks());
        let workspace = home.record.id;
        if !holder.holds(marks) {
            // Whoever reads it anew puts it in this place; if it is gone for good, nobody does.
            self.keys.let_go(&self.keys.seek(holder.record.place), holder);
            return None;
        }
        let card = &holder.record.card;
        // Millions of keys share it: it is looked at without being claimed.
        let setting = holder.record.group.setting.load();
        let identity = match card.identity {
            Some(id) => Some(cache.get(&tables::IDENTITIES.place(marks, &(workspace, id)).0)?),
            None => None,
        };
        let meter = match card.meter {
            Some(lineage) => {
                let account = (workspace, lineage);
                Some(self.meter_in_force(account, purses.meter(account))?)
            }
            None => None,
        };
        // The marks of every commit up to this one were up before it could be seen here.
        let revision = self.head();
        let holds = home.holds(marks)
            && holder.holds(marks)
            && setting.as_ref().is_some_and(|setting| setting.holds(marks))
            && identity.as_ref().is_none_or(|identity: &Seen<Identity>| identity.holds(marks))
            && meter.as_ref().is_none_or(|meter| meter.holds(marks));
        holds.then(|| {
            let of_setting = setting.as_ref().map_or(0, |setting| setting.seen.len());
            let others = usize::from(identity.is_some()) + usize::from(meter.is_some());
            cache.count((1 + of_setting + others) as u64, 0);
            AtHand { holder, setting, identity, meter, revision }
        })
    }
}

/// Those of many keys that are about to be looked at, in turn.
impl Memory {
    /// What is remembered of the keys that these secrets lead to, if there are any, whether or not it still counts. What
    /// it takes to look at them comes from main memory all together.
    pub(super) fn remembered<'q>(
        &self,
        questions: impl Iterator<Item = (&'q Workspace, &'q Secret)>,
    ) -> Vec<Option<Seen<Holder>>> {
        let seek = |(home, secret)| self.seek(home, secret);
        let sought: Vec<Option<Sought>> = questions.map(seek).collect();
        sought.iter().flatten().for_each(|sought| self.keys.bring_slot(sought));
        sought.iter().flatten().for_each(|sought| self.keys.bring_entry(sought));
        let take = |sought: &Option<Sought>| {
            let holder = self.keys.take(sought.as_ref()?)?;
            holder.record.bring_counts();
            Some(holder)
        };
        sought.iter().map(take).collect()
    }

    /// The same for one.
    pub(super) fn remembered_one(&self, home: &Workspace, secret: &Secret) -> Option<Seen<Holder>> {
        let holder = self.keys.take(&self.seek(home, secret)?)?;
        holder.record.bring_counts();
        Some(holder)
    }

    /// What to look for; nothing where a secret can lead to no key.
    fn seek(&self, home: &Workspace, secret: &Secret) -> Option<Sought> {
        place_of(home, secret).map(|place| self.keys.seek(place))
    }
}

impl Holder {
    /// Brings what is counted of its uses.
    fn bring_counts(&self) {
        bring(&*self.last_use);
        if let Some(tab) = self.tab.get() {
            tab.bring();
        }
    }
}

/// Where the key is remembered that a secret leads to; nowhere for one that can lead to none.
///
/// It depends on what was presented alone, so that what is remembered never answers otherwise than the store would.
fn place_of(home: &Workspace, secret: &Secret) -> Option<Place> {
    let leads = secret.well_formed() || !home.imported.is_empty();
    leads.then(|| Place::of_key(home.id, secret.digest()))
}
