//! How room is shared between workspaces.

use super::*;
use crate::domain::id::KeyId;

const NOW: Timestamp = Timestamp::EPOCH;

fn workspace(number: u8) -> WorkspaceId {
    WorkspaceId::from_bytes([number; 16])
}

/// Counts for so many keys of a workspace, and tells how many were let in.
fn count(registry: &Registry, workspace: WorkspaceId, keys: u64) -> usize {
    let counted = (0..keys).filter(|key| {
        let subject = Subject::Key(KeyId::from_bytes([[0; 8], key.to_be_bytes()].concat().try_into().unwrap()));
        let rate = Rate::new(10, Duration::from_secs(60)).unwrap();
        registry
            .admit_if(&[Ask { workspace, subject, name: "calls", rate, cost: 1, inline: false }], None, NOW, || true)
            .is_ok()
    });
    counted.count()
}

#[test]
fn a_workspace_alone_has_nearly_all_windows_and_leaves_some_to_others() {
    let registry = Registry::new(9_000);
    assert_eq!(count(&registry, workspace(1), 20_000), 8_000);
    let others = count(&registry, workspace(2), 20_000);
    assert_eq!(others, 889, "eight times as many as are left");
    assert_eq!(registry.taken_and_refused(), (8_889, 12_000 + 19_111));
    // What is counted already goes on.
    assert_eq!(count(&registry, workspace(1), 8_000), 8_000);
}

#[test]
fn room_comes_back_when_windows_are_over() {
    let registry = Registry::new(900);
    assert_eq!(count(&registry, workspace(1), 2_000), 800);
    let later = NOW.after(Duration::from_secs(300));
    registry.buckets.iter().for_each(|bucket| bucket.tidy(later, &registry.room));
    assert_eq!(registry.taken_and_refused().0, 0);
    assert_eq!(count(&registry, workspace(2), 2_000), 800);
}

#[test]
fn buckets_grow_with_the_room() {
    assert_eq!(Registry::new(10_000).buckets.len(), 64);
    assert_eq!(Registry::new(WINDOWS_MAX).buckets.len(), 4_096);
    assert_eq!(Registry::new(60_000_000).buckets.len(), 65_536);
}

/// One more call of a key that may make so many an hour.
fn call(key: u8, limit: u64) -> Ask<'static> {
    let rate = Rate::new(limit, Duration::from_secs(3_600)).unwrap();
    let subject = Subject::Key(KeyId::from_bytes([key; 16]));
    Ask { workspace: workspace(1), subject, name: "calls", rate, cost: 1, inline: false }
}

fn admitted(registry: &Registry, asks: &[Ask<'_>], tab: Option<&Tab>) -> bool {
    let admissions = registry.admit_if(asks, tab, NOW, || true).unwrap();
    admissions.iter().all(|admission| matches!(admission, Admission::Admitted { .. }))
}

/// How much is counted, by what is saved.
fn saved(registry: &Registry) -> u64 {
    let rows = (0..registry.buckets.len()).filter_map(|index| registry.dirty(index, NOW));
    rows.flat_map(|SavedWindows(windows)| windows).map(|saved| saved.window.parts().1).sum()
}

#[test]
fn with_a_tab_or_without_the_same_is_counted_and_saved() {
    let registry = Registry::new(900);
    let ask = call(1, 4);
    assert!(registry.tab(ask.place()).is_none());
    // Whoever has none yet brings an empty one, and it is in use from then on.
    let tab = Tab::default();
    assert!(admitted(&registry, &[ask], Some(&tab)));
    assert_eq!(saved(&registry), 1);
    assert!(admitted(&registry, &[ask], Some(&tab)));
    assert_eq!(saved(&registry), 2, "what is counted by the tab alone is saved too");
    assert!(admitted(&registry, &[ask], None));
    assert!(admitted(&registry, &[ask, call(2, 4)], None));
    for tab in [Some(&tab), registry.tab(ask.place()).as_ref(), None] {
        assert!(!admitted(&registry, &[ask], tab));
    }
    assert_eq!(saved(&registry), 5);
    assert_eq!(saved(&registry), 0, "nothing has been counted since");
}

#[test]
fn a_tab_that_has_been_let_go_of_counts_nothing_by_itself() {
    let registry = Registry::new(900);
    let ask = call(1, 1);
    let (first, second) = (Tab::default(), Tab::default());
    assert!(admitted(&registry, &[ask], Some(&first)));
    // Made by somebody else at the same time, who came second.
    assert!(!admitted(&registry, &[ask], Some(&second)));
    registry.forget(ask.place());
    assert_eq!(registry.taken_and_refused(), (0, 0));
    assert!(admitted(&registry, &[ask], Some(&second)));
    assert!(!admitted(&registry, &[ask], Some(&first)));
    let later = NOW.after(Duration::from_secs(8_000));
    registry.buckets.iter().for_each(|bucket| bucket.tidy(later, &registry.room));
    assert_eq!(registry.taken_and_refused(), (0, 0));
    assert!(registry.tab(ask.place()).is_none());
    assert!(admitted(&registry, &[ask], Some(&first)));
    assert!(!admitted(&registry, &[ask], Some(&second)));
}

#[test]
fn what_is_counted_by_a_tab_that_was_let_go_of_unsaved_is_saved() {
    let registry = Registry::new(900);
    let ask = call(1, 4);
    let tab = Tab::default();
    assert!(admitted(&registry, &[ask], Some(&tab)));
    let later = NOW.after(Duration::from_secs(8_000));
    registry.buckets.iter().for_each(|bucket| bucket.tidy(later, &registry.room));
    registry.buckets.iter().for_each(|bucket| bucket.dirty.store(false, Ordering::SeqCst));
    assert!(admitted(&registry, &[ask], Some(&tab)));
    assert_eq!(saved(&registry), 1);
}

#[test]
fn whoever_counts_at_the_same_time_counts_each_call_once() {
    let registry = Registry::new(900);
    let (limit, calls) = (30_000, 10_000);
    let tab = Tab::default();
    let asks_of = [call(1, limit), call(2, 1_000_000)];
    let counted = std::thread::scope(|scope| {
        let counting = |asks: &[usize], tab: Option<Tab>| {
            let registry = &registry;
            let asks: Vec<_> = asks.iter().map(|ask| asks_of[*ask]).collect();
            scope.spawn(move || (0..calls).filter(|_| admitted(registry, &asks, tab.as_ref())).count() as u64)
        };
        let threads = [
            counting(&[0], Some(tab.clone())),
            counting(&[0], Some(Tab::default())),
            counting(&[0], None),
            counting(&[1, 0], None),
        ];
        let tidying = scope.spawn(|| {
            for _ in 0..200 {
                registry.buckets.iter().for_each(|bucket| bucket.tidy(NOW, &registry.room));
                saved(&registry);
                registry.forget(asks_of[1].place());
            }
        });
        tidying.join().unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    assert_eq!(counted, limit);
    registry.forget(asks_of[1].place());
    assert_eq!(registry.taken_and_refused(), (1, 0));
}
