//! A snapshot of the file, read on the thread that asks.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::redb::{ReadOnlyTable, ReadableDatabase, StorageError};
use bytes::Bytes;
use futures::future::{BoxFuture, ready};

use super::super::{Failure, Revision, Row, View, reserved, shown};
use super::file::{HEAD_ROW, ROWS, failure, number};
use super::{OPENING_WAITED_FOR, Open, Readable, Shared};

pub(super) struct RedbView {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    revision: Revision,
    opening: u64,
    shared: Arc<Shared>,
}

impl RedbView {
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self, Failure> {
        let open = shared.open.read();
        let Some(Open { database, opening }) = &*open else {
            return Err(shared.why_not_open());
        };
        let snapshot = || -> Result<_, ::redb::Error> {
            let rows = database.begin_read()?.open_table(ROWS)?;
            let counter = number(&rows, HEAD_ROW)?;
            Ok((rows, counter))
        };
        let (rows, counter) = shared.reading(*opening, snapshot)?;
        let counter = counter.ok_or_else(|| Failure::Corrupt("the row of the revision makes no sense".to_owned()))?;
        let revision = Revision { epoch: shared.epoch, counter };
        Ok(Self { rows, revision, opening: *opening, shared: Arc::clone(shared) })
    }

    fn point(&self, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        if reserved(key) {
            return Ok(None);
        }
        let value = || -> Result<_, StorageError> { Ok(self.rows.get(key)?.map(|row| copied(row.value()))) };
        self.shared.reading(self.opening, value)
    }

    fn range(&self, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, Failure> {
        let Some(Range { start, end }) = shown(range, limit)? else {
            return Ok(Vec::new());
        };
        self.shared.reading(self.opening, || -> Result<_, StorageError> {
            let rows = self.rows.range(start.as_slice()..end.as_slice())?.take(limit);
            rows.map(|row| row.map(|(key, value)| (copied(key.value()), copied(value.value())))).collect()
        })
    }
}

impl View for RedbView {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, Failure>> {
        Box::pin(ready(self.point(key)))
    }

    fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> BoxFuture<'_, Result<Vec<Row>, Failure>> {
        Box::pin(ready(self.range(range, limit)))
    }
}

impl Shared {
    /// A view once the file is open again, if that is being done and does not take long.
    pub(super) async fn view_later(self: &Arc<Self>) -> Result<RedbView, Failure> {
        let failed = self.open.read().as_ref().map(|open| open.opening);
        let mut readable = self.readable.subscribe();
        let again = readable.wait_for(|readable| match readable {
            // The writer has not noticed yet what this reader has.
            Readable::Yes(opening) => Some(*opening) != failed,
            Readable::Soon => false,
            Readable::No => true,
        });
        // However that ended, whoever asked is told how it is now.
        let _ = tokio::time::timeout(OPENING_WAITED_FOR, again).await;
        RedbView::new(self)
    }

    fn why_not_open(&self) -> Failure {
        if *self.ended.borrow() {
            Failure::Closed
        } else {
            Failure::Unavailable("the store is being opened again after an error".to_owned())
        }
    }

    /// Reads from one opening of the file, and asks for another if that one has failed.
    fn reading<T, E: Into<::redb::Error>>(
        &self,
        opening: u64,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Failure> {
        // redb panics on pages that make no sense, and is not to be trusted after that.
        let Ok(read) = catch_unwind(AssertUnwindSafe(read)) else {
            let failure = Failure::Corrupt("a page makes no sense".to_owned());
            self.queue.reopen(opening, &failure);
            return Err(failure);
        };
        read.map_err(|error| match error.into() {
            ::redb::Error::DatabaseClosed => self.why_not_open(),
            error @ (::redb::Error::Io(_) | ::redb::Error::PreviousIo) => {
                let failure = failure(error);
                self.queue.reopen(opening, &failure);
                failure
            }
            error => failure(error),
        })
    }
}

pub(super) fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
