//! APIs: the sets that keys are made in.

use std::time::Duration;

use crate::domain::api::Api;
use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::etag::Etag;
use crate::domain::id::ApiId;
use crate::domain::kind::Kind;
use crate::domain::name::Name;
use crate::domain::network::AllowList;
use crate::domain::secret::Prefix;
use crate::domain::time::Timestamp;
use crate::error::{Error, Obstacle};
use crate::store::tables::{self, Task};
use crate::store::{Stop, Txn};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::listing::{ITEM_BYTES, Page, PageRequest, of};
use super::{Done, Ostiary, Revision, Run, counts, due};

/// What an API is to be.
#[derive(Debug, Clone)]
pub struct ApiDraft {
    /// Its name.
    pub name: Name,
    /// The prefix of keys created without one.
    pub default_prefix: Option<Prefix>,
    /// The life of keys created without one.
    pub default_ttl: Option<Duration>,
    /// Whether it can't be deleted.
    pub delete_protection: bool,
    /// From where its keys may be used.
    pub allowed: AllowList,
}

/// What is to be different about an API.
#[derive(Debug, Clone, Default)]
pub struct ApiPatch {
    /// The name.
    pub name: Option<Name>,
    /// The prefix of keys created without one.
    pub default_prefix: Option<Option<Prefix>>,
    /// The life of keys created without one.
    pub default_ttl: Option<Option<Duration>>,
    /// Whether it can't be deleted.
    pub delete_protection: Option<bool>,
    /// From where its keys may be used.
    pub allowed: Option<AllowList>,
}

/// An API and how many keys it has.
#[derive(Debug, Clone, PartialEq)]
pub struct CountedApi {
    /// The record.
    pub api: Api,
    /// Its keys that are not deleted.
    pub key_count: u64,
}

pub(super) fn target(api: &Api) -> Target {
    Target::new(Kind::Api, api.id, &api.name)
}

/// Deletes an API, and with it its keys, whose rows go in the background.
pub(super) fn delete(tx: &mut Txn<'_>, before: &Api, now: Timestamp) -> Result<Happening, Stop> {
    let after = Api { deleted: Some(now), updated: now, etag: before.etag.next(), ..before.clone() };
    tables::APIS.put(tx, &(after.workspace, after.id), &after)?;
    counts::lose_api(tx, after.workspace, after.id)?;
    counts::apis_to_clear(tx, after.workspace, counts::By::Up)?;
    due::schedule(tx, now, Task::ClearApi, after.workspace, after.id.bytes())?;
    Ok(Happening::removed(EventName::API_DELETE, target(before), before.facts()))
}

/// The API of that id, if the caller may do this to it and it is still there.
pub(super) fn find(change: &mut Change<'_, '_>, capability: Capability, id: ApiId) -> Result<Api, Halt> {
    change.insist(capability, id, (Kind::Api, &id.to_string()))?;
    let row = (change.workspace(), id);
    let api = tables::APIS.get(change.tx, &row)?.filter(|api| api.deleted.is_none());
    api.ok_or_else(|| Error::not_found(Kind::Api, id).into())
}

fn counted(change: &mut Change<'_, '_>, api: Api) -> Result<CountedApi, Halt> {
    let key_count = counts::keys_of_api_now(change.tx, api.workspace, api.id)?;
    Ok(CountedApi { api, key_count })
}

impl Ostiary {
    /// Makes an API.
    pub async fn create_api(&self, caller: &Caller, draft: ApiDraft, run: Run) -> Result<Done<CountedApi>, Error> {
        let permit = caller.permit(Capability::CreateApi)?;
        let id = ApiId::from_bytes(self.world.ulid());
        let changed = self
            .change(permit, run, move |change| {
                change.insist_all(Capability::CreateApi)?;
                let ApiDraft { name, default_prefix, default_ttl, delete_protection, allowed } = draft.clone();
                let api = Api {
                    id,
                    workspace: change.workspace(),
                    name,
                    default_prefix,
                    default_ttl,
                    delete_protection,
                    allowed,
                    created: change.now,
                    updated: change.now,
                    etag: Etag::FIRST,
                    deleted: None,
                };
                tables::APIS.put(change.tx, &(api.workspace, id), &api)?;
                let happening = Happening::made(EventName::API_CREATE, target(&api), api.facts());
                Ok(Effect::Changed(CountedApi { api, key_count: 0 }, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// One API.
    pub async fn api(
        &self,
        caller: &Caller,
        id: ApiId,
        min_revision: Option<Revision>,
    ) -> Result<Done<CountedApi>, Error> {
        caller.permit(Capability::ReadApi)?;
        let reading = self.read(min_revision).await?;
        let name = id.to_string();
        self.insist(caller, Capability::ReadApi, id, (Kind::Api, &name), reading.now)?;
        let api = tables::APIS.read(reading.view(), &(caller.workspace_id(), id)).await?;
        let api = api.filter(|api| api.deleted.is_none()).ok_or_else(|| Error::not_found(Kind::Api, &name))?;
        let key_count = reading.keys_of_api(api.workspace, id).await?;
        Ok(reading.done(CountedApi { api, key_count }))
    }

    /// The APIs that the caller may read.
    pub async fn list_apis(
        &self,
        caller: &Caller,
        name_contains: Option<String>,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<CountedApi>>, Error> {
        caller.permit(Capability::ReadApi)?;
        let reading = self.read(min_revision).await?;
        let part = name_contains.map(|part| part.to_ascii_lowercase());
        let mut walk = self.walk(&tables::APIS, of(caller.workspace_id()), &page)?;
        let mut found = Vec::new();
        while let Some((_, api)) = walk.next(&reading).await? {
            let visible = api.deleted.is_none() && caller.may(Capability::ReadApi, api.id);
            if visible && part.as_ref().is_none_or(|part| api.name.folded().contains(part)) {
                let key_count = reading.keys_of_api(api.workspace, api.id).await?;
                found.push(CountedApi { api, key_count });
                if walk.took(ITEM_BYTES) {
                    break;
                }
            }
        }
        self.shown(caller, Capability::ReadApi, found.iter().map(|found| found.api.id), reading.now);
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Changes an API.
    pub async fn update_api(
        &self,
        caller: &Caller,
        id: ApiId,
        patch: ApiPatch,
        etag: String,
        run: Run,
    ) -> Result<Done<CountedApi>, Error> {
        let permit = caller.permit(Capability::UpdateApi)?;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::UpdateApi, id)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let ApiPatch { name, default_prefix, default_ttl, delete_protection, allowed } = patch.clone();
                let mut after = Api {
                    name: name.unwrap_or_else(|| before.name.clone()),
                    default_prefix: default_prefix.unwrap_or_else(|| before.default_prefix.clone()),
                    default_ttl: default_ttl.unwrap_or(before.default_ttl),
                    delete_protection: delete_protection.unwrap_or(before.delete_protection),
                    allowed: allowed.unwrap_or_else(|| before.allowed.clone()),
                    ..before.clone()
                };
                if after == before {
                    return Ok(Effect::Unchanged(counted(change, before)?));
                }
                after.updated = change.now;
                after.etag = before.etag.next();
                tables::APIS.put(change.tx, &(after.workspace, id), &after)?;
                let happening =
                    Happening::changed(EventName::API_UPDATE, target(&after), before.facts(), after.facts());
                Ok(Effect::Changed(counted(change, after)?, happening))
            })
            .await?;
        Ok(changed.done)
    }

    /// Deletes an API for good. From this commit on none of its keys is found; their rows go in the background, so the
    /// call takes as long for one key as for a million. A rehearsal tells how many keys it would take along.
    pub async fn delete_api(
        &self,
        caller: &Caller,
        id: ApiId,
        etag: String,
        run: Run,
    ) -> Result<Done<Option<u64>>, Error> {
        let permit = caller.permit(Capability::DeleteApi)?;
        let changed = self
            .change(permit, run, move |change| {
                let before = find(change, Capability::DeleteApi, id)?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                if before.delete_protection {
                    return Err(Error::Precondition {
                        obstacle: Obstacle::DeleteProtected,
                        subject: id.to_string(),
                        description: "the API is protected against deletion; clear delete_protection first".to_owned(),
                    }
                    .into());
                }
                Ok(Effect::Changed((), delete(change.tx, &before, change.now)?))
            })
            .await?;
        let keys = match run {
            Run::Apply => None,
            Run::Rehearse => Some(self.read(None).await?.keys_of_api(caller.workspace_id(), id).await?),
        };
        Ok(Done { answer: keys, revision: changed.done.revision })
    }
}
