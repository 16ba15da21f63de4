//! Calls of the services for root keys and workspaces, in short.

use ostiary::pb::v1 as pb;
use tonic::{Code, Status};

use crate::harness::{Client, reason, root_key, span};

impl Client {
    /// Who the caller is.
    pub async fn me(&self) -> Result<pb::RootKey, Status> {
        let response = self.root_keys().who_am_i(pb::WhoAmIRequest::default()).await?;
        Ok(response.into_inner().root_key.unwrap())
    }

    /// A root key with its usage.
    pub async fn look(&self, id: &str) -> Result<pb::RootKey, Status> {
        let view = pb::RootKeyView::Full.into();
        let request = pb::GetRootKeyRequest { root_key_id: id.into(), view, ..Default::default() };
        Ok(self.root_keys().get_root_key(request).await?.into_inner().root_key.unwrap())
    }

    /// Makes a root key.
    pub async fn make(&self, request: pb::CreateRootKeyRequest) -> Result<(pb::RootKey, String), Status> {
        let pb::CreateRootKeyResponse { root_key, secret, meta: _ } =
            self.root_keys().create_root_key(request).await?.into_inner();
        Ok((root_key.unwrap(), secret))
    }

    /// Changes a root key.
    pub async fn change(&self, request: pb::UpdateRootKeyRequest) -> Result<pb::RootKey, Status> {
        Ok(self.root_keys().update_root_key(request).await?.into_inner().root_key.unwrap())
    }

    /// Rotates a root key with that many milliseconds of grace.
    pub async fn rotate(&self, id: &str, grace: u64) -> Result<Rotated, Status> {
        let grace_period = Some(span(grace));
        let request = pb::RotateRootKeyRequest { root_key_id: id.into(), grace_period, ..Default::default() };
        self.rotate_as(request).await
    }

    /// Rotates a root key.
    pub async fn rotate_as(&self, request: pb::RotateRootKeyRequest) -> Result<Rotated, Status> {
        let pb::RotateRootKeyResponse { root_key, secret, previous, meta: _ } =
            self.root_keys().rotate_root_key(request).await?.into_inner();
        Ok(Rotated { next: root_key.unwrap(), secret, previous: previous.unwrap() })
    }

    /// Deletes a root key.
    pub async fn remove(&self, id: &str) -> Result<Vec<String>, Status> {
        self.remove_as(pb::DeleteRootKeyRequest { root_key_id: id.into(), ..Default::default() }).await
    }

    /// Deletes a root key, or it and its descendants.
    pub async fn remove_as(&self, request: pb::DeleteRootKeyRequest) -> Result<Vec<String>, Status> {
        Ok(self.root_keys().delete_root_key(request).await?.into_inner().deleted_root_key_ids)
    }

    /// Deletes root keys, all or none.
    pub async fn remove_all(&self, ids: &[&str]) -> Result<Vec<String>, Status> {
        let root_key_ids = ids.iter().map(ToString::to_string).collect();
        let request = pb::BatchDeleteRootKeysRequest { root_key_ids, ..Default::default() };
        Ok(self.root_keys().batch_delete_root_keys(request).await?.into_inner().deleted_root_key_ids)
    }

    /// The names of the root keys that pass the filter, in the order of the names.
    pub async fn names(&self, filter: pb::ListRootKeysFilter) -> Vec<String> {
        let request = pb::ListRootKeysRequest { filter: Some(filter), ..Default::default() };
        let root_keys = self.root_keys().list_root_keys(request).await.unwrap().into_inner().root_keys;
        let mut names: Vec<String> = root_keys.into_iter().map(|root_key| root_key.name).collect();
        names.sort();
        names
    }

    /// A workspace and a client with its first root key.
    pub async fn tenant(&self, name: &str) -> (pb::Workspace, Self) {
        let request = pb::CreateWorkspaceRequest { name: name.into(), ..Default::default() };
        let pb::CreateWorkspaceResponse { workspace, secret, .. } =
            self.workspaces().create_workspace(request).await.unwrap().into_inner();
        (workspace.unwrap(), self.with(&secret))
    }

    /// A root key that lives that many milliseconds, and a client with it.
    pub async fn mortal(&self, name: &str, permissions: &[&str], life: u64) -> (pb::RootKey, Self) {
        let expiration = Some(pb::create_root_key_request::Expiration::Ttl(span(life)));
        let request = pb::CreateRootKeyRequest { expiration, ..root_key(name, permissions) };
        let (root_key, secret) = self.make(request).await.unwrap();
        (root_key, self.with(&secret))
    }

    /// A root key without an end, and a client with it.
    pub async fn colleague(&self, name: &str, permissions: &[&str]) -> (pb::RootKey, Self) {
        let (root_key, secret) = self.root_key(name, permissions).await;
        (root_key, self.with(&secret))
    }

    /// How often each event of that name was recorded, by the id of its main target.
    pub async fn recorded(&self, event: &str) -> Vec<String> {
        let filter = pb::ListAuditEventsFilter { event: Some(event.into()), ..Default::default() };
        let request = pb::ListAuditEventsRequest { page_size: 1_000, filter: Some(filter), ..Default::default() };
        let events = self.audit().list_audit_events(request).await.unwrap().into_inner().events;
        events.into_iter().map(|event| event.targets[0].id.clone()).collect()
    }
}

/// What a rotation answers.
#[derive(Debug, Clone)]
pub struct Rotated {
    pub next: pb::RootKey,
    pub secret: String,
    pub previous: pb::RootKey,
}

/// A request that changes this root key and nothing about it yet.
pub fn changing(root_key: &pb::RootKey) -> pb::UpdateRootKeyRequest {
    pb::UpdateRootKeyRequest { root_key_id: root_key.root_key_id.clone(), ..Default::default() }
}

/// The fields that an update means.
pub fn only(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() })
}

/// Code and reason of an error.
pub fn why<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.expect_err("it was to be refused");
    (status.code(), reason(&status))
}

pub fn unauthenticated(reason: &str) -> (Code, String) {
    (Code::Unauthenticated, reason.into())
}

pub fn precondition(reason: &str) -> (Code, String) {
    (Code::FailedPrecondition, reason.into())
}

pub fn denied(reason: &str) -> (Code, String) {
    (Code::PermissionDenied, reason.into())
}

pub fn not_found() -> (Code, String) {
    (Code::NotFound, "ROOT_KEY_NOT_FOUND".into())
}

pub fn invalid() -> (Code, String) {
    (Code::InvalidArgument, "FIELD_INVALID".into())
}

/// When something ends, in milliseconds.
pub fn end(root_key: &pb::RootKey) -> Option<u64> {
    root_key.expire_time.map(|time| time.seconds as u64 * 1_000 + time.nanos as u64 / 1_000_000)
}
