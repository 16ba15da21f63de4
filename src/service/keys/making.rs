//! Making keys: with a secret of their own, or for a secret that was issued elsewhere, of which only a digest is known.

use crate::domain::api::Api;
use crate::domain::audit::{EventName, Happening};
use crate::domain::capability::Capability;
use crate::domain::credits::Credits;
use crate::domain::etag::Etag;
use crate::domain::id::{ApiId, KeyId, PermissionId, Reference, RoleId};
use crate::domain::import::Algorithm;
use crate::domain::key::{DescribedKey, IssuedKey, Key, Presence};
use crate::domain::kind::Kind;
use crate::domain::limit::Limits;
use crate::domain::name::Name;
use crate::domain::network::AllowList;
use crate::domain::secret::{Digest, Prefix, Secret};
use crate::domain::time::Expiry;
use crate::domain::value::Metadata;
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::service::assignments::{check_numbers, obtain_roles};
use crate::service::caller::Caller;
use crate::service::change::{Change, Effect, Halt, trying};
use crate::service::described::references;
use crate::service::identities::Owner;
use crate::service::permissions::Wanted;
use crate::service::{Done, Ostiary, Reading, Retention, Run, apis, credits};
use crate::store::tables;

use super::{ids, put, target};

/// What a key is to be.
#[derive(Debug, Clone)]
pub struct KeyDraft {
    /// The set that it is to be part of.
    pub api: ApiId,
    /// What people call it; may be empty.
    pub name: Name,
    /// What its secret is to begin with; else the API says.
    pub prefix: Option<Prefix>,
    /// What is kept beside it.
    pub metadata: Metadata,
    /// Roles that it is to hold.
    pub roles: Vec<Reference<RoleId>>,
    /// Permissions that it is to hold directly.
    pub permissions: Vec<Reference<PermissionId>>,
    /// Switched on.
    pub enabled: bool,
    /// How long it is to live; else the API says.
    pub expiry: Option<Expiry>,
    /// From where it may be used.
    pub allowed: AllowList,
    /// What the developer calls the identity that it is to belong to, which is made if there is none.
    pub external_id: Option<Name>,
    /// How much it may be used; without, as much as one likes.
    pub credits: Option<Credits>,
    /// How often it may be used.
    pub limits: Limits,
}

/// A key that was issued elsewhere.
#[derive(Clone)]
pub struct ImportDraft {
    /// What it is to be. Without a prefix, none is known.
    pub key: KeyDraft,
    /// What its secret is found by.
    pub digest: Digest,
    /// How that was made.
    pub algorithm: Algorithm,
}

/// How the secret of a key is known.
#[derive(Clone)]
struct Origin {
    prefix: Option<Prefix>,
    start: String,
    digest: Digest,
}

/// A key that is about to be made: what was drawn for it and looked up beforehand.
#[derive(Clone)]
struct Making {
    id: KeyId,
    draft: KeyDraft,
    origin: Origin,
    wanted: Wanted,
    owner: Option<Owner>,
    retention: Retention,
}

impl Making {
    /// The API that the key is to be part of, if the caller may make keys in it.
    fn api(&self, change: &mut Change<'_, '_>) -> Result<Api, Halt> {
        if let Some(expiry) = self.draft.expiry {
            change.insist_ahead(expiry)?;
        }
        apis::find(change, Capability::CreateKey, self.draft.api)
    }

    /// Makes it.
    fn make(
        &self,
        change: &mut Change<'_, '_>,
        api: &Api,
        event: EventName,
    ) -> Result<(DescribedKey, Happening), Halt> {
        let Self { id, draft, origin, wanted, owner, retention } = self;
        let Origin { prefix, start, digest } = origin.clone();
        let KeyDraft { name, metadata, enabled, expiry, allowed, credits, limits, .. } = draft.clone();
        let roles = obtain_roles(change, &draft.roles, &[])?;
        let permissions = wanted.obtain(change, Capability::AddPermissionToKey, &[])?;
        check_numbers(roles.len(), permissions.len())?;
        let identity = owner.as_ref().map(|owner| owner.obtain(change)).transpose()?;
        let by_api = || api.default_ttl.map(|ttl| change.now.after(ttl));
        let expiry = expiry.unwrap_or_else(|| by_api().into());
        let key = Key {
            id: *id,
            workspace: change.workspace(),
            api: api.id,
            name,
            prefix,
            start,
            digest,
            metadata,
            roles: ids(&roles),
            permissions,
            enabled,
            expiry,
            allowed,
            identity: identity.as_ref().map(|identity| identity.id),
            limits,
            meter: credits::open(change, *id, credits)?,
            rotated_from: None,
            rotated_to: None,
            created_by: change.caller.id,
            created: change.now,
            updated: change.now,
            etag: Etag::FIRST,
            presence: Presence::Here,
            written: 0,
        };
        put(change.tx, None, &key, *retention, change.now)?;
        change.insist_on_quota_of_keys()?;
        let happening = Happening::made(event, target(&key), key.facts()).concerning(apis::target(api));
        let permissions = key.permissions.iter().map(|held| held.slug.clone()).collect();
        let external_id = identity.map(|identity| identity.external_id);
        let described =
            DescribedKey { key, roles: references(&roles), permissions, external_id, credits, last_used: None };
        Ok((described, happening))
    }
}

/// Notes that the workspace has keys with digests of this kind, so that secrets of other shapes are looked for.
fn note_import(change: &mut Change<'_, '_>, algorithm: Algorithm) -> Result<(), Halt> {
    let home = change.home();
    if home.imported.contains(&algorithm) {
        return Ok(());
    }
    let mut imported = home.imported.clone();
    imported.push(algorithm);
    imported.sort_unstable();
    let home = Workspace { imported, ..home.clone() };
    Ok(tables::WORKSPACES.put(change.tx, &(home.id,), &home)?)
}

impl Ostiary {
    async fn making(
        &self,
        reading: &Reading,
        caller: &Caller,
        draft: KeyDraft,
        id: KeyId,
        origin: Origin,
    ) -> Result<Making, Error> {
        let wanted = reading.wanted(caller.workspace_id(), &draft.permissions, || self.draw_permission()).await?;
        let owner = draft.external_id.clone().map(|external_id| self.owner(external_id));
        Ok(Making { id, draft, origin, wanted, owner, retention: self.retention })
    }

    /// Makes a key.
    pub async fn create_key(&self, caller: &Caller, draft: KeyDraft, run: Run) -> Result<Done<IssuedKey>, Error> {
        let permit = caller.permit(Capability::CreateKey)?;
        let mut made = None;
        let mut fresh = false;
        let mut done = trying!(async {
            let reading = self.read(None).await?;
            let api = tables::APIS.read(reading.view(), &(caller.workspace_id(), draft.api)).await?;
            let by_default = api.and_then(|api| api.default_prefix);
            let prefix = draft.prefix.clone().or_else(|| by_default.clone()).unwrap_or_default();
            let id = KeyId::from_bytes(self.world.ulid());
            let secret = Secret::issue_with(&prefix, id.handle(), self.world.random());
            self.prepare_delivery(caller, id.bytes(), &secret);
            made = Some(id);
            let origin = Origin { prefix: Some(prefix), start: secret.start(), digest: secret.digest() };
            let making = self.making(&reading, caller, draft.clone(), id, origin).await?;
            let changed = self
                .change(permit, run, move |change| {
                    let api = making.api(change)?;
                    if making.draft.prefix.is_none() && api.default_prefix != by_default {
                        return Err(Error::Conflict.into());
                    }
                    let (key, happening) = making.make(change, &api, EventName::KEY_CREATE)?;
                    Ok(Effect::Changed(IssuedKey { key, secret: Some(secret.clone()) }, happening))
                })
                .await?;
            fresh = !changed.repeated;
            Ok(changed)
        })?;
        let id = done.answer.key.key.id;
        let secret = done.answer.secret.take().filter(|_| fresh && made == Some(id));
        done.answer.secret = self.deliver(caller, run, secret, (Kind::Key, id.bytes(), &id))?;
        Ok(done)
    }

    /// Makes a key for a secret that was issued elsewhere, unless the workspace has imported its digest before.
    pub async fn import_key(&self, caller: &Caller, draft: ImportDraft) -> Result<Done<KeyId>, Error> {
        let permit = caller.permit(Capability::CreateKey)?;
        let ImportDraft { key: draft, digest, algorithm } = draft;
        let id = KeyId::from_bytes(self.world.ulid());
        let reading = self.read(None).await?;
        let start = draft.prefix.as_ref().map(ToString::to_string).unwrap_or_default();
        let origin = Origin { prefix: draft.prefix.clone(), start, digest };
        let making = self.making(&reading, caller, draft, id, origin).await?;
        let changed = self
            .change(permit, Run::Apply, move |change| {
                let api = making.api(change)?;
                let place = (change.workspace(), digest.bytes());
                if tables::KEY_DIGESTS.get(change.tx, &place)?.is_some() {
                    return Err(Error::DigestTaken.into());
                }
                note_import(change, algorithm)?;
                let (key, happening) = making.make(change, &api, EventName::KEY_IMPORT)?;
                tables::KEY_DIGESTS.put(change.tx, &place, &key.key.id)?;
                Ok(Effect::Changed(key, happening))
            })
            .await?;
        let Done { answer, revision } = changed.done;
        Ok(Done { answer: answer.key.id, revision })
    }
}
