//! The command line for people and scripts: a client of the API like any other, over TCP or a socket.
//!
//! It knows the messages of the API and nothing of the server that answers them. On standard output stands what was asked
//! for and nothing else; questions, hints and complaints go to standard error. No secret is taken from an argument or
//! shown in an error.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;

use crate::domain::secret::Secret;
use crate::world::World;

mod acting;
mod apis;
mod audit;
mod backup;
mod calling;
mod client;
mod completions;
mod failure;
mod flags;
mod health;
mod identities;
mod importing;
mod json;
mod keys;
mod limits;
mod namespaces;
mod output;
mod overrides;
mod paging;
mod permissions;
mod prompt;
mod roles;
mod root_key;
mod root_keys;
mod server;
mod verify;
mod workspaces;

use failure::Failure;

/// What the exit codes mean.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; for verify: the key is good; for health: SERVING
  1  failed, or declined when asked
  2  the command line, a file it names or a field of the request is wrong, or no root key is set
  3  the root key is not recognised, or not permitted to do this
  4  no such object
  5  a conflict: it exists already, has changed since, or can't be done to it now
  6  the server is away, does not serve, has too much to do or takes too long
  7  for verify: the key is not good
  8  for import: some rows were not imported";

/// Where root keys come from, and the life of one.
const GUIDE: &str = "\
All commands but serve, config, generate-root-key and completions call a server,
by default http://127.0.0.1:50051; --server or OSTIARY_SERVER names another.
restore, check and recover work on a data directory that no server has open. The
root key is in OSTIARY_ROOT_KEY, or in the file that OSTIARY_ROOT_KEY_FILE
names, which only its owner may be able to read. It is never an argument, where
others could see it.

The life of a root key:
  export OSTIARY_ROOT_KEY_FILE=ostiary-data/first-root-key
  umask 077
  ostiary root-key create --name documents --permission 'apis.*.verify_key' > key
  ostiary root-key list
  ostiary root-key show ROOT_KEY_ID --usage
  ostiary root-key update ROOT_KEY_ID --expires-in 90d
  ostiary root-key rotate ROOT_KEY_ID --grace 1h > new.key
  ostiary root-key delete ROOT_KEY_ID";

/// What the whole program says of itself: how to use it, and [`EXIT_CODES`].
pub fn guide() -> String {
    format!("{GUIDE}\n\n{EXIT_CODES}")
}

/// What can be asked of a server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Root keys: what authenticates your servers to ostiary.
    RootKey(root_keys::RootKeys),
    /// APIs: named sets of keys.
    Api(apis::Apis),
    /// Keys: what your customers hold.
    Key(keys::Keys),
    /// Roles: named sets of permissions that keys hold.
    Role(roles::Roles),
    /// Permissions: what keys may do at your services.
    Permission(permissions::Permissions),
    /// Identities: your users or organisations, whose keys share rate limits.
    Identity(identities::Identities),
    /// Namespaces: where you count what you name yourself, such as sign-ins by address.
    Namespace(namespaces::Namespaces),
    /// Overrides: other limits for some of those who are counted in a namespace.
    Override(overrides::Overrides),
    /// Workspaces: the tenants of an installation. For a root key of the operator's workspace.
    Workspace(workspaces::Workspaces),
    /// Tell whether a key is good. The key is read from standard input or a file.
    Verify(verify::Verify),
    /// Import keys that were issued elsewhere, by the digests of their secrets. The same as `key import`.
    Import(importing::Import),
    /// The audit log: who did what, from where, in which call.
    Audit(audit::Audit),
    /// Take a backup of everything, while calls go on. See also `restore` and `check`.
    Backup(backup::Backup),
    /// Tell which ostiary answers: its version, its clock, and since when it is there.
    Server(server::Server),
    /// Tell whether a server serves, for probes. Needs no root key.
    Health(health::Health),
    /// Print a script that completes commands and flags in a shell.
    Completions(completions::Completions),
}

/// What commands need of the process that they run in.
pub struct Surroundings<'a> {
    /// Time and randomness.
    pub world: &'a World,
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The whole command line, as it is understood.
    pub grammar: clap::Command,
}

/// Does it, and says on standard error what went wrong.
pub fn run(command: Command, surroundings: &Surroundings<'_>) -> ExitCode {
    match done(command, surroundings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(complaint) = failure.complaint() {
                // Nothing can be done if even that fails.
                let _ = writeln!(std::io::stderr(), "ostiary: {complaint}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn done(command: Command, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Broken(format!("nothing can be run: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::RootKey(root_keys) => root_keys.run(surroundings).await,
            Command::Api(apis) => apis.run(surroundings).await,
            Command::Key(keys) => keys.run(surroundings).await,
            Command::Role(roles) => roles.run(surroundings).await,
            Command::Permission(permissions) => permissions.run(surroundings).await,
            Command::Identity(identities) => identities.run(surroundings).await,
            Command::Namespace(namespaces) => namespaces.run(surroundings).await,
            Command::Override(overrides) => overrides.run(surroundings).await,
            Command::Workspace(workspaces) => workspaces.run(surroundings).await,
            Command::Verify(verify) => verify.run(surroundings).await,
            Command::Import(import) => import.run(surroundings).await,
            Command::Audit(audit) => audit.run(surroundings).await,
            Command::Backup(backup) => backup.run(surroundings).await,
            Command::Server(server) => server.run(surroundings).await,
            Command::Health(health) => health.run().await,
            Command::Completions(completions) => completions.run(surroundings.grammar.clone()),
        }
    })
}

/// Refuses arguments of which one is a secret: by then others may have read it, and a complaint about the argument would
/// repeat it.
///
/// # Errors
/// A sentence that does not hold the secret.
pub fn refuse_secrets(arguments: impl Iterator<Item = OsString>) -> Result<(), String> {
    for (place, argument) in arguments.enumerate().skip(1) {
        let text = argument.to_string_lossy();
        let value = text.rsplit_once('=').map_or(&*text, |(_, value)| value);
        if Secret::presented(value.to_owned()).well_formed() {
            return Err(format!(
                "argument {place} is a secret; others on this machine can read arguments, so replace that key; root keys \
                 are read from OSTIARY_ROOT_KEY or OSTIARY_ROOT_KEY_FILE, keys from standard input"
            ));
        }
    }
    Ok(())
}
