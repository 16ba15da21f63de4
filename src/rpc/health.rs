//! The standard health service, whose streams end when the server closes.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

/// Tells what works.
struct Wellbeing {
    known: HealthService,
    closing: CancellationToken,
}

/// Tells what was reported, to those who watch until `closing` is cancelled.
pub fn service(reporter: HealthReporter, closing: CancellationToken) -> HealthServer<impl Health> {
    HealthServer::new(Wellbeing { known: HealthService::from_health_reporter(reporter), closing })
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
            // The last news is that nothing works any more: it is told before the stream ends.
            let next = tokio::select! {
                biased;
                next = news.next() => next,
                () = closing.cancelled() => None,
            };
            next.map(|next| (next, (news, closing)))
        });
        Ok(Response::new(told.boxed()))
    }
}
