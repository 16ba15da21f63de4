//! File descriptors: one for each connection, of which there may be as many over Unix sockets, and some besides.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open besides connections, with room to spare.
const BESIDES: u64 = 64;

/// Allows this process as many as its connections need, or says how many it gets.
pub fn raise(connections: u32) {
    let needed = u64::from(connections) + BESIDES;
    let wanted = needed + u64::from(connections);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        tracing::warn!(%error, "the limit of file descriptors could not be raised");
    } else if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "fewer file descriptors are allowed than --max-connections needs; raise the limit (ulimit -n, LimitNOFILE=) \
             or lower that"
        );
    }
}
