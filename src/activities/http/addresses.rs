//! What kind of thing is at an address: the public internet, somebody's network, or something that no step may call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// What kind of thing is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The internet.
    Public,
    /// A network of somebody's own, or a range without a use on the internet.
    Private,
    /// The operator's own machine or pod.
    Loopback,
    /// What must never be called, with its name for people.
    Never(&'static str),
}

/// The address that a packet to this one ends up at: IPv4 addresses hide in IPv6 ones in several ways (mapped,
/// compatible, NAT64, 6to4), and each is judged as the IPv4 address that it stands for.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let embedded = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address, // unspecified and loopback, not 0.0.0.1
        [0, 0, 0, 0, 0, 0 | 0xffff, a, b] => embedded(a, b), // compatible, mapped
        [0, 0, 0, 0, 0xffff, 0, a, b] => embedded(a, b), // translated (RFC 2765)
        [0x64, 0xff9b, .., a, b] => embedded(a, b), // NAT64
        [0x2002, a, b, ..] => embedded(a, b),    // 6to4
        _ => address,
    }
}

/// What kind of thing is at an address.
pub(super) fn kind(address: IpAddr) -> Kind {
    match canonical(address) {
        address if address.is_loopback() => Kind::Loopback,
        address if METADATA.contains(&address) => Kind::Never("a cloud's metadata service"),
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    if address.octets()[0] == 0 {
        Kind::Never("an unspecified address")
    } else if address.is_link_local() {
        Kind::Never("a link-local address")
    } else if address.is_multicast() {
        Kind::Never("a multicast address")
    } else if address.is_broadcast() {
        Kind::Never("the broadcast address")
    } else if PRIVATE_V4.iter().any(|net| net.contains(&address)) {
        Kind::Private
    } else {
        Kind::Public
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if address.is_unspecified() {
        Kind::Never("an unspecified address")
    } else if address.is_unicast_link_local() {
        Kind::Never("a link-local address")
    } else if address.is_multicast() {
        Kind::Never("a multicast address")
    } else if !GLOBAL_UNICAST.contains(&address) || PRIVATE_V6.iter().any(|net| net.contains(&address)) {
        Kind::Private
    } else {
        Kind::Public
    }
}

/// The clouds' metadata services that aren't at link-local addresses: whoever may call them gets the machine's
/// credentials.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba Cloud
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle Cloud
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), // Google Cloud
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// IANA's registry of IPv4 addresses for special purposes: what is not globally reachable.
const PRIVATE_V4: [Ipv4Net; 11] = [
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10), // carriers' NAT, and some clouds' pods
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),   // documentation
    v4(192, 88, 99, 0, 24), // 6to4 relays
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),   // benchmarks
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(240, 0, 0, 0, 4),     // reserved
];

/// Where IPv6's public addresses are.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 3);

/// IANA's registry of IPv6 addresses for special purposes: what of the above is not globally reachable.
const PRIVATE_V6: [Ipv6Net; 3] = [
    v6(0x2001, 0, 23),     // protocol assignments, Teredo among them
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x3fff, 0, 20),     // documentation
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_of_the_kind_that_iana_says() {
        for (address, expected) in [
            ("1.1.1.1", Kind::Public),
            ("192.1.2.3", Kind::Public),
            ("172.32.0.1", Kind::Public),
            ("2606:4700::1111", Kind::Public),
            ("10.96.0.1", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("192.168.1.1", Kind::Private),
            ("100.64.0.1", Kind::Private),
            ("198.19.255.255", Kind::Private),
            ("240.0.0.1", Kind::Private),
            ("fd00::1", Kind::Private),
            ("fec0::1", Kind::Private),
            ("2001:db8::1", Kind::Private),
            ("2001::1", Kind::Private),
            ("4000::1", Kind::Private),
            ("127.0.0.1", Kind::Loopback),
            ("127.255.0.1", Kind::Loopback),
            ("::1", Kind::Loopback),
            ("0.0.0.0", Kind::Never("an unspecified address")),
            ("0.1.2.3", Kind::Never("an unspecified address")),
            ("::", Kind::Never("an unspecified address")),
            ("169.254.169.254", Kind::Never("a link-local address")),
            ("fe80::1", Kind::Never("a link-local address")),
            ("febf::1", Kind::Never("a link-local address")),
            ("224.0.0.1", Kind::Never("a multicast address")),
            ("ff0e::1", Kind::Never("a multicast address")),
            ("255.255.255.255", Kind::Never("the broadcast address")),
            ("168.63.129.16", Kind::Never("a cloud's metadata service")),
            ("fd00:ec2::254", Kind::Never("a cloud's metadata service")),
        ] {
            assert_eq!(kind(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn an_ipv4_address_is_judged_the_same_in_every_ipv6_disguise() {
        for (address, stands_for) in [
            ("::ffff:169.254.169.254", "169.254.169.254"),     // mapped
            ("::169.254.169.254", "169.254.169.254"),          // compatible
            ("::ffff:0:169.254.169.254", "169.254.169.254"),   // translated
            ("64:ff9b::169.254.169.254", "169.254.169.254"),   // NAT64
            ("64:ff9b:1::169.254.169.254", "169.254.169.254"), // NAT64, local
            ("2002:a9fe:a9fe::1", "169.254.169.254"),          // 6to4
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("64:ff9b::7f00:1", "127.0.0.1"),
            ("64:ff9b::1.1.1.1", "1.1.1.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            let (address, stands_for): (IpAddr, IpAddr) = (address.parse().unwrap(), stands_for.parse().unwrap());
            assert_eq!(canonical(address), stands_for);
            assert_eq!(kind(address), kind(stands_for), "{address}");
        }
    }
}
