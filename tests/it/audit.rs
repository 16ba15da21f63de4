//! The audit log: what each change leaves in it, and how it is read.

mod watching;

use std::collections::BTreeSet;

use ostiary::pb::v1 as pb;
use prost_types::value::Kind;
use tonic::Code as Grpc;

use crate::harness::{Client, House, START, at, fields, mask, refusal, span, texts};

fn short(value: &prost_types::Value) -> String {
    match value.kind.as_ref().unwrap() {
        Kind::NullValue(_) => "null".into(),
        Kind::NumberValue(number) => number.to_string(),
        Kind::StringValue(text) => text.clone(),
        Kind::BoolValue(truth) => truth.to_string(),
        Kind::ListValue(list) => format!("[{}]", list.values.iter().map(short).collect::<Vec<_>>().join(" ")),
        Kind::StructValue(inner) => format!("{{{}}}", facts(inner)),
    }
}

/// Facts in short: `name=value`, in the order of names.
fn facts(facts: &prost_types::Struct) -> String {
    facts.fields.iter().map(|(name, value)| format!("{name}={}", short(value))).collect::<Vec<_>>().join(" ")
}

/// An event in short: its name, its targets, what was before and what is after; `-` stands for nothing.
fn brief(event: &pb::AuditEvent) -> (String, String, String, String) {
    let side = |side: &Option<prost_types::Struct>| side.as_ref().map_or_else(|| "-".to_owned(), facts);
    let targets: Vec<String> = event.targets.iter().map(|target| format!("{}:{}", target.kind, target.name)).collect();
    (event.event.clone(), targets.join(" "), side(&event.before), side(&event.after))
}

fn line(event: &str, targets: &str, before: &str, after: &str) -> (String, String, String, String) {
    (event.to_owned(), targets.to_owned(), before.to_owned(), after.to_owned())
}

/// What has been logged since so many events.
async fn since(client: &Client, known: usize) -> Vec<(String, String, String, String)> {
    client.log().await[known..].iter().map(brief).collect()
}

async fn list(client: &Client, filter: pb::ListAuditEventsFilter) -> Vec<String> {
    let request = pb::ListAuditEventsRequest { filter: Some(filter), page_size: 1_000, ..Default::default() };
    let events = client.audit().list_audit_events(request).await.unwrap().into_inner().events;
    events.into_iter().map(|event| event.event).collect()
}

#[tokio::test]
async fn every_change_of_apis_roles_and_permissions_leaves_exactly_its_events() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let known = client.log().await.len();
    let request = pb::CreateApiRequest {
        name: "documents".into(),
        default_ttl: Some(span(86_400_000)),
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        ..Default::default()
    };
    let api = client.apis().create_api(request).await.unwrap().into_inner().api.unwrap();
    let request = pb::UpdateApiRequest {
        api_id: api.api_id.clone(),
        default_prefix: Some("docs".into()),
        update_mask: mask(&["default_prefix", "default_ttl"]),
        ..Default::default()
    };
    client.apis().update_api(request).await.unwrap();
    client.role("reader", &["a"]).await;
    let request = pb::UpdateRoleRequest {
        role: "reader".into(),
        name: Some("lister".into()),
        description: Some(String::new()),
        ..Default::default()
    };
    client.roles().update_role(request).await.unwrap();
    let request =
        pb::SetRolePermissionsRequest { role: "lister".into(), permissions: texts(&["b", "c"]), ..Default::default() };
    client.roles().set_role_permissions(request).await.unwrap();
    let request = pb::UpdatePermissionRequest { permission: "a".into(), name: Some("A".into()), ..Default::default() };
    client.permissions().update_permission(request).await.unwrap();
    let request = pb::DeletePermissionRequest { permission: "a".into(), ..Default::default() };
    client.permissions().delete_permission(request).await.unwrap();
    client.roles().delete_role(pb::DeleteRoleRequest { role: "lister".into(), ..Default::default() }).await.unwrap();
    let request = pb::DeleteApiRequest { api_id: api.api_id, ..Default::default() };
    client.apis().delete_api(request).await.unwrap();
    let made = |slug: &str| {
        line("permission.create", &format!("permission:{slug}"), "-", &format!("description= name= slug={slug}"))
    };
    let expected = [
        line(
            "api.create",
            "api:documents",
            "-",
            "allowed_cidrs=[10.0.0.0/8] default_ttl=1day delete_protection=false name=documents",
        ),
        line("api.update", "api:documents", "default_ttl=1day", "default_prefix=docs"),
        made("a"),
        line("role.create", "role:reader", "-", "description= name=reader permissions=[a]"),
        line("role.update", "role:lister", "name=reader", "name=lister"),
        made("b"),
        made("c"),
        line("role.update", "role:lister", "permissions=[a]", "permissions=[b c]"),
        line("permission.update", "permission:a", "name=", "name=A"),
        line("permission.delete", "permission:a", "description= name=A slug=a", "-"),
        line("role.delete", "role:lister", "description= name=lister permissions=[b c]", "-"),
        line(
            "api.delete",
            "api:documents",
            "allowed_cidrs=[10.0.0.0/8] default_prefix=docs delete_protection=false name=documents",
            "-",
        ),
    ];
    assert_eq!(since(&client, known).await, expected);
}

#[tokio::test]
async fn every_change_of_a_key_leaves_exactly_its_events_and_none_its_metadata() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let role = client.role("reader", &[]).await;
    let known = client.log().await.len();
    let personal = prost_types::Value { kind: Some(Kind::StringValue("ada@example.org".into())) };
    let request = pb::CreateKeyRequest {
        api_id: api.api_id.clone(),
        name: "Ada".into(),
        permissions: texts(&["a"]),
        metadata: Some(prost_types::Struct { fields: [("mail".to_owned(), personal)].into() }),
        expiration: Some(pb::create_key_request::Expiration::Ttl(span(60_000))),
        ..Default::default()
    };
    let (key, _) = client.key(request).await;
    let key_id = || key.key_id.clone();
    let request =
        pb::UpdateKeyRequest { key_id: key_id(), name: Some("Eve".into()), enabled: Some(false), ..Default::default() };
    client.keys().update_key(request).await.unwrap();
    let request = pb::AddKeyRolesRequest { key_id: key_id(), roles: texts(&["reader"]), ..Default::default() };
    client.keys().add_key_roles(request).await.unwrap();
    let request = pb::SetKeyPermissionsRequest { key_id: key_id(), ..Default::default() };
    client.keys().set_key_permissions(request).await.unwrap();
    client.keys().delete_key(pb::DeleteKeyRequest { key_id: key_id(), ..Default::default() }).await.unwrap();
    client.keys().undelete_key(pb::UndeleteKeyRequest { key_id: key_id(), ..Default::default() }).await.unwrap();
    house.pass(60_000);
    house.sweep().await;
    house.sweep().await;
    let (start, api_id, role_id) = (&key.start, &api.api_id, &role.role_id);
    let all = |enabled: bool, name: &str, permissions: &str, roles: &str| {
        format!(
            "allowed_cidrs=[] api_id={api_id} enabled={enabled} expire_time=2026-01-01T00:01:00.000Z \
             metadata_fields=[mail] name={name} permissions=[{permissions}] roles=[{roles}] start={start}"
        )
    };
    let last = all(false, "Eve", "", role_id);
    let expected = [
        line("permission.create", "permission:a", "-", "description= name= slug=a"),
        line("key.create", "key:Ada api:documents", "-", &all(true, "Ada", "a", "")),
        line("key.update", "key:Eve", "enabled=true name=Ada", "enabled=false name=Eve"),
        line("key.update", "key:Eve", "roles=[]", &format!("roles=[{role_id}]")),
        line("key.update", "key:Eve", "permissions=[a]", "permissions=[]"),
        line("key.delete", "key:Eve", &last, "-"),
        line("key.undelete", "key:Eve", "-", &last),
        line("key.expire", "key:Eve", &last, "-"),
    ];
    assert_eq!(since(&client, known).await, expected);
    let expired = client.log().await.pop().unwrap();
    let system = pb::AuditActor { r#type: pb::AuditActorType::System.into(), ..Default::default() };
    assert_eq!(expired.actor, Some(system));
    assert_eq!((expired.remote_address, expired.user_agent, expired.request_id), Default::default());
}

#[tokio::test]
async fn an_event_says_who_did_it_when_from_where_with_what_and_in_which_call() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (root_key, secret) = client.root_key("server", &["apis.*.create_api"]).await;
    house.pass(1_234);
    let request = pb::CreateApiRequest { name: "documents".into(), ..Default::default() };
    let response = client.with(&secret).named("job-7").apis().create_api(request).await.unwrap().into_inner();
    let event = client.log().await.pop().unwrap();
    let meta = response.meta.unwrap();
    let actor =
        pb::AuditActor { r#type: pb::AuditActorType::RootKey.into(), id: root_key.root_key_id, name: "server".into() };
    let target = pb::AuditTarget { kind: "api".into(), id: response.api.unwrap().api_id, name: "documents".into() };
    assert_eq!((event.actor, event.targets), (Some(actor), vec![target]));
    assert_eq!((event.time, event.revision), (Some(at(START + 1_234)), meta.revision));
    assert_eq!((event.request_id.as_str(), meta.request_id.as_str()), ("job-7", "job-7"));
    assert_eq!(event.remote_address, "127.0.0.1");
    assert!(event.user_agent.starts_with("tonic/"), "{}", event.user_agent);
    assert!(event.event_id.starts_with("evt_") && event.event_id.len() == 30);
    // What its actor is called later does not change what was written.
    let request = pb::UpdateRootKeyRequest {
        root_key_id: client.log().await.pop().unwrap().actor.unwrap().id,
        name: Some("renamed".into()),
        ..Default::default()
    };
    client.root_keys().update_root_key(request).await.unwrap();
    let log = client.log().await;
    assert_eq!(log[log.len() - 2].actor.as_ref().unwrap().name, "server");
}

#[tokio::test]
async fn the_events_of_one_call_share_its_revision_and_stand_in_their_order() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    client.role("reader", &["c", "a", "b"]).await;
    client.role("writer", &[]).await;
    let log = client.log().await;
    let of_call = &log[log.len() - 5..log.len() - 1];
    let names: Vec<&str> = of_call.iter().map(|event| event.targets[0].name.as_str()).collect();
    assert_eq!(names, ["c", "a", "b", "reader"]);
    let revisions: BTreeSet<&str> = of_call.iter().map(|event| event.revision.as_str()).collect();
    let calls: BTreeSet<&str> = of_call.iter().map(|event| event.request_id.as_str()).collect();
    assert_eq!((revisions.len(), calls.len()), (1, 1));
    let ids: Vec<&str> = of_call.iter().map(|event| event.event_id.as_str()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let ids: BTreeSet<&str> = log.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!(ids.len(), log.len());
}

#[tokio::test]
async fn what_reads_fails_or_changes_nothing_leaves_no_event() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["a"]).await;
    let (key, secret) = client.plain_key(&api, "Ada").await;
    let known = client.log().await;
    client.get_key(&key.key_id).await.unwrap();
    client.verdict(&secret, Some("a")).await;
    client.keys().list_keys(pb::ListKeysRequest::default()).await.unwrap();
    client.keys().lookup_key(pb::LookupKeyRequest { secret, ..Default::default() }).await.unwrap();
    client.roles().list_roles(pb::ListRolesRequest::default()).await.unwrap();
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    let same = pb::UpdateKeyRequest { key_id: key.key_id.clone(), name: Some("Ada".into()), ..Default::default() };
    client.once("a").keys().update_key(same).await.unwrap();
    let taken = pb::CreateRoleRequest { name: "READER".into(), permissions: texts(&["new"]), ..Default::default() };
    client.roles().create_role(taken).await.unwrap_err();
    let denied = client.limited(&["audit.*.read_audit_log"]).await;
    denied.roles().create_role(pb::CreateRoleRequest { name: "other".into(), ..Default::default() }).await.unwrap_err();
    let log = client.log().await;
    assert_eq!(log[..known.len()], known[..]);
    assert_eq!(log[known.len()..].iter().map(|event| event.event.as_str()).collect::<Vec<_>>(), ["root_key.create"]);
    assert_eq!(denied.log().await, log);
}

#[tokio::test]
async fn no_event_holds_a_secret() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (root_key, one) = client.root_key("server", &["*.*.*"]).await;
    let (key, two) = client.once("a").plain_key(&api, "Ada").await;
    let request = pb::RotateRootKeyRequest {
        root_key_id: root_key.root_key_id,
        grace_period: Some(span(60_000)),
        ..Default::default()
    };
    let three = client.root_keys().rotate_root_key(request).await.unwrap().into_inner().secret;
    let request = pb::CreateWorkspaceRequest { name: "acme".into(), ..Default::default() };
    let four = client.workspaces().create_workspace(request).await.unwrap().into_inner().secret;
    let request = pb::DeleteKeyRequest { key_id: key.key_id, permanent: true, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let text = format!("{:?}{:?}", client.log().await, client.with(&four).log().await);
    for secret in [&house.first, &one, &two, &three, &four] {
        let (_, tail) = secret.rsplit_once('_').unwrap();
        assert!(!text.contains(&tail[4..]), "{text}");
    }
}

#[tokio::test]
async fn filters_narrow_the_log_and_all_of_them_must_hold() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (root_key, secret) = client.root_key("server", &["*.*.*"]).await;
    let server = client.with(&secret);
    house.pass(1_000);
    let api = server.api("documents").await;
    house.pass(1_000);
    let (key, _) = client.plain_key(&api, "Ada").await;
    house.pass(1_000);
    let request = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    server.keys().delete_key(request).await.unwrap();
    let none = pb::ListAuditEventsFilter::default;
    let by_server = pb::ListAuditEventsFilter { actor_id: Some(root_key.root_key_id.clone()), ..none() };
    assert_eq!(list(&client, by_server.clone()).await, ["api.create", "key.delete"]);
    let to = |id: &str| pb::ListAuditEventsFilter { target_id: Some(id.into()), ..none() };
    assert_eq!(list(&client, to(&key.key_id)).await, ["key.create", "key.delete"]);
    assert_eq!(list(&client, to(&api.api_id)).await, ["api.create", "key.create"], "the API of the key too");
    assert_eq!(list(&client, to("key_00000000000000000000000000")).await, Vec::<String>::new());
    let named = pb::ListAuditEventsFilter { event: Some("key.delete".into()), ..none() };
    assert_eq!(list(&client, named).await, ["key.delete"]);
    let between =
        |after, before| pb::ListAuditEventsFilter { after: Some(at(after)), before: Some(at(before)), ..none() };
    assert_eq!(list(&client, between(START + 1_000, START + 3_000)).await, ["api.create", "key.create"]);
    assert_eq!(list(&client, between(START + 1_001, START + 3_001)).await, ["key.create", "key.delete"]);
    let both = pb::ListAuditEventsFilter { target_id: Some(key.key_id.clone()), ..by_server };
    assert_eq!(list(&client, both).await, ["key.delete"]);
    let neighbour = client.neighbour("neighbour").await;
    assert_eq!(list(&neighbour, to(&key.key_id)).await, Vec::<String>::new(), "another workspace's log");
    let filter = pb::ListAuditEventsFilter {
        actor_id: Some(String::new()),
        event: Some("key.created".into()),
        target_id: Some("x".repeat(256)),
        after: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
        before: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
    };
    let request = pb::ListAuditEventsRequest { page_size: -1, filter: Some(filter), ..Default::default() };
    let status = client.audit().list_audit_events(request).await.unwrap_err();
    let expected =
        ["page_size", "filter.actor_id", "filter.target_id", "filter.event", "filter.after", "filter.before"];
    assert_eq!(fields(&status), expected);
    let powerless = client.limited(&["apis.*.*"]).await;
    let refused = refusal(powerless.audit().list_audit_events(pb::ListAuditEventsRequest::default()).await);
    assert_eq!(refused, (Grpc::PermissionDenied, "PERMISSION_MISSING".to_owned()));
}

#[tokio::test]
async fn pages_show_every_event_once_the_oldest_first_though_more_are_written() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    for n in 0..7 {
        client.role(&format!("role {n}"), &[]).await;
    }
    let filter = Some(pb::ListAuditEventsFilter { event: Some("role.create".into()), ..Default::default() });
    let mut request = pb::ListAuditEventsRequest { page_size: 3, filter, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = client.audit().list_audit_events(request.clone()).await.unwrap().into_inner();
        assert!(page.events.len() <= 3);
        seen.extend(page.events.into_iter().map(|event| event.targets[0].name.clone()));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        if seen.len() == 3 {
            client.role("role 7", &[]).await;
        }
    }
    let expected: Vec<String> = (0..8).map(|n| format!("role {n}")).collect();
    assert_eq!(seen, expected);
    request.page_token = "AAAA".into();
    let refused = refusal(client.audit().list_audit_events(request).await);
    assert_eq!(refused, (Grpc::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned()));
}

#[tokio::test]
async fn every_event_has_a_hash_of_its_own_and_keeps_it() {
    let mut house = House::unswept().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["a", "b"]).await;
    client.plain_key(&api, "Ada").await;
    client.neighbour("neighbour").await.role("reader", &[]).await;
    let before = client.log().await;
    let hashes: BTreeSet<&str> = before.iter().map(|event| event.hash.as_str()).collect();
    assert_eq!(hashes.len(), before.len());
    let hexadecimal =
        |hash: &&str| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    assert!(hashes.iter().all(hexadecimal), "{hashes:?}");
    house.restart().await;
    let client = house.operator().await;
    client.role("writer", &[]).await;
    let after = client.log().await;
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), before.len() + 1);
    assert!(!hashes.contains(after.last().unwrap().hash.as_str()));
}
