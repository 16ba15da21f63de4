//! Who calls when proxies stand in between: their word on it counts only as far as they are trusted.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::domain::network::AllowList;

/// The header in which each proxy notes from whom it took the call, after what stands there.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of the proxies whose `x-forwarded-for` is believed. Nobody's by default.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(AllowList);

impl TrustedProxies {
    /// The proxies in these networks; of no networks, none.
    pub const fn new(networks: AllowList) -> Self {
        Self(networks)
    }

    fn trust(&self, address: IpAddr) -> bool {
        // An empty list would admit anyone.
        !self.0.is_empty() && self.0.admits(Some(address))
    }

    /// The address that a call comes from: the peer's, or, if that is a trusted proxy, the last one noted that is none.
    ///
    /// Only what a trusted proxy has noted is believed; what stands before it, the caller may have made up. None if a
    /// trusted proxy has noted something that is no address.
    pub fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut caller = peer.to_canonical();
        for value in headers.get_all(FORWARDED_FOR).iter().rev() {
            if !self.trust(caller) {
                break;
            }
            for entry in value.to_str().ok()?.rsplit(',') {
                if !self.trust(caller) {
                    break;
                }
                caller = address(entry.trim())?;
            }
        }
        Some(caller)
    }
}

/// An address with or without a port, a v6 one with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = || bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    alone().or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(trusted: &[&str], peer: &str, forwarded: &[&str]) -> Option<String> {
        let proxies = TrustedProxies::new(AllowList::parse(trusted.iter().copied()).unwrap());
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        proxies.caller(peer.parse().unwrap(), &headers).map(|address| address.to_string())
    }

    fn is(address: &str) -> Option<String> {
        Some(address.to_owned())
    }

    #[test]
    fn without_trusted_proxies_nobody_is_believed() {
        assert_eq!(caller(&[], "10.0.0.1", &["192.0.2.7"]), is("10.0.0.1"));
        assert_eq!(caller(&["10.0.0.0/8"], "192.0.2.1", &["10.0.0.1"]), is("192.0.2.1"));
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_callers() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(caller(&trusted, "10.0.0.1", &["192.0.2.7"]), is("192.0.2.7"));
        assert_eq!(caller(&trusted, "10.0.0.1", &["192.0.2.7, 10.0.0.2"]), is("192.0.2.7"));
        assert_eq!(caller(&trusted, "10.0.0.1", &["1.1.1.1, 192.0.2.7,10.0.0.2 ,2001:db8::1"]), is("192.0.2.7"));
        assert_eq!(caller(&trusted, "::ffff:10.0.0.1", &["::ffff:192.0.2.7"]), is("192.0.2.7"));
    }

    #[test]
    fn several_lines_are_one_list() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(caller(&trusted, "10.0.0.1", &["1.1.1.1", "192.0.2.7", "10.0.0.2"]), is("192.0.2.7"));
    }

    #[test]
    fn what_was_noted_before_the_caller_is_never_looked_at() {
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &["nonsense, 192.0.2.7"]), is("192.0.2.7"));
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &["\u{9f}", "192.0.2.7"]), is("192.0.2.7"));
    }

    #[test]
    fn a_proxy_that_notes_nothing_calls_for_itself_and_the_first_of_many_too() {
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &[]), is("10.0.0.1"));
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &["10.0.0.3, 10.0.0.2"]), is("10.0.0.3"));
    }

    #[test]
    fn what_is_no_address_leaves_the_caller_unknown() {
        for noted in ["unknown", "_hidden", "", "192.0.2.7,", "192.0.2", "192.0.2.7:", "[::1", "fe80::1%eth0"] {
            assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &[noted]), None, "{noted}");
        }
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        for (noted, read) in [
            ("192.0.2.7:4711", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
        ] {
            assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &[noted]), is(read), "{noted}");
        }
    }
}
