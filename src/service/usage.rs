//! How root keys, their permissions, and keys are used.
//!
//! Counted in memory and saved in the background every few seconds and at a clean stop, so that counting costs a call
//! no write. A crash loses what was not saved yet: at most one interval.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::domain::capability::Grant;
use crate::domain::id::{KeyId, RootKeyId, WorkspaceId};
use crate::domain::root_key::RootKey;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::store::records::{GrantUsage, Usage};
use crate::store::tables;

use super::{Ostiary, Reading};

/// Rows saved in one transaction.
const SAVED_AT_ONCE: usize = 50;
/// Keys whose last use is remembered between two savings; beyond, the use of further keys goes uncounted, not unbounded.
const KEYS_REMEMBERED_MAX: usize = 1_000_000;

type RootKeyRow = (WorkspaceId, RootKeyId);
type KeyRow = (WorkspaceId, KeyId);

/// What has been used since it was last saved.
#[derive(Default)]
pub struct Ledger {
    root_keys: Mutex<HashMap<RootKeyRow, Usage>>,
    keys: Mutex<HashMap<KeyRow, Timestamp>>,
}

impl Ledger {
    /// A root key was recognised.
    pub fn root_key_used(&self, root_key: RootKeyRow, now: Timestamp) {
        self.root_keys.lock().entry(root_key).or_default().last = Some(now);
    }

    /// One of its permissions allowed a call.
    pub fn grant_used(&self, root_key: RootKeyRow, grant: &Grant, now: Timestamp) {
        let mut root_keys = self.root_keys.lock();
        let usage = root_keys.entry(root_key).or_default();
        match usage.grants.iter_mut().find(|used| used.grant == *grant) {
            Some(used) => {
                used.count += 1;
                used.last = now;
            }
            None => usage.grants.push(GrantUsage { grant: grant.clone(), count: 1, last: now }),
        }
    }

    /// A key was found good.
    pub fn key_used(&self, key: KeyRow, now: Timestamp) {
        let mut keys = self.keys.lock();
        if keys.len() < KEYS_REMEMBERED_MAX || keys.contains_key(&key) {
            keys.insert(key, now);
        }
    }
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
        let recent = self.usage.root_keys.lock().get(&row).cloned().unwrap_or_default();
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
    pub(super) async fn last_use_of(&self, reading: &Reading, key: KeyRow) -> Result<Option<Timestamp>, Error> {
        let recent = self.usage.keys.lock().get(&key).copied();
        match recent {
            Some(moment) => Ok(Some(moment)),
            None => Ok(tables::KEY_USAGE.read(reading.view(), &key).await?.map(Timestamp::from_millis_saturating)),
        }
    }

    /// Saves what has been counted. What can't be saved now is kept for the next time.
    pub async fn flush_usage(&self) -> Result<(), Error> {
        let root_keys: Vec<(RootKeyRow, Usage)> =
            self.usage.root_keys.lock().iter().map(|(row, usage)| (*row, usage.clone())).collect();
        for some in root_keys.chunks(SAVED_AT_ONCE) {
            self.save_root_keys(some.to_vec()).await?;
        }
        let keys: Vec<(KeyRow, Timestamp)> = self.usage.keys.lock().iter().map(|(row, last)| (*row, *last)).collect();
        for some in keys.chunks(SAVED_AT_ONCE) {
            self.save_keys(some.to_vec()).await?;
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
            let rest = root_keys.get_mut(row).map(|usage| subtract(usage, recent));
            if rest == Some(Rest::Nothing) {
                root_keys.remove(row);
            }
        }
        Ok(())
    }

    async fn save_keys(&self, some: Vec<(KeyRow, Timestamp)>) -> Result<(), Error> {
        let saved = some.clone();
        self.settle(move |tx, _| {
            for (row, last) in &some {
                if tables::KEYS.get(tx, row)?.is_some() {
                    tables::KEY_USAGE.put(tx, row, &last.millis())?;
                }
            }
            Ok(())
        })
        .await?;
        let mut keys = self.usage.keys.lock();
        for (row, last) in &saved {
            if keys.get(row) == Some(last) {
                keys.remove(row);
            }
        }
        Ok(())
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
