//! `ostiary key`: what your customers hold.

use clap::Subcommand;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{Removal, Terms};
use super::importing;
use super::output::Column;

mod assigning;
mod creating;
mod credits;
mod ending;
mod finding;
mod updating;

/// What a list of keys shows.
const COLUMNS: [Column; 9] = [
    ("ID", "key_id"),
    ("NAME", "name"),
    ("API", "api_id"),
    ("START", "start"),
    ("STATE", "state"),
    ("IDENTITY", "external_id"),
    ("ROLES", "roles.name"),
    ("EXPIRES", "expire_time"),
    ("LAST USED", "last_used_time"),
];

/// Keys.
pub type Keys = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key. Its secret goes to standard output, alone, and is never shown again.
    Create(creating::Create),
    /// List keys, of one API or of all.
    List(finding::List),
    /// Show a key.
    Show {
        /// The key's id, `key_…`.
        key_id: String,
    },
    /// Find a key by its secret, which is read from standard input or a file. It does not count as a use.
    Lookup(finding::Lookup),
    /// Change a key, from its next verification on.
    Update(updating::Update),
    /// Replace a key by a new one, whose secret goes to standard output, alone, and is never shown again.
    Reroll(creating::Reroll),
    /// Give a key further roles.
    AddRoles(assigning::Named),
    /// Take roles from a key.
    RemoveRoles(assigning::Named),
    /// Give a key exactly these roles; without any, none.
    SetRoles(assigning::All),
    /// Give a key further permissions.
    AddPermissions(assigning::Named),
    /// Take permissions from a key.
    RemovePermissions(assigning::Named),
    /// Give a key exactly these permissions; without any, none.
    SetPermissions(assigning::All),
    /// Set, add to or take from the credits of a key.
    Credits(credits::Adjust),
    /// Delete a key. For 30 days it can be restored.
    Delete {
        /// The key's id, `key_…`.
        key_id: String,

        /// Delete it for good. A deleted key can be deleted for good too.
        #[arg(long)]
        permanent: bool,

        #[command(flatten)]
        removal: Removal,
    },
    /// Restore a deleted key with all that it had. Its secret works again.
    Undelete {
        /// The key's id, `key_…`.
        key_id: String,

        #[command(flatten)]
        terms: Terms,
    },
    /// Revoke all keys that fit, at once and for good.
    Revoke(ending::Revoke),
    /// Import keys that were issued elsewhere, by the digests of their secrets.
    Import(importing::Rows),
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        match self {
            Self::Delete { key_id, permanent, removal } => {
                removal.ask(&format!("Delete {key_id}{}?", if *permanent { " for good" } else { "" }))
            }
            Self::Revoke(revoke) => revoke.ask(),
            _ => Ok(()),
        }
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(acting).await,
            Self::List(list) => list.run(acting).await,
            Self::Show { key_id } => finding::show(key_id, acting).await,
            Self::Lookup(lookup) => lookup.run(acting).await,
            Self::Update(update) => update.run(acting).await,
            Self::Reroll(reroll) => reroll.run(acting).await,
            Self::AddRoles(named) => named.add_roles(acting).await,
            Self::RemoveRoles(named) => named.remove_roles(acting).await,
            Self::SetRoles(all) => all.set_roles(acting).await,
            Self::AddPermissions(named) => named.add_permissions(acting).await,
            Self::RemovePermissions(named) => named.remove_permissions(acting).await,
            Self::SetPermissions(all) => all.set_permissions(acting).await,
            Self::Credits(adjust) => adjust.run(acting).await,
            Self::Delete { key_id, permanent, removal: Removal { terms: Terms { etag, trial }, consent: _ } } => {
                let request = pb::DeleteKeyRequest { key_id, permanent, etag, validate_only: trial.dry_run };
                ending::delete(request, trial, acting).await
            }
            Self::Undelete { key_id, terms: Terms { etag, trial } } => {
                let request = pb::UndeleteKeyRequest { key_id, etag, validate_only: trial.dry_run };
                ending::undelete(request, trial, acting).await
            }
            Self::Revoke(revoke) => revoke.run(acting).await,
            Self::Import(rows) => rows.run(&acting.client, acting.output).await,
        }
    }
}
