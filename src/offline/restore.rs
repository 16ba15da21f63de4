//! `ostiary restore`: a store out of a backup.
//!
//! The store is made under a name of its own while the backup is read, and gets its name only once all of the backup has
//! been verified. Whenever this is cut short, either the old store is in its place or the new one.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::offline::{Restore, Revoke};
use crate::domain::backup::Header;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::server::{STORE, data_directory};
use crate::service::unserved::{Ended, Ending, Unserved};
use crate::store::redb::{Loading, RedbEngine, hold};
use crate::store::{Engine as _, Revision};
use crate::world::World;

use super::source::Source;
use super::{Refusal, open_file, sync_directory, world};

/// Why nothing can be told of what has changed.
const INCOMPARABLE: &str = "--revoke changed: the store that is there is of another installation, or does not know all \
                            that the backup knows, so it does not tell what has changed since";

/// A restored store.
#[derive(Debug)]
pub struct Restored {
    /// Up to which revision it knows what has happened.
    pub knows: Revision,
    /// When that was.
    pub time: Timestamp,
    /// Its own revision now, in its own epoch.
    pub revision: Revision,
    /// How many rows the backup had.
    pub rows: u64,
    /// What was ended.
    pub ended: Vec<(Ending, Ended)>,
    /// Where the store is that was there before.
    pub kept: Option<PathBuf>,
}

impl Restored {
    /// What whoever restored it must know.
    pub fn warning(&self) -> String {
        let Self { knows, time, .. } = self;
        let known = format!("this store knows nothing of what happened after revision {knows} of {time}");
        if self.ended.is_empty() {
            format!(
                "warning: {known}: keys and root keys that were revoked, deleted, disabled or narrowed since are good \
                 again; see --revoke in the help"
            )
        } else {
            format!("{known}, but for what was ended")
        }
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { knows, time, revision, rows, ended, kept } = self;
        writeln!(f, "restored: {rows} rows, up to revision {knows} of {time}")?;
        for (ending, ended) in ended {
            let Ended { keys, root_keys, roles_and_permissions, apis, workspaces } = ended;
            let name = ending.name();
            writeln!(
                f,
                "ended, {name}: {keys} keys, {root_keys} root keys, {roles_and_permissions} roles and permissions, \
                 {apis} APIs, {workspaces} workspaces"
            )?;
        }
        if let Some(kept) = kept {
            writeln!(f, "the store that was there before: {}", kept.display())?;
        }
        write!(f, "its revision now: {revision}")
    }
}

/// Puts the store that a backup holds into a data directory.
///
/// # Errors
/// Why not; then nothing has changed.
pub async fn restore(wanted: Restore) -> Result<Restored, Refusal> {
    let Restore { file, lying, replace, revoke } = wanted;
    let directory = lying.data_dir;
    let endings = endings(&revoke);
    if endings.contains(&Ending::Changed) && !replace {
        return Err(Refusal::Misfit("--revoke changed compares with the store that is replaced: it needs --replace"));
    }
    let source = Source::open(&file)?;
    data_directory::prepare(&directory)?;
    let store = directory.join(STORE);
    let before = Before::hold(&store, replace, &endings)?;
    let hidden = directory.join(format!("{STORE}.restoring"));
    let epoch = u64::from_be_bytes(World::real(None).random());
    let loading = Loading::begin(&hidden, epoch)?;
    let restored = match made(source, loading, &hidden, &endings, &before).await {
        Ok(restored) => before.give_way(&hidden, &store, epoch).map(|kept| Restored { kept, ..restored }),
        Err(refusal) => Err(refusal),
    };
    before.let_go().await;
    forget(&hidden)?;
    sync_directory(&directory)?;
    restored
}

/// Each once, and in the order in which they are done.
fn endings(revoke: &[Revoke]) -> Vec<Ending> {
    let all = [(Revoke::Changed, Ending::Changed), (Revoke::Keys, Ending::Keys), (Revoke::RootKeys, Ending::RootKeys)];
    all.into_iter().filter(|(word, _)| revoke.contains(word)).map(|(_, ending)| ending).collect()
}

/// What was there before. No other process opens it as long as this lives.
enum Before {
    Nothing,
    /// A file, whatever is in it.
    File {
        _held: File,
    },
    /// A store that tells what has changed.
    Store(RedbEngine),
}

impl Before {
    fn hold(store: &Path, replace: bool, endings: &[Ending]) -> Result<Self, Refusal> {
        let compared = endings.contains(&Ending::Changed);
        if !store.try_exists().map_err(Refusal::file(store))? {
            return if compared { Err(Refusal::NoStore(store.to_owned())) } else { Ok(Self::Nothing) };
        }
        if !replace {
            return Err(Refusal::StoreThere(store.to_owned()));
        }
        if compared { Ok(Self::Store(open_file(store.to_owned())?)) } else { Ok(Self::File { _held: hold(store)? }) }
    }

    /// Lets others open it again.
    async fn let_go(self) {
        match self {
            Self::Nothing | Self::File { .. } => {}
            Self::Store(engine) => engine.close().await,
        }
    }

    /// Gives its name to the new store, and keeps what had it under another one.
    fn give_way(&self, hidden: &Path, store: &Path, epoch: u64) -> Result<Option<PathBuf>, Refusal> {
        let directory = store.parent().unwrap_or(Path::new("."));
        match self {
            Self::Nothing => {
                // Linking never replaces a store that another process made in the meantime.
                std::fs::hard_link(hidden, store).map_err(Refusal::file(store))?;
                Ok(None)
            }
            Self::File { .. } | Self::Store(_) => {
                let kept = directory.join(format!("{STORE}.replaced-by-{epoch:016x}"));
                std::fs::hard_link(store, &kept).map_err(Refusal::file(&kept))?;
                sync_directory(directory)?;
                std::fs::rename(hidden, store).map_err(Refusal::file(store))?;
                sync_directory(directory)?;
                Ok(Some(kept))
            }
        }
    }
}

/// Makes the new store, out of a backup that turns out to be whole.
async fn made(
    source: Source,
    mut loading: Loading,
    hidden: &Path,
    endings: &[Ending],
    before: &Before,
) -> Result<Restored, Refusal> {
    let (header, contents) = source.walk(|key, value| Ok(loading.put(key, value)?))?;
    loading.finish(header.counter)?;
    let engine = open_file(hidden.to_owned())?;
    let ended = end(&engine, &header, endings, before).await;
    engine.close().await;
    let (revision, ended) = ended?;
    let knows = Revision { epoch: header.epoch, counter: header.counter };
    Ok(Restored { knows, time: header.time, revision, rows: contents.rows(), ended, kept: None })
}

/// Records the restoring, and ends what is to be ended.
async fn end(
    engine: &RedbEngine,
    header: &Header,
    endings: &[Ending],
    before: &Before,
) -> Result<(Revision, Vec<(Ending, Ended)>), Refusal> {
    let world = world(engine).await?;
    let store = Unserved::new(engine, &world);
    store.record_restore(header, endings).await?;
    let mut all = Vec::new();
    for ending in endings {
        let ended = match (ending, before) {
            (Ending::Changed, Before::Store(before)) => {
                let since = before.view().await?;
                if !store.continues_in(since.as_ref(), header).await? {
                    return Err(Refusal::Misfit(INCOMPARABLE));
                }
                store.end_changed(since.as_ref()).await?
            }
            (Ending::Changed, Before::Nothing | Before::File { .. }) => {
                return Err(Error::Internal("there is nothing to compare with".to_owned()).into());
            }
            (Ending::Keys, _) => store.end_keys().await?,
            (Ending::RootKeys, _) => store.end_root_keys().await?,
        };
        all.push((*ending, ended));
    }
    Ok((engine.view().await?.revision(), all))
}

/// Removes what was made under the hidden name, if it is still there.
fn forget(hidden: &Path) -> Result<(), Refusal> {
    match std::fs::remove_file(hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Refusal::file(hidden)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
