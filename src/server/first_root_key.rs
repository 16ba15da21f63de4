//! The file with the first root key: the one plaintext on disk, for the operator to take and remove.
//!
//! It is written and synced before the store adopts it, so that a crash in between leaves a key that the next start
//! adopts, never a store that nobody has a key for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::domain::secret::{Prefix, Secret};
use crate::world::World;

use super::ServeError;
use super::data_directory::{OTHERS, failed, refused};
use crate::config::address::Address;

/// Its name in the data directory.
const FILE: &str = "first-root-key";
/// More than any root key has.
const BYTES_MAX: u64 = 1_024;

/// The secret that an empty store is to begin with: the operator's, else that of a start that was cut short, else a
/// new one, which is then on disk.
///
/// # Errors
/// What is wrong with the file and what to do.
pub fn obtain(directory: &Path, supplied: Option<&Path>, world: &World) -> Result<Secret, ServeError> {
    if let Some(path) = supplied {
        return read(path);
    }
    let path = directory.join(FILE);
    if path.exists() {
        return read(&path);
    }
    let secret = Secret::issue(&Prefix::root_key(), world.random());
    write(directory, &path, &secret).map_err(|error| failed(&path, "the first root key can't be written", &error))?;
    Ok(secret)
}

/// Refuses a file of the operator's that an empty store could not begin with.
///
/// # Errors
/// What is wrong with it and what to do.
pub fn examine(supplied: &Path) -> Result<(), ServeError> {
    read(supplied).map(drop)
}

fn read(path: &Path) -> Result<Secret, ServeError> {
    let unreadable = |error: io::Error| failed(path, "the first root key can't be read", &error);
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o777;
        let why = format!("other users can read this root key (mode {mode:04o}); run: chmod 600 {}", path.display());
        return Err(refused(path, why));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let secret = Secret::presented(text.trim().to_owned());
    if secret.has_prefix(&Prefix::root_key()) && secret.well_formed() {
        Ok(secret)
    } else {
        Err(refused(path, "does not hold a root key; make one with: ostiary generate-root-key"))
    }
}

/// Written under another name first, so that the file is there whole or not at all.
fn write(directory: &Path, path: &Path, secret: &Secret) -> io::Result<()> {
    let draft = directory.join(format!("{FILE}.new"));
    if draft.exists() {
        std::fs::remove_file(&draft)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let line = Zeroizing::new(format!("{}\n", secret.expose()));
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

/// Tells where the first root key is for as long as it lies there, and how to make a first call with it.
pub fn remind(directory: &Path, listen: &[Address], encrypted: bool) {
    let listen = listen.first();
    let plaintext = if encrypted && matches!(listen, Some(Address::Tcp(_))) { "" } else { "-plaintext " };
    let listen = listen.map(ToString::to_string).unwrap_or_default();
    let path: PathBuf = directory.join(FILE);
    if path.exists() {
        tracing::warn!(
            "the first root key is in {path}: take it and remove the file. A first call: \
             OSTIARY_ROOT_KEY=$(cat {path}) grpcurl {plaintext}-expand-headers \
             -H 'authorization: Bearer ${{OSTIARY_ROOT_KEY}}' {listen} ostiary.v1.RootKeyService/WhoAmI",
            path = path.display()
        );
    }
}
