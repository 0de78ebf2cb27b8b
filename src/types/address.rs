//! Which addresses mail and requests may go to: an MX or a URL must not lead into our own networks (SSRF, loops).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is of no use on the public Internet: loopback, private, link-local, shared, multicast, reserved,
/// documentation; in IPv6 also what wraps such an IPv4 address.
pub fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(a: Ipv4Addr) -> bool {
    let [b0, b1, b2, _] = a.octets();
    a.is_loopback()
        || a.is_private()
        || a.is_link_local()
        || a.is_multicast()
        || a.is_documentation()
        // 0.0.0.0/8 reaches this host; 240.0.0.0/4 with the broadcast address is reserved.
        || b0 == 0
        || b0 >= 240
        // RFC 6598: 100.64.0.0/10, shared by carriers.
        || (b0 == 100 && b1 & 0xc0 == 64)
        // RFC 2544: 198.18.0.0/15, benchmarks. RFC 6890: 192.0.0.0/24.
        || (b0 == 198 && b1 & 0xfe == 18)
        || (b0 == 192 && b1 == 0 && b2 == 0)
}

fn is_private_v6(a: Ipv6Addr) -> bool {
    if let Some(v4) = a.to_ipv4_mapped() {
        return is_private_v4(v4);
    }
    let s = a.segments();
    let low_v4 = Ipv4Addr::from(u32::from(s[6]) << 16 | u32::from(s[7]));
    a.is_loopback()
        || a.is_unspecified()
        || a.is_multicast()
        // fc00::/7 unique local, fe80::/10 link-local, fec0::/10 site-local of old.
        || s[0] & 0xfe00 == 0xfc00
        || s[0] & 0xffc0 == 0xfe80
        || s[0] & 0xffc0 == 0xfec0
        // 2001:db8::/32 documentation; 100::/64 discard.
        || (s[0] == 0x2001 && s[1] == 0xdb8)
        || (s[0] == 0x100 && s[1..4] == [0, 0, 0])
        // ::/96 of old, 64:ff9b::/96 (NAT64) and 2002::/16 (6to4) wrap an IPv4 address.
        || (s[..6] == [0, 0, 0, 0, 0, 0])
        || (s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] && is_private_v4(low_v4))
        || (s[0] == 0x2002 && is_private_v4(Ipv4Addr::from(u32::from(s[1]) << 16 | u32::from(s[2]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, private: bool) {
        assert_eq!(is_private_address(address.parse().expect("an address")), private, "{address}");
    }

    #[test]
    fn what_an_mx_must_not_point_at() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "ff02::1",
        ] {
            check(private, true);
        }
        for public in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            check(public, false);
        }
    }
}
