//! How much is served at a time, and for how long.

use std::time::Duration;

use clap::Args;

use super::within;

/// How much is served at a time, and for how long.
#[derive(Debug, Clone, Args)]
pub struct Bounds {
    /// Connections over the network at a time, and as many over Unix sockets; further ones are closed at once.
    ///
    /// On the network one over which no good root key came in its first 5 seconds, or in the last ten minutes, makes room
    /// for a new one. Each takes a file descriptor. ostiary raises its own limit of them as far as it may, and says so if
    /// that is not far enough.
    #[arg(long, env = "OSTIARY_MAX_CONNECTIONS", default_value_t = 10_000, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Connections at a time from one address, or from one /64 network of IPv6; further ones are closed at once.
    ///
    /// What comes over a Unix socket counts by itself. Everything that comes through a proxy counts as the proxy's.
    #[arg(long, env = "OSTIARY_MAX_CONNECTIONS_PER_PEER", default_value_t = 1_000, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections_per_peer: u32,

    /// How long a connection may last until its client is asked to open another, `off` or 10s to 30d.
    ///
    /// Up to a tenth more, by chance, so that not all come back together. Calls under way finish.
    #[arg(long, env = "OSTIARY_MAX_CONNECTION_AGE", default_value = "off", value_name = "DURATION", value_parser = age)]
    pub max_connection_age: Age,

    /// Verifications and countings under way at a time; more are refused with `OVERLOADED`.
    ///
    /// There may be half as many other calls besides; whether there is health is always told. A root key has at most eight
    /// times as many of either as are still free. Open streams count as calls.
    #[arg(long, env = "OSTIARY_MAX_CALLS", default_value_t = 8_192, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub max_calls: u32,

    /// Windows of rate limits that are counted at a time, one for each limit of each key, identity or identifier that has
    /// been used within its span; above it calls that would need another are refused, with `OVERLOADED`.
    ///
    /// A million take about 300 MiB. A workspace has at most eight times as many as are still free.
    #[arg(long, env = "OSTIARY_MAX_RATE_LIMIT_WINDOWS", default_value_t = 4_000_000, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1_000..=60_000_000))]
    pub max_rate_limit_windows: u32,

    /// How long health says `NOT_SERVING` before no more connections are taken, once ostiary is told to stop, 0s to 5m.
    ///
    /// For load balancers that ask for health now and then, and send calls until they have heard.
    #[arg(long, env = "OSTIARY_DRAIN_PAUSE", default_value = "0s", value_name = "DURATION", value_parser = pause)]
    pub drain_pause: Duration,

    /// How long calls under way may take to finish once ostiary is told to stop, 0s to 10m.
    #[arg(long, env = "OSTIARY_DRAIN", default_value = "10s", value_name = "DURATION", value_parser = drain)]
    pub drain: Duration,
}

impl Default for Bounds {
    /// What holds if nothing is said.
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_peer: 1_000,
            max_connection_age: Age::Unbounded,
            max_calls: 8_192,
            max_rate_limit_windows: 4_000_000,
            drain_pause: Duration::ZERO,
            drain: Duration::from_secs(10),
        }
    }
}

/// How long a connection may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// As long as its client likes.
    Unbounded,
    /// So long, and up to a tenth more.
    About(Duration),
}

fn age(text: &str) -> Result<Age, String> {
    if text == "off" {
        return Ok(Age::Unbounded);
    }
    let most = Duration::from_secs(30 * 24 * 3_600);
    within(text, Duration::from_secs(10), most, "off or 10s to 30d").map(Age::About)
}

fn pause(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO, Duration::from_secs(300), "0s to 5m")
}

fn drain(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO, Duration::from_secs(600), "0s to 10m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bounds: Bounds,
    }

    #[test]
    fn what_holds_if_nothing_is_said_is_what_the_flags_say() {
        let line = Line::try_parse_from(["ostiary"]).unwrap();
        assert_eq!(format!("{:?}", line.bounds), format!("{:?}", Bounds::default()));
    }

    #[test]
    fn an_age_is_off_or_a_span_within_bounds() {
        assert_eq!(age("off"), Ok(Age::Unbounded));
        assert_eq!(age("30m"), Ok(Age::About(Duration::from_secs(1_800))));
        for bad in ["9s", "31d", "on", ""] {
            assert!(age(bad).is_err(), "{bad}");
        }
        assert!(age("1s").unwrap_err().contains("off or 10s to 30d"));
    }
}
