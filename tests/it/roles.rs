//! Roles: what keys gain and lose through them.

use crate::harness::House;
use ostiary::pb::v1 as pb;

#[tokio::test]
async fn a_role_deleted_by_name_counts_for_no_key_from_the_very_next_verification_on() {
    let house = House::new().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["documents.read"]).await;
    let request = pb::CreateKeyRequest { api_id: api.api_id, roles: vec!["reader".into()], ..Default::default() };
    let (_, secret) = client.key(request).await;
    assert_eq!(client.verdict(&secret, Some("documents.read")).await.code(), pb::VerificationCode::Valid);
    let request = pb::DeleteRoleRequest { role: "reader".into(), ..Default::default() };
    client.roles().delete_role(request).await.unwrap();
    let verdict = client.verdict(&secret, Some("documents.read")).await;
    assert_eq!(verdict.code(), pb::VerificationCode::InsufficientPermissions);
    assert_eq!(verdict.reason, "the key lacks documents.read");
}
