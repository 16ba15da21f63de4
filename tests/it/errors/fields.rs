//! What each field must be, as a table: values at a limit are taken, those past it are refused by the field's path.

use ostiary::pb::v1 as pb;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, House, at, fields, reason, root_key, span, texts};

/// The paths that a call complains of, in order; none if it was taken.
fn told<T>(result: Result<Response<T>, Status>) -> Vec<String> {
    let Err(status) = result else { return Vec::new() };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "FIELD_INVALID"), "{status:?}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    for violation in &violations {
        let line = format!("{}: {}", violation.field, violation.description);
        assert!(status.message().contains(&line), "{} lacks {line}", status.message());
        assert!(violation.description.len() < 400, "{line}");
    }
    fields(&status)
}

/// What the first violation says.
fn flaw<T>(result: Result<Response<T>, Status>) -> String {
    let Err(status) = result else { panic!("it was to be refused") };
    status.get_details_bad_request().unwrap().field_violations[0].description.clone()
}

fn id(prefix: &str) -> String {
    format!("{prefix}_{}", "0".repeat(26))
}

/// Texts that are no name wherever one is wanted.
fn bad_names() -> Vec<String> {
    let within = ["a\0name", "a\nname", "a\tname", "a\u{7f}name", "a\u{85}name", "a\u{2028}name", "a\u{202e}name"];
    let around = [" name", "name ", "\u{a0}name", "name\u{3000}"];
    within.into_iter().chain(around).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn names_are_counted_in_characters_and_hide_nothing() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api = operator.api("documents").await.api_id;
    let (root, role) = (root_key("x", &["apis.*.read_api"]), operator.role("reader", &[]).await.role_id);
    let names = |least: usize| {
        let fit = [least, 255].map(|length| (["é", "😀", "a"][length % 3].repeat(length), true));
        let unfit = [least.wrapping_sub(1), 256, 5_000].into_iter().filter(|length| *length < 10_000);
        let unfit = unfit.map(|length| ("é".repeat(length), false));
        let bad = bad_names().into_iter().map(|name| (name, false));
        fit.into_iter().chain(unfit).chain(bad).collect::<Vec<_>>()
    };
    let expected = |fit: bool, field: &str| if fit { vec![] } else { vec![field.to_owned()] };
    let validate_only = true;
    for (name, fit) in names(1) {
        let request = pb::CreateRootKeyRequest { name: name.clone(), validate_only, ..root.clone() };
        assert_eq!(told(operator.root_keys().create_root_key(request).await), expected(fit, "name"), "{name:?}");
        let request = pb::CreateWorkspaceRequest { name: name.clone(), validate_only, quotas: None };
        assert_eq!(told(operator.workspaces().create_workspace(request).await), expected(fit, "name"), "{name:?}");
    }
    for (name, fit) in names(3) {
        let request = pb::CreateApiRequest { name: name.clone(), validate_only, ..Default::default() };
        assert_eq!(told(operator.apis().create_api(request).await), expected(fit, "name"), "{name:?}");
        let request =
            pb::UpdateApiRequest { api_id: api.clone(), name: Some(name.clone()), validate_only, ..Default::default() };
        assert_eq!(told(operator.apis().update_api(request).await), expected(fit, "name"), "{name:?}");
        let request = pb::CreateRoleRequest { name: name.clone(), validate_only, ..Default::default() };
        assert_eq!(told(operator.roles().create_role(request).await), expected(fit, "name"), "{name:?}");
        let request =
            pb::UpdateRoleRequest { role: role.clone(), name: Some(name.clone()), validate_only, ..Default::default() };
        assert_eq!(told(operator.roles().update_role(request).await), expected(fit, "name"), "{name:?}");
        let request = pb::DeleteRoleRequest { role: name.clone(), validate_only, ..Default::default() };
        let answer = operator.roles().delete_role(request).await;
        match answer {
            Err(status) if fit => assert_eq!(reason(&status), "ROLE_NOT_FOUND", "{name:?}"),
            answer => assert_eq!(told(answer), ["role"], "{name:?}"),
        }
    }
    for (name, fit) in names(0) {
        let (api_id, slug) = (api.clone(), "some.slug".to_owned());
        let request = pb::CreateKeyRequest { api_id, name: name.clone(), validate_only, ..Default::default() };
        assert_eq!(told(operator.keys().create_key(request).await), expected(fit, "name"), "{name:?}");
        let request = pb::CreatePermissionRequest { slug, name: name.clone(), validate_only, ..Default::default() };
        assert_eq!(told(operator.permissions().create_permission(request).await), expected(fit, "name"), "{name:?}");
    }
}

#[tokio::test]
async fn an_id_has_one_spelling_and_every_other_is_told_by_its_field() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let bad = |prefix: &str| {
        let good = id(prefix);
        vec![
            String::new(),
            prefix.to_owned(),
            format!("{prefix}_"),
            good.to_uppercase(),
            good[..good.len() - 1].to_owned(),
            format!("{good}0"),
            format!(" {good}"),
            format!("{good}\0"),
            format!("{prefix}_8{}", "0".repeat(25)),
            format!("{prefix}_i{}", "0".repeat(25)),
            format!("x{good}"),
            id("zz"),
            "*".to_owned(),
            "é".repeat(40),
        ]
    };
    for key_id in bad("key") {
        let request = pb::GetKeyRequest { key_id: key_id.clone(), ..Default::default() };
        assert_eq!(told(operator.keys().get_key(request).await), ["key_id"], "{key_id:?}");
    }
    for api_id in bad("api") {
        let request = pb::GetApiRequest { api_id: api_id.clone(), ..Default::default() };
        assert_eq!(told(operator.apis().get_api(request).await), ["api_id"], "{api_id:?}");
        let filter = Some(pb::ListKeysFilter { api_id: Some(api_id.clone()), ..Default::default() });
        let request = pb::ListKeysRequest { filter, ..Default::default() };
        assert_eq!(told(operator.keys().list_keys(request).await), ["filter.api_id"], "{api_id:?}");
        let request = pb::VerifyKeyRequest { key: "x".into(), api_id: Some(api_id.clone()), ..Default::default() };
        assert_eq!(told(operator.keys().verify_key(request).await), ["api_id"], "{api_id:?}");
    }
    for root_key_id in bad("rk") {
        let request = pb::GetRootKeyRequest { root_key_id: root_key_id.clone(), ..Default::default() };
        assert_eq!(told(operator.root_keys().get_root_key(request).await), ["root_key_id"], "{root_key_id:?}");
    }
    for workspace_id in bad("ws") {
        let request = pb::GetWorkspaceRequest { workspace_id: workspace_id.clone(), ..Default::default() };
        assert_eq!(told(operator.workspaces().get_workspace(request).await), ["workspace_id"], "{workspace_id:?}");
    }
    let request = pb::BatchDeleteRootKeysRequest {
        root_key_ids: vec![id("rk"), "x".into(), id("rk"), "y".into()],
        ..Default::default()
    };
    let batch = told(operator.root_keys().batch_delete_root_keys(request).await);
    assert_eq!(batch, ["root_key_ids[1]", "root_key_ids[3]"]);
    for root_key_ids in [vec![], vec![id("rk"); 21]] {
        let request = pb::BatchDeleteRootKeysRequest { root_key_ids, ..Default::default() };
        assert_eq!(told(operator.root_keys().batch_delete_root_keys(request).await), ["root_key_ids"]);
    }
}

#[tokio::test]
async fn a_name_or_slug_of_an_ids_shape_is_refused_because_it_would_be_taken_for_one() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let role = operator.role("reader", &[]).await.role_id;
    let request = pb::CreateRoleRequest { name: id("role"), ..Default::default() };
    assert_eq!(told(operator.roles().create_role(request).await), ["name"]);
    let request = pb::UpdateRoleRequest { role, name: Some(id("role")), ..Default::default() };
    assert_eq!(told(operator.roles().update_role(request).await), ["name"]);
    let request = pb::CreatePermissionRequest { slug: id("perm"), ..Default::default() };
    assert_eq!(told(operator.permissions().create_permission(request).await), ["slug"]);
    let request = pb::CreateRoleRequest { name: id("api"), ..Default::default() };
    assert_eq!(told(operator.roles().create_role(request).await), ["name"], "of whatever kind");
    let request = pb::GetRoleRequest { role: id("perm"), ..Default::default() };
    assert_eq!(told(operator.roles().get_role(request).await), ["role"]);
    // Only the full shape of an id is one.
    for name in ["role_x", "ROLE_00000000000000000000000000", "perms_00000000000000000000000000"] {
        operator.role(name, &[]).await;
        let request = pb::GetRoleRequest { role: name.into(), ..Default::default() };
        assert_eq!(operator.roles().get_role(request).await.unwrap().into_inner().role.unwrap().name, name);
    }
}

#[tokio::test]
async fn a_slug_is_1_to_128_of_its_characters() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let with = |slug: &str| pb::CreatePermissionRequest { slug: slug.into(), ..Default::default() };
    for slug in ["a", "*", "A-Z.a_z:0/9*", &"a".repeat(128), "..", "-"] {
        assert_eq!(told(operator.permissions().create_permission(with(slug)).await), [""; 0], "{slug}");
    }
    for slug in ["", &"a".repeat(129), "a b", "a\0", "é", "a,b", "a@b", "a\n", "(a)", "a\\b"] {
        assert_eq!(told(operator.permissions().create_permission(with(slug)).await), ["slug"], "{slug:?}");
    }
    let request = pb::CreateRoleRequest {
        name: "several".into(),
        permissions: texts(&["ok", "not ok", "ok.too", "nor\0this"]),
        ..Default::default()
    };
    assert_eq!(told(operator.roles().create_role(request).await), ["permissions[1]", "permissions[3]"]);
}

#[tokio::test]
async fn a_refused_grant_is_told_by_its_place_and_with_the_nearest_spelling() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let create = async |grants: &[&str]| operator.root_keys().create_root_key(root_key("x", grants)).await;
    let nearest = [
        ("apis.*.read_apis", "apis.*.read_api"),
        ("APIS.*.READ_API", "apis.*.read_api"),
        ("Apis.*.read_api", "apis.*.read_api"),
        ("apis.read_api", "apis.*.read_api"),
        ("read_api", "apis.*.read_api"),
        ("apis.*.read_api.x", "apis.*.read_api"),
        ("apis.a.create_api", "apis.*.create_api"),
        ("apis.*.read_role", "rbac.*.read_role"),
        ("keys.*.verify_key", "apis.*.verify_key"),
        ("root_key.*.rotate_root_key", "root_keys.*.rotate_root_key"),
        ("*.*.read_workspace", "workspaces.*.read_workspace"),
        ("audit.evt_1.read_audit_log", "audit.*.read_audit_log"),
        (" apis.*.read_api", "apis.*.read_api"),
        ("apis.*.read_*", "apis.*.read_api"),
    ];
    for (bad, better) in nearest {
        let grants = ["apis.*.read_key", bad];
        assert_eq!(told(create(&grants).await), ["permissions[1]"], "{bad}");
        let said = flaw(create(&grants).await);
        assert!(said.ends_with(&format!("the nearest valid spelling is {better}")), "{bad}: {said}");
        assert_eq!(told(create(&[better]).await), [""; 0], "{better}");
    }
    for bad in ["", ".", "..", "...", "a.b.c", "apis.ab.read_api", "apis.A1B.read_api", "apis.a-b.read_api", "\0.*.*"] {
        assert_eq!(told(create(&[bad]).await), ["permissions[0]"], "{bad:?}");
    }
    let long = format!("apis.{}.read_api", "a".repeat(65));
    assert_eq!(
        told(create(&[&long, "apis.*.read_api", "x", &"é".repeat(9_999)]).await),
        ["permissions[0]", "permissions[2]", "permissions[3]",]
    );
    assert_eq!(told(create(&[]).await), ["permissions"]);
    let many: Vec<String> = (0..=200).map(|n| format!("apis.api_{n:03}.read_api")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(told(create(&many).await), ["permissions"]);
    assert_eq!(told(create(&many[..200]).await), [""; 0]);
    // Duplicates collapse, and the singular stands for the plural.
    let request =
        root_key("x", &["api.*.read_api", "apis.*.read_api", "identity.*.read_identity", "ratelimit.*.limit"]);
    let made = operator.root_keys().create_root_key(request).await.unwrap().into_inner().root_key.unwrap();
    assert_eq!(made.permissions, ["apis.*.read_api", "identities.*.read_identity", "ratelimits.*.limit"]);
}

#[tokio::test]
async fn networks_are_told_one_by_one() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let with = |networks: &[&str]| pb::CreateApiRequest {
        name: "networks".into(),
        allowed_cidrs: texts(networks),
        ..Default::default()
    };
    let bad = ["", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.1:80", "010.0.0.1", "10.0.0.1\0", "*"];
    for network in bad {
        let refused = told(operator.apis().create_api(with(&["10.0.0.0/8", network])).await);
        assert_eq!(refused, ["allowed_cidrs[1]"], "{network:?}");
    }
    let refused = told(operator.apis().create_api(with(&["x", "10.0.0.0/8", "y"])).await);
    assert_eq!(refused, ["allowed_cidrs[0]", "allowed_cidrs[2]"]);
    let many: Vec<String> = (0..=100).map(|n| format!("10.0.{n}.0/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(told(operator.apis().create_api(with(&many[..100])).await), [""; 0]);
    assert_eq!(told(operator.apis().create_api(with(&many)).await), ["allowed_cidrs[100]"]);
}

#[tokio::test]
async fn moments_lie_in_the_future_and_spans_within_their_bounds() {
    use pb::create_key_request::Expiration;
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api_id = operator.api("documents").await.api_id;
    let now = house.now();
    let key = |expiration| pb::CreateKeyRequest {
        api_id: api_id.clone(),
        expiration: Some(expiration),
        ..Default::default()
    };
    let stamp = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    let length = |seconds, nanos| prost_types::Duration { seconds, nanos };
    let moments = [
        (at(now - 1), false),
        (at(now), false),
        (at(now + 1), true),
        (stamp(0, 0), false),
        (stamp(-1, 0), false),
        (stamp(i64::MAX, 0), false),
        (stamp(i64::MIN, 0), false),
        (stamp(253_402_300_799, 0), true),
        (stamp(253_402_300_800, 0), false),
        (stamp(4_000_000_000, -1), false),
        (stamp(4_000_000_000, 1_000_000_000), false),
    ];
    for (moment, fit) in moments {
        let expected = if fit { vec![] } else { vec!["expire_time"] };
        assert_eq!(told(operator.keys().create_key(key(Expiration::ExpireTime(moment))).await), expected, "{moment:?}");
    }
    let spans = [
        (span(999), false),
        (span(1_000), true),
        (length(0, 0), false),
        (length(-1, 0), false),
        (length(-1, -1), false),
        (length(2, -1), false),
        (length(2, 1_000_000_000), false),
        (length(i64::MAX, 999_999_999), false),
        (length(i64::MIN, 0), false),
    ];
    for (ttl, fit) in spans {
        let expected = if fit { vec![] } else { vec!["ttl"] };
        assert_eq!(told(operator.keys().create_key(key(Expiration::Ttl(ttl))).await), expected, "{ttl:?}");
        let expected = if fit { vec![] } else { vec!["default_ttl"] };
        let request = pb::CreateApiRequest { name: "api".into(), default_ttl: Some(ttl), ..Default::default() };
        assert_eq!(told(operator.apis().create_api(request).await), expected, "{ttl:?}");
    }
    let (target, _) = operator.root_key("rotated", &["apis.*.read_api"]).await;
    let month = 30 * 24 * 3_600;
    for (grace, fit) in [(length(-1, 0), false), (length(month, 1_000_000), false), (length(month, 0), true)] {
        let request = pb::RotateRootKeyRequest {
            root_key_id: target.root_key_id.clone(),
            grace_period: Some(grace),
            validate_only: true,
            ..Default::default()
        };
        let expected = if fit { vec![] } else { vec!["grace_period"] };
        assert_eq!(told(operator.root_keys().rotate_root_key(request).await), expected, "{grace:?}");
    }
}

#[tokio::test]
async fn update_masks_name_fields_that_can_be_changed_and_clear_only_what_can_be_without() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api_id = operator.api("documents").await.api_id;
    let (key, _) = operator.key(pb::CreateKeyRequest { api_id: api_id.clone(), ..Default::default() }).await;
    let mask = |paths: &[&str]| Some(prost_types::FieldMask { paths: texts(paths) });
    let update = async |paths: &[&str]| {
        let request =
            pb::UpdateKeyRequest { key_id: key.key_id.clone(), update_mask: mask(paths), ..Default::default() };
        told(operator.keys().update_key(request).await)
    };
    for path in
        ["api_id", "prefix", "key_id", "etag", "metadata.a", "credits.day", "*", "", "Name", "roles[0]", "name\0"]
    {
        assert_eq!(update(&["name", path]).await, ["update_mask.paths[1]"], "{path:?}");
    }
    assert_eq!(update(&["x", "name", "y"]).await, ["update_mask.paths[0]", "update_mask.paths[2]"]);
    assert_eq!(update(&["name"; 1_001]).await, ["update_mask"]);
    let request = pb::UpdateApiRequest { api_id, update_mask: mask(&["name"]), ..Default::default() };
    assert_eq!(told(operator.apis().update_api(request).await), ["name"], "required");
    let role = operator.role("reader", &["documents.read"]).await.role_id;
    let request = pb::UpdateRoleRequest { role, update_mask: mask(&["name", "permissions"]), ..Default::default() };
    assert_eq!(told(operator.roles().update_role(request).await), ["update_mask.paths[1]", "name"]);
    let permission = "documents.read".to_owned();
    let request = pb::UpdatePermissionRequest { permission, update_mask: mask(&["slug"]), ..Default::default() };
    assert_eq!(told(operator.permissions().update_permission(request).await), ["update_mask.paths[0]"]);
    let root_key_id = operator.root_key("x", &["apis.*.read_api"]).await.0.root_key_id;
    let request =
        pb::UpdateRootKeyRequest { root_key_id, update_mask: mask(&["name", "permissions"]), ..Default::default() };
    assert_eq!(told(operator.root_keys().update_root_key(request).await), ["name", "permissions"]);
}

#[tokio::test]
async fn all_flaws_of_a_request_are_told_at_once() {
    use pb::create_key_request::Expiration;
    let house = House::unswept().await;
    let operator = house.operator().await;
    let number = |number| prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(number)) };
    let request = pb::CreateKeyRequest {
        api_id: "x".into(),
        name: "a\0".into(),
        prefix: Some("no_".into()),
        metadata: Some(prost_types::Struct { fields: [("a".to_owned(), number(f64::NAN))].into() }),
        roles: texts(&["ok role", "no"]),
        permissions: texts(&["no no"]),
        expiration: Some(Expiration::ExpireTime(at(1))),
        allowed_cidrs: texts(&["no"]),
        ..Default::default()
    };
    let expected =
        ["api_id", "name", "prefix", "metadata", "roles[1]", "permissions[0]", "expire_time", "allowed_cidrs[0]"];
    assert_eq!(told(operator.keys().create_key(request).await), expected);
    let request = pb::VerifyKeyRequest {
        key: String::new(),
        api_id: Some("x".into()),
        permissions: Some("AND".into()),
        client_ip: Some("x".into()),
        view: 7,
        dry_run: true,
        min_revision: "x".into(),
        ..Default::default()
    };
    let expected = ["key", "api_id", "client_ip", "view", "min_revision", "permissions"];
    assert_eq!(told(operator.keys().verify_key(request).await), expected);
    let filter = pb::ListRootKeysFilter {
        name_contains: Some(String::new()),
        permission_contains: Some("a".repeat(256)),
        state: Some(0),
        create_after: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
        ..Default::default()
    };
    let request = pb::ListRootKeysRequest { page_size: -1, filter: Some(filter), ..Default::default() };
    let expected =
        ["page_size", "filter.name_contains", "filter.permission_contains", "filter.state", "filter.create_after"];
    assert_eq!(told(operator.root_keys().list_root_keys(request).await), expected);
}

#[tokio::test]
async fn metadata_and_descriptions_and_prefixes_have_their_bounds() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api_id = operator.api("documents").await.api_id;
    let holding = |bytes: usize| {
        let kind = Some(prost_types::value::Kind::StringValue("a".repeat(bytes)));
        let fields = [("a".to_owned(), prost_types::Value { kind })].into();
        let metadata = Some(prost_types::Struct { fields });
        pb::CreateKeyRequest { api_id: api_id.clone(), metadata, validate_only: true, ..Default::default() }
    };
    let overhead = prost::Message::encoded_len(holding(60_000).metadata.as_ref().unwrap()) - 60_000;
    let most = 64 * 1_024 - overhead;
    assert_eq!(told(operator.keys().create_key(holding(most)).await), [""; 0]);
    assert_eq!(told(operator.keys().create_key(holding(most + 1)).await), ["metadata"]);
    for (length, expected) in [(512, vec![]), (513, vec!["description"])] {
        let description = "é".repeat(length);
        let request =
            pb::CreateRoleRequest { name: "described".into(), description, validate_only: true, ..Default::default() };
        assert_eq!(told(operator.roles().create_role(request).await), expected);
    }
    let prefixed = async |client: &Client, prefix: &str| {
        let (api_id, prefix) = (api_id.clone(), Some(prefix.to_owned()));
        told(client.keys().create_key(pb::CreateKeyRequest { api_id, prefix, ..Default::default() }).await)
    };
    for prefix in ["a", "acme_live", "_a", "A1", &"a".repeat(15), "ostiary_x", "OSTIARY"] {
        assert_eq!(prefixed(&operator, prefix).await, [""; 0], "{prefix}");
    }
    for prefix in ["", "ostiary", "a_", "_", &"a".repeat(16), "a-b", "a b", "é", "a\0"] {
        assert_eq!(prefixed(&operator, prefix).await, ["prefix"], "{prefix:?}");
    }
}
