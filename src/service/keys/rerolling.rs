//! Replacing a key by one that is alike, as a root key is rotated.

use std::time::Duration;

use crate::domain::audit::{EventName, Happening};
use crate::domain::capability::Capability;
use crate::domain::credits::Meter;
use crate::domain::id::{KeyId, WorkspaceId};
use crate::domain::key::{DescribedKey, IssuedKey, Key, Successor};
use crate::domain::kind::Kind;
use crate::domain::rotation::RotationRefused;
use crate::domain::secret::{Prefix, Secret};
use crate::error::{Error, Obstacle};
use crate::service::caller::Caller;
use crate::service::change::{Change, Effect, Halt, trying};
use crate::service::described::{Beforehand, described, living_identity, living_roles};
use crate::service::{Done, Ostiary, Reading, Retention, Run};
use crate::store::tables;

use super::{already_rerolled, find_any, ids, present, put, target};

/// The replacement of a key.
#[derive(Debug, Clone)]
pub struct Reroll {
    /// The new one.
    pub issued: IssuedKey,
    /// The old one, with the rest of its life.
    pub previous: DescribedKey,
}

fn expired(key: KeyId) -> Error {
    Error::Precondition {
        obstacle: Obstacle::KeyExpired,
        subject: key.to_string(),
        description: "the key has expired; give it a new life first, or create a new one".to_owned(),
    }
}

impl Ostiary {
    /// Replaces a key by one with all that it has, and lets the old one live on for the grace period, never longer than
    /// it would have lived. It needs all that making the new one would need.
    pub async fn reroll_key(
        &self,
        caller: &Caller,
        id: KeyId,
        grace: Duration,
        etag: String,
        run: Run,
    ) -> Result<Done<Reroll>, Error> {
        let permit = caller.permit(Capability::UpdateKey)?;
        caller.permit(Capability::CreateKey)?;
        let workspace = caller.workspace_id();
        let retention = self.retention;
        let mut made = None;
        let mut fresh = false;
        let mut done = trying!(async {
            let etag = etag.clone();
            let reading = self.read(None).await?;
            let prefix = reading.prefix_to_go_on_with(workspace, id).await?;
            let known = self.beforehand(&reading, workspace, id).await?;
            let next = KeyId::from_bytes(self.world.ulid());
            let secret = Secret::issue_with(&prefix, next.handle(), self.world.random());
            self.prepare_delivery(caller, next.bytes(), &secret);
            made = Some(next);
            let changed = self
                .change(permit, run, move |change| {
                    change.insist_any(Capability::CreateKey)?;
                    let (before, api) = find_any(change, Capability::UpdateKey, id, retention)?;
                    change.insist(Capability::CreateKey, api.id, (Kind::Key, &id.to_string()))?;
                    let before = present(before)?;
                    if !before.etag.matches(&etag) {
                        return Err(Error::EtagMismatch.into());
                    }
                    replace(change, &before, (next, &prefix, &secret), grace, &known, retention)
                })
                .await?;
            fresh = !changed.repeated;
            Ok(changed)
        })?;
        let issued = &mut done.answer.issued;
        let id = issued.key.key.id;
        let secret = issued.secret.take().filter(|_| fresh && made == Some(id));
        issued.secret = self.deliver(caller, run, secret, (Kind::Key, id.bytes(), &id))?;
        Ok(done)
    }
}

impl Reading {
    /// What the secret of a successor begins with: what the key's own does, if that is known, which never changes.
    ///
    /// Where there is no key there will be no secret either.
    async fn prefix_to_go_on_with(&self, workspace: WorkspaceId, id: KeyId) -> Result<Prefix, Error> {
        let Some(key) = tables::KEYS.read(self.view(), &(workspace, id)).await? else { return Ok(Prefix::default()) };
        if let Some(prefix) = key.prefix {
            return Ok(prefix);
        }
        let api = tables::APIS.read(self.view(), &(workspace, key.api)).await?;
        Ok(api.and_then(|api| api.default_prefix).unwrap_or_default())
    }
}

fn replace(
    change: &mut Change<'_, '_>,
    before: &Key,
    (id, prefix, secret): (KeyId, &Prefix, &Secret),
    grace: Duration,
    known: &Beforehand,
    retention: Retention,
) -> Result<Effect<Reroll>, Halt> {
    // The new key carries what still exists of all that the old one carries.
    let roles = living_roles(change, &before.roles)?;
    for role in &roles {
        change.insist_unnamed(Capability::AddRoleToKey, role.id, Kind::Role)?;
    }
    let permissions = known.living.among(&before.permissions, &[])?;
    for held in &permissions {
        change.insist_unnamed(Capability::AddPermissionToKey, held.id, Kind::Permission)?;
    }
    let identity = living_identity(change, before.identity)?.map(|identity| identity.id);

    let (prefix, start) = (prefix.clone(), secret.start());
    let successor = Successor { id, digest: secret.digest(), prefix, start, by: change.caller.id };
    let (next, previous) = before.rerolled(successor, grace, change.now).map_err(|refused| match refused {
        RotationRefused::Expired => expired(before.id),
        RotationRefused::AlreadyRotated(successor) => already_rerolled(before.id, successor),
    })?;
    let next = Key { roles: ids(&roles), permissions, identity, ..next };
    share_meter(change, before)?;
    put(change.tx, None, &next, retention, change.now)?;
    put(change.tx, Some(before), &previous, retention, change.now)?;

    let happening = Happening::changed(EventName::KEY_REROLL, target(&previous), before.facts(), previous.facts())
        .concerning(target(&next));
    let never_used = Beforehand { last_used: None, ..known.clone() };
    let key = described(change, next, &never_used, &[])?;
    let previous = described(change, previous, known, &[])?;
    let issued = IssuedKey { key, secret: Some(secret.clone()) };
    Ok(Effect::Changed(Reroll { issued, previous }, happening))
}

/// One key more draws on the account of the line, which begins with the first reroll if the key had none.
fn share_meter(change: &mut Change<'_, '_>, before: &Key) -> Result<(), Halt> {
    let account = (before.workspace, before.lineage());
    let meter = match before.meter {
        Some(_) => tables::METERS.get(change.tx, &account)?,
        None => None,
    };
    let meter = meter.unwrap_or_else(|| Meter::starting(None, change.now));
    let shared = Meter { holders: meter.holders + 1, ..meter };
    Ok(tables::METERS.put(change.tx, &account, &shared)?)
}
