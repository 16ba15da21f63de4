//! What is to be done when: the schedule of expirations and of what is left to clear away.
//!
//! Whether a key is good never depends on any of this. The sweep records that a life has ended, once, and removes what
//! nobody can use any more, in small transactions that wait behind what callers do.

use futures::StreamExt;
use futures::stream::BoxStream;

use crate::domain::audit::{EventName, Happening};
use crate::domain::id::{KeyId, RootKeyId, WorkspaceId};
use crate::domain::key::{Key, Presence};
use crate::domain::root_key::RootKey;
use crate::domain::time::{Expiry, Timestamp};
use crate::error::Error;
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::audit::{Log, Signature};
use super::housekeeping::Drawn;
use super::{Ostiary, Purging, Retention, keys, root_keys};

mod clearing;
mod settling;

/// Entries of the schedule looked at at a time.
const CHUNK: usize = 128;
/// Expirations recorded in one transaction.
const EXPIRED_AT_ONCE: usize = 16;
/// Remembered calls forgotten in one transaction.
const FORGOTTEN_AT_ONCE: usize = 50;
/// Index rows removed in one transaction.
const CLEARED_AT_ONCE: usize = 100;

/// An entry of the schedule.
type Entry = (Timestamp, Task, WorkspaceId, [u8; 16]);

/// Puts a task on the schedule.
pub(super) fn schedule(
    tx: &mut Txn<'_>,
    moment: Timestamp,
    task: Task,
    workspace: WorkspaceId,
    id: [u8; 16],
) -> Result<(), Stop> {
    tables::DUE.put(tx, &(moment, task, workspace, id), &())
}

/// What the schedule holds of one thing: when its life ends, and when it is removed for good.
#[derive(PartialEq)]
struct Plan {
    expire: Option<Timestamp>,
    purge: Option<Timestamp>,
    /// Whether the end of its life had come before it was deleted, and so is recorded or about to be.
    ended: bool,
}

impl Plan {
    fn of_root_key(root_key: &RootKey, retention: Retention) -> Self {
        let expire = root_key.expiry.moment().filter(|_| root_key.deleted.is_none());
        Self { expire, purge: root_key.deleted.map(|deleted| deleted.after(retention.expired)), ended: false }
    }

    fn of_key(key: &Key, retention: Retention) -> Self {
        match key.presence {
            Presence::Here => Self { expire: key.expiry.moment(), purge: None, ended: false },
            Presence::Deleted(at) => {
                let purge = Some(at.after(retention.deleted_keys));
                Self { expire: None, purge, ended: key.expiry.has_passed(at) }
            }
            Presence::Gone(at) => Self { expire: None, purge: Some(at), ended: false },
            Presence::Revoked { at, .. } => {
                Self { expire: None, purge: Some(at.after(retention.expired)), ended: false }
            }
        }
    }
}

/// Takes off the schedule what no longer holds, and puts on what does.
///
/// An end of life that has come stays, so that it is recorded even if it is overtaken before the sweep gets to it.
fn replan(
    tx: &mut Txn<'_>,
    (before, after): (Option<Plan>, Plan),
    (expire, purge): (Task, Task),
    (workspace, id): (WorkspaceId, [u8; 16]),
    (retention, now): (Retention, Timestamp),
) -> Result<(), Stop> {
    if before.as_ref() == Some(&after) {
        return Ok(());
    }
    let ended = before.as_ref().is_some_and(|before| before.ended);
    if let Some(before) = before {
        if let Some(moment) = before.expire.filter(|_| before.expire != after.expire) {
            if !Expiry::At(moment).has_passed(now) {
                tables::DUE.remove(tx, &(moment, expire, workspace, id))?;
            }
            // Where the end had been recorded, the removal is on the schedule in its place.
            tables::DUE.remove(tx, &(moment.after(retention.expired), purge, workspace, id))?;
        }
        if let Some(moment) = before.purge {
            tables::DUE.remove(tx, &(moment, purge, workspace, id))?;
        }
    }
    if let Some(moment) = after.expire {
        if !ended {
            schedule(tx, moment, expire, workspace, id)?;
        } else if tables::DUE.get(tx, &(moment, expire, workspace, id))?.is_none() {
            // Restored after its life had ended and that was recorded: what is left to do is to remove it.
            schedule(tx, moment.after(retention.expired), purge, workspace, id)?;
        }
    }
    if let Some(moment) = after.purge {
        schedule(tx, moment, purge, workspace, id)?;
    }
    Ok(())
}

/// Follows a change of a root key.
pub(super) fn reschedule_root_key(
    tx: &mut Txn<'_>,
    before: Option<&RootKey>,
    after: &RootKey,
    retention: Retention,
    now: Timestamp,
) -> Result<(), Stop> {
    let plans = (before.map(|key| Plan::of_root_key(key, retention)), Plan::of_root_key(after, retention));
    let tasks = (Task::ExpireRootKey, Task::PurgeRootKey);
    replan(tx, plans, tasks, (after.workspace, after.id.bytes()), (retention, now))
}

/// Follows a change of a key.
pub(super) fn reschedule_key(
    tx: &mut Txn<'_>,
    before: Option<&Key>,
    after: &Key,
    retention: Retention,
    now: Timestamp,
) -> Result<(), Stop> {
    let plans = (before.map(|key| Plan::of_key(key, retention)), Plan::of_key(after, retention));
    replan(tx, plans, (Task::ExpireKey, Task::PurgeKey), (after.workspace, after.id.bytes()), (retention, now))
}

impl Ostiary {
    /// Moments that are put on the schedule from now on, so that whoever waits for the next one can wait less.
    /// It ends when some may have been missed: look at the schedule again.
    pub async fn scheduled(&self) -> Result<BoxStream<'static, Timestamp>, Error> {
        let head = self.read(None).await?.view.revision();
        let commits = self.engine.changes(head);
        let whole = commits.take_while(|commit| std::future::ready(commit.is_ok()));
        let moments = whole.flat_map(|commit| {
            let rows = commit.map(|commit| commit.rows.clone()).unwrap_or_default();
            let put = rows.into_iter().filter(|(_, value)| value.is_some());
            futures::stream::iter(put.filter_map(|(key, _)| tables::DUE.key_of(&key).map(|(moment, ..)| moment)))
        });
        Ok(moments.boxed())
    }

    /// Does all that is due, and says when the next thing will be.
    pub async fn sweep_due(&self) -> Result<Option<Timestamp>, Error> {
        let mut after: Option<Entry> = None;
        loop {
            let reading = self.read(None).await?;
            let now = reading.now;
            let entries = tables::DUE.list(reading.view(), &(), after.as_ref(), CHUNK).await?;
            // A view that were kept until all is done would keep the store from using given-up pages again.
            drop(reading);
            let entries: Vec<Entry> = entries.into_iter().map(|(entry, ())| entry).collect();
            let due: Vec<Entry> =
                entries.iter().copied().take_while(|(moment, ..)| Expiry::At(*moment).has_passed(now)).collect();
            self.do_all(&due).await?;
            let next = entries.get(due.len()).map(|(moment, ..)| *moment);
            if next.is_some() || entries.len() < CHUNK {
                let forget = match self.purging {
                    Purging::Allowed => self.forget_calls().await?,
                    Purging::Suspended => None,
                };
                return Ok(next.into_iter().chain(forget).min());
            }
            after = due.last().copied();
        }
    }

    async fn do_all(&self, due: &[Entry]) -> Result<(), Error> {
        let is_expiry = |entry: &&Entry| matches!(entry.1, Task::ExpireRootKey | Task::ExpireKey);
        let expired: Vec<Entry> = due.iter().filter(is_expiry).copied().collect();
        for some in expired.chunks(EXPIRED_AT_ONCE) {
            self.record_expired(some.to_vec()).await?;
        }
        for entry in due.iter().filter(|entry| entry.1 == Task::SettleCuts) {
            self.settle_cuts_when_due(*entry).await?;
        }
        if self.purging == Purging::Suspended {
            return Ok(());
        }
        for entry in due.iter().filter(|entry| !is_expiry(entry)) {
            self.clear(*entry).await?;
        }
        Ok(())
    }

    /// Records that lives have ended, each once: the entry goes in the transaction that writes the event.
    async fn record_expired(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let retention = self.retention;
        self.settle_at_leisure(move |tx, drawn| {
            let mut number = 0;
            for entry in &entries {
                if tables::DUE.get(tx, entry)?.is_some() {
                    tables::DUE.remove(tx, entry)?;
                    record_expiry(tx, *entry, drawn, &mut number, retention)?;
                }
            }
            Ok(())
        })
        .await
    }
}

fn record_expiry(
    tx: &mut Txn<'_>,
    (moment, task, workspace, id): Entry,
    drawn: Drawn,
    number: &mut u16,
    retention: Retention,
) -> Result<(), Stop> {
    let (happening, expiry, purge) = match task {
        Task::ExpireRootKey => match tables::ROOT_KEYS.get(tx, &(workspace, RootKeyId::from_bytes(id)))? {
            Some(root_key) => {
                let target = root_keys::target(&root_key);
                let happening = Happening::removed(EventName::ROOT_KEY_EXPIRE, target, root_key.facts());
                let expiry = if root_key.deleted.is_none() { root_key.expiry } else { Expiry::Never };
                (happening, expiry, Task::PurgeRootKey)
            }
            None => return Ok(()),
        },
        Task::ExpireKey => match keys::stored::get(tx, workspace, KeyId::from_bytes(id))? {
            // Revoked before its life would have ended: nothing expires.
            Some(Key { presence: Presence::Revoked { at, .. }, .. }) if at < moment => return Ok(()),
            Some(key) => {
                let happening = Happening::removed(EventName::KEY_EXPIRE, keys::target(&key), key.facts());
                let expiry = if key.presence == Presence::Here { key.expiry } else { Expiry::Never };
                (happening, expiry, Task::PurgeKey)
            }
            None => return Ok(()),
        },
        Task::PurgeRootKey
        | Task::PurgeKey
        | Task::ClearApi
        | Task::ClearRole
        | Task::PurgePermission
        | Task::ClearWorkspace
        | Task::SettleCuts
        | Task::ClearIdentity
        | Task::ClearNamespace => return Ok(()),
    };
    Log::resume(workspace, Signature::of_system(), drawn, *number).record(tx, happening)?;
    *number += 1;
    // A key that was given a new life meanwhile is not removed for the end of the old one.
    if expiry == Expiry::At(moment) {
        schedule(tx, moment.after(retention.expired), purge, workspace, id)?;
    }
    Ok(())
}
