//! `ostiary key`: what your customers hold.

use clap::{Args, Subcommand};

use crate::pb::v1 as pb;

use super::Surroundings;
use super::calling::Calling;
use super::client::Client;
use super::failure::Failure;
use super::flags::{Removal, Terms};
use super::importing;
use super::output::{Column, Output};

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
#[derive(Debug, Args)]
pub struct Keys {
    #[command(flatten)]
    calling: Calling,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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

impl Keys {
    /// Does it.
    pub async fn run(self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        let Self { calling, command } = self;
        let output = calling.output();
        if let Command::Delete { key_id, permanent, removal } = &command {
            removal.ask(&format!("Delete {key_id}{}?", if *permanent { " for good" } else { "" }))?;
        }
        if let Command::Revoke(revoke) = &command {
            revoke.ask()?;
        }
        let client = calling.client(surroundings).await?;
        command.run(&client, output).await
    }
}

impl Command {
    async fn run(self, client: &Client<'_>, output: Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(client, output).await,
            Self::List(list) => list.run(client, output).await,
            Self::Show { key_id } => finding::show(key_id, client, output).await,
            Self::Lookup(lookup) => lookup.run(client, output).await,
            Self::Update(update) => update.run(client, output).await,
            Self::Reroll(reroll) => reroll.run(client, output).await,
            Self::AddRoles(named) => named.add_roles(client, output).await,
            Self::RemoveRoles(named) => named.remove_roles(client, output).await,
            Self::SetRoles(all) => all.set_roles(client, output).await,
            Self::AddPermissions(named) => named.add_permissions(client, output).await,
            Self::RemovePermissions(named) => named.remove_permissions(client, output).await,
            Self::SetPermissions(all) => all.set_permissions(client, output).await,
            Self::Credits(adjust) => adjust.run(client, output).await,
            Self::Delete { key_id, permanent, removal: Removal { terms: Terms { etag, trial }, consent: _ } } => {
                let request = pb::DeleteKeyRequest { key_id, permanent, etag, validate_only: trial.dry_run };
                ending::delete(request, trial, client, output).await
            }
            Self::Undelete { key_id, terms: Terms { etag, trial } } => {
                let request = pb::UndeleteKeyRequest { key_id, etag, validate_only: trial.dry_run };
                ending::undelete(request, trial, client, output).await
            }
            Self::Revoke(revoke) => revoke.run(client, output).await,
            Self::Import(rows) => rows.run(client, output).await,
        }
    }
}
