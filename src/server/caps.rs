//! How many connections there are, in total and from each peer, and no more than that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::bounds::Bounds;
use crate::domain::time::Timestamp;
use crate::rpc::seldom::Seldom;
use crate::rpc::throttle::neighbourhood;

/// Counts connections.
pub struct Caps {
    most: u32,
    most_per_peer: u32,
    taken: Mutex<Taken>,
    refused: Seldom,
}

#[derive(Default)]
struct Taken {
    total: u32,
    per_peer: HashMap<IpAddr, u32>,
}

/// Room for one connection, for as long as it is held.
pub struct Seat {
    caps: Arc<Caps>,
    peer: Option<IpAddr>,
}

impl Caps {
    /// So many and no more.
    pub fn new(bounds: &Bounds) -> Arc<Self> {
        let Bounds { max_connections: most, max_connections_per_peer: most_per_peer, .. } = *bounds;
        Arc::new(Self { most, most_per_peer, taken: Mutex::default(), refused: Seldom::default() })
    }

    /// Room for a connection from there, if there is any. Who comes over a Unix socket has no address.
    pub fn seat(self: &Arc<Self>, peer: Option<IpAddr>, now: Timestamp) -> Option<Seat> {
        let peer = peer.map(neighbourhood);
        let seat = self.take(peer);
        if seat.is_none()
            && let Some(refused) = self.refused.count(now)
        {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            let Self { most, most_per_peer, .. } = &**self;
            tracing::warn!(refused, peer, most, most_per_peer, "there are too many connections; new ones are closed");
        }
        seat
    }

    /// How many there are.
    pub fn open(&self) -> u32 {
        self.taken.lock().total
    }

    fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Option<Seat> {
        let mut taken = self.taken.lock();
        if taken.total >= self.most {
            return None;
        }
        if let Some(peer) = peer {
            let of_peer = taken.per_peer.get(&peer).copied().unwrap_or(0);
            if of_peer >= self.most_per_peer {
                return None;
            }
            taken.per_peer.insert(peer, of_peer + 1);
        }
        taken.total += 1;
        Some(Seat { caps: Arc::clone(self), peer })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.caps.taken.lock();
        taken.total -= 1;
        let Some(peer) = self.peer else { return };
        if let Some(of_peer) = taken.per_peer.get_mut(&peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.per_peer.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(max_connections: u32, max_connections_per_peer: u32) -> Arc<Caps> {
        Caps::new(&Bounds { max_connections, max_connections_per_peer, ..Bounds::default() })
    }

    #[test]
    fn room_is_counted_in_total_and_per_peer_and_comes_back() {
        let caps = caps(4, 2);
        let seat = |peer: &str| caps.seat(Some(peer.parse().unwrap()), Timestamp::EPOCH);
        let (first, second) = (seat("192.0.2.1"), seat("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(seat("192.0.2.1").is_none(), "one address, one peer");
        let other = (seat("2001:db8::1"), seat("2001:db8::2"));
        assert!(other.0.is_some() && other.1.is_some());
        drop(first);
        assert!(seat("2001:db8::3").is_none(), "one network, one peer");
        let local = caps.seat(None, Timestamp::EPOCH);
        assert!(local.is_some());
        assert!(seat("192.0.2.1").is_none() && caps.seat(None, Timestamp::EPOCH).is_none(), "four are all");
        drop((second, other, local));
        let taken = caps.taken.lock();
        assert_eq!((taken.total, taken.per_peer.len()), (0, 0));
    }
}
