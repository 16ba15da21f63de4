//! Quotas of a workspace: exact, however many race for the last place.

use crate::harness::{Client, House, fields, reason, refusal, root_key};
use ostiary::pb::v1 as pb;
use tonic::Code;
use tonic_types::StatusExt;

fn quotas(keys: Option<i64>, root_keys: Option<i64>, calls: Option<i64>) -> pb::WorkspaceQuotas {
    pb::WorkspaceQuotas { max_keys: keys, max_root_keys: root_keys, calls_per_second: calls }
}

/// A workspace with these quotas, and a client with its first root key.
async fn tenant(house: &House, quotas: pb::WorkspaceQuotas) -> (pb::Workspace, Client) {
    let operator = house.operator().await;
    let request = pb::CreateWorkspaceRequest { name: "tenant".into(), quotas: Some(quotas), ..Default::default() };
    let made = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
    (made.workspace.unwrap(), operator.with(&made.secret))
}

fn key_in(api: &pb::Api) -> pb::CreateKeyRequest {
    pb::CreateKeyRequest { api_id: api.api_id.clone(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_callers_who_race_for_10_keys_exactly_10_get_one() {
    let house = House::new().await;
    let (_, client) = tenant(&house, quotas(Some(10), None, None)).await;
    let api = client.api("raced").await;
    let calls = (0..64).map(|_| {
        let (client, request) = (client.clone(), key_in(&api));
        tokio::spawn(async move { client.keys().create_key(request).await })
    });
    let outcomes = futures::future::join_all(calls).await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!(made.len(), 10);
    for outcome in refused {
        let status = outcome.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
        let violations = status.get_details_quota_failure().unwrap().violations;
        assert_eq!(violations[0].subject, "max_keys");
    }
    let api = client.apis().get_api(pb::GetApiRequest { api_id: api.api_id, ..Default::default() }).await.unwrap();
    assert_eq!(api.into_inner().api.unwrap().key_count, 10);
}

#[tokio::test]
async fn a_deleted_key_makes_room_and_restoring_it_needs_room_again() {
    let house = House::new().await;
    let (_, client) = tenant(&house, quotas(Some(1), None, None)).await;
    let api = client.api("small").await;
    let (first, _) = client.key(key_in(&api)).await;
    assert_eq!(refusal(client.keys().create_key(key_in(&api)).await).1, "QUOTA_EXCEEDED");
    let delete = pb::DeleteKeyRequest { key_id: first.key_id.clone(), ..Default::default() };
    client.keys().delete_key(delete).await.unwrap();
    let (second, _) = client.key(key_in(&api)).await;
    let undelete = pb::UndeleteKeyRequest { key_id: first.key_id, ..Default::default() };
    assert_eq!(refusal(client.keys().undelete_key(undelete.clone()).await).1, "QUOTA_EXCEEDED");
    let delete = pb::DeleteKeyRequest { key_id: second.key_id, permanent: true, ..Default::default() };
    client.keys().delete_key(delete).await.unwrap();
    client.keys().undelete_key(undelete).await.unwrap();
}

#[tokio::test]
async fn a_deleted_api_makes_room_for_all_its_keys_at_once_and_only_once() {
    let house = House::unswept().await;
    let (_, client) = tenant(&house, quotas(Some(2), None, None)).await;
    let doomed = client.api("doomed").await;
    client.key(key_in(&doomed)).await;
    client.key(key_in(&doomed)).await;
    let kept = client.api("kept").await;
    assert_eq!(refusal(client.keys().create_key(key_in(&kept)).await).1, "QUOTA_EXCEEDED");
    let delete = pb::DeleteApiRequest { api_id: doomed.api_id, ..Default::default() };
    client.apis().delete_api(delete).await.unwrap();
    client.key(key_in(&kept)).await;
    house.sweep().await;
    client.key(key_in(&kept)).await;
    assert_eq!(refusal(client.keys().create_key(key_in(&kept)).await).1, "QUOTA_EXCEEDED");
}

#[tokio::test]
async fn a_rotated_root_key_is_counted_by_its_successor() {
    let house = House::new().await;
    let (_, client) = tenant(&house, quotas(None, Some(2), None)).await;
    let (second, _) = client.root_key("second", &["apis.*.read_api"]).await;
    let third = client.root_keys().create_root_key(root_key("third", &["apis.*.read_api"])).await;
    assert_eq!(refusal(third).1, "QUOTA_EXCEEDED");
    let mut current = second.root_key_id;
    for _ in 0..3 {
        let request = pb::RotateRootKeyRequest { root_key_id: current, ..Default::default() };
        let rotated = client.root_keys().rotate_root_key(request).await.unwrap().into_inner();
        current = rotated.root_key.unwrap().root_key_id;
    }
    let delete = pb::DeleteRootKeyRequest { root_key_id: current, ..Default::default() };
    client.root_keys().delete_root_key(delete).await.unwrap();
    client.root_key("another", &["apis.*.read_api"]).await;
}

#[tokio::test]
async fn calls_beyond_the_rate_are_told_when_to_try_again_and_others_are_not_touched() {
    let house = House::new().await;
    let (_, client) = tenant(&house, quotas(None, None, Some(5))).await;
    for _ in 0..5 {
        client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    }
    let status = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    house.operator().await.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    house.pass(u64::try_from(wait.as_millis()).unwrap() - 1);
    assert_eq!(refusal(client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await).1, "QUOTA_EXCEEDED");
    house.pass(1);
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
}

#[tokio::test]
async fn quotas_are_shown_replaced_whole_and_lifted_through_the_mask() {
    let house = House::new().await;
    let operator = house.operator().await;
    let (workspace, client) = tenant(&house, quotas(Some(0), Some(9), None)).await;
    assert_eq!(workspace.quotas, Some(quotas(Some(0), Some(9), None)));
    let api = client.api("empty").await;
    assert_eq!(refusal(client.keys().create_key(key_in(&api)).await).1, "QUOTA_EXCEEDED");

    let update = |quotas, paths: &[&str]| pb::UpdateWorkspaceRequest {
        workspace_id: workspace.workspace_id.clone(),
        quotas,
        update_mask: Some(prost_types::FieldMask { paths: crate::harness::texts(paths) }),
        ..Default::default()
    };
    let changed = operator.workspaces().update_workspace(update(Some(quotas(Some(1), None, None)), &["quotas"])).await;
    assert_eq!(changed.unwrap().into_inner().workspace.unwrap().quotas, Some(quotas(Some(1), None, None)));
    client.key(key_in(&api)).await;
    assert_eq!(refusal(client.keys().create_key(key_in(&api)).await).1, "QUOTA_EXCEEDED");
    let lifted = operator.workspaces().update_workspace(update(None, &["quotas"])).await.unwrap().into_inner();
    assert_eq!(lifted.workspace.unwrap().quotas, None);
    client.key(key_in(&api)).await;
}

#[tokio::test]
async fn quotas_out_of_bounds_are_refused_all_at_once() {
    let house = House::new().await;
    let operator = house.operator().await;
    let request = pb::CreateWorkspaceRequest {
        name: String::new(),
        quotas: Some(quotas(Some(-1), Some(0), Some(0))),
        ..Default::default()
    };
    let status = operator.workspaces().create_workspace(request).await.unwrap_err();
    assert_eq!(fields(&status), ["name", "quotas.max_keys", "quotas.max_root_keys", "quotas.calls_per_second"]);
}

#[tokio::test]
async fn on_a_stream_each_question_is_counted_and_a_message_without_one_is_not() {
    let house = House::new().await;
    let (_, client) = tenant(&house, quotas(None, None, Some(3))).await;
    let question = || Some(pb::VerifyKeyRequest { key: "unknown".to_owned(), ..Default::default() });
    let asked = [vec![None; 5], vec![question(); 3]]
        .concat()
        .into_iter()
        .enumerate()
        .map(|(number, request)| pb::StreamVerifyKeysRequest { correlation_id: number.to_string(), request });
    let asked: Vec<_> = asked.collect();
    let answers = client.keys().stream_verify_keys(futures::stream::iter(asked)).await.unwrap().into_inner();
    let answers: Vec<_> = futures::StreamExt::collect(answers).await;
    let mut told: Vec<_> = answers
        .into_iter()
        .map(Result::unwrap)
        .map(|answer| {
            let told = match answer.result.unwrap() {
                pb::stream_verify_keys_response::Result::Verdict(verdict) => verdict.code().as_str_name().to_owned(),
                pb::stream_verify_keys_response::Result::Error(error) => error.message,
            };
            (answer.correlation_id, told)
        })
        .collect();
    told.sort();
    assert_eq!(told.iter().filter(|(_, told)| told.contains("request")).count(), 5, "{told:?}");
    let found = told.iter().filter(|(_, told)| told == "VERIFICATION_CODE_NOT_FOUND").count();
    // Opening the stream was a call as well.
    assert_eq!(found, 2, "{told:?}");
}
