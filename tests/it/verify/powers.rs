//! What a key may do: directly, through roles, through wildcards.

use super::*;

#[tokio::test]
async fn permissions_count_whether_held_directly_or_through_a_role() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["documents.read"]).await;
    client.role("lister", &["documents.list", "documents.*.head"]).await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id,
        roles: texts(&["reader", "lister"]),
        permissions: texts(&["documents.write", "billing.*", "Case.Read"]),
        ..Default::default()
    };
    let (_, secret) = client.key(request).await;
    let good = [
        "documents.read",
        "documents.list AND documents.write",
        "documents.read and documents.list AnD documents.write",
        "nothing OR documents.read",
        "nothing AND nothing OR documents.read",
        "documents.read OR nothing AND nothing",
        "(nothing OR documents.read) AND (documents.write)",
        "billing.read",
        "billing.read.own",
        "billing.*",
        "documents.a.head",
        "documents.*.head",
        "Case.Read",
        "\tdocuments.read\r\n",
    ];
    for query in good {
        assert_eq!(client.verdict(&secret, Some(query)).await.code(), Code::Valid, "{query}");
    }
    let lacking = [
        ("nothing", "nothing"),
        ("documents.read AND nothing AND none", "nothing, none"),
        ("(documents.read OR nothing) AND none", "none"),
        ("nothing OR none", "nothing, none"),
        ("billing", "billing"),
        ("billing.", "billing."),
        ("documents.a.b.head", "documents.a.b.head"),
        ("documents.head", "documents.head"),
        ("documents.Read", "documents.Read"),
        ("case.read", "case.read"),
        ("documents.*", "documents.*"),
        ("*", "*"),
        ("documents", "documents"),
        ("documents.read.own", "documents.read.own"),
        ("nothing AND nothing", "nothing"),
    ];
    for (query, missing) in lacking {
        let verdict = client.verdict(&secret, Some(query)).await;
        assert_eq!(verdict.code(), Code::InsufficientPermissions, "{query}");
        assert_eq!(verdict.reason, format!("the key lacks {missing}"), "{query}");
    }
}

#[tokio::test]
async fn a_key_without_permissions_is_good_for_no_query_and_one_with_a_star_for_every_one() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, bare) = client.plain_key(&api, "").await;
    let request = pb::CreateKeyRequest { api_id: api.api_id, permissions: texts(&["*"]), ..Default::default() };
    let (_, star) = client.key(request).await;
    for query in ["a", "a.b.c", "*", "a AND b.c"] {
        assert_eq!(client.verdict(&bare, Some(query)).await.code(), Code::InsufficientPermissions, "{query}");
        assert_eq!(client.verdict(&star, Some(query)).await.code(), Code::Valid, "{query}");
    }
    assert_eq!(client.verdict(&bare, None).await.code(), Code::Valid, "nothing was asked");
}

#[tokio::test]
async fn a_permission_or_role_made_anew_does_not_come_back_to_those_who_held_the_old_one() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["documents.read"]).await;
    client.role("writer", &["documents.write"]).await;
    let request = pb::CreateKeyRequest {
        api_id: api.api_id,
        roles: texts(&["reader", "writer"]),
        permissions: texts(&["documents.read", "documents.write"]),
        ..Default::default()
    };
    let (key, secret) = client.key(request).await;
    let request = pb::DeletePermissionRequest { permission: "documents.read".into(), ..Default::default() };
    client.permissions().delete_permission(request).await.unwrap();
    let lacks_reading = async || {
        let verdict = client.verdict(&secret, Some("documents.read")).await;
        assert_eq!(verdict.code(), Code::InsufficientPermissions);
        let question = pb::VerifyKeyRequest { view: pb::VerificationView::Full.into(), ..about(&secret) };
        assert_eq!(client.verify(question).await.permissions, ["documents.write"]);
        assert_eq!(client.get_key(&key.key_id).await.unwrap().permissions, ["documents.write"]);
    };
    lacks_reading().await;
    let request = pb::CreatePermissionRequest { slug: "documents.read".into(), ..Default::default() };
    client.permissions().create_permission(request).await.unwrap();
    lacks_reading().await;
    let request = pb::DeleteRoleRequest { role: "writer".into(), ..Default::default() };
    client.roles().delete_role(request).await.unwrap();
    client.role("writer", &["documents.delete"]).await;
    assert_eq!(client.verdict(&secret, Some("documents.delete")).await.code(), Code::InsufficientPermissions);
    house.sweep().await;
    lacks_reading().await;
    assert_eq!(client.verdict(&secret, Some("documents.delete")).await.code(), Code::InsufficientPermissions);
    let roles: Vec<String> =
        client.get_key(&key.key_id).await.unwrap().roles.into_iter().map(|role| role.name).collect();
    assert_eq!(roles, ["reader"]);
}
