//! Every refusal that can be reached from outside: its code, its reason, its details.

mod fields;
mod objects;
pub mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use ostiary::domain::capability::Capability;
use ostiary::domain::id::{KeyId, RootKeyId};
use ostiary::domain::kind::Kind;
use ostiary::domain::query::Query;
use ostiary::domain::workspace::Quota;
use ostiary::error::{Error, Obstacle, Unrecognised};
use ostiary::pb::v1 as pb;
use ostiary::rpc::status;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, House, at, root_key, texts};

/// What cannot be provoked by calling, or is provoked elsewhere: `races.rs`, `shutdown.rs` and the engines' own tests.
const OUT_OF_REACH: [&str; 6] =
    ["CONFLICT", "OVERLOADED", "STORE_UNAVAILABLE", "OUTCOME_UNKNOWN", "SHUTTING_DOWN", "INTERNAL"];

/// The one detail, besides `ErrorInfo` and `RequestInfo`, that an error has.
enum Detail {
    Nothing,
    Facts(Vec<(&'static str, String)>),
    Fields(Vec<&'static str>),
    Resource(&'static str, String),
    Precondition(String),
    Retry(Duration),
    Quota(&'static str),
    /// The root key that is in the way, and its successor.
    Succeeded(String, String),
}

/// What is the same in all errors.
fn check_common(status: &Status) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "ostiary", "{}", info.reason);
    let request = status.get_details_request_info().unwrap();
    let header = status.metadata().get("x-request-id").unwrap().to_str().unwrap();
    assert_eq!(request.request_id, header, "{}", info.reason);
    assert!(request.serving_data.is_empty());
    assert!(!status.message().is_empty() && status.message().is_ascii(), "{}", info.reason);
    assert!(!status.message().ends_with('.'), "{}: {}", info.reason, status.message());
}

fn check(status: &Status, code: Code, reason: &str, detail: &Detail) {
    check_common(status);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{}", status.message());
    let (mut facts, mut fields, mut resource, mut subject, mut retry) = (Vec::new(), Vec::new(), None, None, None);
    let mut quota = None;
    match detail {
        Detail::Nothing => {}
        Detail::Facts(expected) => facts.clone_from(expected),
        Detail::Fields(expected) => fields.clone_from(expected),
        Detail::Resource(kind, name) => resource = Some((format!("ostiary.v1.{kind}"), name.clone())),
        Detail::Precondition(expected) => subject = Some((reason.to_owned(), expected.clone())),
        Detail::Retry(expected) => retry = Some(*expected),
        Detail::Quota(expected) => quota = Some(*expected),
        Detail::Succeeded(expected, successor) => {
            subject = Some((reason.to_owned(), expected.clone()));
            resource = Some(("ostiary.v1.RootKey".to_owned(), successor.clone()));
            facts = vec![("successor", successor.clone())];
        }
    }
    let told: Vec<(&str, String)> = info.metadata.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    // Facts may repeat what another detail says.
    assert!(facts.iter().all(|fact| told.contains(fact)), "{reason}: {told:?}");
    assert!(!facts.is_empty() || told.is_empty() || resource.is_some() || !fields.is_empty(), "{reason}: {told:?}");
    assert_eq!(crate::harness::fields(status), fields, "{reason}");
    let told = status.get_details_resource_info().map(|told| (told.resource_type, told.resource_name));
    assert_eq!(told, resource, "{reason}");
    let told = status.get_details_precondition_failure().map(|told| {
        assert_eq!(told.violations.len(), 1);
        assert!(!told.violations[0].description.is_empty());
        (told.violations[0].r#type.clone(), told.violations[0].subject.clone())
    });
    assert_eq!(told, subject, "{reason}");
    let told = status.get_details_retry_info().and_then(|told| told.retry_delay);
    assert_eq!(told, retry, "{reason}");
    let told = status.get_details_quota_failure().map(|told| told.violations[0].subject.clone());
    assert_eq!(told.as_deref(), quota, "{reason}");
}

fn failed<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> Status {
    result.expect_err("it was to be refused")
}

async fn who_am_i(client: &Client) -> Status {
    failed(client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await)
}

async fn admin_of(operator: &Client, name: &str) -> (String, Client) {
    let request = pb::CreateWorkspaceRequest { name: name.into(), ..Default::default() };
    let made = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
    (made.workspace.unwrap().workspace_id, operator.with(&made.secret))
}

type Case = (Status, Code, &'static str, Detail);

async fn unauthenticated(house: &House, operator: &Client) -> Vec<Case> {
    let denied = |status, reason| (status, Code::Unauthenticated, reason, Detail::Nothing);
    let stranger = house.stranger().await;
    let (workspace_id, tenant) = admin_of(operator, "disabled").await;
    let request = pb::UpdateWorkspaceRequest { workspace_id, enabled: Some(false), ..Default::default() };
    operator.workspaces().update_workspace(request).await.unwrap();
    let (disabled, secret) = operator.root_key("disabled", &["apis.*.read_api"]).await;
    let request =
        pb::UpdateRootKeyRequest { root_key_id: disabled.root_key_id, enabled: Some(false), ..Default::default() };
    operator.root_keys().update_root_key(request).await.unwrap();
    let disabled = operator.with(&secret);
    let request =
        pb::CreateRootKeyRequest { allowed_cidrs: texts(&["192.0.2.0/24"]), ..root_key("far", &["apis.*.read_api"]) };
    let far = operator.root_keys().create_root_key(request).await.unwrap().into_inner().secret;
    let expiration = Some(pb::create_root_key_request::Expiration::ExpireTime(at(house.now() + 1)));
    let request = pb::CreateRootKeyRequest { expiration, ..root_key("brief", &["apis.*.read_api"]) };
    let brief = operator.root_keys().create_root_key(request).await.unwrap().into_inner().secret;
    house.pass(1);
    vec![
        denied(who_am_i(&stranger).await, "ROOT_KEY_MISSING"),
        denied(who_am_i(&stranger.with("a b")).await, "ROOT_KEY_MALFORMED"),
        denied(who_am_i(&stranger.with("guess")).await, "ROOT_KEY_INVALID"),
        denied(who_am_i(&tenant).await, "WORKSPACE_DISABLED"),
        denied(who_am_i(&disabled).await, "ROOT_KEY_DISABLED"),
        denied(who_am_i(&operator.with(&brief)).await, "ROOT_KEY_EXPIRED"),
        denied(who_am_i(&operator.with(&far)).await, "ROOT_KEY_ADDRESS"),
    ]
}

async fn denied(operator: &Client) -> Vec<Case> {
    let (_, secret) = operator.root_key("narrow", &["root_keys.*.create_root_key"]).await;
    let narrow = operator.with(&secret);
    let missing = failed(narrow.apis().list_apis(pb::ListApisRequest::default()).await);
    let wide = failed(narrow.root_keys().create_root_key(root_key("wide", &["*.*.*"])).await);
    let fact = Detail::Facts(vec![("permission", "apis.*.read_api".into())]);
    vec![
        (missing, Code::PermissionDenied, "PERMISSION_MISSING", fact),
        (wide, Code::PermissionDenied, "GRANT_EXCEEDS_OWN", Detail::Nothing),
    ]
}

async fn invalid(operator: &Client) -> Vec<Case> {
    let request = pb::CreateApiRequest { default_prefix: Some("ostiary".into()), ..Default::default() };
    let several = failed(operator.apis().create_api(request).await);
    let permissions = Some("documents.read AND AND".into());
    let request = pb::VerifyKeyRequest { key: "anything".into(), permissions, ..Default::default() };
    let query = failed(operator.keys().verify_key(request).await);
    assert_eq!(query.get_details_error_info().unwrap().metadata["position"], "19");
    let request = pb::ListApisRequest { page_token: "nonsense".into(), ..Default::default() };
    let token = failed(operator.apis().list_apis(request).await);
    let invalid = Code::InvalidArgument;
    vec![
        (several, invalid, "FIELD_INVALID", Detail::Fields(vec!["name", "default_prefix"])),
        (query, invalid, "PERMISSION_QUERY_SYNTAX", Detail::Fields(vec!["permissions"])),
        (token, invalid, "PAGE_TOKEN_INVALID", Detail::Fields(vec!["page_token"])),
    ]
}

async fn preconditions(house: &House, operator: &Client) -> Vec<Case> {
    let rotate = async |root_key_id: &str| {
        let request = pb::RotateRootKeyRequest { root_key_id: root_key_id.into(), ..Default::default() };
        operator.root_keys().rotate_root_key(request).await
    };
    let expiration = Some(pb::create_root_key_request::Expiration::ExpireTime(at(house.now() + 1)));
    let request = pb::CreateRootKeyRequest { expiration, ..root_key("brief", &["apis.*.read_api"]) };
    let expired = operator.root_keys().create_root_key(request).await.unwrap().into_inner().root_key.unwrap();
    house.pass(1);
    let (rotated, _) = operator.root_key("rotated", &["apis.*.read_api"]).await;
    let request = pb::RotateRootKeyRequest {
        root_key_id: rotated.root_key_id.clone(),
        grace_period: Some(crate::harness::span(60_000)),
        ..Default::default()
    };
    let successor = operator.root_keys().rotate_root_key(request).await.unwrap().into_inner().root_key.unwrap();
    let again = failed(rotate(&rotated.root_key_id).await);
    assert!(again.message().contains(&successor.root_key_id), "{}", again.message());
    let me = operator.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
    let workspace_id = me.workspace.unwrap().workspace_id;
    let (_, tenant) = admin_of(operator, "alone").await;
    let me = tenant.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
    let own = me.root_key.unwrap().root_key_id;
    let request = pb::DeleteRootKeyRequest { root_key_id: own.clone(), ..Default::default() };
    let last = failed(tenant.root_keys().delete_root_key(request).await);
    let request = pb::DeleteWorkspaceRequest { workspace_id: workspace_id.clone(), ..Default::default() };
    let operators = failed(operator.workspaces().delete_workspace(request).await);
    let request = pb::CreateApiRequest { name: "kept".into(), delete_protection: true, ..Default::default() };
    let api_id = operator.apis().create_api(request).await.unwrap().into_inner().api.unwrap().api_id;
    let request = pb::DeleteApiRequest { api_id: api_id.clone(), ..Default::default() };
    let protected = failed(operator.apis().delete_api(request).await);
    let ttl = Some(pb::create_key_request::Expiration::Ttl(crate::harness::span(1_000)));
    let request = pb::CreateKeyRequest { api_id: api_id.clone(), expiration: ttl, ..Default::default() };
    let key_id = operator.key(request).await.0.key_id;
    house.pass(1_000);
    let request =
        pb::AdjustCreditsRequest { key_id: key_id.clone(), operation: 2, amount: Some(1), ..Default::default() };
    let unlimited = failed(operator.keys().adjust_credits(request).await);
    let reroll = || pb::RerollKeyRequest { key_id: key_id.clone(), ..Default::default() };
    let over = failed(operator.keys().reroll_key(reroll()).await);
    let filter = pb::RevokeKeysFilter { api_id: Some(api_id.clone()), ..Default::default() };
    operator.keys().revoke_keys(pb::RevokeKeysRequest { filter: Some(filter), ..Default::default() }).await.unwrap();
    let revoked = failed(operator.keys().reroll_key(reroll()).await);
    let min_revision = "ffffffffffffffff.1".to_owned();
    let request = pb::WhoAmIRequest { min_revision: min_revision.clone() };
    let unknown = failed(operator.root_keys().who_am_i(request).await);
    let request = pb::DeleteApiRequest { api_id: api_id.clone(), etag: "v7".into(), ..Default::default() };
    let etag = failed(operator.apis().delete_api(request).await);
    let refused = |status, reason, subject: &str| {
        (status, Code::FailedPrecondition, reason, Detail::Precondition(subject.to_owned()))
    };
    vec![
        refused(failed(rotate(&expired.root_key_id).await), "ROOT_KEY_EXPIRED", &expired.root_key_id),
        (
            again,
            Code::FailedPrecondition,
            "ALREADY_ROTATED",
            Detail::Succeeded(rotated.root_key_id, successor.root_key_id),
        ),
        refused(last, "LAST_ADMINISTRATOR", &own),
        refused(operators, "OPERATOR_WORKSPACE", &workspace_id),
        refused(protected, "DELETE_PROTECTED", &api_id),
        refused(over, "KEY_EXPIRED", &key_id),
        refused(revoked, "KEY_REVOKED", &key_id),
        refused(unlimited, "CREDITS_UNLIMITED", &key_id),
        refused(unknown, "REVISION_UNKNOWN", &min_revision),
        (etag, Code::Aborted, "ETAG_MISMATCH", Detail::Nothing),
    ]
}

async fn limits(house: &House, operator: &Client) -> Vec<Case> {
    let stranger = house.stranger().await;
    let mut limited = who_am_i(&stranger).await;
    while limited.code() == Code::Unauthenticated {
        limited = who_am_i(&stranger).await;
    }
    let path = "/ostiary.v1.RootKeyService/WhoAmI";
    let large = operator.raw(path, vec![0; (4 << 20) + 1], Default::default()).await.unwrap_err();
    let late = wire::bare(house, path, &[("grpc-timeout", "0n")], &[]).await;
    let nowhere = operator.raw("/ostiary.v1.Nowhere/Go", Vec::new(), Default::default()).await.unwrap_err();
    let wait = Detail::Retry(Duration::from_millis(200));
    let quotas = pb::WorkspaceQuotas { max_root_keys: Some(1), ..Default::default() };
    let request = pb::CreateWorkspaceRequest { name: "full".into(), quotas: Some(quotas), ..Default::default() };
    let made = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
    let full = operator.with(&made.secret);
    let full = full.root_keys().create_root_key(root_key("one too many", &["*.*.*"])).await.unwrap_err();
    vec![
        (full, Code::ResourceExhausted, "QUOTA_EXCEEDED", Detail::Quota("max_root_keys")),
        (limited, Code::ResourceExhausted, "AUTH_ATTEMPTS_LIMITED", wait),
        (large, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", Detail::Nothing),
        (late, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", Detail::Nothing),
        (nowhere, Code::Unimplemented, "UNIMPLEMENTED", Detail::Nothing),
    ]
}

#[tokio::test]
async fn every_refusal_has_its_code_its_reason_and_the_details_that_help() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let cases = [
        unauthenticated(&house, &operator).await,
        denied(&operator).await,
        objects::not_found(&operator).await,
        objects::already_exists(&house, &operator).await,
        invalid(&operator).await,
        preconditions(&house, &operator).await,
        limits(&house, &operator).await,
    ];
    let mut reached = BTreeSet::new();
    for (status, code, reason, detail) in cases.into_iter().flatten() {
        check(&status, code, reason, &detail);
        reached.insert(reason.to_owned());
    }
    reached.extend(OUT_OF_REACH.map(ToOwned::to_owned));
    assert_eq!(reached, declared(), "a reason of the proto is not tried here, or the other way round");
}

/// The reasons that the proto declares.
fn declared() -> BTreeSet<String> {
    let pool = crate::coverage::walk::pool();
    let reasons = pool.get_enum_by_name("ostiary.v1.ErrorReason").unwrap();
    let names = reasons.values().skip(1).map(|value| value.name().strip_prefix("ERROR_REASON_").unwrap().to_owned());
    names.collect()
}

#[test]
fn the_proto_declares_the_reasons_that_are_given_and_no_others() {
    let unrecognised = [
        Unrecognised::Missing,
        Unrecognised::Malformed,
        Unrecognised::Invalid,
        Unrecognised::WorkspaceDisabled,
        Unrecognised::Disabled,
        Unrecognised::Expired,
        Unrecognised::Address,
    ];
    let obstacles = [
        Obstacle::RootKeyExpired,
        Obstacle::AlreadyRotated { successor: RootKeyId::FIRST },
        Obstacle::LastAdministrator,
        Obstacle::OperatorWorkspace,
        Obstacle::DeleteProtected,
        Obstacle::KeyExpired,
        Obstacle::KeyRevoked,
        Obstacle::AlreadyRerolled { successor: KeyId::FIRST },
        Obstacle::CreditsUnlimited,
        Obstacle::RevisionUnknown,
    ];
    let text = String::new;
    let flaw = Query::parse("").unwrap_err();
    let retry_after = Duration::ZERO;
    let mut errors = vec![
        Error::PermissionMissing(Capability::ReadApi),
        Error::GrantExceedsOwn(text()),
        Error::SecretAlreadyDelivered { kind: Kind::Key, id: text() },
        Error::Invalid(Vec::new()),
        Error::Query { field: "", flaw },
        Error::PageToken,
        Error::IdempotencyKeyReused,
        Error::EtagMismatch,
        Error::Conflict,
        Error::AttemptsLimited { retry_after },
        Error::MessageTooLarge,
        Error::Overloaded { retry_after },
        Error::QuotaExceeded { quota: Quota::Keys, limit: 0, retry_after: None },
        Error::StoreUnavailable,
        Error::OutcomeUnknown,
        Error::ShuttingDown,
        Error::DeadlineExceeded,
        Error::Unimplemented,
        Error::Internal(text()),
    ];
    errors.extend(unrecognised.map(Error::Unauthenticated));
    let in_the_way = |obstacle| Error::Precondition { obstacle, subject: String::new(), description: String::new() };
    errors.extend(obstacles.map(in_the_way));
    errors.extend(Kind::ALL.map(|kind| Error::not_found(kind, "")));
    // The kinds that have unique names, and keys, which may be there already when they are restored.
    let unique = [Kind::Key, Kind::Role, Kind::Permission, Kind::Identity, Kind::Namespace];
    errors.extend(unique.map(|kind| Error::AlreadyExists { kind, name: String::new() }));
    let given: BTreeSet<String> = errors.iter().map(status::reason).collect();
    assert_eq!(given, declared());
}

#[tokio::test]
async fn the_health_of_a_service_that_is_not_known_is_told_by_the_rules_of_health() {
    let house = House::unswept().await;
    let stranger = house.stranger().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(stranger.channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "nope".into() };
    assert_eq!(health.check(request.clone()).await.unwrap_err().code(), Code::NotFound);
    for service in ["", "ostiary.v1.verify", "ostiary.v1.manage"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
        assert!(health.check(request).await.is_ok(), "{service}");
    }
}
