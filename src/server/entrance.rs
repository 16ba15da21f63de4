//! Where connections come in: each gets a place, or is closed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::caps::Caps;
use super::conversing::{Terms, converse};
use super::crew::Crew;
use super::listening::{Listener, Socket};
use crate::config::bounds::Age;
use crate::rpc::front::Front;
use crate::rpc::seldom::Seldom;
use crate::rpc::web::Web;
use crate::world::World;

/// How long to wait before the next connection if one could not be taken.
const PAUSE: Duration = Duration::from_millis(10);

/// What all connections meet first.
pub struct Entrance {
    /// The time, and chance.
    pub world: Arc<World>,
    /// Who takes their calls.
    pub front: Front,
    /// Who serves them.
    pub crew: Crew,
    /// Which pages may call, if any may.
    pub web: Option<Web>,
    /// How many there may be.
    pub caps: Arc<Caps>,
    /// How long one may last.
    pub age: Age,
    /// How they are held.
    pub terms: Terms,
    /// Those that could not be taken.
    pub failed: Seldom,
}

impl Entrance {
    /// Takes connections until the server closes.
    pub async fn take(&self, listener: Listener, connections: &TaskTracker) {
        while let Some(accepted) = self.terms.closing.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok(socket) => self.admit(socket, connections),
                Err(error) => self.pause(&error).await,
            }
        }
    }

    fn admit(&self, socket: Socket, connections: &TaskTracker) {
        // Without a place it is dropped, which closes it.
        let Some(seat) = self.caps.seat(socket.peer(), self.world.now()) else { return };
        let (front, terms) = (self.front.clone(), Terms { age: self.draw_age(), ..self.terms.clone() });
        let standing = Arc::clone(seat.standing());
        match self.web.clone() {
            None => self.crew.give(connections, || async move {
                let own = Arc::clone(&standing);
                standing.hold(converse(socket, |peer| front.facing(peer, own), terms)).await;
                drop(seat);
            }),
            Some(web) => self.crew.give(connections, || async move {
                let own = Arc::clone(&standing);
                standing.hold(converse(socket, |peer| web.before(front.facing(peer, own)), terms)).await;
                drop(seat);
            }),
        }
    }

    /// How long a connection may last: so long, and by chance up to a tenth more.
    fn draw_age(&self) -> Option<Duration> {
        match self.age {
            Age::Unbounded => None,
            Age::About(age) => Some(spread(age, u16::from_be_bytes(self.world.random()))),
        }
    }

    /// Out of descriptors, or the peer is gone already: neither ends the server.
    async fn pause(&self, error: &io::Error) {
        if let Some(failed) = self.failed.count(self.world.now()) {
            tracing::warn!(%error, failed, "a connection could not be taken");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// So long and up to a tenth more, by chance.
fn spread(age: Duration, chance: u16) -> Duration {
    age + age / 10 * u32::from(chance) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_over_a_tenth() {
        for age in [Duration::from_secs(10), Duration::from_secs(30 * 24 * 3_600)] {
            assert_eq!(spread(age, 0), age);
            assert_eq!(spread(age, u16::MAX), age + age / 10);
            let middle = spread(age, u16::MAX / 2);
            assert!(middle > age + age / 25 && middle < age + age / 15, "{middle:?}");
        }
    }
}
