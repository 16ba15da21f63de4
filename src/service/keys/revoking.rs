//! Revoking every key that fits a filter: one commit, however many they are.
//!
//! The commit puts a cut into the workspace's record, which every look at a key passes by. Marking the keys themselves
//! is housekeeping.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::cut::{CREATORS_MAX, CUTS_MAX, Cut, CutFilter};
use crate::domain::id::{ApiId, IdentityId, Reference, RoleId, RootKeyId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::{Key, Presence};
use crate::domain::time::Timestamp;
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::service::caller::Caller;
use crate::service::change::{Change, Effect, Halt, trying};
use crate::service::outcome::Outcome;
use crate::service::{Done, Ostiary, Reading, Run, apis, counts, due, roles, root_keys, workspaces};
use crate::store::tables::{self, Task};

use super::Candidates;

/// When to try again if too many cuts wait for their keys to be marked.
const SETTLED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Which keys to revoke, as a caller says it. Everything that is set must agree.
#[derive(Debug, Clone, Default)]
pub struct RevocationFilter {
    /// Of this API.
    pub api: Option<ApiId>,
    /// Of this identity.
    pub identity: Option<Reference<IdentityId>>,
    /// Holding this role.
    pub role: Option<Reference<RoleId>>,
    /// Made by this root key or one that came from it by rotation.
    pub created_by: Option<RootKeyId>,
    /// Made at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Made before this moment.
    pub created_before: Option<Timestamp>,
}

impl RevocationFilter {
    /// Whether it says nothing, and so would fit every key.
    pub const fn is_empty(&self) -> bool {
        let Self { api, identity, role, created_by, created_from, created_before } = self;
        api.is_none()
            && identity.is_none()
            && role.is_none()
            && created_by.is_none()
            && created_from.is_none()
            && created_before.is_none()
    }
}

/// What a revocation comes to.
#[derive(Debug, Clone)]
pub enum Revocation {
    /// So many keys were taken.
    Counted(u64),
    /// This cut was made; how many keys it takes is counted after it.
    Cut(Cut),
}

/// A root key with its successors by rotation.
#[derive(Debug, Clone, Default)]
struct Creators {
    ids: Vec<RootKeyId>,
    /// The one that had no successor.
    youngest: Option<RootKeyId>,
}

impl Ostiary {
    /// Revokes all keys that fit, and answers how many of them were there: deleted ones are revoked too, but not
    /// counted; ones that have been rerolled and live on for their grace are.
    ///
    /// From the commit on none of them is good. Where no count tells how many they are, counting them afterwards takes
    /// as long as there are.
    pub async fn revoke_keys(&self, caller: &Caller, filter: RevocationFilter, run: Run) -> Result<Done<u64>, Error> {
        let permit = caller.permit(Capability::DeleteKey)?;
        let workspace = caller.workspace_id();
        let Done { answer, revision } = trying!(async {
            let creators = match filter.created_by {
                Some(creator) => self.read(None).await?.creators(workspace, creator).await?,
                None => Creators::default(),
            };
            let filter = filter.clone();
            self.change(permit, run, move |change| revoke(change, &filter, &creators)).await
        })?;
        let count = match answer {
            Revocation::Counted(count) => count,
            Revocation::Cut(cut) => {
                let count = self.count_taken(workspace, &cut, run).await?;
                if run == Run::Apply {
                    self.remember_count(caller, cut.revision, count).await?;
                }
                count
            }
        };
        Ok(Done { answer: count, revision })
    }

    /// How many keys that were there a cut has taken, or would take.
    async fn count_taken(&self, workspace: WorkspaceId, cut: &Cut, run: Run) -> Result<u64, Error> {
        let reading = self.read(None).await?;
        let mut home = reading.home(workspace).await?;
        let cut = match run {
            Run::Apply => cut.clone(),
            // It would be the last one, made after all that has been written.
            Run::Rehearse => Cut { revision: u64::MAX, ..cut.clone() },
        };
        if run == Run::Rehearse {
            home.cuts.push(cut.clone());
        }
        let taken = |key: Key| match home.settled(key) {
            Key { presence: Presence::Revoked { by, deleted: None, .. }, api, .. } if by == cut.revision => Some(api),
            _other => None,
        };
        let mut living: HashMap<ApiId, bool> = HashMap::new();
        let mut count = 0;
        let mut candidates = Candidates::of(&reading, workspace, &cut.filter).await?;
        drop(reading);
        loop {
            let reading = self.read(None).await?;
            let Some(keys) = candidates.next(&reading).await? else { return Ok(count) };
            for api in keys.into_iter().filter_map(&taken) {
                // The keys of a deleted API were gone before.
                let lives = match living.get(&api) {
                    Some(lives) => *lives,
                    None => {
                        let found = tables::APIS.read(reading.view(), &(workspace, api)).await?;
                        let lives = found.is_some_and(|api| api.deleted.is_none());
                        living.insert(api, lives);
                        lives
                    }
                };
                count += u64::from(lives);
            }
        }
    }

    /// Lets repeats of the call answer the same number, whatever becomes of the keys meanwhile.
    async fn remember_count(&self, caller: &Caller, revision: u64, count: u64) -> Result<(), Error> {
        let Some(idempotency) = &caller.call.idempotency else { return Ok(()) };
        let row = (caller.workspace_id(), caller.root_key().id, idempotency.key);
        self.settle(move |tx, _| {
            let Some(mut remembered) = tables::REMEMBERED.get(tx, &row)? else { return Ok(()) };
            match remembered.outcome.take().and_then(Revocation::from_outcome) {
                Some(Revocation::Cut(cut)) if cut.revision == revision => {
                    remembered.outcome = Some(Revocation::Counted(count).to_outcome());
                    tables::REMEMBERED.put(tx, &row, &remembered)
                }
                Some(Revocation::Cut(_) | Revocation::Counted(_)) | None => Ok(()),
            }
        })
        .await
    }
}

/// Makes the cut. A role or an identity that isn't there fits no key, so then there is nothing to do.
fn revoke(
    change: &mut Change<'_, '_>,
    filter: &RevocationFilter,
    creators: &Creators,
) -> Result<Effect<Revocation>, Halt> {
    let target = match filter.api {
        Some(api) => apis::target(&apis::find(change, Capability::DeleteKey, api)?),
        None => {
            change.insist_all(Capability::DeleteKey)?;
            workspaces::target(change.home())
        }
    };
    match resolved(change, filter, creators)? {
        Some(filter) => cut(change, filter, target),
        None => Ok(Effect::Unchanged(Revocation::Counted(0))),
    }
}

fn cut(change: &mut Change<'_, '_>, filter: CutFilter, target: Target) -> Result<Effect<Revocation>, Halt> {
    let home = change.home();
    if home.cuts.len() >= CUTS_MAX {
        return Err(Error::Overloaded { retry_after: SETTLED_AGAIN_AFTER }.into());
    }
    let mut home: Workspace = home.clone();
    let known = known_count(change, &filter)?;
    let cut = Cut { revision: change.tx.revision().counter, at: change.now, filter };
    home.cuts.push(cut.clone());
    tables::WORKSPACES.put(change.tx, &(home.id,), &home)?;
    due::schedule(change.tx, change.now, Task::SettleCuts, home.id, [0; 16])?;
    let happening = Happening::made(EventName::KEYS_REVOKE, target, cut.filter.facts());
    Ok(Effect::Changed(known.map_or(Revocation::Cut(cut), Revocation::Counted), happening))
}

/// How many keys the filter takes, where a count tells exactly: all of an API, an identity, a role or its creators, none
/// of which can be taken already, has been rerolled and so is not counted, or went with its API and still is.
fn known_count(change: &mut Change<'_, '_>, filter: &CutFilter) -> Result<Option<u64>, Halt> {
    let workspace = change.workspace();
    let apart = change.home().cuts.iter().all(|cut| cut.filter.is_apart_from(filter));
    if !apart || counts::rerolled_now(change.tx, workspace)? > 0 {
        return Ok(None);
    }
    let CutFilter { api, identity, role, ref created_by, created_from, created_before } = *filter;
    if created_from.is_some() || created_before.is_some() {
        return Ok(None);
    }
    Ok(match (api, identity, role, created_by.as_slice()) {
        (Some(api), None, None, []) => Some(counts::keys_of_api_now(change.tx, workspace, api)?),
        _ if counts::apis_to_clear_now(change.tx, workspace)? > 0 => None,
        (None, Some(identity), None, []) => Some(counts::keys_of_identity_now(change.tx, workspace, identity)?),
        (None, None, Some(role), []) => Some(counts::keys_of_role_now(change.tx, workspace, role)?),
        (None, None, None, creators) => {
            let mut count = 0;
            for creator in creators {
                count += counts::keys_of_creator_now(change.tx, workspace, *creator)?;
            }
            Some(count)
        }
        _ => None,
    })
}

/// The filter with everything in it by id; none if it names what isn't there.
fn resolved(
    change: &mut Change<'_, '_>,
    filter: &RevocationFilter,
    creators: &Creators,
) -> Result<Option<CutFilter>, Halt> {
    let RevocationFilter { api, identity, role, created_by: _, created_from, created_before } = filter;
    let workspace = change.workspace();
    if let Some(youngest) = creators.youngest {
        let root_key = tables::ROOT_KEYS.get(change.tx, &(workspace, youngest))?;
        if root_key.is_some_and(|root_key| root_key.rotated_to.is_some()) {
            return Err(Error::Conflict.into());
        }
    }
    let role = match role {
        None => None,
        Some(reference) => match roles::look_up(change.tx, workspace, reference)? {
            Some(role) => Some(role.id),
            None => return Ok(None),
        },
    };
    let identity = match identity {
        None => None,
        Some(reference) => match look_up_identity(change, reference)? {
            Some(identity) => Some(identity.id),
            None => return Ok(None),
        },
    };
    Ok(Some(CutFilter {
        api: *api,
        identity,
        role,
        created_by: creators.ids.clone(),
        created_from: *created_from,
        created_before: *created_before,
    }))
}

fn look_up_identity(change: &mut Change<'_, '_>, reference: &Reference<IdentityId>) -> Result<Option<Identity>, Halt> {
    let workspace = change.workspace();
    let id = match reference {
        Reference::Id(id) => Some(*id),
        Reference::Name(name) => tables::IDENTITY_EXTERNAL_IDS.get(change.tx, &(workspace, name.clone()))?,
    };
    let Some(id) = id else { return Ok(None) };
    Ok(tables::IDENTITIES.get(change.tx, &(workspace, id))?.filter(|identity| identity.deleted.is_none()))
}

impl Reading {
    /// A root key with all that came from it by rotation. Records are purged in time, so the links are followed from
    /// either end.
    async fn creators(&self, workspace: WorkspaceId, first: RootKeyId) -> Result<Creators, Error> {
        let family = root_keys::family(self, workspace).await?;
        let mut ids = vec![first];
        loop {
            let known = ids.len();
            for root_key in &family {
                let successors = [
                    root_key.rotated_from.filter(|from| ids.contains(from)).map(|_| root_key.id),
                    root_key.rotated_to.filter(|_| ids.contains(&root_key.id)),
                ];
                for id in successors.into_iter().flatten() {
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
            }
            if ids.len() > CREATORS_MAX {
                let flaw = format!("must have at most {} successors by rotation", CREATORS_MAX - 1);
                return Err(Error::field("filter.created_by", flaw));
            }
            if ids.len() == known {
                break;
            }
        }
        let open = family.iter().find(|root_key| root_key.rotated_to.is_none() && ids.contains(&root_key.id));
        let youngest = open.map(|root_key| root_key.id);
        Ok(Creators { ids, youngest })
    }
}
