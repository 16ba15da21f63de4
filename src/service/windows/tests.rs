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
            .admit_if(&[Ask { workspace, subject, name: "calls", rate, cost: 1, inline: false }], NOW, || true)
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
    registry.buckets.iter().for_each(|bucket| bucket.lock().tidy(later, &registry.room));
    assert_eq!(registry.taken_and_refused().0, 0);
    assert_eq!(count(&registry, workspace(2), 2_000), 800);
}

#[test]
fn buckets_grow_with_the_room() {
    assert_eq!(Registry::new(10_000).buckets.len(), 64);
    assert_eq!(Registry::new(WINDOWS_MAX).buckets.len(), 4_096);
    assert_eq!(Registry::new(60_000_000).buckets.len(), 65_536);
}
