//! Following the audit log: every event once, in order, without a gap, for as long as the caller may.

use ostiary::pb::v1 as pb;
use tonic::{Code, Status, Streaming};

use crate::harness::{Client, House, at, fields, reason, refusal, root_key};
use crate::process::Place;

type News = Streaming<pb::WatchAuditEventsResponse>;

/// Follows from where a token says.
async fn watch(client: &Client, resume_token: &str, filter: pb::ListAuditEventsFilter) -> Result<News, Status> {
    let request = pb::WatchAuditEventsRequest { resume_token: resume_token.to_owned(), filter: Some(filter) };
    Ok(client.audit().watch_audit_events(request).await?.into_inner())
}

async fn watch_all(client: &Client, resume_token: &str) -> News {
    watch(client, resume_token, pb::ListAuditEventsFilter::default()).await.unwrap()
}

/// The next so many events, and the token behind them.
async fn next(news: &mut News, number: usize) -> (Vec<pb::AuditEvent>, String) {
    let mut all = Vec::new();
    loop {
        let pb::WatchAuditEventsResponse { meta, events, resume_token } = news.message().await.unwrap().unwrap();
        assert!(meta.unwrap().request_id.starts_with("req_"));
        assert!(events.len() <= 100 && !resume_token.is_empty());
        all.extend(events);
        if all.len() >= number {
            assert_eq!(all.len(), number);
            return (all, resume_token);
        }
    }
}

/// The first message, which comes at once.
async fn first(news: &mut News) -> String {
    let first = news.message().await.unwrap().unwrap();
    assert_eq!(first.events, []);
    first.resume_token
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens_and_as_the_list_has_it() {
    let house = House::new().await;
    let client = house.operator().await;
    client.api("before").await;
    let mut news = watch_all(&client, "").await;
    first(&mut news).await;
    let known = client.log().await.len();
    let api = client.api("documents").await;
    let (told, _) = next(&mut news, 1).await;
    assert_eq!((told[0].event.as_str(), told[0].targets[0].id.as_str()), ("api.create", api.api_id.as_str()));
    client.role("editor", &["documents.read", "documents.write"]).await;
    let listed = client.log().await;
    let (more, _) = next(&mut news, listed.len() - known - 1).await;
    assert_eq!([told, more].concat(), listed[known..]);
}

#[tokio::test]
async fn whoever_goes_on_with_a_token_misses_nothing_and_hears_nothing_twice() {
    let mut house = House::new().await;
    let client = house.operator().await;
    let mut news = watch_all(&client, "").await;
    let mut token = first(&mut news).await;
    let known = client.log().await.len();
    let mut told = Vec::new();
    for round in 0..3 {
        client.api(&format!("heard {round}")).await;
        let (events, behind) = next(&mut news, 1).await;
        (told, token) = ([told, events].concat(), behind);
        drop(news);
        for number in 0..3 {
            client.api(&format!("while away {round} {number}")).await;
        }
        news = watch_all(&client, &token).await;
        let (events, behind) = next(&mut news, 3).await;
        (told, token) = ([told, events].concat(), behind);
    }
    assert_eq!(told, client.log().await[known..]);
    drop(news);
    // A token outlives the server that has given it.
    client.api("the last before").await;
    house.restart().await;
    let client = house.operator().await;
    client.api("the first after").await;
    let (events, _) = next(&mut watch_all(&client, &token).await, 2).await;
    let names: Vec<_> = events.iter().map(|event| event.targets[0].name.as_str()).collect();
    assert_eq!(names, ["the last before", "the first after"]);
}

#[tokio::test]
async fn a_reader_who_is_slow_gets_all_of_it_and_holds_nobody_up() {
    let house = House::new().await;
    let client = house.operator().await;
    let mut news = watch_all(&client, "").await;
    first(&mut news).await;
    let known = client.log().await.len();
    let other = house.operator().await;
    for number in 0..350 {
        other.api(&format!("api {number}")).await;
    }
    let (told, _) = next(&mut news, 350).await;
    assert!(told == client.log().await[known..]);
}

#[tokio::test]
async fn a_filter_says_what_of_it_and_from_when_on() {
    let house = House::new().await;
    let client = house.operator().await;
    client.api("early").await;
    house.pass(60_000);
    let since = house.now();
    client.api("late").await;
    client.role("late", &[]).await;
    let after = Some(at(since));
    let filter = pb::ListAuditEventsFilter { after, event: Some("api.create".into()), ..Default::default() };
    let mut news = watch(&client, "", filter.clone()).await.unwrap();
    let (told, token) = next(&mut news, 1).await;
    assert_eq!(told[0].targets[0].name, "late");
    client.role("later", &[]).await;
    client.api("later").await;
    assert_eq!(next(&mut news, 1).await.0[0].targets[0].name, "later");
    // Another filter may go on where one has ended.
    let roles = pb::ListAuditEventsFilter { event: Some("role.create".into()), ..Default::default() };
    let (told, _) = next(&mut watch(&client, &token, roles).await.unwrap(), 1).await;
    assert!(["late", "later"].contains(&told[0].targets[0].name.as_str()));
    let nonsense = pb::ListAuditEventsFilter { event: Some("api.invent".into()), ..Default::default() };
    let refused = watch(&client, "", nonsense).await.unwrap_err();
    assert_eq!(fields(&refused), ["filter.event"]);
}

#[tokio::test]
async fn silence_is_told_every_ten_seconds() {
    let house = House::new().await;
    let client = house.operator().await;
    let mut news = watch_all(&client, "").await;
    first(&mut news).await;
    for _ in 0..3 {
        house.pass(10_000);
        let token = first(&mut news).await;
        let (_, again) = next(&mut watch_all(&client, &token).await, 0).await;
        assert!(!again.is_empty());
    }
}

#[tokio::test]
async fn nobody_follows_another_workspace_with_a_token_or_without() {
    let house = House::new().await;
    let client = house.operator().await;
    let neighbour = client.neighbour("neighbour").await;
    let mut own = watch_all(&client, "").await;
    let token = first(&mut own).await;
    let mut theirs = watch_all(&neighbour, "").await;
    first(&mut theirs).await;
    client.api("ours").await;
    neighbour.api("theirs").await;
    assert_eq!(next(&mut theirs, 1).await.0[0].targets[0].name, "theirs");
    assert_eq!(next(&mut own, 1).await.0[0].targets[0].name, "ours");
    let page = client
        .audit()
        .list_audit_events(pb::ListAuditEventsRequest { page_size: 1, ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    for (whose, token) in [(&neighbour, token.as_str()), (&client, &page), (&client, "AAAA"), (&client, "ä")] {
        let refused = watch(whose, token, pb::ListAuditEventsFilter::default()).await.unwrap_err();
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["resume_token".to_owned()]));
    }
    let powerless = client.limited(&["apis.*.read_api"]).await;
    let refused = watch(&powerless, "", pb::ListAuditEventsFilter::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "PERMISSION_MISSING"));
}

#[tokio::test]
async fn it_ends_as_a_new_call_would_when_the_caller_may_not_any_more() {
    let house = House::new().await;
    let client = house.operator().await;
    let made = client.root_keys().create_root_key(root_key("auditor", &["audit.*.read_audit_log"])).await.unwrap();
    let (auditor, secret) = (made.get_ref().root_key.clone().unwrap(), made.get_ref().secret.clone());
    let auditor_client = client.with(&secret);
    let mut news = watch_all(&auditor_client, "").await;
    first(&mut news).await;
    let root_key_id = auditor.root_key_id.clone();
    let narrower = pb::UpdateRootKeyRequest {
        root_key_id: root_key_id.clone(),
        permissions: vec!["apis.*.read_api".to_owned()],
        ..Default::default()
    };
    client.root_keys().update_root_key(narrower).await.unwrap();
    let ended = news.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::PermissionDenied, "PERMISSION_MISSING"));

    let permissions = vec!["audit.*.read_audit_log".to_owned()];
    let back = pb::UpdateRootKeyRequest { root_key_id: root_key_id.clone(), permissions, ..Default::default() };
    client.root_keys().update_root_key(back).await.unwrap();
    let mut news = watch_all(&auditor_client, "").await;
    first(&mut news).await;
    client.root_keys().delete_root_key(pb::DeleteRootKeyRequest { root_key_id, ..Default::default() }).await.unwrap();
    let ended = refusal::<()>(Err(news.message().await.unwrap_err()));
    assert_eq!(ended, (Code::Unauthenticated, "ROOT_KEY_INVALID".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_says_so_and_ends_it() {
    let place = Place::new();
    let server = place.serve(&["--drain", "10m"]);
    let client = server.client(&place.first_root_key()).await;
    let mut news = watch_all(&client, "").await;
    first(&mut news).await;
    server.process.signal(rustix::process::Signal::TERM);
    assert_eq!(reason(&news.message().await.unwrap_err()), "SHUTTING_DOWN");
    assert_eq!(server.process.ended().code, Some(0));
}
