//! How many connections there are, in total and from each peer, and no more than that.
//!
//! Those over Unix sockets are counted by themselves: whoever may open one stands on this machine, and nobody on the
//! network takes their place. On the network a connection over which no good root key has come, or none for long, gives
//! its place to a new one where there is none left, so whoever has none can't keep those out who have.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::bounds::Bounds;
use crate::domain::time::Timestamp;
use crate::rpc::seldom::Seldom;
use crate::rpc::standing::{Reason, SHOWN_WITHIN, Standing};
use crate::rpc::throttle::neighbourhood;

/// Counts connections.
pub struct Caps {
    most: u32,
    most_per_peer: u32,
    taken: Mutex<Taken>,
    refused: Seldom,
}

/// How long nobody is looked for to give way, once nobody was found: looking means going through all of them.
const LOOKED_FOR_EVERY: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Taken {
    /// Over the network.
    remote: Places,
    per_peer: HashMap<IpAddr, Places>,
    /// Over Unix sockets.
    local: u32,
    /// Those over the network, the earliest first, and some that have ended.
    known: VecDeque<(IpAddr, Weak<Standing>)>,
}

/// Connections that are known, ended ones too, before those are let go.
const KNOWN_MIN: usize = 64;

/// Places of one kind.
#[derive(Debug, Default)]
struct Places {
    taken: u32,
    /// Until when nobody is looked for who would give way.
    firm_until: Option<Timestamp>,
}

/// Room for one connection, for as long as it is held.
pub struct Seat {
    caps: Arc<Caps>,
    peer: Option<IpAddr>,
    standing: Arc<Standing>,
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
        let seat = self.take(peer, now);
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
        let taken = self.taken.lock();
        taken.remote.taken + taken.local
    }

    fn take(self: &Arc<Self>, peer: Option<IpAddr>, now: Timestamp) -> Option<Seat> {
        let standing = Arc::new(Standing::new(now));
        let mut taken = self.taken.lock();
        match peer {
            None if taken.local >= self.most => return None,
            None => taken.local += 1,
            Some(peer) => {
                let of_peer = taken.per_peer.get(&peer).map_or(0, |places| places.taken);
                let too_many = of_peer >= self.most_per_peer;
                if (too_many || taken.remote.taken >= self.most) && !taken.make_room(too_many.then_some(peer), now) {
                    return None;
                }
                taken.per_peer.entry(peer).or_default().taken += 1;
                taken.remote.taken += 1;
                taken.watch(peer, &standing);
            }
        }
        Some(Seat { caps: Arc::clone(self), peer, standing })
    }
}

impl Taken {
    /// Sends the earliest connection away that has had the time to show a good root key and has not, or else one that has
    /// lain idle for long; of this peer if one is named.
    fn make_room(&mut self, of: Option<IpAddr>, now: Timestamp) -> bool {
        let places = match of {
            Some(peer) => self.per_peer.entry(peer).or_default(),
            None => &mut self.remote,
        };
        if places.firm_until.is_some_and(|until| now < until) {
            return false;
        }
        while self.known.front().is_some_and(|(_, known)| known.strong_count() == 0) {
            self.known.pop_front();
        }
        let mut idle = None;
        let fitting = self.known.iter().filter(|(peer, _)| of.is_none_or(|of| of == *peer));
        let unproven = fitting.filter_map(|(_, known)| known.upgrade()).find(|standing| match standing.gives_way() {
            Some(Reason::Unproven) => true,
            Some(Reason::Idle) => {
                idle.get_or_insert_with(|| Arc::clone(standing));
                false
            }
            None => false,
        });
        // Whoever has ever shown a good root key goes after those who never have.
        let unproven = unproven.filter(|earliest| now.since(earliest.since()) >= SHOWN_WITHIN);
        match unproven.or(idle) {
            Some(standing) => {
                standing.give_up();
                true
            }
            None => {
                places.firm_until = Some(now.after(LOOKED_FOR_EVERY));
                false
            }
        }
    }

    fn watch(&mut self, peer: IpAddr, standing: &Arc<Standing>) {
        if self.known.len() > 2 * self.remote.taken as usize + KNOWN_MIN {
            self.known.retain(|(_, known)| known.strong_count() > 0);
        }
        self.known.push_back((peer, Arc::downgrade(standing)));
    }
}

impl Seat {
    /// How the connection stands.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Calls that are still being answered know of it.
        self.standing.give_up();
        let mut taken = self.caps.taken.lock();
        let Some(peer) = self.peer else {
            taken.local -= 1;
            return;
        };
        taken.remote.taken -= 1;
        if let Some(of_peer) = taken.per_peer.get_mut(&peer) {
            of_peer.taken -= 1;
            if of_peer.taken == 0 {
                taken.per_peer.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

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
        let third = seat("192.0.2.1");
        assert!(third.is_some() && seat("192.0.2.2").is_none(), "four are all");
        assert_eq!(caps.open(), 4);
        drop((second, other, third));
        let taken = caps.taken.lock();
        assert_eq!((taken.remote.taken, taken.local, taken.per_peer.len()), (0, 0, 0));
    }

    #[test]
    fn nobody_on_the_network_takes_the_place_of_those_on_this_machine() {
        let caps = caps(2, 2);
        let seat = |peer: Option<&str>| caps.seat(peer.map(|peer| peer.parse().unwrap()), Timestamp::EPOCH);
        let remote = (seat(Some("192.0.2.1")), seat(Some("192.0.2.2")));
        assert!(remote.0.is_some() && remote.1.is_some() && seat(Some("192.0.2.3")).is_none());
        let local = (seat(None), seat(None));
        assert!(local.0.is_some() && local.1.is_some() && seat(None).is_none());
    }

    #[tokio::test]
    async fn at_the_bound_of_a_peer_one_of_the_same_peer_gives_way() {
        let caps = caps(9, 2);
        let seat = |peer: &str, now| caps.seat(Some(peer.parse().unwrap()), now);
        let (early, soon) = (Timestamp::EPOCH, Timestamp::EPOCH.after(SHOWN_WITHIN));
        let elsewhere = seat("192.0.2.9", early).unwrap();
        let (first, second) = (seat("192.0.2.1", early).unwrap(), seat("192.0.2.1", early).unwrap());
        first.standing().prove();
        let third = seat("192.0.2.1", soon);
        let gone = |seat: &Seat| seat.standing().hold(std::future::pending()).now_or_never().is_some();
        assert!(third.is_some() && gone(&second) && !gone(&elsewhere) && !gone(&first));
        drop(second);
        assert!(seat("192.0.2.1", soon).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_shown_a_root_key_long_ago_gives_way_after_those_who_never_have() {
        let caps = caps(3, 3);
        let soon = Timestamp::EPOCH.after(SHOWN_WITHIN);
        let seat = |now: Timestamp| caps.seat(Some("192.0.2.1".parse().unwrap()), now);
        let (idle, busy, unproven) = (seat(soon).unwrap(), seat(soon).unwrap(), seat(soon).unwrap());
        for shown in [&idle, &busy] {
            shown.standing().prove();
        }
        let long = Duration::from_secs(15 * 60);
        assert!(tokio::time::timeout(long, idle.standing().hold(std::future::pending())).await.is_err());
        let later = soon.after(SHOWN_WITHIN);
        let gone = |seat: &Seat| seat.standing().hold(std::future::pending()).now_or_never().is_some();
        let first = seat(later);
        assert!(first.is_some() && gone(&unproven) && !gone(&idle));
        drop(unproven);
        let second = seat(later);
        assert!(second.is_some() && gone(&idle) && !gone(&busy));
        drop(idle);
        assert!(seat(later).is_none(), "the others have just come or have shown one");
    }

    #[tokio::test]
    async fn whoever_shows_no_root_key_gives_way_to_others() {
        let caps = caps(3, 3);
        let soon = Timestamp::EPOCH.after(SHOWN_WITHIN);
        let seat = |now: Timestamp| caps.seat(Some("192.0.2.1".parse().unwrap()), now);
        let (first, second) = (seat(Timestamp::EPOCH).unwrap(), seat(Timestamp::EPOCH).unwrap());
        let other = |now: Timestamp| caps.seat(Some("192.0.2.2".parse().unwrap()), now);
        let third = other(Timestamp::EPOCH).unwrap();
        first.standing().prove();
        assert!(other(Timestamp::EPOCH).is_none(), "they have had no time yet");
        let gone = |seat: &Seat| seat.standing().hold(std::future::pending()).now_or_never().is_some();
        let fourth = other(soon).unwrap();
        assert!(gone(&second), "the earliest without one");
        assert!(!gone(&first) && !gone(&third) && !gone(&fourth));
        third.standing().prove();
        drop(second);
        assert!(other(soon).is_none(), "all the others have shown one, or have just come");
        let later = soon.after(SHOWN_WITHIN);
        assert!(other(later).is_some() && gone(&fourth));
    }
}
