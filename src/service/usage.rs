//! How root keys, their permissions, and keys are used.
//!
//! Counted in memory and saved in the background and at a clean stop, so that counting costs a call no write. A crash
//! loses what was not saved yet: seconds, and up to ten minutes where very many keys are used.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::MutexGuard;

use crate::domain::capability::Grant;
use crate::domain::id::{KeyId, RootKeyId, WorkspaceId};
use crate::domain::root_key::RootKey;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::records::{GrantUsage, LastUses, Usage};
use crate::store::{Stop, Txn, tables};

use super::caller::Caller;
use super::pace::Pace;
use super::{Ostiary, Reading};

/// Root keys saved in one transaction.
const SAVED_AT_ONCE: usize = 50;
/// Rows with the last uses of keys saved in one transaction.
const ROWS_AT_ONCE: usize = 40;
/// Into how many rows they are divided, by the last bits of their ids, which are spread evenly: rows of a million keys
/// are a few hundred bytes long, and when many keys are used each row is written once for all of them.
const ROWS: u16 = 1 << 15;
/// Locks that those keys share whose last use is not saved yet.
const SHARDS: usize = 64;
/// Keys whose last use is not saved yet that may share a lock; beyond, the use of further keys goes uncounted, not
/// unbounded.
const SHARD_MAX: usize = 4_000_000 / SHARDS;

type RootKeyRow = (WorkspaceId, RootKeyId);

/// What has been used since it was last saved.
pub struct Ledger {
    root_keys: Mutex<HashMap<RootKeyRow, Arc<Tally>>>,
    /// Keys that have been used since that was saved.
    keys: Box<[Shard]>,
    /// Held while last uses are written that were looked at before, so that none is written of a key that is gone.
    saving: tokio::sync::Mutex<()>,
}

type Shard = Mutex<HashMap<KeyId, Arc<LastUse>, foldhash::fast::RandomState>>;

/// How a root key has been used since that was saved.
#[derive(Debug, Default)]
pub struct Tally {
    usage: Mutex<Usage>,
    under_way: [AtomicU32; 2],
    arriving: AtomicUsize,
}

/// When a key was last found good, in the hands of whoever finds it so.
#[derive(Debug, Default)]
pub struct LastUse {
    millis: AtomicU64,
    /// Whether it is among those that are to be saved.
    listed: AtomicBool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            root_keys: Mutex::default(),
            keys: (0..SHARDS).map(|_| Shard::default()).collect(),
            saving: tokio::sync::Mutex::default(),
        }
    }
}

impl Tally {
    /// How many calls with it are under way, of each of the kinds that have room of their own.
    pub fn under_way(&self) -> &[AtomicU32; 2] {
        &self.under_way
    }

    /// Bytes of its messages that are on their way, beyond what is small.
    pub fn arriving(&self) -> &AtomicUsize {
        &self.arriving
    }

    /// The root key was recognised.
    pub fn root_key_used(&self, now: Timestamp) {
        self.usage.lock().last = Some(now);
    }

    /// One of its permissions allowed something so many times.
    pub fn grant_used(&self, grant: &Grant, count: u64, now: Timestamp) {
        let mut usage = self.usage.lock();
        match usage.grants.iter_mut().find(|used| used.grant == *grant) {
            Some(used) => {
                used.count += count;
                used.last = used.last.max(now);
            }
            None => usage.grants.push(GrantUsage { grant: grant.clone(), count, last: now }),
        }
    }
}

/// Which permissions of a caller have allowed something in one call: put on the tally that all calls share once, at its
/// end.
pub struct Bill<'a> {
    caller: &'a Caller,
    used: SmallVec<[(&'a Grant, u64, Timestamp); 1]>,
}

impl<'a> Bill<'a> {
    /// A bill without entries.
    pub fn of(caller: &'a Caller) -> Self {
        Self { caller, used: SmallVec::new() }
    }

    /// Whose it is.
    pub fn caller(&self) -> &'a Caller {
        self.caller
    }

    /// One of the caller's permissions allowed something.
    pub(super) fn note(&mut self, grant: &'a Grant, now: Timestamp) {
        match self.used.iter_mut().find(|(used, ..)| std::ptr::eq(*used, grant)) {
            Some((_, count, last)) => (*count, *last) = (*count + 1, now),
            None => self.used.push((grant, 1, now)),
        }
    }
}

impl Drop for Bill<'_> {
    fn drop(&mut self) {
        for (grant, count, last) in &self.used {
            self.caller.tally().grant_used(grant, *count, *last);
        }
    }
}

impl LastUse {
    fn moment(&self) -> Option<Timestamp> {
        let millis = self.millis.load(Ordering::SeqCst);
        (millis > 0).then(|| Timestamp::from_millis_saturating(millis))
    }
}

impl Ledger {
    /// Where the use of a root key is counted.
    pub fn tally(&self, root_key: RootKeyRow) -> Arc<Tally> {
        Arc::clone(self.root_keys.lock().entry(root_key).or_default())
    }

    /// Where the last use of a key is noted: the same for everybody as long as it has not been saved.
    pub fn last_use(&self, key: KeyId) -> Arc<LastUse> {
        self.shard(key).lock().get(&key).map(Arc::clone).unwrap_or_default()
    }

    /// A key was found good.
    pub fn key_used(&self, key: KeyId, last_use: &Arc<LastUse>, now: Timestamp) {
        last_use.millis.store(now.millis(), Ordering::SeqCst);
        if last_use.listed.load(Ordering::SeqCst) || last_use.listed.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut keys = self.shard(key).lock();
        let full = keys.len() >= SHARD_MAX;
        let listed = match keys.entry(key) {
            Entry::Vacant(vacant) if !full => Arc::ptr_eq(vacant.insert(Arc::clone(last_use)), last_use),
            Entry::Vacant(_) => false,
            Entry::Occupied(known) => {
                // Two were made of the same key at the same time. The one on the list counts for both.
                known.get().millis.fetch_max(now.millis(), Ordering::SeqCst);
                Arc::ptr_eq(known.get(), last_use)
            }
        };
        if !listed {
            last_use.listed.store(false, Ordering::SeqCst);
        }
    }

    /// Nobody saves the last use of keys while this is held.
    pub async fn hold(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().await
    }

    /// Forgets a key that has gone for good.
    pub fn forget(&self, key: KeyId) {
        if let Some(last_use) = self.shard(key).lock().remove(&key) {
            last_use.listed.store(false, Ordering::SeqCst);
        }
    }

    fn shard(&self, key: KeyId) -> &Shard {
        &self.keys[usize::from(row_of(key)) % SHARDS]
    }

    /// Takes those off the list whose use has been saved and who have not been used since.
    fn saved(&self, keys: &[(KeyId, Timestamp)]) {
        for (key, saved) in keys {
            let mut shard = self.shard(*key).lock();
            let Some(last_use) = shard.get(key) else { continue };
            // Whoever uses it from here on finds it off the list and puts it back.
            last_use.listed.store(false, Ordering::SeqCst);
            if last_use.moment() == Some(*saved) {
                shard.remove(key);
            } else {
                last_use.listed.store(true, Ordering::SeqCst);
            }
        }
    }
}

/// Which row has the last use of a key.
pub(super) fn row_of(key: KeyId) -> u16 {
    let [.., high, low] = key.bytes();
    u16::from_be_bytes([high, low]) % ROWS
}

/// Adds later usage to earlier.
fn add(earlier: &mut Usage, later: &Usage) {
    earlier.last = earlier.last.max(later.last);
    for used in &later.grants {
        match earlier.grants.iter_mut().find(|known| known.grant == used.grant) {
            Some(known) => {
                known.count += used.count;
                known.last = known.last.max(used.last);
            }
            None => earlier.grants.push(used.clone()),
        }
    }
}

/// How a root key and each of its present permissions has been used.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RootKeyUsage {
    /// When it was last used.
    pub last: Option<Timestamp>,
    /// Its permissions that have been used, in order.
    pub used: Vec<GrantUsage>,
    /// Its permissions that have not.
    pub unused: Vec<Grant>,
}

impl Ostiary {
    /// How a root key has been used, what is not saved yet included.
    pub(super) async fn usage_of(&self, reading: &Reading, root_key: &RootKey) -> Result<RootKeyUsage, Error> {
        let row = (root_key.workspace, root_key.id);
        // What is in memory is read first: saving it meanwhile would at worst show it twice, never lose it.
        let tally = self.usage.root_keys.lock().get(&row).map(Arc::clone);
        let recent = tally.map(|tally| tally.usage.lock().clone()).unwrap_or_default();
        let mut usage = tables::ROOT_KEY_USAGE.read(reading.view(), &row).await?.unwrap_or_default();
        add(&mut usage, &recent);
        let mut whole = RootKeyUsage { last: usage.last, ..RootKeyUsage::default() };
        for grant in root_key.grants.iter() {
            match usage.grants.iter().find(|used| used.grant == *grant) {
                Some(used) => whole.used.push(used.clone()),
                None => whole.unused.push(grant.clone()),
            }
        }
        Ok(whole)
    }

    /// When a key was last found good, as far as is known.
    pub(super) async fn last_use_of(&self, reading: &Reading, key: KeyId) -> Result<Option<Timestamp>, Error> {
        let recent = self.usage.shard(key).lock().get(&key).and_then(|last_use| last_use.moment());
        match recent {
            Some(moment) => Ok(Some(moment)),
            None => {
                let uses = tables::KEY_USAGE.read(reading.view(), &(row_of(key),)).await?;
                Ok(uses.and_then(|LastUses(uses)| uses.get(&key).copied()))
            }
        }
    }

    /// Saves what has been counted. What can't be saved now is kept for the next time.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn flush_usage(&self, pace: Pace) -> Result<(), Error> {
        let mut paced = pace.begin(&self.world);
        let tallies: Vec<(RootKeyRow, Usage)> =
            self.usage.root_keys.lock().iter().map(|(row, tally)| (*row, tally.usage.lock().clone())).collect();
        for some in tallies.chunks(SAVED_AT_ONCE) {
            self.save_root_keys(some.to_vec()).await?;
            paced.rest().await;
        }
        // Keys of the same lock lie in rows of their own, so one lock after the other is looked at.
        for shard in &self.usage.keys {
            let keys: Vec<(KeyId, Timestamp)> =
                shard.lock().iter().filter_map(|(key, last_use)| Some((*key, last_use.moment()?))).collect();
            let mut rows: BTreeMap<u16, Vec<(KeyId, Timestamp)>> = BTreeMap::new();
            for (key, last) in keys {
                rows.entry(row_of(key)).or_default().push((key, last));
            }
            let rows: Vec<_> = rows.into_iter().collect();
            for some in rows.chunks(ROWS_AT_ONCE) {
                self.save_keys(some.to_vec()).await?;
                paced.rest().await;
            }
        }
        Ok(())
    }

    async fn save_root_keys(&self, some: Vec<(RootKeyRow, Usage)>) -> Result<(), Error> {
        let saved = some.clone();
        self.settle(move |tx, _| {
            for (row, recent) in &some {
                // A root key that was purged meanwhile leaves no usage behind.
                if let Some(root_key) = tables::ROOT_KEYS.get(tx, row)? {
                    let mut usage = tables::ROOT_KEY_USAGE.get(tx, row)?.unwrap_or_default();
                    add(&mut usage, recent);
                    // Only what it still holds is ever told of; the row must not grow with all that it ever held.
                    usage.grants.retain(|used| root_key.grants.iter().any(|grant| *grant == used.grant));
                    tables::ROOT_KEY_USAGE.put(tx, row, &usage)?;
                }
            }
            Ok(())
        })
        .await?;
        let mut root_keys = self.usage.root_keys.lock();
        for (row, recent) in &saved {
            let rest =
                root_keys.get(row).map(|tally| (subtract(&mut tally.usage.lock(), recent), Arc::strong_count(tally)));
            // Whoever is about to count on it keeps it where it is.
            if rest == Some((Rest::Nothing, 1)) {
                root_keys.remove(row);
            }
        }
        Ok(())
    }

    async fn save_keys(&self, rows: Vec<(u16, Vec<(KeyId, Timestamp)>)>) -> Result<(), Error> {
        let _saving = self.usage.hold().await;
        let there = |(key, _): &(KeyId, Timestamp)| self.usage.shard(*key).lock().contains_key(key);
        let mut rows = rows;
        rows.iter_mut().for_each(|(_, uses)| uses.retain(there));
        let saved: Vec<(KeyId, Timestamp)> = rows.iter().flat_map(|(_, uses)| uses.iter().copied()).collect();
        self.settle(move |tx, _| {
            for (row, recent) in &rows {
                let LastUses(mut uses) = tables::KEY_USAGE.get(tx, &(*row,))?.unwrap_or_default();
                uses.extend(recent.iter().copied());
                tables::KEY_USAGE.put(tx, &(*row,), &LastUses(uses))?;
            }
            Ok(())
        })
        .await?;
        self.usage.saved(&saved);
        Ok(())
    }
}

/// Forgets when a key was last used that goes for good.
pub(super) fn forget_key(tx: &mut Txn<'_>, key: KeyId) -> Result<(), Stop> {
    let row = (row_of(key),);
    let Some(LastUses(mut uses)) = tables::KEY_USAGE.get(tx, &row)? else { return Ok(()) };
    match uses.remove(&key) {
        None => Ok(()),
        Some(_) if uses.is_empty() => tables::KEY_USAGE.remove(tx, &row),
        Some(_) => tables::KEY_USAGE.put(tx, &row, &LastUses(uses)),
    }
}

/// Whether anything is left to save.
#[derive(PartialEq)]
enum Rest {
    Nothing,
    Something,
}

/// Takes what was saved off what is counted.
fn subtract(usage: &mut Usage, saved: &Usage) -> Rest {
    for done in &saved.grants {
        if let Some(used) = usage.grants.iter_mut().find(|used| used.grant == done.grant) {
            used.count -= done.count;
        }
    }
    usage.grants.retain(|used| used.count > 0);
    if usage.grants.is_empty() && usage.last == saved.last { Rest::Nothing } else { Rest::Something }
}
