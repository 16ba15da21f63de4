//! `MaintenanceService`: looking after the installation as a whole.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::domain::capability::Capability;
use crate::error::Error;
use crate::pb::v1 as pb;
use crate::pb::v1::maintenance_service_server::MaintenanceService;
use crate::service::Done;
use crate::service::backups::Backup;

use super::convert::moment;
use super::fields::Fields;
use super::streams::{admissions, answers};
use super::{Desk, admitted, meta};

/// Pieces of a backup that are made before somebody takes them.
const PIECES_AHEAD: usize = 2;
/// How long a piece waits to be taken.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// How long a backup may take. What is deleted meanwhile is kept for it.
const ALL_WITHIN: Duration = Duration::from_secs(12 * 3_600);
/// Backups that are taken at a time.
pub(super) const BACKUPS_MAX: usize = 2;
/// When it is worth asking whether one of them is over.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// What is built in on demand, and whether it is.
const FEATURES: [(&str, bool); 2] = [("grpc-web", cfg!(feature = "grpc-web")), ("otlp", cfg!(feature = "otlp"))];

#[tonic::async_trait]
impl MaintenanceService for Desk {
    type BackupStream = BoxStream<'static, Result<pb::BackupResponse, Status>>;

    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let (caller, pb::BackupRequest { min_revision }) = admitted(request)?;
        let mut fields = Fields::default();
        let min_revision = fields.min_revision(&min_revision);
        let min_revision = fields.finish(min_revision)?;
        let place = Arc::clone(&self.backups).try_acquire_owned();
        let place = place.map_err(|_| Error::Overloaded { retry_after: RETRY_AFTER })?;
        let Done { answer: backup, revision } = self.ostiary.back_up(&caller, min_revision).await?;
        let pieces = made_ahead(pieces(backup, place), TAKEN_WITHIN, self.closing.clone());
        // Each piece goes to the caller as they are by then.
        let admitted = admissions(self, caller.clone(), Capability::Backup, pieces.map(Ok));
        let told = admitted.map(move |admitted| {
            let (caller, piece) = admitted?;
            Ok(pb::BackupResponse { meta: meta(&caller, revision), data: piece? })
        });
        Ok(answers(&caller, told))
    }

    async fn get_server_info(
        &self,
        request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::GetServerInfoResponse>, Status> {
        let (caller, pb::GetServerInfoRequest {}) = admitted(request)?;
        let server = pb::ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.iter().filter(|(_, there)| *there).map(|(name, _)| (*name).to_owned()).collect(),
            start_time: Some(moment(self.ostiary.started())),
            time: Some(moment(self.ostiary.world().now())),
        };
        let meta = meta(&caller, self.ostiary.head());
        Ok(Response::new(pb::GetServerInfoResponse { meta, server: Some(server) }))
    }
}

/// The pieces of a backup, which has its place until they are dropped.
fn pieces(backup: Backup, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Vec<u8>, Error>> + Send {
    stream::try_unfold((backup, place), |(mut backup, place)| async move {
        Ok(backup.piece().await?.map(|piece| (piece, (backup, place))))
    })
}

/// Makes pieces ahead of who takes them, a few. What nobody takes in time is given up, with what it holds in the store.
fn made_ahead(
    pieces: impl Stream<Item = Result<Vec<u8>, Error>> + Send + 'static,
    within: Duration,
    closing: CancellationToken,
) -> ReceiverStream<Result<Vec<u8>, Error>> {
    // One more place, so that there is always room to say why there is no more.
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD + 1);
    tokio::spawn(async move {
        let Ok(last) = sender.clone().reserve_owned().await else { return };
        let handing_over = async {
            let in_all = tokio::time::timeout(ALL_WITHIN, handed_over(pieces, &sender, within)).await;
            in_all.unwrap_or(Err(Error::DeadlineExceeded))
        };
        if let Some(Err(error)) = closing.run_until_cancelled(handing_over).await {
            last.send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

/// Hands over pieces until there are no more, or nobody takes them any more.
async fn handed_over(
    pieces: impl Stream<Item = Result<Vec<u8>, Error>>,
    sender: &mpsc::Sender<Result<Vec<u8>, Error>>,
    within: Duration,
) -> Result<(), Error> {
    let mut pieces = pin!(pieces);
    while let Some(piece) = pieces.next().await {
        match tokio::time::timeout(within, sender.send(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Error::DeadlineExceeded),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endless() -> impl Stream<Item = Result<Vec<u8>, Error>> + Send {
        stream::repeat_with(|| Ok(vec![0; 8]))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn whoever_takes_nothing_in_time_is_refused_the_rest() {
        let pieces = made_ahead(endless(), Duration::from_millis(10), CancellationToken::new());
        // Nothing is taken until it has been given up.
        while pieces.as_ref().len() <= PIECES_AHEAD {
            tokio::task::yield_now().await;
        }
        let taken: Vec<_> = pieces.collect().await;
        assert_eq!(taken.len(), PIECES_AHEAD + 1);
        assert_eq!(taken.last(), Some(&Err(Error::DeadlineExceeded)));
    }

    #[tokio::test]
    async fn whoever_takes_them_gets_all_and_they_end_with_the_server() {
        let some = stream::iter((0..100_u8).map(|number| Ok(vec![number])));
        let taken: Vec<_> = made_ahead(some, LONG, CancellationToken::new()).collect().await;
        assert_eq!(taken, (0..100_u8).map(|number| Ok(vec![number])).collect::<Vec<_>>());

        let closing = CancellationToken::new();
        let pieces = made_ahead(endless(), LONG, closing.clone());
        closing.cancel();
        assert!(pieces.collect::<Vec<_>>().await.len() <= PIECES_AHEAD);
    }
}
