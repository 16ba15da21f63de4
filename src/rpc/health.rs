//! The standard health service, whose streams end when the server closes.

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

/// Bytes of a question that anybody may ask: the name of a service, or of a symbol.
pub const QUESTION_BYTES_MAX: usize = 4 << 10;

/// Tells what works.
struct Wellbeing {
    known: HealthService,
    closing: CancellationToken,
}

/// Tells what was reported, to those who watch until `closing` is cancelled.
pub fn service(reporter: HealthReporter, closing: CancellationToken) -> HealthServer<impl Health> {
    let wellbeing = Wellbeing { known: HealthService::from_health_reporter(reporter), closing };
    HealthServer::new(wellbeing).max_decoding_message_size(QUESTION_BYTES_MAX)
}

#[tonic::async_trait]
impl Health for Wellbeing {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.known.check(request).await
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let news = self.known.watch(request).await?.into_inner();
        let told = stream::unfold((news, self.closing.clone()), |(mut news, closing)| async move {
            let next = tokio::select! {
                biased;
                next = news.next() => next,
                // The last news is that nothing works any more. It came before this, so it is there by now.
                () = closing.cancelled() => news.next().now_or_never().flatten(),
            };
            next.map(|next| (next, (news, closing)))
        });
        Ok(Response::new(told.boxed()))
    }
}
