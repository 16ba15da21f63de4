//! Deleting a root key with all that came from it.

use ostiary::pb::v1 as pb;

use super::calls::{precondition, unauthenticated, why};
use crate::harness::{Client, House};

const EVERYTHING: &[&str] = &["*.*.*"];

fn cascading(id: &str) -> pb::DeleteRootKeyRequest {
    pb::DeleteRootKeyRequest { root_key_id: id.into(), cascade: true, ..Default::default() }
}

fn sorted(ids: &[&str]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids
}

async fn names(client: &Client) -> Vec<String> {
    client.names(pb::ListRootKeysFilter::default()).await
}

#[tokio::test]
async fn a_cascade_follows_creation_and_rotation_over_any_number_of_steps_and_spares_the_rest() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (a, a_client) = operator.colleague("a", EVERYTHING).await;
    let (b, b_client) = a_client.colleague("b", EVERYTHING).await;
    let (c, _) = b_client.colleague("c", &["apis.*.read_api"]).await;
    let rotated = operator.rotate(&b.root_key_id, 60_000).await.unwrap().next;
    let again = operator.rotate(&rotated.root_key_id, 60_000).await.unwrap();
    let (d, _) = operator.with(&again.secret).colleague("d", &["apis.*.read_api"]).await;
    operator.colleague("bystander", EVERYTHING).await;
    let expected = sorted(&[
        &a.root_key_id,
        &b.root_key_id,
        &c.root_key_id,
        &rotated.root_key_id,
        &again.next.root_key_id,
        &d.root_key_id,
    ]);
    let rehearsed = pb::DeleteRootKeyRequest { validate_only: true, ..cascading(&a.root_key_id) };
    assert_eq!(operator.remove_as(rehearsed).await.unwrap(), expected);
    assert_eq!(names(&operator).await.len(), 8);
    assert_eq!(operator.remove_as(cascading(&a.root_key_id)).await.unwrap(), expected);
    assert_eq!(names(&operator).await, ["bystander", "first root key"]);
    assert_eq!(operator.recorded("root_key.delete").await.len(), 6);
    assert_eq!(why(b_client.me().await), unauthenticated("ROOT_KEY_INVALID"));
}

#[tokio::test]
async fn without_cascade_the_descendants_stay() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (a, a_client) = operator.colleague("a", EVERYTHING).await;
    let (_, b_client) = a_client.colleague("b", EVERYTHING).await;
    operator.remove(&a.root_key_id).await.unwrap();
    assert_eq!(b_client.me().await.unwrap().created_by, Some(a.root_key_id));
}

#[tokio::test]
async fn a_cascade_reaches_past_a_descendant_that_has_been_deleted_before() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (a, a_client) = operator.colleague("a", EVERYTHING).await;
    let (b, b_client) = a_client.colleague("b", EVERYTHING).await;
    b_client.colleague("c", EVERYTHING).await;
    operator.remove(&b.root_key_id).await.unwrap();
    operator.remove_as(cascading(&a.root_key_id)).await.unwrap();
    assert_eq!(names(&operator).await, ["first root key"]);
}

#[tokio::test]
async fn a_cascade_spares_what_the_caller_does_not_cover_and_reaches_past_it() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (a, a_client) = operator.colleague("a", EVERYTHING).await;
    let (_, wide) = a_client.colleague("wide", &["apis.*.*", "root_keys.*.*"]).await;
    wide.colleague("narrow", &["apis.*.read_api"]).await;
    let (_, caller) = operator.colleague("caller", &["root_keys.*.*", "apis.*.read_api"]).await;
    caller.remove_as(cascading(&a.root_key_id)).await.unwrap();
    assert_eq!(names(&operator).await, ["caller", "first root key", "wide"]);
}

#[tokio::test]
async fn a_caller_that_is_itself_a_descendant_goes_with_the_rest() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (a, a_client) = operator.colleague("a", EVERYTHING).await;
    let (b, b_client) = a_client.colleague("b", EVERYTHING).await;
    let (c, _) = b_client.colleague("c", EVERYTHING).await;
    let expected = sorted(&[&a.root_key_id, &b.root_key_id, &c.root_key_id]);
    assert_eq!(b_client.remove_as(cascading(&a.root_key_id)).await.unwrap(), expected);
    assert_eq!(why(b_client.me().await), unauthenticated("ROOT_KEY_INVALID"));
    assert_eq!(names(&operator).await, ["first root key"]);
}

#[tokio::test]
async fn a_caller_may_delete_itself_with_all_that_came_from_it_however_many() {
    for children in [0, 3, 24, 25, 60] {
        let house = House::unswept().await;
        let operator = house.operator().await;
        let (a, a_client) = operator.colleague("a", EVERYTHING).await;
        for child in 0..children {
            a_client.mortal(&format!("child {child}"), EVERYTHING, 60_000).await;
        }
        let deleted = a_client.remove_as(cascading(&a.root_key_id)).await.unwrap();
        assert_eq!(deleted.len(), children + 1);
        assert!(deleted.is_sorted());
        assert_eq!(names(&operator).await, ["first root key"]);
        assert_eq!(operator.recorded("root_key.delete").await.len(), children + 1);
    }
}

#[tokio::test]
async fn a_cascade_that_would_leave_no_administrator_deletes_nothing_however_many_it_would_reach() {
    for children in [1, 30] {
        let house = House::unswept().await;
        let operator = house.operator().await;
        for child in 0..children {
            operator.colleague(&format!("child {child}"), EVERYTHING).await;
        }
        let me = operator.me().await.unwrap().root_key_id;
        assert_eq!(why(operator.remove_as(cascading(&me)).await), precondition("LAST_ADMINISTRATOR"));
        let stale = pb::DeleteRootKeyRequest { etag: "stale".into(), force: true, ..cascading(&me) };
        assert_eq!(why(operator.remove_as(stale).await).1, "ETAG_MISMATCH");
        assert_eq!(names(&operator).await.len(), children + 1);
        let forced = pb::DeleteRootKeyRequest { force: true, ..cascading(&me) };
        assert_eq!(operator.remove_as(forced).await.unwrap().len(), children + 1);
        assert_eq!(why(operator.me().await), unauthenticated("ROOT_KEY_INVALID"));
    }
}

#[tokio::test]
async fn what_comes_into_being_while_its_ancestor_is_deleted_does_not_survive() {
    for round in 0..10 {
        let house = House::build(crate::harness::Kept::InMemory, ostiary::server::Sweeping::ByHand, round).await;
        let operator = house.operator().await;
        let (a, a_client) = operator.colleague("a", EVERYTHING).await;
        let (_, b_client) = a_client.colleague("b", EVERYTHING).await;
        let busy = async |client: &Client| {
            let mut client = client.clone();
            while let Ok((_, secret)) = client.make(crate::harness::root_key("late", EVERYTHING)).await {
                client = client.with(&secret);
            }
        };
        let (_, _, deleted) =
            tokio::join!(busy(&a_client), busy(&b_client), operator.remove_as(cascading(&a.root_key_id)));
        deleted.unwrap();
        assert_eq!(names(&operator).await, ["first root key"]);
    }
}
