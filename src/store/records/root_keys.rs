//! Root keys on disk, and how they have been used.

use crate::domain::capability::{Grant, Grants};
use crate::domain::etag::Etag;
use crate::domain::id::{RootKeyId, WorkspaceId};
use crate::domain::name::{Name, ROOT_KEY_NAME};
use crate::domain::root_key::RootKey;
use crate::pb::storage;

use super::{GrantUsage, Stored, Usage, allow_list, digest, millis, moment, networks, optional_id, optional_moment};

impl Stored<(WorkspaceId, RootKeyId)> for RootKey {
    type Message = storage::RootKey;

    fn to_message(&self) -> storage::RootKey {
        let Self {
            id: _,
            workspace: _,
            name,
            grants,
            digest,
            start,
            enabled,
            expiry,
            allowed,
            rotated_from,
            rotated_to,
            created_by,
            created,
            updated,
            etag,
            deleted,
        } = self;
        let id = |id: &RootKeyId| id.bytes().to_vec();
        storage::RootKey {
            name: name.to_string(),
            grants: grants.iter().map(ToString::to_string).collect(),
            digest: digest.bytes().to_vec(),
            start: start.clone(),
            enabled: *enabled,
            expires: expiry.moment().map(millis),
            allowed: networks(allowed),
            rotated_from: rotated_from.as_ref().map(id),
            rotated_to: rotated_to.as_ref().map(id),
            created_by: created_by.as_ref().map(id),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, id): &(WorkspaceId, RootKeyId), message: storage::RootKey) -> Option<Self> {
        let storage::RootKey {
            name,
            grants,
            digest: digest_bytes,
            start,
            enabled,
            expires,
            allowed,
            rotated_from,
            rotated_to,
            created_by,
            created,
            updated,
            etag,
            deleted,
        } = message;
        let root_key = |bytes: Option<Vec<u8>>| optional_id(bytes.as_deref(), RootKeyId::from_bytes);
        Some(Self {
            id,
            workspace,
            name: Name::new(&name, ROOT_KEY_NAME).ok()?,
            grants: to_grants(&grants)?,
            digest: digest(&digest_bytes)?,
            start,
            enabled,
            expiry: optional_moment(expires)?.into(),
            allowed: allow_list(&allowed)?,
            rotated_from: root_key(rotated_from)?,
            rotated_to: root_key(rotated_to)?,
            created_by: root_key(created_by)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}

fn to_grants(texts: &[String]) -> Option<Grants> {
    let grants: Option<Vec<Grant>> = texts.iter().map(|text| Grant::parse(text).ok()).collect();
    Grants::collect(grants?).ok()
}

impl Stored<(WorkspaceId, RootKeyId)> for Usage {
    type Message = storage::Usage;

    fn to_message(&self) -> storage::Usage {
        let Self { last, grants } = self;
        let grants = grants.iter().map(|GrantUsage { grant, count, last }| storage::GrantUsage {
            grant: grant.to_string(),
            count: *count,
            last: millis(*last),
        });
        storage::Usage { last: last.map_or(0, millis), grants: grants.collect() }
    }

    fn from_message(_: &(WorkspaceId, RootKeyId), message: storage::Usage) -> Option<Self> {
        let storage::Usage { last, grants } = message;
        let grants = grants.into_iter().map(|storage::GrantUsage { grant, count, last }| {
            Some(GrantUsage { grant: Grant::parse(&grant).ok()?, count, last: moment(last)? })
        });
        Some(Self { last: if last == 0 { None } else { Some(moment(last)?) }, grants: grants.collect::<Option<_>>()? })
    }
}
