//! Lists of keys, by whichever index says most about the filter.

use crate::domain::capability::Capability;
use crate::domain::id::{ApiId, IdentityId, KeyId, PermissionId, Reference, RoleId, RootKeyId};
use crate::domain::key::{DescribedKey, Key, Presence, State};
use crate::domain::time::Timestamp;
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::service::caller::Caller;
use crate::service::listing::{ITEM_BYTES, Page, PageRequest, of};
use crate::service::{Done, Ostiary, Reading, Revision};
use crate::store::tables;

/// Which keys to show. Everything that is set must agree.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// Of this API.
    pub api: Option<ApiId>,
    /// Of this identity.
    pub identity: Option<Reference<IdentityId>>,
    /// Holding this role.
    pub role: Option<Reference<RoleId>>,
    /// Holding this permission directly.
    pub permission: Option<Reference<PermissionId>>,
    /// The state.
    pub state: Option<State>,
    /// Part of the name, ignoring ASCII case.
    pub name_contains: Option<String>,
    /// Exactly this beginning of the secret.
    pub start: Option<String>,
    /// Made by this root key.
    pub created_by: Option<RootKeyId>,
    /// Expiring before this moment.
    pub expire_before: Option<Timestamp>,
    /// Last found good before this moment, or never.
    pub last_used_before: Option<Timestamp>,
    /// Whether deleted keys that can still be restored are shown too.
    pub deleted: Shown,
}

/// Whether deleted things are part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// They are left out.
    #[default]
    No,
    /// They are shown.
    Yes,
}

impl KeyFilter {
    fn admits(&self, key: &Key, now: Timestamp, role: Option<RoleId>, permission: Option<PermissionId>) -> bool {
        let Self {
            api,
            identity: _,   // resolved by the caller, who walks its keys
            role: _,       // resolved by the caller
            permission: _, // resolved by the caller
            state,
            name_contains,
            start,
            created_by,
            expire_before,
            last_used_before: _, // known only once the usage has been read
            deleted,
        } = self;
        // The caller has left out what is gone.
        let present = key.presence == Presence::Here || *deleted == Shown::Yes;
        present
            && api.is_none_or(|api| key.api == api)
            && role.is_none_or(|role| key.roles.contains(&role))
            && permission.is_none_or(|permission| key.permissions.iter().any(|held| held.id == permission))
            && state.is_none_or(|state| key.state(now) == state)
            && name_contains.as_ref().is_none_or(|part| key.name.folded().contains(&part.to_ascii_lowercase()))
            && start.as_ref().is_none_or(|start| key.start == *start)
            && created_by.is_none_or(|creator| key.created_by == creator)
            && expire_before.is_none_or(|before| key.expiry.moment().is_some_and(|moment| moment < before))
    }
}

impl Ostiary {
    /// The keys of the APIs that the caller may read.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        filter: KeyFilter,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<DescribedKey>>, Error> {
        caller.permit(Capability::ReadKey)?;
        let workspace = caller.workspace_id();
        let reading = self.read(min_revision).await?;
        let home = reading.home(workspace).await?;
        let mut listing = KeyListing {
            ostiary: self,
            caller,
            reading: &reading,
            home: &home,
            filter: &filter,
            identity: None,
            role: None,
            permission: None,
        };
        let nothing = || {
            // Said alike of what doesn't exist and of what does: a token that was not given out for it is refused.
            if page.token.is_empty() {
                Ok(Page { items: Vec::new(), next: String::new() })
            } else {
                Err(Error::PageToken)
            }
        };
        if let Some(identity) = &filter.identity {
            match reading.find_identity(workspace, identity).await? {
                Some(identity) => listing.identity = Some(identity.id),
                None => return Ok(reading.done(nothing()?)),
            }
        }
        if let Some(role) = &filter.role {
            match reading.find_role(workspace, role).await? {
                Some(role) => listing.role = Some(role.id),
                None => return Ok(reading.done(nothing()?)),
            }
        }
        if let Some(permission) = &filter.permission {
            match reading.find_permission(workspace, permission).await? {
                Some(permission) => listing.permission = Some(permission.id),
                None => return Ok(reading.done(nothing()?)),
            }
        }
        let page = listing.page(&page).await?;
        self.shown(caller, Capability::ReadKey, page.items.iter().map(|found| found.key.api), reading.now);
        Ok(reading.done(page))
    }
}

/// A list of keys under way.
struct KeyListing<'a> {
    ostiary: &'a Ostiary,
    caller: &'a Caller,
    reading: &'a Reading,
    home: &'a Workspace,
    filter: &'a KeyFilter,
    identity: Option<IdentityId>,
    role: Option<RoleId>,
    permission: Option<PermissionId>,
}

impl KeyListing<'_> {
    /// Walks the index that says most about the filter.
    async fn page(&self, page: &PageRequest) -> Result<Page<DescribedKey>, Error> {
        let workspace = self.caller.workspace_id();
        let Self { ostiary, reading, .. } = *self;
        let mut found = Vec::new();
        if let Some(identity) = self.identity {
            let mut walk = ostiary.walk(&tables::IDENTITY_KEYS, (workspace, identity), page)?;
            while let Some(((_, _, id), ())) = walk.next(reading).await? {
                if self.take(id, &mut found).await? && walk.took(bytes(found.last())) {
                    break;
                }
            }
            walk.page(reading, found).await
        } else if let Some(role) = self.role {
            let mut walk = ostiary.walk(&tables::ROLE_KEYS, (workspace, role), page)?;
            while let Some(((_, _, id), ())) = walk.next(reading).await? {
                if self.take(id, &mut found).await? && walk.took(bytes(found.last())) {
                    break;
                }
            }
            walk.page(reading, found).await
        } else if let Some(api) = self.filter.api {
            let mut walk = ostiary.walk(&tables::API_KEYS, (workspace, api), page)?;
            while let Some(((_, _, id), ())) = walk.next(reading).await? {
                if self.take(id, &mut found).await? && walk.took(bytes(found.last())) {
                    break;
                }
            }
            walk.page(reading, found).await
        } else {
            let mut walk = ostiary.walk(&tables::KEYS, of(workspace), page)?;
            while let Some((_, key)) = walk.next(reading).await? {
                if self.consider(self.home.settled(key), &mut found).await? && walk.took(bytes(found.last())) {
                    break;
                }
            }
            walk.page(reading, found).await
        }
    }

    async fn take(&self, id: KeyId, found: &mut Vec<DescribedKey>) -> Result<bool, Error> {
        match self.reading.any_key(self.home, id).await? {
            Some(key) => self.consider(key, found).await,
            None => Ok(false),
        }
    }

    /// Puts the key on the page if it belongs there; whether it did.
    async fn consider(&self, key: Key, found: &mut Vec<DescribedKey>) -> Result<bool, Error> {
        let Self { ostiary, caller, reading, home: _, filter, identity: _, role, permission } = *self;
        let gone = key.is_gone(reading.now, ostiary.retention.deleted_keys);
        if gone || !caller.may(Capability::ReadKey, key.api) || !filter.admits(&key, reading.now, role, permission) {
            return Ok(false);
        }
        let api = tables::APIS.read(reading.view(), &(key.workspace, key.api)).await?;
        if api.is_none_or(|api| api.deleted.is_some()) {
            return Ok(false);
        }
        let described = ostiary.described_key(reading, key).await?;
        let used_before = |before: Timestamp| described.last_used.is_none_or(|last| last < before);
        let admitted = filter.last_used_before.is_none_or(used_before);
        if admitted {
            found.push(described);
        }
        Ok(admitted)
    }
}

/// About how many bytes a key takes in an answer.
fn bytes(described: Option<&DescribedKey>) -> usize {
    described.map_or(0, |described| {
        let metadata = crate::pb::from_facts(described.key.metadata.facts());
        let slugs = described.permissions.iter().map(|slug| slug.as_str().len()).sum::<usize>();
        ITEM_BYTES + prost::Message::encoded_len(&metadata) + slugs
    })
}
