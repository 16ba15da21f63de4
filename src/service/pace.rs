//! How saving in the background shares the writer with those who wait for it.

use std::time::Duration;

use crate::world::{Stopwatch, World};

/// Saving takes this part of the time.
const PART: u32 = 50;
/// After so long it no longer rests: however much there is, and however long a commit took, it is all saved by then.
const RESTS_FOR: Duration = Duration::from_secs(600);

/// How fast something is saved that takes many commits.
///
/// Where much is used, all of it takes the writer seconds. In one go, whoever called in these seconds would wait for it;
/// spread over minutes it is a millisecond here and there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Without a rest.
    AtOnce,
    /// After each commit it rests for some times as long as that took.
    AtLeisure,
}

/// A saving that is under way.
pub(super) struct Paced<'a> {
    pace: Pace,
    world: &'a World,
    begun: Stopwatch,
    last: Duration,
}

impl Pace {
    /// Begins.
    pub(super) fn begin(self, world: &World) -> Paced<'_> {
        Paced { pace: self, world, begun: world.stopwatch(), last: Duration::ZERO }
    }
}

impl Paced<'_> {
    /// Rests after a commit.
    pub async fn rest(&mut self) {
        let so_far = self.begun.elapsed();
        let rest = (so_far.saturating_sub(self.last) * PART).min(RESTS_FOR.saturating_sub(so_far));
        if self.pace == Pace::AtLeisure && !rest.is_zero() {
            self.world.wait_until(self.world.now().after(rest)).await;
        }
        self.last = self.begun.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::time::Timestamp;

    #[tokio::test]
    async fn a_saving_at_leisure_rests_for_some_times_as_long_as_it_worked() {
        let world = World::made_up(Timestamp::EPOCH, 1);
        let work = Duration::from_millis(4);
        for (pace, rests) in [(Pace::AtOnce, false), (Pace::AtLeisure, true)] {
            let mut saving = pace.begin(&world);
            std::thread::sleep(work);
            let mut rest = std::pin::pin!(saving.rest());
            assert_eq!(rest.as_mut().now_or_never().is_none(), rests, "{pace:?}");
            if rests {
                world.advance(work * (PART - 1));
                assert_eq!(rest.as_mut().now_or_never(), None, "it worked for longer");
                world.advance(Duration::from_secs(60));
                assert_eq!(rest.now_or_never(), Some(()));
            }
        }
    }
}
