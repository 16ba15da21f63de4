//! The end of a life: to the millisecond, recorded once, and independent of whether anybody has looked.

use ostiary::pb::v1 as pb;

use crate::harness::{Client, House, at, root_key, span};
use crate::root_keys::calls::{changing, not_found, only, unauthenticated, why};

const DAY: u64 = 24 * 3_600 * 1_000;
/// How long expired things and deleted root keys are kept.
const RETENTION: u64 = 90 * DAY;
/// How long deleted keys are kept.
const RESTORABLE: u64 = 30 * DAY;
/// How often a test looks for what happens in the background before it gives up.
const LOOKS: usize = 20_000;

/// A key that lives that many milliseconds.
async fn mortal_key(client: &Client, life: u64) -> (pb::Key, String) {
    let api = client.api("documents").await;
    let expiration = Some(pb::create_key_request::Expiration::Ttl(span(life)));
    client.key(pb::CreateKeyRequest { api_id: api.api_id, expiration, ..Default::default() }).await
}

async fn code(client: &Client, secret: &str) -> pb::VerificationCode {
    client.verdict(secret, None).await.code()
}

async fn key_state(client: &Client, key: &pb::Key) -> Option<pb::KeyState> {
    let request = pb::GetKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    let response = client.keys().get_key(request).await;
    response.ok().map(|response| response.into_inner().key.unwrap().state())
}

async fn delete_key(client: &Client, key: &pb::Key) {
    let request = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
}

async fn undelete_key(client: &Client, key: &pb::Key) {
    let request = pb::UndeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    client.keys().undelete_key(request).await.unwrap();
}

async fn renew(client: &Client, key: &pb::Key, end: Option<u64>) {
    let request = pb::UpdateKeyRequest {
        key_id: key.key_id.clone(),
        expire_time: end.map(at),
        update_mask: only(&["expire_time"]),
        ..Default::default()
    };
    client.keys().update_key(request).await.unwrap();
}

#[tokio::test]
async fn a_root_key_ends_at_the_millisecond_it_names_whether_or_not_the_sweeper_has_run() {
    for swept in [false, true] {
        let house = House::unswept().await;
        let operator = house.operator().await;
        let (made, client) = operator.mortal("mortal", &["apis.*.read_api"], 1_000).await;
        house.pass(999);
        if swept {
            house.sweep().await;
        }
        client.me().await.unwrap();
        assert_eq!(operator.look(&made.root_key_id).await.unwrap().state(), pb::RootKeyState::Active);
        for _ in 0..2 {
            house.pass(1);
            if swept {
                house.sweep().await;
            }
            assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
            let request = pb::CreateApiRequest { name: "late".into(), ..Default::default() };
            assert_eq!(why(client.apis().create_api(request).await), unauthenticated("ROOT_KEY_EXPIRED"));
            assert_eq!(operator.look(&made.root_key_id).await.unwrap().state(), pb::RootKeyState::Expired);
        }
    }
}

#[tokio::test]
async fn a_key_ends_at_the_millisecond_it_names_whether_or_not_the_sweeper_has_run() {
    for swept in [false, true] {
        let house = House::unswept().await;
        let operator = house.operator().await;
        let (key, secret) = mortal_key(&operator, 1_000).await;
        house.pass(999);
        assert_eq!(code(&operator, &secret).await, pb::VerificationCode::Valid);
        for _ in 0..2 {
            house.pass(1);
            if swept {
                house.sweep().await;
            }
            assert_eq!(code(&operator, &secret).await, pb::VerificationCode::Expired);
            assert_eq!(key_state(&operator, &key).await, Some(pb::KeyState::Expired));
        }
    }
}

#[tokio::test]
async fn each_end_is_recorded_once_by_the_system_across_sweeps_at_once_and_restarts() {
    let mut house = House::unswept().await;
    let operator = house.operator().await;
    let mut expected = Vec::new();
    for n in 0..40 {
        expected.push(operator.mortal(&format!("{n}"), &["apis.*.read_api"], 1_000 + n % 3).await.0.root_key_id);
    }
    let (key, _) = mortal_key(&operator, 1_000).await;
    house.sweep().await;
    assert_eq!(operator.recorded("root_key.expire").await.len(), 0);
    house.pass(1_002);
    tokio::join!(house.sweep(), house.sweep(), house.sweep());
    house.restart().await;
    house.sweep().await;
    house.pass(DAY);
    house.sweep().await;
    let operator = house.operator().await;
    let mut recorded = operator.recorded("root_key.expire").await;
    recorded.sort();
    expected.sort();
    assert_eq!(recorded, expected);
    assert_eq!(operator.recorded("key.expire").await, [key.key_id]);
    let filter = pb::ListAuditEventsFilter { event: Some("root_key.expire".into()), ..Default::default() };
    let request = pb::ListAuditEventsRequest { filter: Some(filter), page_size: 1, ..Default::default() };
    let event = operator.audit().list_audit_events(request).await.unwrap().into_inner().events.remove(0);
    assert_eq!(event.actor.unwrap().r#type(), pb::AuditActorType::System);
}

#[tokio::test]
async fn what_expires_while_nobody_runs_is_recorded_after_the_next_start() {
    let mut house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.mortal("mortal", &["apis.*.read_api"], 1_000).await;
    let secret = client.headers.secret.unwrap();
    house.pass(DAY);
    house.restart().await;
    assert_eq!(why(house.client(&secret).await.me().await), unauthenticated("ROOT_KEY_EXPIRED"));
    house.sweep().await;
    assert_eq!(house.operator().await.recorded("root_key.expire").await, [made.root_key_id]);
}

#[tokio::test]
async fn an_end_that_was_moved_or_overtaken_by_deletion_is_not_recorded() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (deleted, _) = operator.mortal("deleted", &["apis.*.read_api"], 1_000).await;
    let (moved, client) = operator.mortal("moved", &["apis.*.read_api"], 1_000).await;
    let (shortened, _) = operator.mortal("shortened", &["apis.*.read_api"], 9_000).await;
    let (deleted_key, _) = mortal_key(&operator, 1_000).await;
    let (renewed_key, renewed) = mortal_key(&operator, 1_000).await;
    house.pass(999);
    operator.remove(&deleted.root_key_id).await.unwrap();
    let end = |root_key, end: u64| pb::UpdateRootKeyRequest { expire_time: Some(at(end)), ..changing(root_key) };
    operator.change(end(&moved, house.now() + 60_000)).await.unwrap();
    operator.change(end(&shortened, house.now() + 1)).await.unwrap();
    delete_key(&operator, &deleted_key).await;
    renew(&operator, &renewed_key, None).await;
    house.pass(60_000 - 1);
    house.sweep().await;
    client.me().await.unwrap();
    assert_eq!(operator.recorded("root_key.expire").await, std::slice::from_ref(&shortened.root_key_id));
    assert_eq!(operator.recorded("key.expire").await.len(), 0);
    assert_eq!(code(&operator, &renewed).await, pb::VerificationCode::Valid);
    house.pass(1);
    house.sweep().await;
    assert_eq!(operator.recorded("root_key.expire").await, [shortened.root_key_id, moved.root_key_id]);
}

#[tokio::test]
async fn an_end_that_has_come_is_recorded_once_even_if_it_is_undone_before_or_after_the_sweep() {
    for swept in [false, true] {
        let house = House::unswept().await;
        let operator = house.operator().await;
        let (deleted, _) = operator.mortal("deleted", &["apis.*.read_api"], 1_000).await;
        let (renewed, renewed_secret) = mortal_key(&operator, 1_000).await;
        let (restored, restored_secret) = mortal_key(&operator, 1_000).await;
        house.pass(1_000);
        if swept {
            house.sweep().await;
        }
        operator.remove(&deleted.root_key_id).await.unwrap();
        renew(&operator, &renewed, Some(house.now() + 10 * DAY)).await;
        delete_key(&operator, &restored).await;
        house.pass(1);
        undelete_key(&operator, &restored).await;
        house.sweep().await;
        delete_key(&operator, &restored).await;
        undelete_key(&operator, &restored).await;
        house.sweep().await;
        assert_eq!(operator.recorded("root_key.expire").await, [deleted.root_key_id], "swept: {swept}");
        let mut recorded = operator.recorded("key.expire").await;
        recorded.sort();
        let mut expected = [renewed.key_id.clone(), restored.key_id.clone()];
        expected.sort();
        assert_eq!(recorded, expected, "swept: {swept}");
        assert_eq!(code(&operator, &renewed_secret).await, pb::VerificationCode::Valid);
        assert_eq!(code(&operator, &restored_secret).await, pb::VerificationCode::Expired);
        house.pass(RETENTION - 2);
        house.sweep().await;
        assert_eq!(key_state(&operator, &restored).await, Some(pb::KeyState::Expired), "swept: {swept}");
        house.pass(1);
        house.sweep().await;
        assert_eq!(key_state(&operator, &restored).await, None, "swept: {swept}");
        assert_eq!(key_state(&operator, &renewed).await, Some(pb::KeyState::Expired), "swept: {swept}");
    }
}

#[tokio::test]
async fn an_expired_record_is_readable_for_the_retention_time_and_then_gone() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (made, client) = operator.mortal("mortal", &["apis.*.read_api"], 1_000).await;
    let (key, secret) = mortal_key(&operator, 1_000).await;
    house.pass(1_000);
    house.sweep().await;
    house.pass(RETENTION - 1);
    house.sweep().await;
    assert_eq!(operator.look(&made.root_key_id).await.unwrap().state(), pb::RootKeyState::Expired);
    assert_eq!(key_state(&operator, &key).await, Some(pb::KeyState::Expired));
    house.pass(1);
    house.sweep().await;
    assert_eq!(why(operator.look(&made.root_key_id).await), not_found());
    assert_eq!(key_state(&operator, &key).await, None);
    assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_INVALID"));
    assert_eq!(code(&operator, &secret).await, pb::VerificationCode::NotFound);
    assert_eq!(operator.recorded("root_key.expire").await, [made.root_key_id]);
}

#[tokio::test]
async fn a_deleted_key_can_be_restored_for_thirty_days_and_not_a_moment_longer() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (early, secret) = mortal_key(&operator, 100 * DAY).await;
    let (late, _) = mortal_key(&operator, 100 * DAY).await;
    delete_key(&operator, &early).await;
    delete_key(&operator, &late).await;
    house.pass(RESTORABLE - 1);
    house.sweep().await;
    undelete_key(&operator, &early).await;
    house.pass(1);
    house.sweep().await;
    assert_eq!(code(&operator, &secret).await, pb::VerificationCode::Valid);
    let request = pb::UndeleteKeyRequest { key_id: late.key_id.clone(), ..Default::default() };
    assert_eq!(why(operator.keys().undelete_key(request).await).1, "KEY_NOT_FOUND");
    house.pass(70 * DAY);
    house.sweep().await;
    assert_eq!(operator.recorded("key.expire").await, [early.key_id]);
}

#[tokio::test]
async fn a_renewed_key_works_again_and_is_not_removed_for_its_old_end() {
    for swept in [false, true] {
        let house = House::unswept().await;
        let operator = house.operator().await;
        let (key, secret) = mortal_key(&operator, 1_000).await;
        house.pass(1_000 + DAY);
        if swept {
            house.sweep().await;
        }
        assert_eq!(code(&operator, &secret).await, pb::VerificationCode::Expired);
        renew(&operator, &key, None).await;
        assert_eq!(code(&operator, &secret).await, pb::VerificationCode::Valid);
        for _ in 0..3 {
            house.pass(RETENTION);
            house.sweep().await;
        }
        assert_eq!(code(&operator, &secret).await, pb::VerificationCode::Valid, "swept: {swept}");
        assert_eq!(operator.recorded("key.expire").await, [key.key_id], "swept: {swept}");
    }
}

/// Waits until that many ends are on record.
async fn until_recorded(client: &Client, number: usize) {
    for _ in 0..LOOKS {
        if client.recorded("root_key.expire").await.len() >= number {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the background sweeper did not wake");
}

#[tokio::test]
async fn the_sweeper_in_the_background_wakes_for_the_next_end_even_if_it_was_put_before_what_it_waits_for() {
    let house = House::new().await;
    let operator = house.operator().await;
    operator.mortal("later", &["apis.*.read_api"], 50_000).await;
    let (late, _) = operator.mortal("late", &["apis.*.read_api"], 30_000).await;
    house.pass(30_000);
    until_recorded(&operator, 1).await;
    let (soon, _) = operator.mortal("soon", &["apis.*.read_api"], 1_000).await;
    house.pass(1_000);
    until_recorded(&operator, 2).await;
    let cut = pb::CreateRootKeyRequest { ..root_key("cut", &["apis.*.read_api"]) };
    let (cut, _) = operator.make(cut).await.unwrap();
    let shortened = pb::UpdateRootKeyRequest { expire_time: Some(at(house.now() + 1)), ..changing(&cut) };
    operator.change(shortened).await.unwrap();
    house.pass(1);
    until_recorded(&operator, 3).await;
    let expected = [late.root_key_id, soon.root_key_id, cut.root_key_id];
    assert_eq!(operator.recorded("root_key.expire").await, expected);
}
