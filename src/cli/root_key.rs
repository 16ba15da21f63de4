//! The root key of the caller: from the environment or a file, never from an argument.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::domain::secret::Secret;

use super::failure::Failure;

/// The variable that holds it.
const VARIABLE: &str = "OSTIARY_ROOT_KEY";
/// The variable that names the file that holds it.
const FILE_VARIABLE: &str = "OSTIARY_ROOT_KEY_FILE";
/// The permission bits of group and others, none of which may be set.
const OTHERS: u32 = 0o077;
/// More than any root key has.
const BYTES_MAX: u64 = 1_024;

/// The root key that the environment holds or points at.
///
/// # Errors
/// None, two, or one that is not as it must be.
pub fn find(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Secret, Failure> {
    // Emptying a variable is how shells unset it for one command.
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let (source, text) = match (set(VARIABLE), set(FILE_VARIABLE)) {
        (Some(_), Some(_)) => {
            return Err(Failure::Misused(format!("{VARIABLE} and {FILE_VARIABLE} are both set; unset one of them")));
        }
        (None, None) => {
            return Err(Failure::Misused(format!(
                "no root key: set {VARIABLE}, or {FILE_VARIABLE} to the path of a file that holds one"
            )));
        }
        (Some(value), None) => {
            let text = value.into_string().map_err(|_| malformed(VARIABLE));
            (VARIABLE, Zeroizing::new(text?))
        }
        (None, Some(path)) => (FILE_VARIABLE, read(&PathBuf::from(path))?),
    };
    let root_key = text.trim();
    if root_key.is_empty() || !root_key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed(source));
    }
    Ok(Secret::presented(root_key.to_owned()))
}

fn malformed(source: &str) -> Failure {
    Failure::Misused(format!("{source}: must be a root key, visible ASCII characters without spaces"))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let refused = |why: String| Failure::Misused(format!("{FILE_VARIABLE}: {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
    if metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(refused(format!("other users can read it (mode {mode:04o}); run: chmod 600 {}", path.display())));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| refused(error.to_string()))?;
    Ok(text)
}
