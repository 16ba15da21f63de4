//! Looking at records, remembered ones first.
//!
//! What is seen hangs together. A sight keeps in mind how old each record is that it has seen; when all are together it
//! asks the marks again. If a commit has changed any of them meanwhile, what was seen is thrown away and everything is
//! looked at anew, in a single view. So an answer never mixes two states, and one that begins after a change was
//! acknowledged reflects it.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::card::{Card, Traits};
use crate::domain::id::WorkspaceId;
use crate::domain::import::Algorithm;
use crate::domain::key::Key;
use crate::domain::root_key::RootKey;
use crate::domain::secret::{Digest, Secret};
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::store::cache::{Cache, Entry, Place};
use crate::store::marks::Spot;
use crate::store::records::Record;
use crate::store::tables::{self, Part, Table};
use crate::store::{Revision, View};

use super::Ostiary;

/// Different traits that are known before those are let go that no key has any more.
const TRAITS_MIN: usize = 1_024;

/// What is remembered between calls.
pub struct Memory {
    cache: Cache,
    epoch: u64,
    traits: Mutex<Pool>,
}

/// Traits that keys have in common.
#[derive(Default)]
struct Pool {
    known: HashSet<Arc<Traits>>,
    /// How many there may be before they are sifted.
    room: usize,
}

impl Memory {
    /// Nothing yet, for the store of this epoch.
    pub(super) fn new(cache: Cache, epoch: u64) -> Self {
        Self { cache, epoch, traits: Mutex::default() }
    }

    /// The newest revision there is.
    pub(super) fn head(&self) -> Revision {
        Revision { epoch: self.epoch, counter: self.cache.marks().head() }
    }

    /// How many records were asked for and remembered, and how many had to be read.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        self.cache.hits_and_misses()
    }

    /// The card of a key, and whether its traits are new.
    fn card(&self, key: &Key) -> (Card, bool) {
        let mut new = false;
        let card = Card::of(key, |traits| {
            let mut pool = self.traits.lock();
            if let Some(known) = pool.known.get(&traits) {
                return Arc::clone(known);
            }
            if pool.known.len() >= pool.room {
                pool.known.retain(|traits| Arc::strong_count(traits) > 1);
                pool.room = TRAITS_MIN.max(2 * pool.known.len());
            }
            new = true;
            let traits = Arc::new(traits);
            pool.known.insert(Arc::clone(&traits));
            traits
        });
        (card, new)
    }
}

/// One look at some records.
pub(super) struct Sight<'a> {
    ostiary: &'a Ostiary,
    /// Whether what is remembered counts.
    remembering: bool,
    view: Option<Box<dyn View>>,
    seen: Vec<(Spot, u64)>,
    misses: u64,
}

/// A record that was looked at. It stays what it was, whatever happens to the row.
pub(super) type Seen<R> = Arc<Entry<R>>;

impl<'a> Sight<'a> {
    /// Looks at what is remembered, and at the store where nothing is.
    pub fn remembering(ostiary: &'a Ostiary) -> Self {
        Self { ostiary, remembering: true, view: None, seen: Vec::with_capacity(8), misses: 0 }
    }

    /// Looks at everything in this view.
    pub fn anew(ostiary: &'a Ostiary, view: Box<dyn View>) -> Self {
        Self { ostiary, remembering: false, view: Some(view), seen: Vec::new(), misses: 0 }
    }

    /// Includes what was looked at before.
    pub fn include<R>(&mut self, entry: &Seen<R>) {
        self.seen.push((entry.spot, entry.revision));
    }

    /// The state that all that was seen hangs together in; none if it does not.
    pub fn holds_at(&self) -> Option<Revision> {
        let memory = &self.ostiary.memory;
        memory.cache.count((self.seen.len() as u64).saturating_sub(self.misses), self.misses);
        if !self.remembering {
            return self.view.as_ref().map(|view| view.revision());
        }
        // The marks of every commit up to this one were up before it could be seen here.
        let head = memory.head();
        let marks = memory.cache.marks();
        self.seen.iter().all(|(spot, revision)| marks.holds(*spot, *revision)).then_some(head)
    }

    /// The record of a row.
    pub async fn record<K, R>(&mut self, table: &Table<K, R>, key: &K) -> Result<Option<Seen<R>>, Error>
    where
        K: Part,
        R: Record<K> + Send + Sync + 'static,
    {
        let cache = &self.ostiary.memory.cache;
        let (place, spot) = table.place(cache.marks(), key);
        if let Some(entry) = self.remembered(&place) {
            return Ok(Some(entry));
        }
        let view = self.view().await?;
        let revision = view.revision().counter;
        let Some((record, length)) = table.read_with_length(view, key).await? else { return Ok(None) };
        Ok(Some(self.keep(place, Entry { record, spot, revision }, 2 * length)))
    }

    /// The root key with this digest.
    pub async fn root_key(&mut self, digest: Digest) -> Result<Option<Seen<RootKey>>, Error> {
        let marks = self.ostiary.memory.cache.marks();
        let by_digest = (digest.bytes(),);
        let (place, _) = tables::ROOT_KEY_DIGESTS.place(marks, &by_digest);
        if let Some(entry) = self.remembered(&place) {
            return Ok(Some(entry));
        }
        let view = self.view().await?;
        let revision = view.revision().counter;
        let Some(row) = tables::ROOT_KEY_DIGESTS.read(view, &by_digest).await? else { return Ok(None) };
        let Some((record, length)) = tables::ROOT_KEYS.read_with_length(view, &row).await? else { return Ok(None) };
        // The mark is that of the root key itself: its digest goes only with it.
        let (_, spot) = tables::ROOT_KEYS.place(marks, &row);
        Ok(Some(self.keep(place, Entry { record, spot, revision }, 2 * length)))
    }

    /// The card of the key that a secret belongs to.
    ///
    /// A wrong checksum is refused before anything is looked up, unless the workspace has ever imported keys, whose
    /// secrets have other shapes.
    pub async fn card(&mut self, home: &Workspace, secret: &Secret) -> Result<Option<Seen<Card>>, Error> {
        for digest in digests(home, secret) {
            if let Some(card) = self.card_of_digest(home.id, digest).await? {
                return Ok(Some(card));
            }
        }
        Ok(None)
    }

    async fn card_of_digest(&mut self, workspace: WorkspaceId, digest: Digest) -> Result<Option<Seen<Card>>, Error> {
        let memory = &self.ostiary.memory;
        let by_digest = (workspace, digest.bytes());
        let (place, _) = tables::KEY_DIGESTS.place(memory.cache.marks(), &by_digest);
        if let Some(entry) = self.remembered(&place) {
            return Ok(Some(entry));
        }
        let view = self.view().await?;
        let revision = view.revision().counter;
        let Some(id) = tables::KEY_DIGESTS.read(view, &by_digest).await? else { return Ok(None) };
        let row = (workspace, id);
        let Some((key, length)) = tables::KEYS.read_with_length(view, &row).await? else { return Ok(None) };
        // The mark is that of the key itself: its digest goes only with it.
        let (_, spot) = tables::KEYS.place(memory.cache.marks(), &row);
        let (card, new) = memory.card(&key);
        let heap = if new { 2 * length } else { 0 };
        Ok(Some(self.keep(place, Entry { record: card, spot, revision }, heap)))
    }

    /// The view that shows what is not remembered.
    pub async fn view(&mut self) -> Result<&dyn View, Error> {
        let view = match self.view.take() {
            Some(view) => view,
            None => self.ostiary.engine.view().await?,
        };
        Ok(&**self.view.insert(view))
    }

    fn remembered<R: Send + Sync + 'static>(&mut self, place: &Place) -> Option<Seen<R>> {
        let cache = &self.ostiary.memory.cache;
        let entry = self.remembering.then(|| cache.get::<R>(place)).flatten()?;
        self.include(&entry);
        Some(entry)
    }

    fn keep<R: Send + Sync + 'static>(&mut self, place: Place, entry: Entry<R>, heap: usize) -> Seen<R> {
        let entry = self.ostiary.memory.cache.put(place, entry, heap);
        self.include(&entry);
        self.misses += 1;
        entry
    }
}

/// What a secret may be found by.
pub(super) fn digests<'a>(home: &'a Workspace, secret: &'a Secret) -> impl Iterator<Item = Digest> + use<'a> {
    let issued = secret.well_formed().then_some(Algorithm::Sha256);
    let imported = home.imported.iter().copied().filter(move |algorithm| issued != Some(*algorithm));
    issued.into_iter().chain(imported).filter_map(|algorithm| algorithm.digest(secret))
}
