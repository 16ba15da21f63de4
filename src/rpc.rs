//! The only layer that says gRPC.
//!
//! [`front`] is the envelope of every call, [`gate`] decides who gets in, and one file per service turns messages into
//! drafts and answers into messages. A handler asks three questions: who is asking, what do they want, may they have it.

use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::Service;

use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::pb;
use crate::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use crate::pb::v1::key_service_server::KeyServiceServer;
use crate::service::caller::Caller;
use crate::service::{Done, Ostiary, Revision, Run};

mod apis;
pub mod arriving;
mod audit;
mod convert;
mod credits;
mod envoy;
mod fields;
pub mod front;
pub mod gate;
pub mod health;
mod identities;
mod keys;
mod limits;
mod maintenance;
mod page;
mod permissions;
pub mod policy;
pub mod probing;
pub mod proxies;
pub mod rate_limits;
mod roles;
mod root_keys;
pub mod seldom;
pub mod shedding;
pub mod standing;
pub mod status;
mod streams;
pub mod throttle;
pub mod timings;
pub mod traces;
mod verify;
#[cfg(feature = "grpc-web")]
pub mod web;
#[cfg(not(feature = "grpc-web"))]
#[path = "rpc/web/absent.rs"]
pub mod web;
mod workspaces;

use verify::direct::Outcome;

/// Bytes of a request message at most.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The services of ostiary, each a thin shell around the same product.
#[derive(Clone)]
struct Desk {
    ostiary: Arc<Ostiary>,
    probes: Arc<probing::Probes>,
    /// Room for those who take backups.
    backups: Arc<Semaphore>,
    /// Cancelled when the server closes: what would stay open ends.
    closing: CancellationToken,
}

/// All services: ostiary's own, Envoy's, health, and reflection in both versions.
#[derive(Clone)]
pub struct Services {
    desk: Desk,
    /// The one that is called most: found without a search.
    keys: KeyServiceServer<Desk>,
    rest: Routes,
}

/// What the paths of its methods begin with.
const KEY_SERVICE: &str = "/ostiary.v1.KeyService/";

impl Services {
    /// Answers a call whose caller the gate has let in.
    async fn answer<B>(&self, caller: Caller, request: http::Request<B>) -> Result<http::Response<Body>, Error>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + Unpin,
    {
        if let Some(method) = verify::direct::Method::of(request.uri().path()) {
            match verify::direct::answer(&self.desk, &caller, method, request).await? {
                Outcome::Answered(response) => Ok(response),
                Outcome::Otherwise(mut request) => {
                    gate::forget_secrets(request.headers_mut());
                    request.extensions_mut().insert(caller);
                    Ok(Box::pin(self.call(request)).await)
                }
            }
        } else {
            let mut request = request;
            gate::forget_secrets(request.headers_mut());
            request.extensions_mut().insert(caller);
            Ok(Box::pin(self.call(request)).await)
        }
    }

    /// Answers a call.
    async fn call<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
    {
        if request.uri().path() == verify::plain::PATH && !verify::whole::is_compressed(request.headers()) {
            let answer = verify::plain::answer(&self.desk, request);
            return answer.unwrap_or_else(|status| status.into_http());
        }
        let response = if request.uri().path().starts_with(KEY_SERVICE) {
            self.keys.clone().call(request).await
        } else {
            self.rest.clone().call(request.map(Body::new)).await
        };
        response.unwrap_or_else(|never| match never {})
    }
}

/// All services. Streams end when `closing` is cancelled.
///
/// # Panics
/// If the descriptors that were built into the program can't be read.
pub fn services(
    ostiary: &Arc<Ostiary>,
    health: tonic_health::pb::health_server::HealthServer<impl Health>,
    closing: &CancellationToken,
) -> Services {
    use pb::v1::{
        api_service_server::ApiServiceServer, audit_log_service_server::AuditLogServiceServer,
        identity_service_server::IdentityServiceServer, maintenance_service_server::MaintenanceServiceServer,
        permission_service_server::PermissionServiceServer, rate_limit_service_server::RateLimitServiceServer,
        role_service_server::RoleServiceServer, root_key_service_server::RootKeyServiceServer,
        workspace_service_server::WorkspaceServiceServer,
    };
    let probes = Arc::new(probing::Probes::default());
    let backups = Arc::new(Semaphore::new(maintenance::BACKUPS_MAX));
    let desk = || Desk {
        ostiary: Arc::clone(ostiary),
        probes: Arc::clone(&probes),
        backups: Arc::clone(&backups),
        closing: closing.clone(),
    };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(pb::envoy::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that a caller without protos can read the details of errors.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let readable = "the descriptors were compiled with the program";
    let keys = KeyServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let rest = Routes::new(health)
        .add_service(reflection().build_v1().expect(readable).max_decoding_message_size(health::QUESTION_BYTES_MAX))
        .add_service(
            reflection().build_v1alpha().expect(readable).max_decoding_message_size(health::QUESTION_BYTES_MAX),
        )
        .add_service(RootKeyServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(WorkspaceServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(ApiServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(RoleServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(PermissionServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(IdentityServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(RateLimitServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(AuditLogServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(MaintenanceServiceServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(AuthorizationServer::new(desk()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .prepare();
    Services { desk: desk(), keys, rest }
}

pub use tonic_health::pb::health_server::Health;

/// Who is asking, and what: the caller that the gate has let in, and the message. Fails closed where no gate stood.
fn admitted<M: Message>(request: Request<M>) -> Result<(Caller, M), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let mut caller: Caller =
        extensions.remove().ok_or_else(|| Error::Internal("a call came past the gate".to_owned()))?;
    if caller.call.idempotency.is_some()
        && let Some(idempotency) = &mut caller.call_mut().idempotency
    {
        idempotency.request = Sha256::digest(message.encode_to_vec()).into();
    }
    Ok((caller, message))
}

/// What every answer begins with.
fn meta(caller: &Caller, revision: Revision) -> Option<pb::v1::ResponseMeta> {
    Some(pb::v1::ResponseMeta { request_id: caller.call.request_id.clone(), revision: revision.to_string() })
}

/// The answer of a message that is made of the meta and what was done.
fn answer<T, M>(
    caller: &Caller,
    done: Done<T>,
    message: impl FnOnce(Option<pb::v1::ResponseMeta>, T) -> M,
) -> Result<Response<M>, Status> {
    let Done { answer, revision } = done;
    Ok(Response::new(message(meta(caller, revision), answer)))
}

/// The moments at which a request is read.
#[derive(Clone, Copy)]
struct Clock {
    /// Now, from which spans count.
    now: Timestamp,
    /// What must lie ahead lies after this. The repeat of a call may name a moment that has passed since the first;
    /// the change judges it again if it turns out to be the first.
    ahead_of: Timestamp,
}

fn clock(desk: &Desk, caller: &Caller) -> Clock {
    let now = desk.ostiary.world().now();
    let ahead_of = if caller.call.idempotency.is_some() { Timestamp::EPOCH } else { now };
    Clock { now, ahead_of }
}

/// Whether a change is made or only tried.
fn run(validate_only: bool) -> Run {
    if validate_only { Run::Rehearse } else { Run::Apply }
}
