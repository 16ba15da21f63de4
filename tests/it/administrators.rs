//! A workspace never loses its last administrator by accident: an enabled, never-expiring root key that can create root
//! keys.

use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;

use crate::harness::{Client, House, Kept, at, texts};
use crate::root_keys::calls::{changing, only, precondition, why};

const CREATOR: &[&str] = &["root_keys.*.*"];

/// What takes an administrator away.
fn ways(house: &House, root_key: &pb::RootKey) -> Vec<(&'static str, pb::UpdateRootKeyRequest)> {
    let base = || changing(root_key);
    vec![
        ("disabled", pb::UpdateRootKeyRequest { enabled: Some(false), ..base() }),
        ("narrowed", pb::UpdateRootKeyRequest { permissions: texts(&["root_keys.*.update_root_key"]), ..base() }),
        ("shortened", pb::UpdateRootKeyRequest { expire_time: Some(at(house.now() + 1_000_000)), ..base() }),
    ]
}

fn last() -> (tonic::Code, String) {
    precondition("LAST_ADMINISTRATOR")
}

#[tokio::test]
async fn the_last_administrator_is_not_disabled_narrowed_shortened_or_deleted_without_force() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let me = operator.me().await.unwrap();
    // None of these counts: one can't create, one is mortal, one is disabled.
    operator.colleague("reader", &["root_keys.*.read_root_key", "apis.*.*"]).await;
    operator.mortal("mortal", CREATOR, 1_000_000).await;
    let (disabled, _) = operator.colleague("disabled", CREATOR).await;
    operator.change(pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(&disabled) }).await.unwrap();
    let before = operator.events().await;
    for (way, request) in ways(&house, &me) {
        assert_eq!(why(operator.change(request.clone()).await), last(), "{way}");
        let rehearsed = pb::UpdateRootKeyRequest { validate_only: true, ..request };
        assert_eq!(why(operator.change(rehearsed).await), last(), "{way}, rehearsed");
    }
    let id = me.root_key_id.as_str();
    assert_eq!(why(operator.remove(id).await), last());
    assert_eq!(why(operator.remove_all(&[id, &disabled.root_key_id]).await), last());
    assert_eq!(operator.events().await, before);
    operator.look(&disabled.root_key_id).await.unwrap();
    let still = pb::UpdateRootKeyRequest { permissions: texts(&["root_keys.*.*", "*.*.*"]), ..changing(&me) };
    assert_eq!(operator.change(still).await.unwrap().permissions, ["*.*.*", "root_keys.*.*"]);
}

#[tokio::test]
async fn with_force_the_last_administrator_goes_in_each_of_these_ways() {
    for way in 0..3 {
        let house = House::unswept().await;
        let operator = house.operator().await;
        let me = operator.me().await.unwrap();
        let (_, request) = ways(&house, &me).remove(way);
        operator.change(pb::UpdateRootKeyRequest { force: true, ..request }).await.unwrap();
    }
    let house = House::unswept().await;
    let operator = house.operator().await;
    let root_key_ids = vec![operator.me().await.unwrap().root_key_id];
    let request = pb::BatchDeleteRootKeysRequest { root_key_ids, force: true, ..Default::default() };
    operator.root_keys().batch_delete_root_keys(request).await.unwrap();
}

#[tokio::test]
async fn one_of_two_administrators_goes_in_each_of_these_ways_and_the_other_stays() {
    for way in 0..4 {
        let house = House::unswept().await;
        let operator = house.operator().await;
        let me = operator.me().await.unwrap();
        let (other, other_client) = operator.colleague("other", &["*.*.*"]).await;
        match ways(&house, &other).into_iter().nth(way) {
            Some((_, request)) => {
                operator.change(request).await.unwrap();
            }
            None => {
                operator.remove(&other.root_key_id).await.unwrap();
            }
        }
        assert_eq!(why(operator.remove(&me.root_key_id).await), last(), "{way}");
        drop(other_client);
    }
}

#[tokio::test]
async fn both_administrators_in_one_batch_are_not_deleted() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let me = operator.me().await.unwrap().root_key_id;
    let (other, other_client) = operator.colleague("other", CREATOR).await;
    assert_eq!(why(operator.remove_all(&[&other.root_key_id, &me]).await), last());
    other_client.me().await.unwrap();
    let (_, third) = operator.colleague("third", &["*.*.*"]).await;
    operator.remove_all(&[&other.root_key_id, &me]).await.unwrap();
    third.me().await.unwrap();
}

#[tokio::test]
async fn a_rotation_keeps_an_administrator_because_its_successor_is_one() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let me = operator.me().await.unwrap().root_key_id;
    let rotated = operator.rotate(&me, 60_000).await.unwrap();
    let next = operator.with(&rotated.secret);
    assert_eq!(why(next.remove(&rotated.next.root_key_id).await), last());
    next.remove(&me).await.unwrap();
    assert_eq!(why(next.remove(&rotated.next.root_key_id).await), last());
    let forced = pb::RotateRootKeyRequest { root_key_id: rotated.next.root_key_id, force: true, ..Default::default() };
    let last_one = next.rotate_as(forced).await.unwrap();
    assert_eq!(why(next.with(&last_one.secret).remove(&last_one.next.root_key_id).await), last());
}

#[tokio::test]
async fn an_administrator_that_is_enabled_or_freed_of_its_end_counts_again() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let me = operator.me().await.unwrap().root_key_id;
    let (disabled, _) = operator.colleague("disabled", &["*.*.*"]).await;
    let off = |enabled| pb::UpdateRootKeyRequest { enabled: Some(enabled), ..changing(&disabled) };
    operator.change(off(false)).await.unwrap();
    operator.change(off(true)).await.unwrap();
    let (mortal, mortal_client) = operator.mortal("mortal", &["*.*.*"], 1_000).await;
    let freed = pb::UpdateRootKeyRequest { update_mask: only(&["expire_time"]), ..changing(&mortal) };
    operator.change(freed).await.unwrap();
    operator.remove_all(&[&me, &disabled.root_key_id]).await.unwrap();
    assert_eq!(why(mortal_client.remove(&mortal.root_key_id).await), last());
}

#[tokio::test]
async fn each_workspace_has_its_own_last_administrator() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (_, tenant) = operator.tenant("tenant").await;
    let first = tenant.me().await.unwrap().root_key_id;
    assert_eq!(why(tenant.remove(&first).await), last());
    assert_eq!(why(operator.remove(&operator.me().await.unwrap().root_key_id).await), last());
}

/// Tries to take away what the caller is, in one of the ways there are.
async fn abdicate(client: Client, me: pb::RootKey, way: u64, end: u64) {
    let id = me.root_key_id.as_str();
    let gone = match way {
        0 => client.remove(id).await.map(|_| ()),
        1 => client.change(pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(&me) }).await.map(|_| ()),
        2 => client.change(pb::UpdateRootKeyRequest { expire_time: Some(at(end)), ..changing(&me) }).await.map(|_| ()),
        3 => {
            let permissions = texts(&["root_keys.*.update_root_key"]);
            client.change(pb::UpdateRootKeyRequest { permissions, ..changing(&me) }).await.map(|_| ())
        }
        _ => client.rotate(id, 60_000).await.map(|_| ()),
    };
    if let Err(status) = gone {
        assert_eq!(crate::harness::reason(&status), "LAST_ADMINISTRATOR");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_two_never_both_go_however_they_go_at_the_same_time() {
    for (kept, rounds) in [(Kept::InMemory, 4), (Kept::OnDisk, 1)] {
        let house = House::build(kept, Sweeping::ByHand, 7).await;
        let operator = house.operator().await;
        for round in 0..rounds * 25 {
            let (first, second) = (round % 5, round / 5 % 5);
            let (_, one) = operator.tenant(&format!("tenant {round}")).await;
            let (other, other_client) = one.colleague("other", &["*.*.*"]).await;
            let me = one.me().await.unwrap();
            let end = house.now() + 1_000_000;
            let witness = [one.clone(), other_client.clone()];
            let a = tokio::spawn(abdicate(one.clone(), me, first, end));
            let b = tokio::spawn(abdicate(other_client, other, second, end));
            a.await.unwrap();
            b.await.unwrap();
            let mut administrators = 0;
            for client in witness {
                let Ok(response) = client.root_keys().list_root_keys(pb::ListRootKeysRequest::default()).await else {
                    continue;
                };
                let root_keys = response.into_inner().root_keys;
                let counts = |root_key: &&pb::RootKey| {
                    root_key.enabled && root_key.expire_time.is_none() && root_key.permissions == ["*.*.*"]
                };
                administrators = administrators.max(root_keys.iter().filter(counts).count());
            }
            assert!(administrators >= 1, "{kept:?}: ways {first} and {second} left none");
        }
    }
}
