//! From a secret to the record of its key.

use crate::domain::id::KeyId;
use crate::domain::key::Key;
use crate::domain::secret::{Handle, Secret};
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::store::{View, tables};

/// Keys that may have a handle in common. One that is drawn has it alone, except that a clock that was set back could
/// make it be drawn again.
const SAME_HANDLE_MAX: usize = 64;

/// A key as its row has it, whatever cuts have become of it since.
pub(in crate::service) struct Found {
    /// The record.
    pub key: Key,
    /// How many bytes its row has.
    pub length: usize,
}

/// The key that a secret belongs to.
///
/// A secret that was issued here says itself where its record lies; whether it is the right one, its digest says. If the
/// workspace has ever imported keys, those are looked for by the digests of their kinds.
pub(in crate::service) async fn find(
    view: &dyn View,
    home: &Workspace,
    secret: &Secret,
) -> Result<Option<Found>, Error> {
    // A wrong checksum is refused before anything is looked up.
    if secret.well_formed()
        && let Some(Handle(handle)) = secret.handle()
    {
        let digest = secret.digest();
        let rows = tables::KEYS.read_beginning_with(view, &(home.id, handle), SAME_HANDLE_MAX).await?;
        if let Some((_, key, length)) = rows.into_iter().find(|(_, key, _)| key.digest == digest) {
            return Ok(Some(Found { key, length }));
        }
    }
    let mut first: Option<KeyId> = None;
    for digest in home.imported.iter().filter_map(|algorithm| algorithm.digest(secret)) {
        let id = tables::KEY_DIGESTS.read(view, &(home.id, digest.bytes())).await?;
        // The one that was there first stays it: what is imported later takes no secret away from a key.
        first = first.into_iter().chain(id).min();
    }
    let Some(id) = first else { return Ok(None) };
    let found = tables::KEYS.read_with_length(view, &(home.id, id)).await?;
    Ok(found.map(|(key, length)| Found { key, length }))
}
