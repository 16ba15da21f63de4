//! Roles and permissions of a key.

use clap::Args;

use crate::cli::acting::Acting;
use crate::cli::failure::Failure;
use crate::cli::flags::Terms;
use crate::pb::v1 as pb;

#[derive(Debug, Args)]
pub struct Named {
    /// The key's id, `key_…`.
    key_id: String,

    /// Ids or names of roles, or ids or slugs of permissions; all of them or none.
    #[arg(required = true)]
    names: Vec<String>,

    #[command(flatten)]
    terms: Terms,
}

#[derive(Debug, Args)]
pub struct All {
    /// The key's id, `key_…`.
    key_id: String,

    /// Ids or names of roles, or ids or slugs of permissions: all that it is to have.
    names: Vec<String>,

    #[command(flatten)]
    terms: Terms,
}

/// The methods all do the same with another message.
macro_rules! assign {
    ($self:ident, $acting:ident, $request:ident, $field:ident, $call:ident) => {{
        let Self { key_id, names, terms: Terms { etag, trial } } = $self;
        let request = pb::$request { key_id, $field: names, etag, validate_only: trial.dry_run };
        let answer = $acting.answer(trial, request, async |request| $acting.client.keys().$call(request).await).await?;
        $acting.output.whole(&answer)
    }};
}

impl Named {
    pub async fn add_roles(self, acting: &Acting<'_>) -> Result<(), Failure> {
        assign!(self, acting, AddKeyRolesRequest, roles, add_key_roles)
    }

    pub async fn remove_roles(self, acting: &Acting<'_>) -> Result<(), Failure> {
        assign!(self, acting, RemoveKeyRolesRequest, roles, remove_key_roles)
    }

    pub async fn add_permissions(self, acting: &Acting<'_>) -> Result<(), Failure> {
        assign!(self, acting, AddKeyPermissionsRequest, permissions, add_key_permissions)
    }

    pub async fn remove_permissions(self, acting: &Acting<'_>) -> Result<(), Failure> {
        assign!(self, acting, RemoveKeyPermissionsRequest, permissions, remove_key_permissions)
    }
}

impl All {
    pub async fn set_roles(self, acting: &Acting<'_>) -> Result<(), Failure> {
        assign!(self, acting, SetKeyRolesRequest, roles, set_key_roles)
    }

    pub async fn set_permissions(self, acting: &Acting<'_>) -> Result<(), Failure> {
        assign!(self, acting, SetKeyPermissionsRequest, permissions, set_key_permissions)
    }
}
