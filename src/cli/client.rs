//! Calls with a root key: when to try again, and what makes that safe.

use std::time::Duration;

use prost::Name;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::domain::secret::Secret;
use crate::pb::v1 as pb;
use crate::world::World;

use super::failure::{Failure, is_broken};

/// How often a call is tried that the server has no time for, or loses.
const ATTEMPTS: u32 = 4;
/// How long to wait before the second attempt, if the server does not say; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait between attempts.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What idempotency keys made here begin with.
const ONCE: &str = "ostiary-cli-";

/// Puts the root key on every call. Its `Debug` hides it, as that of every value marked sensitive.
#[derive(Debug, Clone)]
pub struct Credential(AsciiMetadataValue);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Wired = InterceptedService<Channel, Credential>;

/// Somebody with a root key and a connection.
pub struct Client<'a> {
    channel: Channel,
    credential: Credential,
    timeout: Duration,
    world: &'a World,
}

macro_rules! services {
    ($($method:ident, $module:ident, $client:ident;)*) => {
        impl Client<'_> {
            $(pub fn $method(&self) -> pb::$module::$client<Wired> {
                pb::$module::$client::with_interceptor(self.channel.clone(), self.credential.clone())
                    .max_decoding_message_size(ANSWER_BYTES_MAX)
            })*
        }
    };
}
services! {
    root_keys, root_key_service_client, RootKeyServiceClient;
    apis, api_service_client, ApiServiceClient;
    keys, key_service_client, KeyServiceClient;
    roles, role_service_client, RoleServiceClient;
    permissions, permission_service_client, PermissionServiceClient;
    identities, identity_service_client, IdentityServiceClient;
    rate_limits, rate_limit_service_client, RateLimitServiceClient;
    workspaces, workspace_service_client, WorkspaceServiceClient;
    audit, audit_log_service_client, AuditLogServiceClient;
    maintenance, maintenance_service_client, MaintenanceServiceClient;
}

impl<'a> Client<'a> {
    /// One that puts this root key on its calls.
    pub fn new(channel: Channel, root_key: &Secret, timeout: Duration, world: &'a World) -> Result<Self, Failure> {
        let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", root_key.expose()))
            .map_err(|_| Failure::Misused("the root key must be visible ASCII characters".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self { channel, credential: Credential(value), timeout, world })
    }

    /// Time and randomness.
    pub fn world(&self) -> &World {
        self.world
    }

    /// Asks, and asks again if the server has no time for it or the connection breaks.
    pub async fn read<Q: Clone + Name, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.persist(request, None, call).await
    }

    /// Changes something, once, however often it has to be sent: all attempts carry the same idempotency key.
    pub async fn change<Q: Clone + Name, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let random: [u8; 16] = self.world.random();
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let once = AsciiMetadataValue::try_from(format!("{ONCE}{digits}"))
            .map_err(|error| Failure::Broken(error.to_string()))?;
        self.persist(request, Some(once), call).await
    }

    /// Asks a single time, for what counts.
    pub async fn once<Q: Name, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        Ok(self.attempt(request, None, &call).await?)
    }

    async fn persist<Q: Clone + Name, A>(
        &self,
        request: Q,
        once: Option<AsciiMetadataValue>,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut wait = FIRST_WAIT;
        for _ in 1..ATTEMPTS {
            match self.attempt(request.clone(), once.clone(), &call).await {
                Err(status) if status.code() == Code::Unavailable || is_broken(&status) => {
                    let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
                    tokio::time::sleep(told.unwrap_or(wait).min(WAIT_MAX)).await;
                    wait *= 2;
                }
                answered => return Ok(answered?),
            }
        }
        Ok(self.attempt(request, once, &call).await?)
    }

    async fn attempt<Q: Name, A>(
        &self,
        message: Q,
        once: Option<AsciiMetadataValue>,
        call: &impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Status> {
        let mut request = Request::new(message);
        if let Some(once) = once {
            request.metadata_mut().insert("idempotency-key", once);
        }
        let Ok(answered) = tokio::time::timeout(self.timeout, call(request)).await else {
            let method = Q::NAME.trim_end_matches("Request");
            let span = humantime::format_duration(self.timeout);
            return Err(Status::deadline_exceeded(format!("{method} was not answered within {span}")));
        };
        answered.map(Response::into_inner)
    }
}
