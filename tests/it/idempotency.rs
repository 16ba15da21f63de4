//! Calls under an idempotency key: one effect, however often they are made.

use std::fmt::Debug;

use ostiary::pb::v1 as pb;
use tonic::Code as Grpc;

use crate::harness::{Client, House, START, at, fields, refusal, span, texts};

mod everything;

const HOUR: u64 = 3_600_000;

fn reused() -> (Grpc, String) {
    (Grpc::InvalidArgument, "IDEMPOTENCY_KEY_REUSED".to_owned())
}

fn delivered() -> (Grpc, String) {
    (Grpc::AlreadyExists, "SECRET_ALREADY_DELIVERED".to_owned())
}

/// Answers that can be compared but for the id of the call.
trait Answer: Debug + PartialEq + Clone {
    fn meta(&mut self) -> &mut Option<pb::ResponseMeta>;

    /// Without the id of the call, with the revision.
    fn but_for_the_call(mut self) -> Self {
        self.meta().as_mut().expect("every answer has one").request_id.clear();
        self
    }
}

macro_rules! answers {
    ($($response:ident)*) => {$(
        impl Answer for pb::$response {
            fn meta(&mut self) -> &mut Option<pb::ResponseMeta> {
                &mut self.meta
            }
        }
    )*};
}
answers! {
    CreateApiResponse UpdateApiResponse DeleteApiResponse
    CreateKeyResponse UpdateKeyResponse DeleteKeyResponse UndeleteKeyResponse
    RevokeKeysResponse RerollKeyResponse
    AddKeyRolesResponse RemoveKeyRolesResponse SetKeyRolesResponse
    AddKeyPermissionsResponse RemoveKeyPermissionsResponse SetKeyPermissionsResponse
    CreateRoleResponse UpdateRoleResponse SetRolePermissionsResponse DeleteRoleResponse
    CreateIdentityResponse UpdateIdentityResponse DeleteIdentityResponse
    LimitResponse BatchLimitResponse ResetIdentifierResponse CreateNamespaceResponse UpdateNamespaceResponse
    DeleteNamespaceResponse SetOverrideResponse DeleteOverrideResponse
    CreatePermissionResponse UpdatePermissionResponse DeletePermissionResponse
    CreateRootKeyResponse UpdateRootKeyResponse DeleteRootKeyResponse BatchDeleteRootKeysResponse
    RotateRootKeyResponse CreateWorkspaceResponse UpdateWorkspaceResponse DeleteWorkspaceResponse
}

async fn create_key(
    client: &Client,
    api: &pb::Api,
    name: &str,
) -> Result<tonic::Response<pb::CreateKeyResponse>, tonic::Status> {
    let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), name: name.into(), ..Default::default() };
    client.keys().create_key(request).await
}

#[tokio::test]
async fn a_secret_is_delivered_again_for_ten_minutes_and_then_only_its_key_is_named() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let once = client.once("a");
    let first = create_key(&once, &api, "Ada").await.unwrap().into_inner();
    house.pass(10 * 60_000 - 1);
    assert_eq!(create_key(&once, &api, "Ada").await.unwrap().into_inner().secret, first.secret);
    house.pass(1);
    let late = create_key(&once, &api, "Ada").await;
    let info = tonic_types::StatusExt::get_details_error_info(late.as_ref().unwrap_err()).unwrap();
    assert_eq!(info.metadata.get("key_id"), Some(&first.key.unwrap().key_id));
    assert_eq!(refusal(late), delivered());
    let other = once.root_keys().create_root_key(crate::harness::root_key("server", &["apis.*.*"])).await;
    assert_eq!(refusal(other), reused(), "another method");
    let once = client.once("b");
    let made = once.root_key("server", &["apis.*.*"]).await;
    assert_eq!(once.root_key("server", &["apis.*.*"]).await.1, made.1);
    house.pass(10 * 60_000);
    let late = once.root_keys().create_root_key(crate::harness::root_key("server", &["apis.*.*"])).await;
    let info = tonic_types::StatusExt::get_details_error_info(late.as_ref().unwrap_err()).unwrap();
    assert_eq!(info.metadata.get("root_key_id"), Some(&made.0.root_key_id));
    assert_eq!(refusal(late), delivered());
}

#[tokio::test]
async fn after_a_restart_the_call_is_remembered_and_its_secret_is_not() {
    let mut house = House::unswept().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let first = create_key(&client.once("a"), &api, "Ada").await.unwrap().into_inner();
    let role = pb::CreateRoleRequest { name: "reader".into(), ..Default::default() };
    let reader = client.once("b").roles().create_role(role.clone()).await.unwrap().into_inner();
    house.restart().await;
    let client = house.operator().await;
    assert_eq!(refusal(create_key(&client.once("a"), &api, "Ada").await), delivered());
    let again = client.once("b").roles().create_role(role).await.unwrap().into_inner();
    assert_eq!(again.but_for_the_call(), reader.but_for_the_call());
    assert_eq!(client.verdict(&first.secret, None).await.code(), pb::VerificationCode::Valid);
    assert_eq!(client.events().await.iter().filter(|event| *event == "key.create").count(), 1);
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_request_of_one_method_of_one_root_key() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let once = client.once("a");
    let first = create_key(&once, &api, "Ada").await.unwrap().into_inner();
    assert_eq!(refusal(create_key(&once, &api, "Eve").await), reused());
    let request = pb::DeleteApiRequest { api_id: api.api_id.clone(), ..Default::default() };
    assert_eq!(refusal(once.apis().delete_api(request).await), reused());
    let (_, other) = client.root_key("other", &["*.*.*"]).await;
    let others = create_key(&once.with(&other), &api, "Ada").await.unwrap().into_inner();
    assert_ne!(others.key.unwrap().key_id, first.key.as_ref().unwrap().key_id);
    assert_ne!(others.secret, first.secret);
    let neighbour = client.neighbour("neighbour").await.once("a");
    neighbour.api("documents").await;
    assert_eq!(create_key(&once, &api, "Ada").await.unwrap().into_inner().secret, first.secret);
    assert_ne!(create_key(&client.once("A"), &api, "Ada").await.unwrap().into_inner().key, first.key, "with case");
    // Reads and verifications take no notice of it.
    assert_eq!(once.get_key(&first.key.as_ref().unwrap().key_id).await.unwrap(), first.key.unwrap());
    assert_eq!(once.verdict(&first.secret, None).await.code(), pb::VerificationCode::Valid);
}

#[tokio::test]
async fn a_call_is_remembered_for_24_hours_whether_or_not_the_sweep_has_run() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    for (key, swept) in [("a", false), ("b", true)] {
        let once = client.once(key);
        let create = async || {
            let request = pb::CreateApiRequest { name: "documents".into(), ..Default::default() };
            once.apis().create_api(request).await.unwrap().into_inner().api.unwrap().api_id
        };
        let first = create().await;
        house.pass(24 * HOUR - 1);
        house.sweep().await;
        assert_eq!(create().await, first);
        house.pass(1);
        if swept {
            house.sweep().await;
        }
        let second = create().await;
        assert_ne!(second, first);
        // Forgetting the first call does not forget the second.
        house.sweep().await;
        house.pass(24 * HOUR - 1);
        house.sweep().await;
        assert_eq!(create().await, second);
    }
}

#[tokio::test]
async fn a_repeat_is_authorised_anew() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &[]).await;
    let (root_key, secret) = client.root_key("server", &["apis.*.create_key", "rbac.*.add_role_to_key"]).await;
    let server = client.with(&secret).once("a");
    let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), roles: texts(&["reader"]), ..Default::default() };
    let create = async || server.keys().create_key(request.clone()).await;
    let first = create().await.unwrap().into_inner();
    let grant = async |permissions: &[&str]| {
        let request = pb::UpdateRootKeyRequest {
            root_key_id: root_key.root_key_id.clone(),
            permissions: texts(permissions),
            ..Default::default()
        };
        client.root_keys().update_root_key(request).await.unwrap();
    };
    let denied = (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned());
    let on_api = format!("apis.{}.create_key", api.api_id);
    let lost: [&[&str]; 4] = [
        &["apis.*.read_key", "rbac.*.add_role_to_key"],
        &["apis.*.create_key"],
        &["apis.another_one.create_key", "rbac.*.add_role_to_key"],
        &[&on_api, "rbac.another_one.add_role_to_key"],
    ];
    for permissions in lost {
        grant(permissions).await;
        assert_eq!(refusal(create().await), denied, "{permissions:?}");
    }
    grant(&[&on_api, "rbac.*.*"]).await;
    assert_eq!(create().await.unwrap().into_inner().but_for_the_call(), first.but_for_the_call());
    let request = pb::DeleteRootKeyRequest { root_key_id: root_key.root_key_id, ..Default::default() };
    client.root_keys().delete_root_key(request).await.unwrap();
    assert_eq!(refusal(create().await).0, Grpc::Unauthenticated);
}

#[tokio::test]
async fn what_was_refused_or_only_tried_is_not_remembered() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let once = client.once("a");
    let request = pb::CreateRoleRequest { name: "reader".into(), ..Default::default() };
    let rehearsal = pb::CreateRoleRequest { validate_only: true, ..request.clone() };
    once.roles().create_role(rehearsal).await.unwrap();
    let deletion = pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() };
    assert_eq!(refusal(once.roles().delete_role(deletion).await).0, Grpc::NotFound);
    let made = once.roles().create_role(request.clone()).await.unwrap().into_inner();
    let again = once.roles().create_role(request).await.unwrap().into_inner();
    assert_eq!(again.but_for_the_call(), made.but_for_the_call());
    // An update that changes nothing is remembered as such.
    let update =
        |name: &str| pb::UpdateRoleRequest { role: "reader".into(), name: Some(name.into()), ..Default::default() };
    let nothing = client.once("b").roles().update_role(update("reader")).await.unwrap().into_inner();
    client.roles().update_role(update("lister")).await.unwrap();
    let again = client.once("b").roles().update_role(update("reader")).await.unwrap().into_inner();
    assert_eq!(again.role, nothing.role);
}

#[tokio::test]
async fn a_repeat_is_answered_though_the_end_that_it_names_has_come() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let expire_time = Some(pb::create_key_request::Expiration::ExpireTime(at(START + 60_000)));
    let request = pb::CreateKeyRequest { api_id: api.api_id, expiration: expire_time, ..Default::default() };
    let (key, secret) = client.once("a").key(request.clone()).await;
    let update = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        expire_time: Some(at(START + 50_000)),
        ..Default::default()
    };
    client.once("b").keys().update_key(update.clone()).await.unwrap();
    house.pass(60_000);
    let (again, same) = client.once("a").key(request.clone()).await;
    assert_eq!((again.key_id, same, again.expire_time), (key.key_id, secret, key.expire_time));
    client.once("b").keys().update_key(update.clone()).await.unwrap();
    // Made anew it is refused, and so is a first call under an idempotency key.
    for client in [client.clone(), client.once("c")] {
        assert_eq!(fields(&client.keys().create_key(request.clone()).await.unwrap_err()), ["expire_time"]);
        assert_eq!(fields(&client.keys().update_key(update.clone()).await.unwrap_err()), ["expire_time"]);
    }
}

#[tokio::test]
async fn the_header_is_one_entry_of_1_to_255_visible_ascii_characters() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let long = "x".repeat(255);
    for good in ["a", "!~", "8e03978e-40d5-43e8-bc93-6894a57f9324", &long] {
        client.once(good).api("documents").await;
    }
    let path = "/ostiary.v1.ApiService/CreateApi";
    let request = pb::CreateApiRequest { name: "documents".into(), ..Default::default() };
    let message = prost::Message::encode_to_vec(&request);
    let longer = "x".repeat(256);
    let cases: [&[&[u8]]; 6] =
        [&[b""], &[b"a b"], &[longer.as_bytes()], &[b"a", b"a"], &[b"a\tb"], &["\u{e9}".as_bytes()]];
    for values in cases {
        let mut headers = http::HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", http::HeaderValue::from_bytes(value).unwrap());
        }
        let metadata = tonic::metadata::MetadataMap::from_headers(headers);
        let status = client.raw(path, message.clone(), metadata).await.unwrap_err();
        assert_eq!(
            (status.code(), fields(&status)),
            (Grpc::InvalidArgument, texts(&["idempotency-key"])),
            "{values:?}"
        );
    }
}
