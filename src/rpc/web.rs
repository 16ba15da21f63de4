//! gRPC-Web: calls from browsers, over HTTP/1.1 or HTTP/2, in the form that those can send.

use http::{HeaderName, HeaderValue, Method};
use hyper_util::service::TowerToHyperService;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::Layer as _;
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

use super::front::{Front, REQUEST_ID};

/// What pages may send: what their clients put in a call, and what ostiary reads.
const SENT: [HeaderName; 8] = [
    http::header::AUTHORIZATION,
    http::header::CONTENT_TYPE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
    REQUEST_ID,
];
/// What pages may see of an answer.
const SEEN: [HeaderName; 4] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    REQUEST_ID,
];

/// Takes calls in either form.
pub type EitherWay = TowerToHyperService<Cors<GrpcWebService<Front>>>;

/// Which pages may call.
#[derive(Clone)]
pub struct Web(CorsLayer);

impl Web {
    /// Those of these origins, and whoever calls without being a page.
    pub fn new(origins: Vec<HeaderValue>) -> Self {
        let rules = CorsLayer::new().allow_origin(AllowOrigin::list(origins)).allow_methods([Method::POST]);
        Self(rules.allow_headers(SENT).expose_headers(SEEN))
    }

    /// A front that takes calls in either form.
    pub fn before(&self, front: Front) -> EitherWay {
        TowerToHyperService::new(self.0.layer(GrpcWebLayer::new().layer(front)))
    }
}
