//! Deleting root keys: one, several at once, or one with all that came from it.

use std::collections::HashSet;

use crate::domain::audit::{EventName, Happening};
use crate::domain::capability::Capability;
use crate::domain::id::{RootKeyId, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::root_key::RootKey;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::service::caller::Caller;
use crate::service::change::{Change, Changed, Effect, Halt};
use crate::service::listing::of;
use crate::service::{Done, Ostiary, Reading, Retention, Run};
use crate::store::{Stop, Txn, tables};

use super::{
    CASCADE_AT_ONCE, CHUNK, Insistence, Reach, check_etag, find, keep_an_administrator, last_administrator, put, target,
};

impl Ostiary {
    /// Deletes a root key at once and for good, and with [`Reach::Descendants`] all that came from it.
    pub async fn delete_root_key(
        &self,
        caller: &Caller,
        id: RootKeyId,
        etag: String,
        reach: Reach,
        insistence: Insistence,
        run: Run,
    ) -> Result<Done<Vec<RootKeyId>>, Error> {
        caller.permit(Capability::DeleteRootKey)?;
        let Line { descendants, holds_every_administrator } = match reach {
            Reach::Alone => Line { descendants: Vec::new(), holds_every_administrator: false },
            Reach::Descendants => self.line(caller, id).await?,
        };
        // The root key itself goes first, so that nothing more comes from it; only a caller that deletes itself goes
        // last, because it is nobody afterwards.
        let mut order: Vec<RootKeyId> = std::iter::once(id).chain(descendants).collect();
        let own = order.iter().position(|key| *key == caller.root_key().id);
        if let Some(own) = own {
            let own = order.remove(own);
            order.push(own);
        }
        if own.is_some() && order.len() > CASCADE_AT_ONCE {
            // What would stop the last transaction, the one with the caller in it, must stop the first.
            let mut signed = caller.clone();
            signed.call_mut().idempotency = None;
            let plan = Deletion {
                named: Some(id),
                etag: etag.clone(),
                batch: vec![id],
                earlier: Vec::new(),
                insistence: Insistence::Forced,
            };
            self.delete_batch(&signed, plan, Run::Rehearse).await?;
            if holds_every_administrator && insistence == Insistence::No {
                return Err(last_administrator(id));
            }
        }
        let mut deleted = Vec::new();
        let mut batches = order.chunks(CASCADE_AT_ONCE).peekable();
        let mut last = None;
        while let Some(batch) = batches.next() {
            // Only the last transaction remembers the call: it is the one after which there is nothing left to repeat.
            let mut signed = caller.clone();
            signed.call_mut().idempotency = caller.call.idempotency.clone().filter(|_| batches.peek().is_none());
            let plan = Deletion {
                named: Some(id),
                etag: etag.clone(),
                batch: batch.to_vec(),
                earlier: deleted.clone(),
                insistence,
            };
            let changed = self.delete_batch(&signed, plan, run).await?;
            deleted.clone_from(&changed.done.answer);
            last = Some(changed);
        }
        let last = last.ok_or_else(|| Error::Internal("a deletion without a root key".to_owned()))?;
        let Changed { mut done, repeated } = last;
        // A repeat answers as the first call did and has no effect of its own.
        if reach == Reach::Descendants && run == Run::Apply && own.is_none() && !repeated {
            done.answer.extend(self.delete_latecomers(caller, id, insistence).await?);
        }
        Ok(done)
    }

    /// Deletes what descended from a root key while its descendants were being deleted.
    async fn delete_latecomers(
        &self,
        caller: &Caller,
        id: RootKeyId,
        insistence: Insistence,
    ) -> Result<Vec<RootKeyId>, Error> {
        let mut signed = caller.clone();
        signed.call_mut().idempotency = None;
        let mut all = Vec::new();
        loop {
            let mut late = self.line(caller, id).await?.descendants;
            late.truncate(CASCADE_AT_ONCE);
            let plan = Deletion { named: None, etag: String::new(), batch: late, earlier: Vec::new(), insistence };
            if plan.batch.is_empty() {
                return Ok(all);
            }
            let deleted = self.delete_batch(&signed, plan, Run::Apply).await?.done.answer;
            if deleted.is_empty() {
                return Ok(all);
            }
            all.extend(deleted);
        }
    }

    /// Deletes up to 20 root keys, all or none.
    pub async fn batch_delete_root_keys(
        &self,
        caller: &Caller,
        ids: Vec<RootKeyId>,
        insistence: Insistence,
        run: Run,
    ) -> Result<Done<Vec<RootKeyId>>, Error> {
        let permit = caller.permit(Capability::DeleteRootKey)?;
        let retention = self.retention;
        let changed = self
            .change(permit, run, move |change| {
                let mut unknown = Vec::new();
                let mut doomed = Vec::new();
                for id in &ids {
                    match find(change, Capability::DeleteRootKey, *id) {
                        Ok(root_key) => doomed.push(root_key),
                        Err(Halt::Refuse(Error::NotFound { name, .. })) => unknown.push(name),
                        Err(other) => return Err(other),
                    }
                }
                if !unknown.is_empty() {
                    return Err(Error::not_found(Kind::RootKey, unknown.join(", ")).into());
                }
                delete_all(change, &doomed, retention, insistence)
            })
            .await?;
        Ok(changed.done)
    }

    async fn delete_batch(&self, caller: &Caller, plan: Deletion, run: Run) -> Result<Changed<Vec<RootKeyId>>, Error> {
        let permit = caller.permit(Capability::DeleteRootKey)?;
        let retention = self.retention;
        self.change(permit, run, move |change| {
            let Deletion { named, etag, batch, earlier, insistence } = &plan;
            let mut doomed = Vec::new();
            for id in batch {
                match find(change, Capability::DeleteRootKey, *id) {
                    Ok(root_key) if Some(*id) == *named => {
                        check_etag(root_key.etag, etag)?;
                        doomed.push(root_key);
                    }
                    Ok(root_key) if change.caller.covers(&root_key).is_ok() => doomed.push(root_key),
                    Ok(_) => {}
                    // A descendant that somebody else has deleted meanwhile is what was asked for.
                    Err(Halt::Refuse(Error::NotFound { .. })) if Some(*id) != *named => {}
                    Err(other) => return Err(other),
                }
            }
            let effect = delete_all(change, &doomed, retention, *insistence)?;
            Ok(match effect {
                Effect::Changed(ids, happening) => Effect::Changed([earlier.clone(), ids].concat(), happening),
                Effect::Unchanged(ids) => Effect::Unchanged([earlier.clone(), ids].concat()),
            })
        })
        .await
    }

    /// What came from this root key, by creation or rotation, over any number of steps.
    async fn line(&self, caller: &Caller, ancestor: RootKeyId) -> Result<Line, Error> {
        let reading = self.read(None).await?;
        let family = family(&reading, caller.workspace_id()).await?;
        let mut line = HashSet::from([ancestor]);
        // Rows of the same millisecond come in no order of descent, so passes go on until one finds nothing new.
        loop {
            let known = line.len();
            for root_key in &family {
                let parents = [root_key.created_by, root_key.rotated_from];
                if parents.iter().flatten().any(|parent| line.contains(parent)) {
                    line.insert(root_key.id);
                }
            }
            if line.len() == known {
                break;
            }
        }
        let doomed = |root_key: &&RootKey| {
            root_key.id != ancestor
                && line.contains(&root_key.id)
                && root_key.deleted.is_none()
                && caller.may(Capability::DeleteRootKey, root_key.id)
                && caller.root_key().covers(root_key).is_ok()
        };
        let descendants: Vec<RootKeyId> = family.iter().filter(doomed).map(|root_key| root_key.id).collect();
        let mut administrators = family.iter().filter(|root_key| root_key.is_administrator()).peekable();
        let holds_every_administrator = administrators.peek().is_some()
            && administrators.all(|root_key| root_key.id == ancestor || descendants.contains(&root_key.id));
        Ok(Line { descendants, holds_every_administrator })
    }
}

/// What came from a root key.
#[derive(Debug)]
struct Line {
    /// All of it that is there, that the caller may delete and that it covers.
    descendants: Vec<RootKeyId>,
    /// Whether nobody but these and the root key itself is an administrator.
    holds_every_administrator: bool,
}

/// One transaction of a deletion.
#[derive(Debug, Clone)]
struct Deletion {
    /// The root key that was named, if it is still to be deleted; its absence is an error.
    named: Option<RootKeyId>,
    etag: String,
    batch: Vec<RootKeyId>,
    /// What transactions before it have deleted.
    earlier: Vec<RootKeyId>,
    insistence: Insistence,
}

/// All root keys of a workspace in the order in which they were made.
pub(in crate::service) async fn family(reading: &Reading, workspace: WorkspaceId) -> Result<Vec<RootKey>, Error> {
    let mut all: Vec<RootKey> = Vec::new();
    loop {
        let after = all.last().map(|root_key| (workspace, root_key.id));
        let rows = tables::ROOT_KEYS.list(reading.view(), &of(workspace), after.as_ref(), CHUNK).await?;
        let ended = rows.len() < CHUNK;
        all.extend(rows.into_iter().map(|(_, root_key)| root_key));
        if ended {
            return Ok(all);
        }
    }
}

/// Deletes a root key, whoever is left.
pub(in crate::service) fn delete(
    tx: &mut Txn<'_>,
    root_key: &RootKey,
    retention: Retention,
    now: Timestamp,
) -> Result<Happening, Stop> {
    let gone = RootKey { deleted: Some(now), updated: now, etag: root_key.etag.next(), ..root_key.clone() };
    put(tx, Some(root_key), &gone, retention, now)?;
    Ok(Happening::removed(EventName::ROOT_KEY_DELETE, target(root_key), root_key.facts()))
}

fn delete_all(
    change: &mut Change<'_, '_>,
    doomed: &[RootKey],
    retention: Retention,
    insistence: Insistence,
) -> Result<Effect<Vec<RootKeyId>>, Halt> {
    let mut happenings = Vec::new();
    for root_key in doomed {
        let happening = delete(change.tx, root_key, retention, change.now)?;
        keep_an_administrator(change, root_key, insistence)?;
        happenings.push(happening);
    }
    let ids = doomed.iter().map(|root_key| root_key.id).collect();
    let Some(last) = happenings.pop() else { return Ok(Effect::Unchanged(ids)) };
    for happening in happenings {
        change.record(happening)?;
    }
    Ok(Effect::Changed(ids, last))
}
