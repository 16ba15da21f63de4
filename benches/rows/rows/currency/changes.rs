//! The changes, each of which a verification must see once it is acknowledged.

use std::rc::Rc;
use std::time::Duration;

use ostiary::pb::v1::{self as pb, VerificationCode};
use tonic::Code;

use super::{Subject, Watched};
use crate::Failed;
use crate::ostiary::Client;

/// What every key is asked for, and a role or the key itself gives it.
const SLUG: &str = "documents.read";
/// When to ask again for what could not be done at the moment.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Disable,
    Delete,
    TakeRole,
    TakePermission,
    EmptyRole,
    DeleteRole,
    Reroll,
    Revoke,
}

/// All of them, each made by a caller of its own.
pub const KINDS: [Kind; 8] = [
    Kind::Disable,
    Kind::Delete,
    Kind::TakeRole,
    Kind::TakePermission,
    Kind::EmptyRole,
    Kind::DeleteRole,
    Kind::Reroll,
    Kind::Revoke,
];

impl Kind {
    /// What is done, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disabled and enabled",
            Self::Delete => "deleted and restored",
            Self::TakeRole => "role taken and given",
            Self::TakePermission => "permission taken and given",
            Self::EmptyRole => "role emptied and filled",
            Self::DeleteRole => "role deleted and made anew",
            Self::Reroll => "rerolled without grace",
            Self::Revoke => "revoked by identity",
        }
    }

    /// What a key answers after it.
    fn spoilt(self) -> VerificationCode {
        match self {
            Self::Disable => VerificationCode::Disabled,
            Self::Delete | Self::Revoke => VerificationCode::NotFound,
            Self::TakeRole | Self::TakePermission | Self::EmptyRole | Self::DeleteRole => {
                VerificationCode::InsufficientPermissions
            }
            Self::Reroll => VerificationCode::Expired,
        }
    }

    /// The role or identity that keys of this kind have.
    fn own(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Makes changes.
pub struct Changer {
    client: Client,
    api_id: String,
}

impl Changer {
    pub async fn new(client: Client) -> Result<Self, Failed> {
        let api_id = client.create_api("changing").await?;
        for kind in KINDS {
            client.create_role(&kind.own(), &[SLUG]).await?;
        }
        Ok(Self { client, api_id })
    }

    /// A key for this kind of change, the one with this number.
    pub async fn subject(&self, kind: Kind, number: usize) -> Result<Rc<Subject>, Failed> {
        let direct = kind == Kind::TakePermission;
        let request = pb::CreateKeyRequest {
            api_id: self.api_id.clone(),
            roles: if direct { Vec::new() } else { vec![kind.own()] },
            permissions: if direct { vec![SLUG.to_owned()] } else { Vec::new() },
            external_id: Some(format!("{}-{number}", kind.own())),
            ..Default::default()
        };
        let pb::CreateKeyResponse { key, secret, .. } = self.client.keys().create_key(request).await?.into_inner();
        Ok(Subject::new(secret, key.ok_or("no key")?.key_id))
    }

    /// Makes changes of this kind without end.
    pub async fn keep_changing(&self, place: usize, watched: &Watched) -> Result<(), Failed> {
        let kind = KINDS[place];
        let mut subject = Rc::clone(&watched.busy[place].0.borrow());
        for number in 1.. {
            subject = match kind {
                Kind::Disable
                | Kind::Delete
                | Kind::TakeRole
                | Kind::TakePermission
                | Kind::EmptyRole
                | Kind::DeleteRole => {
                    subject.change(kind.spoilt(), self.spoil(kind, &subject, number)).await?;
                    subject.change(VerificationCode::Valid, self.mend(kind, &subject)).await?;
                    subject
                }
                Kind::Reroll => self.reroll(&subject).await?,
                Kind::Revoke => {
                    subject.change(kind.spoilt(), self.spoil(kind, &subject, number)).await?;
                    self.subject(kind, number).await?
                }
            };
            watched.changed(place, &subject);
        }
        Ok(())
    }

    /// Makes the key no longer good.
    async fn spoil(&self, kind: Kind, subject: &Subject, number: usize) -> Result<(), Failed> {
        let key_id = subject.key_id.clone();
        let (mut keys, mut roles) = (self.client.keys(), self.client.roles());
        match kind {
            Kind::Disable => {
                let request = pb::UpdateKeyRequest { key_id, enabled: Some(false), ..Default::default() };
                keys.update_key(request).await?;
            }
            Kind::Delete => {
                keys.delete_key(pb::DeleteKeyRequest { key_id, ..Default::default() }).await?;
            }
            Kind::TakeRole => {
                let roles = vec![kind.own()];
                keys.remove_key_roles(pb::RemoveKeyRolesRequest { key_id, roles, ..Default::default() }).await?;
            }
            Kind::TakePermission => {
                let permissions = vec![SLUG.to_owned()];
                let request = pb::RemoveKeyPermissionsRequest { key_id, permissions, ..Default::default() };
                keys.remove_key_permissions(request).await?;
            }
            Kind::EmptyRole => {
                let request = pb::SetRolePermissionsRequest { role: kind.own(), ..Default::default() };
                roles.set_role_permissions(request).await?;
            }
            Kind::DeleteRole => {
                roles.delete_role(pb::DeleteRoleRequest { role: kind.own(), ..Default::default() }).await?;
            }
            Kind::Reroll => {}
            Kind::Revoke => {
                let identity = Some(format!("{}-{}", kind.own(), number - 1));
                let filter = Some(pb::RevokeKeysFilter { identity, ..Default::default() });
                let request = pb::RevokeKeysRequest { filter, ..Default::default() };
                // So many revocations in a row that the house has to tidy up first are asked to come again.
                let answer = loop {
                    match keys.revoke_keys(request.clone()).await {
                        Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(AGAIN_AFTER).await,
                        answer => break answer?,
                    }
                };
                if answer.into_inner().revoked_count != 1 {
                    return Err("a revocation of one key revoked none or more".into());
                }
            }
        }
        Ok(())
    }

    /// Makes the key good again, where that can be.
    async fn mend(&self, kind: Kind, subject: &Subject) -> Result<(), Failed> {
        let key_id = subject.key_id.clone();
        let (mut keys, mut roles) = (self.client.keys(), self.client.roles());
        match kind {
            Kind::Disable => {
                let request = pb::UpdateKeyRequest { key_id, enabled: Some(true), ..Default::default() };
                keys.update_key(request).await?;
            }
            Kind::Delete => {
                keys.undelete_key(pb::UndeleteKeyRequest { key_id, ..Default::default() }).await?;
            }
            Kind::TakeRole => self.give_role(kind, key_id).await?,
            Kind::TakePermission => {
                let permissions = vec![SLUG.to_owned()];
                let request = pb::AddKeyPermissionsRequest { key_id, permissions, ..Default::default() };
                keys.add_key_permissions(request).await?;
            }
            Kind::EmptyRole => {
                let permissions = vec![SLUG.to_owned()];
                let request = pb::SetRolePermissionsRequest { role: kind.own(), permissions, ..Default::default() };
                roles.set_role_permissions(request).await?;
            }
            Kind::DeleteRole => {
                self.client.create_role(&kind.own(), &[SLUG]).await?;
                self.give_role(kind, key_id).await?;
            }
            Kind::Reroll | Kind::Revoke => {}
        }
        Ok(())
    }

    async fn give_role(&self, kind: Kind, key_id: String) -> Result<(), Failed> {
        let request = pb::AddKeyRolesRequest { key_id, roles: vec![kind.own()], ..Default::default() };
        self.client.keys().add_key_roles(request).await?;
        Ok(())
    }

    /// Replaces the key at once, and answers the one in its place.
    async fn reroll(&self, subject: &Subject) -> Result<Rc<Subject>, Failed> {
        let request = pb::RerollKeyRequest { key_id: subject.key_id.clone(), ..Default::default() };
        let mut answer = pb::RerollKeyResponse::default();
        let reroll = async {
            answer = self.client.keys().reroll_key(request).await?.into_inner();
            Ok(())
        };
        subject.change(Kind::Reroll.spoilt(), reroll).await?;
        let pb::RerollKeyResponse { key, secret, .. } = answer;
        Ok(Subject::new(secret, key.ok_or("no key")?.key_id))
    }
}
