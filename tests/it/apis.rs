//! APIs: the sets that keys are made in, and how they end.

use ostiary::pb::v1 as pb;
use pb::VerificationCode as Code;
use tonic::Code as Grpc;

use crate::harness::{Client, House, START, at, but_for, fields, mask, refusal, span, texts};

fn not_found() -> (Grpc, String) {
    (Grpc::NotFound, "API_NOT_FOUND".to_owned())
}

async fn create(client: &Client, request: pb::CreateApiRequest) -> Result<pb::Api, tonic::Status> {
    client.apis().create_api(request).await.map(|response| response.into_inner().api.unwrap())
}

async fn get(client: &Client, api_id: &str) -> Result<pb::Api, tonic::Status> {
    let request = pb::GetApiRequest { api_id: api_id.into(), ..Default::default() };
    client.apis().get_api(request).await.map(|response| response.into_inner().api.unwrap())
}

async fn update(client: &Client, request: pb::UpdateApiRequest) -> Result<pb::Api, tonic::Status> {
    client.apis().update_api(request).await.map(|response| response.into_inner().api.unwrap())
}

async fn delete(client: &Client, api_id: &str) -> Result<(), (Grpc, String)> {
    let request = pb::DeleteApiRequest { api_id: api_id.into(), ..Default::default() };
    let answer = client.apis().delete_api(request).await;
    if answer.is_ok() { Ok(()) } else { Err(refusal(answer)) }
}

#[tokio::test]
async fn an_api_is_made_as_it_was_asked_for() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateApiRequest {
        name: "documents".into(),
        default_prefix: Some("docs".into()),
        default_ttl: Some(span(86_400_500)),
        delete_protection: true,
        allowed_cidrs: texts(&["10.1.2.3/8", "2001:DB8::/32"]),
        validate_only: false,
    };
    let api = create(&client, request).await.unwrap();
    let expected = pb::Api {
        api_id: api.api_id.clone(),
        name: "documents".into(),
        default_prefix: Some("docs".into()),
        default_ttl: Some(span(86_400_500)),
        delete_protection: true,
        allowed_cidrs: texts(&["10.0.0.0/8", "2001:db8::/32"]),
        key_count: 0,
        create_time: Some(at(START)),
        update_time: Some(at(START)),
        etag: api.etag.clone(),
    };
    assert_eq!(api, expected);
    assert_eq!(get(&client, &api.api_id).await.unwrap(), api);
    let twin = client.api("documents").await;
    assert_ne!(twin.api_id, api.api_id, "names need not be unique");
    let request = pb::CreateApiRequest { name: "tried".into(), validate_only: true, ..Default::default() };
    let tried = create(&client, request).await.unwrap();
    assert_eq!(get(&client, &tried.api_id).await.unwrap_err().code(), Grpc::NotFound);
    let request = pb::CreateApiRequest {
        name: "ab".into(),
        default_prefix: Some("ostiary".into()),
        default_ttl: Some(span(0)),
        allowed_cidrs: texts(&["10.0.0.0/8", ""]),
        ..Default::default()
    };
    let status = create(&client, request).await.unwrap_err();
    assert_eq!(fields(&status), ["name", "default_prefix", "default_ttl", "allowed_cidrs[1]"]);
    for bad in ["", "ab", "a\nb", &"x".repeat(256)] {
        let request = pb::CreateApiRequest { name: bad.into(), ..Default::default() };
        assert_eq!(fields(&create(&client, request).await.unwrap_err()), ["name"], "{bad:?}");
    }
}

#[tokio::test]
async fn an_update_changes_what_is_named_and_one_that_changes_nothing_writes_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateApiRequest {
        name: "documents".into(),
        default_prefix: Some("docs".into()),
        default_ttl: Some(span(1_000)),
        delete_protection: true,
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        ..Default::default()
    };
    let api = create(&client, request).await.unwrap();
    house.pass(1_000);
    let of_api = |request| pb::UpdateApiRequest { api_id: api.api_id.clone(), ..request };
    let events = client.events().await;
    let same =
        pb::UpdateApiRequest { name: Some("documents".into()), default_ttl: Some(span(1_000)), ..Default::default() };
    assert_eq!(update(&client, of_api(same)).await.unwrap(), api);
    assert_eq!(update(&client, of_api(pb::UpdateApiRequest::default())).await.unwrap(), api);
    let rehearsed = pb::UpdateApiRequest { name: Some("papers".into()), validate_only: true, ..Default::default() };
    assert_eq!(update(&client, of_api(rehearsed)).await.unwrap().name, "papers");
    assert_eq!((get(&client, &api.api_id).await.unwrap(), client.events().await), (api.clone(), events));
    let all = mask(&["default_prefix", "default_ttl", "delete_protection", "allowed_cidrs"]);
    let request = pb::UpdateApiRequest {
        name: Some("papers".into()),
        update_mask: all,
        etag: api.etag.clone(),
        ..Default::default()
    };
    let cleared = update(&client, of_api(request.clone())).await.unwrap();
    let expected = pb::Api {
        default_prefix: None,
        default_ttl: None,
        delete_protection: false,
        allowed_cidrs: Vec::new(),
        update_time: Some(at(START + 1_000)),
        etag: cleared.etag.clone(),
        ..api.clone()
    };
    assert_eq!(cleared, expected);
    assert_eq!(update(&client, of_api(request)).await.unwrap_err().code(), Grpc::Aborted);
    for path in ["api_id", "key_count", "etag", ""] {
        let request = of_api(pb::UpdateApiRequest { update_mask: mask(&[path]), ..Default::default() });
        assert_eq!(fields(&update(&client, request).await.unwrap_err()), ["update_mask.paths[0]"], "{path}");
    }
    let request = of_api(pb::UpdateApiRequest { update_mask: mask(&["name"]), ..Default::default() });
    assert_eq!(fields(&update(&client, request).await.unwrap_err()), ["name"]);
}

#[tokio::test]
async fn a_protected_api_is_deleted_only_once_the_protection_is_lifted() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let request = pb::CreateApiRequest { name: "documents".into(), delete_protection: true, ..Default::default() };
    let api = create(&client, request).await.unwrap();
    let (_, secret) = client.plain_key(&api, "").await;
    let protected = (Grpc::FailedPrecondition, "DELETE_PROTECTED".to_owned());
    assert_eq!(delete(&client, &api.api_id).await, Err(protected.clone()));
    let rehearsed = pb::DeleteApiRequest { api_id: api.api_id.clone(), validate_only: true, ..Default::default() };
    assert_eq!(refusal(client.apis().delete_api(rehearsed.clone()).await), protected);
    assert_eq!(client.verdict(&secret, None).await.code(), Code::Valid);
    let request =
        pb::UpdateApiRequest { api_id: api.api_id.clone(), delete_protection: Some(false), ..Default::default() };
    update(&client, request).await.unwrap();
    let would = client.apis().delete_api(rehearsed).await.unwrap().into_inner();
    assert_eq!(would.affected_key_count, Some(1));
    assert_eq!(client.verdict(&secret, None).await.code(), Code::Valid);
    let stale = pb::DeleteApiRequest { api_id: api.api_id.clone(), etag: api.etag, ..Default::default() };
    assert_eq!(refusal(client.apis().delete_api(stale).await), (Grpc::Aborted, "ETAG_MISMATCH".to_owned()));
    let request = pb::DeleteApiRequest { api_id: api.api_id.clone(), ..Default::default() };
    let answer = client.apis().delete_api(request).await.unwrap().into_inner();
    assert_eq!(answer.affected_key_count, None);
    assert_eq!(delete(&client, &api.api_id).await, Err(not_found()));
}

#[tokio::test]
async fn a_deleted_api_takes_its_keys_along_at_once_and_their_rows_with_the_sweep() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let (api, other) = (client.api("documents").await, client.api("billing").await);
    client.role("reader", &["a"]).await;
    let mut secrets = Vec::new();
    for n in 0..3 {
        let request = pb::CreateKeyRequest {
            api_id: api.api_id.clone(),
            name: format!("doomed {n}"),
            roles: texts(&["reader"]),
            ..Default::default()
        };
        secrets.push(client.key(request).await.1);
    }
    let request =
        pb::CreateKeyRequest { api_id: other.api_id.clone(), roles: texts(&["reader"]), ..Default::default() };
    let (kept, kept_secret) = client.key(request).await;
    assert_eq!(get(&client, &api.api_id).await.unwrap().key_count, 3);
    assert_eq!(delete(&client, &api.api_id).await, Ok(()));
    let (_, on_api) = client.root_key("on-api", &[&format!("apis.{}.*", api.api_id), "rbac.*.*"]).await;
    for swept in [false, true] {
        for secret in &secrets {
            assert_eq!(client.verdict(secret, None).await.code(), Code::NotFound, "{swept}");
            assert_eq!(client.with(&on_api).verdict(secret, None).await.code(), Code::NotFound, "{swept}");
        }
        assert_eq!(client.verdict(&kept_secret, Some("a")).await.code(), Code::Valid, "{swept}");
        assert_eq!(get(&client, &api.api_id).await.unwrap_err().code(), Grpc::NotFound, "{swept}");
        let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), ..Default::default() };
        assert_eq!(refusal(client.keys().create_key(request).await), not_found(), "{swept}");
        let request = pb::UpdateApiRequest { api_id: api.api_id.clone(), ..Default::default() };
        assert_eq!(update(&client, request).await.unwrap_err().code(), Grpc::NotFound, "{swept}");
        let keys = client.keys().list_keys(pb::ListKeysRequest::default()).await.unwrap().into_inner().keys;
        assert!(keys.len() == 1 && keys[0].key_id == kept.key_id, "{swept}");
        house.sweep().await;
    }
    // The sweep has gone through the rows of the keys: none counts as a holder of the role any more.
    let request = pb::GetRoleRequest { role: "reader".into(), ..Default::default() };
    assert_eq!(client.roles().get_role(request).await.unwrap().into_inner().role.unwrap().key_count, 1);
    let deletions = client.events().await.iter().filter(|event| *event == "api.delete").count();
    assert_eq!(deletions, 1);
}

#[tokio::test]
async fn what_is_not_there_or_not_for_the_caller_is_answered_alike() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let foreign = client.neighbour("neighbour").await.api("documents").await;
    let deleted = client.api("doomed").await;
    delete(&client, &deleted.api_id).await.unwrap();
    let grants = ["apis.another_one.read_api", "apis.another_one.update_api", "apis.another_one.delete_api"];
    let limited = client.limited(&grants).await.named("same");
    let same = client.named("same");
    macro_rules! alike {
        ($($method:ident $request:ident;)*) => {$(
            let answer = async |caller: &Client, api_id: &str| {
                let request = pb::$request { api_id: api_id.into(), ..Default::default() };
                but_for(caller.apis().$method(request).await, api_id)
            };
            let missing = answer(&same, "api_00000000000000000000000000").await;
            assert_eq!(missing.0, Grpc::NotFound);
            assert_eq!(answer(&limited, &api.api_id).await, missing, stringify!($method));
            assert_eq!(answer(&limited, &deleted.api_id).await, missing, stringify!($method));
            assert_eq!(answer(&same, &deleted.api_id).await, missing, stringify!($method));
            assert_eq!(answer(&same, &foreign.api_id).await, missing, stringify!($method));
            let status = refusal(same.apis().$method(pb::$request { api_id: "documents".into(), ..Default::default() }).await);
            assert_eq!(status, (Grpc::InvalidArgument, "FIELD_INVALID".to_owned()));
        )*};
    }
    alike! {
        get_api GetApiRequest;
        update_api UpdateApiRequest;
        delete_api DeleteApiRequest;
    }
    assert_eq!(get(&client, &api.api_id).await.unwrap(), api);
}

#[tokio::test]
async fn lists_show_what_the_caller_may_read_and_what_is_searched_for() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let mut ids = Vec::new();
    for name in ["Documents", "billing", "doomed", "documents"] {
        house.pass(1);
        ids.push(client.api(name).await.api_id);
    }
    delete(&client, &ids[2]).await.unwrap();
    let list = async |client: &Client, part: Option<&str>| {
        let filter = Some(pb::ListApisFilter { name_contains: part.map(Into::into) });
        let request = pb::ListApisRequest { filter, ..Default::default() };
        let apis = client.apis().list_apis(request).await.unwrap().into_inner().apis;
        apis.into_iter().map(|api| api.name).collect::<Vec<_>>()
    };
    assert_eq!(list(&client, None).await, ["Documents", "billing", "documents"]);
    assert_eq!(list(&client, Some("DOC")).await, ["Documents", "documents"]);
    assert_eq!(list(&client, Some("doomed")).await, Vec::<String>::new());
    let limited = client.limited(&[&format!("apis.{}.read_api", ids[1])]).await;
    assert_eq!(list(&limited, None).await, ["billing"]);
    assert_eq!(list(&client.neighbour("neighbour").await, None).await, Vec::<String>::new());
    let refused = client.limited(&["apis.*.read_key"]).await.apis().list_apis(pb::ListApisRequest::default()).await;
    assert_eq!(refusal(refused), (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned()));
}
