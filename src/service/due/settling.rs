//! Marking the keys that cuts have taken, so that the cuts can go.
//!
//! Nothing depends on when that happens: until then whoever looks at a key passes by the cuts.

use crate::domain::cut::Cut;
use crate::domain::id::{KeyId, WorkspaceId};
use crate::domain::key::Key;
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::service::housekeeping::Drawn;
use crate::service::keys::{self, Candidates};
use crate::service::{Ostiary, Retention};
use crate::store::tables;
use crate::store::{Stop, Txn};

use super::Entry;

/// Keys marked in one transaction.
const MARKED_AT_ONCE: usize = 16;
/// Rows that marking them may touch: each has some of its own and a count for every role that it holds.
const ROWS_AT_ONCE: usize = 240;
/// What a key without roles touches at most: itself, the schedule, and the counts of its API, identity and workspace.
const ROWS_OF_A_KEY: usize = 10;

impl Ostiary {
    /// Marks what the cuts of a workspace have taken, and takes them and the entry away.
    pub(super) async fn settle_cuts_when_due(&self, entry: Entry) -> Result<(), Error> {
        let (_, _, workspace, _) = entry;
        loop {
            self.settle_cuts(workspace).await?;
            // Another cut may have been made under the same entry meanwhile.
            let settled = self
                .settle(move |tx, _| {
                    let home = tables::WORKSPACES.get(tx, &(workspace,))?;
                    let settled = home.is_none_or(|home| home.deleted.is_some() || home.cuts.is_empty());
                    if settled {
                        tables::DUE.remove(tx, &entry)?;
                    }
                    Ok(settled)
                })
                .await?;
            if settled {
                return Ok(());
            }
        }
    }

    /// Marks what the cuts of a workspace have taken, and takes them away. What is deleted with its workspace is removed
    /// anyway.
    pub(super) async fn settle_cuts(&self, workspace: WorkspaceId) -> Result<(), Error> {
        loop {
            let reading = self.read(None).await?;
            let home = tables::WORKSPACES.read(reading.view(), &(workspace,)).await?;
            let Some(home) = home.filter(|home| home.deleted.is_none()) else { return Ok(()) };
            let Some(cut) = home.cuts.first() else { return Ok(()) };
            let mut candidates = Candidates::of(&reading, workspace, &cut.filter).await?;
            drop(reading);
            loop {
                let reading = self.read(None).await?;
                let keys = candidates.next(&reading).await?;
                drop(reading);
                let Some(keys) = keys else { break };
                let taken: Vec<Key> = keys.into_iter().filter(|key| cut.takes(key.traces())).collect();
                for some in batches(&taken) {
                    let retention = self.retention;
                    self.settle_at_leisure(move |tx, drawn| mark(tx, workspace, &some, drawn, retention)).await?;
                }
            }
            let revision = cut.revision;
            // No rest after this: others may be waiting for room for a cut of their own.
            self.settle(move |tx, _| {
                let Some(home) = tables::WORKSPACES.get(tx, &(workspace,))? else { return Ok(()) };
                let left: Vec<Cut> = home.cuts.iter().filter(|cut| cut.revision != revision).cloned().collect();
                tables::WORKSPACES.put(tx, &(workspace,), &Workspace { cuts: left, ..home })
            })
            .await?;
        }
    }
}

/// As many keys at a time as one transaction can mark.
fn batches(keys: &[Key]) -> Vec<Vec<KeyId>> {
    let mut batches: Vec<Vec<KeyId>> = Vec::new();
    let mut rows = usize::MAX;
    for key in keys {
        let its_rows = ROWS_OF_A_KEY + key.roles.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < MARKED_AT_ONCE && rows + its_rows <= ROWS_AT_ONCE => {
                batch.push(key.id);
                rows += its_rows;
            }
            Some(_) | None => {
                batches.push(vec![key.id]);
                rows = its_rows;
            }
        }
    }
    batches
}

fn mark(
    tx: &mut Txn<'_>,
    workspace: WorkspaceId,
    ids: &[KeyId],
    drawn: Drawn,
    retention: Retention,
) -> Result<(), Stop> {
    let Some(home) = tables::WORKSPACES.get(tx, &(workspace,))? else { return Ok(()) };
    for id in ids {
        let Some(before) = tables::KEYS.get(tx, &(workspace, *id))? else { continue };
        let after = home.settled(before.clone());
        // The keys of a deleted API were taken off the counts with it, and are removed with it. What could no longer be
        // restored stays what it was, and goes when it was to go.
        let api = tables::APIS.get(tx, &(workspace, before.api))?;
        let stays = after.is_gone(drawn.now, retention.deleted_keys) || api.is_none_or(|api| api.deleted.is_some());
        if after.presence != before.presence && !stays {
            keys::put(tx, Some(&before), &after, retention, drawn.now)?;
        }
    }
    Ok(())
}
