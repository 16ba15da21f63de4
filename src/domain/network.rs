//! Allow-lists: the networks from which a key may be used.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Flaw;

/// The most networks of an allow-list.
pub const NETWORKS_MAX: usize = 100;

/// How many leading bits all IPv6 addresses share that stand for an IPv4 address (`::ffff:a.b.c.d`).
const MAPPED_PREFIX_LENGTH: u8 = 96;

/// The networks from which a key may be used, in the order given; an empty list is open to anyone.
///
/// An IPv4 address written as IPv6 (`::ffff:a.b.c.d`) is the IPv4 address, in the list as well as in what it is
/// asked about. So an IPv6 network, `::/0` included, never admits one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// Reads entries such as `10.0.0.0/8`, `2001:db8::/32` or a single address; an error names the entry's index.
    ///
    /// Bits of the host are cleared, and a network given twice counts once.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, Flaw)> {
        let mut networks = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let network = parse_network(entry).ok_or_else(|| {
                let words = "must be a network such as 10.0.0.0/8 or 2001:db8::/32, or an IP address";
                (index, Flaw::new(words))
            })?;
            if networks.contains(&network) {
                continue;
            }
            if networks.len() == NETWORKS_MAX {
                return Err((index, Flaw::new(format!("must be one of at most {NETWORKS_MAX} networks"))));
            }
            networks.push(network);
        }
        Ok(Self(networks))
    }

    /// The list that admits anyone.
    pub const fn anyone() -> Self {
        Self(Vec::new())
    }

    /// Whether it admits anyone.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a call from this address is admitted. An unknown address passes only an open list.
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        self.is_open()
            || address
                .map(|address| address.to_canonical())
                .is_some_and(|address| self.0.iter().any(|network| network.contains(&address)))
    }

    /// Whether this list is no wider than the other, so that whoever is bound by that one may hand out this one.
    ///
    /// Each network must lie in a single one of the other's; neighbours that would hold it together don't count.
    pub fn within(&self, outer: &Self) -> bool {
        let in_outer = |inner: &IpNet| outer.0.iter().any(|network| network.contains(inner));
        outer.is_open() || (!self.is_open() && self.0.iter().all(in_outer))
    }

    /// The networks. Each prints as its canonical text, a single address with `/32` or `/128`.
    pub fn iter(&self) -> std::slice::Iter<'_, IpNet> {
        self.0.iter()
    }

    /// How many networks are listed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is listed; the same as [`AllowList::is_open`].
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a AllowList {
    type Item = &'a IpNet;
    type IntoIter = std::slice::Iter<'a, IpNet>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn parse_network(entry: &str) -> Option<IpNet> {
    let network = match entry.split_once('/') {
        Some((address, length)) => IpNet::new(address.parse().ok()?, parse_length(length)?).ok()?,
        None => IpNet::from(entry.parse::<IpAddr>().ok()?),
    };
    Some(match network {
        IpNet::V4(_) => network.trunc(),
        IpNet::V6(v6) => unmapped(v6).map_or_else(|| network.trunc(), |v4| IpNet::V4(v4.trunc())),
    })
}

/// Reads the length of a prefix: digits only and no zero in front, so that each has one spelling.
fn parse_length(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// The IPv4 network that an IPv6 network stands for, if it does.
fn unmapped(network: Ipv6Net) -> Option<Ipv4Net> {
    let address: Ipv6Addr = network.addr();
    let length = network.prefix_len().checked_sub(MAPPED_PREFIX_LENGTH)?;
    Ipv4Net::new(address.to_ipv4_mapped()?, length).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::parse(entries.iter().copied()).unwrap()
    }

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn networks_are_kept_in_canonical_form_and_in_order() {
        let list = list(&["192.168.7.9", "10.1.2.3/8", "2001:DB8:0::1/32", "::1", "10.0.0.0/8", "0.0.0.0/0"]);
        let texts: Vec<_> = list.iter().map(IpNet::to_string).collect();
        assert_eq!(texts, ["192.168.7.9/32", "10.0.0.0/8", "2001:db8::/32", "::1/128", "0.0.0.0/0"]);
        assert_eq!(AllowList::parse(texts.iter().map(String::as_str)), Ok(list));
    }

    #[test]
    fn an_error_names_the_entry() {
        for bad in [
            "",
            " ",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/8/8",
            "10.0.0.0 /8",
            " 10.0.0.1",
            "::/129",
            "fe80::1%eth0",
            "[::1]",
            "localhost",
            "10.0.0.1:80",
            "10.0.0.0/255.0.0.0",
            "10.0.0.1\0",
        ] {
            let (index, _) = AllowList::parse(["10.0.0.1", bad]).unwrap_err();
            assert_eq!(index, 1, "{bad}");
        }
    }

    #[test]
    fn an_open_list_admits_anyone_and_another_only_its_networks() {
        assert!(AllowList::anyone().admits(None));
        assert!(AllowList::anyone().admits(from("203.0.113.1")));
        let list = list(&["10.0.0.0/8", "2001:db8::/32"]);
        assert!(list.admits(from("10.255.255.255")));
        assert!(list.admits(from("2001:db8:ffff::1")));
        assert!(!list.admits(from("11.0.0.0")));
        assert!(!list.admits(from("2001:db9::")));
        assert!(!list.admits(None), "an unknown address");
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert!(list(&["10.0.0.0/8"]).admits(from("::ffff:10.1.2.3")));
        assert!(!list(&["10.0.0.0/8"]).admits(from("::ffff:11.1.2.3")));
        assert!(!list(&["::/0"]).admits(from("::ffff:10.1.2.3")));
        assert!(!list(&["::/0"]).admits(from("10.1.2.3")));
        let mapped = list(&["::ffff:10.1.2.3", "::ffff:10.1.2.3/104", "::ffff:0:0/96"]);
        let texts: Vec<_> = mapped.iter().map(IpNet::to_string).collect();
        assert_eq!(texts, ["10.1.2.3/32", "10.0.0.0/8", "0.0.0.0/0"]);
    }

    #[test]
    fn a_hundred_different_networks_are_the_most() {
        let entries: Vec<_> = (0..=100).map(|n| format!("10.0.{n}.0/24")).collect();
        let texts = || entries.iter().map(String::as_str);
        assert_eq!(AllowList::parse(texts().take(100)).unwrap().len(), 100);
        assert_eq!(AllowList::parse(texts().take(100).chain(texts().take(100))).unwrap().len(), 100);
        assert_eq!(AllowList::parse(texts()).unwrap_err().0, 100);
    }

    #[test]
    fn a_narrower_list_lies_within_a_wider_one_and_never_the_reverse() {
        let wide = list(&["10.0.0.0/8", "2001:db8::/32"]);
        let narrow = list(&["10.1.0.0/16", "10.2.3.4", "2001:db8:1::/48"]);
        let anyone = AllowList::anyone();
        assert!(narrow.within(&wide) && wide.within(&wide));
        assert!(!wide.within(&narrow));
        assert!(narrow.within(&anyone) && anyone.within(&anyone));
        assert!(!anyone.within(&wide));
        assert!(!list(&["10.0.0.0/8", "11.0.0.0/8"]).within(&wide));
        assert!(!list(&["0.0.0.0/0"]).within(&list(&["::/0"])));
        assert!(!list(&["10.0.0.0/8"]).within(&list(&["10.0.0.0/9", "10.128.0.0/9"])), "neighbours don't count");
    }

    fn lists() -> impl Strategy<Value = AllowList> {
        let entry = prop_oneof![
            (0..4u8, 0..=32u8).prop_map(|(top, length)| format!("{}.0.0.0/{length}", top * 64)),
            (0..4u8, 0..=128u8).prop_map(|(top, length)| format!("{top}000::/{length}")),
        ];
        prop::collection::vec(entry, 0..4).prop_map(|e| AllowList::parse(e.iter().map(String::as_str)).unwrap())
    }

    proptest! {
        #[test]
        fn whatever_a_list_within_another_admits_the_other_admits(
            inner in lists(), outer in lists(), v4: u32, v6: u128,
        ) {
            if inner.within(&outer) {
                let addresses = [None, Some(IpAddr::V4(v4.into())), Some(IpAddr::V6(v6.into()))];
                for address in addresses {
                    prop_assert!(!inner.admits(address) || outer.admits(address));
                }
            }
        }
    }
}
