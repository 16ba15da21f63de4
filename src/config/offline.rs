//! The commands for a store that nobody serves.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::domain::name::{Name, ROOT_KEY_NAME};

/// Where a store lies.
#[derive(Debug, Clone, Args)]
pub struct Lying {
    /// The data directory in which the store lies. No server may be running on it.
    #[arg(long, env = "OSTIARY_DATA_DIR", default_value = "./ostiary-data", value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
}

/// Making a store out of a backup.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The whole backup is verified before anything is put in place: a damaged one is refused, and a store that is there stays
as it is. The restored store counts its revisions in a new epoch, so that a min_revision from before is refused.

A backup knows nothing of what happened after it was taken. Keys, root keys and roles that were revoked, deleted,
disabled or narrowed since are as they were then, and so are good again, unless they are ended:
  --revoke changed    whatever is different in the store that is replaced, or gone from there. It must be readable, and
                      of the same installation.
                      Keys are revoked; root keys, roles and permissions are deleted; APIs and workspaces that were
                      deleted since are deleted, workspaces that were disabled are disabled; of an API that was changed
                      otherwise all keys are revoked.
  --revoke keys       all keys of all workspaces.
  --revoke root-keys  all root keys of all workspaces. Make a new administrator with: ostiary recover

Examples:
  ostiary restore ostiary.backup --data-dir /var/lib/ostiary
  ostiary restore ostiary.backup --data-dir /var/lib/ostiary --replace --revoke changed

Exit codes: 0 it is restored; 1 it is not, and nothing has changed; 2 the command line can't be followed.")]
pub struct Restore {
    /// The backup; - is standard input.
    pub file: PathBuf,

    /// Where the store lies.
    #[command(flatten)]
    pub lying: Lying,

    /// Put the restored store in the place of the one that is there, which is kept beside it under another name.
    #[arg(long)]
    pub replace: bool,

    /// What else to end, see below. May be given more than once, or separated by commas.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub revoke: Vec<Revoke>,
}

/// What to end in a restored store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Revoke {
    /// What has changed since, by the store that is replaced. Needs --replace.
    Changed,
    /// All keys of all workspaces.
    Keys,
    /// All root keys of all workspaces.
    RootKeys,
}

/// Looking whether a store or a backup is what was written.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Of a store every page and every row is read and compared with its checksum, the indexes are compared with what they are
of, and the chain of the audit log is followed. Of a backup every row is read, and all of it is compared with the digest
at its end.

Examples:
  ostiary check --data-dir /var/lib/ostiary
  ostiary check --backup ostiary.backup

Exit codes: 0 it is sound; 1 it is not, or can't be read; 2 the command line can't be followed.")]
pub struct Check {
    /// Where the store lies.
    #[command(flatten)]
    pub lying: Lying,

    /// Check this backup instead of a store; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub backup: Option<PathBuf>,
}

/// Making an administrator when nobody has the secret of one.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Whoever can write the store's file can do this; it needs no root key. The new root key is in the operator workspace,
holds *.*.* and workspaces.*.*, never expires, may be used from anywhere, and stands in the audit log as the event
root_key.recover of the operator. Nothing else is changed: disable or delete what should no longer be good with it.

The secret is the only thing on standard output, and is shown this once.

Example:
  umask 077; ostiary recover --data-dir /var/lib/ostiary > administrator.key

Exit codes: 0 it is made; 1 it is not, and nothing has changed; 2 the command line can't be followed.")]
pub struct Recover {
    /// Where the store lies.
    #[command(flatten)]
    pub lying: Lying,

    /// What the new root key is called.
    #[arg(long, default_value = "recovered administrator", value_parser = name)]
    pub name: Name,
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text, ROOT_KEY_NAME).map_err(|flaw| flaw.to_string())
}
