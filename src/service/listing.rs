//! Lists, a page at a time.
//!
//! A page's token says after which row to go on. It is authenticated, and bound to the method, the filter and the
//! workspace, so that it opens nothing else. Rows come in the order of their keys, so inserts and deletes between two
//! pages neither repeat nor skip a row that was there all the time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::id::WorkspaceId;
use crate::error::Error;
use crate::store::records::Record;
use crate::store::tables::{Part, Table};

use super::{Ostiary, Reading};

/// Rows on a page unless the caller says otherwise.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// Rows on a page at most.
pub const PAGE_SIZE_MAX: usize = 1_000;
/// Bytes on a page, about: generated clients take messages of up to 4 MiB unless told otherwise.
pub(super) const PAGE_BYTES_MAX: usize = 2 << 20;
/// Bytes that an item takes besides what makes it larger than others.
pub(super) const ITEM_BYTES: usize = 1_024;
/// Rows looked at for one page at most; a filter that few rows pass gets shorter pages, not slower calls.
const ROWS_SCANNED_MAX: usize = 20_000;
/// Rows fetched at a time.
const CHUNK: usize = 200;
/// Bytes of the authentication code in a token.
const CODE_LENGTH: usize = 16;

/// Which page of which list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// How many rows.
    pub size: usize,
    /// Where to go on, as the page before said; empty for the first page.
    pub token: String,
    /// What the token is good for: a digest of the method and the filter.
    pub binding: [u8; 32],
}

/// Some rows, and how to get the next ones.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The token of the next page; empty if this is the last one.
    pub next: String,
}

/// A walk through the rows of a table that share a prefix.
pub(super) struct Walk<'a, K: 'static, R: 'static, P> {
    table: &'static Table<K, R>,
    prefix: P,
    page: &'a PageRequest,
    seal: Seal,
    after: Option<K>,
    chunk: std::vec::IntoIter<(K, R)>,
    scanned: usize,
    taken: usize,
    bytes: usize,
    ended: bool,
}

impl Ostiary {
    /// What makes tokens that are good for this alone, and for the rows of one workspace: those under a prefix.
    pub(super) fn seal(&self, binding: [u8; 32], prefix: &impl Part) -> Seal {
        let mut scope = Vec::new();
        prefix.write(&mut scope);
        Seal { key: self.page_key, binding, scope }
    }

    /// Begins a walk where the page's token says.
    pub(super) fn walk<'a, K: Part + 'static, R: Record<K> + 'static, P: Part>(
        &self,
        table: &'static Table<K, R>,
        prefix: P,
        page: &'a PageRequest,
    ) -> Result<Walk<'a, K, R, P>, Error> {
        let seal = self.seal(page.binding, &prefix);
        let after = if page.token.is_empty() { None } else { Some(seal.open(&page.token)?) };
        Ok(Walk {
            table,
            prefix,
            page,
            seal,
            after,
            chunk: Vec::new().into_iter(),
            scanned: 0,
            taken: 0,
            bytes: 0,
            ended: false,
        })
    }
}

impl<K: Part + Clone + 'static, R: Record<K> + 'static, P: Part> Walk<'_, K, R, P> {
    /// The next row, until there are no more or enough has been looked at.
    pub async fn next(&mut self, reading: &Reading) -> Result<Option<(K, R)>, Error> {
        if self.scanned >= ROWS_SCANNED_MAX {
            return Ok(None);
        }
        if self.chunk.len() == 0 {
            let rows = self.table.list(reading.view(), &self.prefix, self.after.as_ref(), CHUNK).await?;
            self.chunk = rows.into_iter();
        }
        match self.chunk.next() {
            Some((key, row)) => {
                self.scanned += 1;
                self.after = Some(key.clone());
                Ok(Some((key, row)))
            }
            None => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    /// Notes that the last row is on the page with about so many bytes; whether the page is full with it.
    pub fn took(&mut self, bytes: usize) -> bool {
        self.taken += 1;
        self.bytes += bytes;
        self.taken >= self.page.size || self.bytes >= PAGE_BYTES_MAX
    }

    /// The page with these rows on it, and the way to the next one if there are more rows to look at.
    pub async fn page<T>(self, reading: &Reading, items: Vec<T>) -> Result<Page<T>, Error> {
        let Self { table, prefix, seal, after, chunk, ended, .. } = self;
        let Some(last) = after.filter(|_| !ended) else { return Ok(Page { items, next: String::new() }) };
        let more = chunk.len() > 0 || !table.list(reading.view(), &prefix, Some(&last), 1).await?.is_empty();
        Ok(Page { items, next: if more { seal.close(&last) } else { String::new() } })
    }
}

/// What makes a token and knows it again.
pub(super) struct Seal {
    key: [u8; 32],
    binding: [u8; 32],
    scope: Vec<u8>,
}

impl Seal {
    fn code(&self, place: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length of key will do");
        mac.update(&self.binding);
        mac.update(&(self.scope.len() as u64).to_be_bytes());
        mac.update(&self.scope);
        mac.update(place);
        mac
    }

    /// The token of the row with this key.
    pub(super) fn close(&self, key: &impl Part) -> String {
        let mut bytes = Vec::new();
        key.write(&mut bytes);
        let code = self.code(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&code[..CODE_LENGTH]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key of the row that a token stands for.
    pub(super) fn open<K: Part>(&self, token: &str) -> Result<K, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::PageToken)?;
        let split = bytes.len().checked_sub(CODE_LENGTH).ok_or(Error::PageToken)?;
        let (place, code) = bytes.split_at(split);
        self.code(place).verify_truncated_left(code).map_err(|_| Error::PageToken)?;
        let mut rest = place;
        K::read(&mut rest).filter(|_| rest.is_empty()).ok_or(Error::PageToken)
    }
}

/// The prefix of the rows of one workspace.
pub(super) fn of(workspace: WorkspaceId) -> (WorkspaceId,) {
    (workspace,)
}
