//! Taking backups: everything that is stored, at one moment, written down while calls go on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::audit::{EventName, Happening};
use crate::domain::backup::{Header, KEY_LENGTH_MAX, VALUE_LENGTH_MAX, Writer};
use crate::domain::capability::Capability;
use crate::domain::value::Facts;
use crate::error::Error;
use crate::store::txn::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::store::{FORMAT_VERSION, tables};
use crate::world::World;

use super::caller::Caller;
use super::change::Effect;
use super::{Done, Ostiary, Reading, Revision, Run, workspaces};

/// Bytes of a piece at most.
pub const PIECE_LENGTH_MAX: usize = 256 << 10;
/// Rows read at a time; others come in between.
const CHUNK: usize = 256;
/// The shortest rest that a timer can give.
const REST_MIN: Duration = Duration::from_millis(1);
/// The longest rest between two pieces.
const REST_MAX: Duration = Duration::from_millis(50);

// Whatever the store can hold, a backup can.
const _: () = assert!(KEY_LENGTH_MAX >= KEY_BYTES_MAX && VALUE_LENGTH_MAX >= VALUE_BYTES_MAX);

/// A backup that is being taken. While it lives the store keeps what is deleted meanwhile.
pub struct Backup {
    world: Arc<World>,
    reading: Reading,
    writer: Writer,
    /// The last row that is written down.
    after: Option<Bytes>,
    ended: bool,
}

impl Ostiary {
    /// Begins a backup of a state at least as new as `min_revision`. The log says so first, so the backup says so too.
    pub async fn back_up(&self, caller: &Caller, min_revision: Option<Revision>) -> Result<Done<Backup>, Error> {
        let permit = caller.permit(Capability::Backup)?;
        // What was never reached is refused before anything is written.
        self.read(min_revision).await?;
        self.change(permit, Run::Apply, |change| {
            change.insist_all(Capability::Backup)?;
            let target = workspaces::target(change.home());
            Ok(Effect::Changed((), Happening::made(EventName::STORE_BACKUP, target, Facts::new())))
        })
        .await?;
        let reading = self.read(None).await?;
        let Revision { epoch, counter } = reading.view().revision();
        let writer = Writer::new(&Header {
            store_format: FORMAT_VERSION,
            epoch,
            counter,
            time: reading.now,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let revision = reading.view().revision();
        let backup = Backup { world: Arc::clone(&self.world), reading, writer, after: None, ended: false };
        Ok(Done { answer: backup, revision })
    }
}

impl Backup {
    /// The next bytes of it; none once all have been given.
    ///
    /// It rests as long as it works, so that it never takes more than half of a thread from those who ask.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let stopwatch = self.world.stopwatch();
        while !self.ended && self.writer.length() < PIECE_LENGTH_MAX {
            self.write_down().await?;
            tokio::task::yield_now().await;
        }
        let piece = self.writer.take(PIECE_LENGTH_MAX);
        let rest = stopwatch.elapsed();
        if rest >= REST_MIN {
            tokio::time::sleep(rest.min(REST_MAX)).await;
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    async fn write_down(&mut self) -> Result<(), Error> {
        let rows = tables::rows(self.reading.view(), self.after.as_deref(), CHUNK).await?;
        self.ended = rows.len() < CHUNK;
        for (key, value) in &rows {
            self.writer.row(key, value).map_err(|damage| Error::Internal(format!("a backup: {damage}")))?;
        }
        if let Some((key, _)) = rows.into_iter().last() {
            self.after = Some(key);
        }
        if self.ended {
            self.writer.end();
        }
        Ok(())
    }
}
