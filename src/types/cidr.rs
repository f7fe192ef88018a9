use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A range of addresses: `"10.0.0.0/8"`, `"2001:db8::/32"`, or one address, `"192.0.2.7"`.
///
/// A range with host bits set (`"10.0.0.1/8"`) is refused, for it nearly always is a slip. An IPv4 address that
/// arrives mapped into IPv6 (`::ffff:10.0.0.1`) is matched as the IPv4 address that it is, and a range of such is the
/// IPv4 range that it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr(IpNet);

/// Any number of ranges. The cost of a look-up grows with the logarithm of their number.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Cidrs(Box<[IpNet]>);

super::deserialize_from_str!(Cidr, "an address range, such as \"10.0.0.0/8\"");

impl Cidr {
    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        let net: IpNet = text.parse().map_err(|_| {
            format!("`{text}` is not an address range: write an address and a prefix length, such as \"10.0.0.0/8\"")
        })?;
        if net.trunc() != net {
            return Err(format!(
                "`{text}` has bits set outside its prefix: did you mean \"{}\" or \"{}\"?",
                net.trunc(),
                net.addr()
            ));
        }
        if let IpNet::V6(mapped) = net
            && let (Some(address), Some(length)) = (mapped.addr().to_ipv4_mapped(), mapped.prefix_len().checked_sub(96))
            && let Ok(net) = Ipv4Net::new(address, length)
        {
            return Ok(Self(net.into()));
        }
        Ok(Self(net))
    }
}

impl Cidrs {
    /// Whether the address lies in one of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // No two overlap, so only the last that begins at or before the address can have it.
        let after = self.0.partition_point(|net| net.network() <= address);
        after.checked_sub(1).is_some_and(|last| self.0[last].contains(&address))
    }
}

impl FromIterator<Cidr> for Cidrs {
    fn from_iter<I: IntoIterator<Item = Cidr>>(ranges: I) -> Self {
        let mut nets = IpNet::aggregate(&ranges.into_iter().map(|range| range.0).collect());
        nets.sort_unstable_by_key(IpNet::network);
        Self(nets.into())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_addresses() {
        let range: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(range.contains("10.1.2.3".parse().unwrap()));
        assert!(range.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!range.contains("11.0.0.1".parse().unwrap()));
        let one: Cidr = "::1".parse().unwrap();
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
        for wrong in ["", "10.0.0.1/8", "10.0.0.0/33", "example.com"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
        assert_eq!("::ffff:10.0.0.0/104".parse::<Cidr>(), "10.0.0.0/8".parse());
    }

    #[test]
    fn a_set_has_what_one_of_its_ranges_has() {
        let texts = ["10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", "192.0.2.0/25", "192.0.2.128/25", "::/0", "1.1.1.1"];
        let ranges: Vec<Cidr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        for count in 0..=ranges.len() {
            let set: Cidrs = ranges[..count].iter().copied().collect();
            for address in ["0.0.0.0", "1.1.1.1", "10.0.0.0", "10.255.255.255", "11.0.0.0", "192.0.2.200", "::1", "f::"]
            {
                let address: IpAddr = address.parse().unwrap();
                let one = ranges[..count].iter().any(|range| range.contains(address));
                assert_eq!(set.contains(address), one, "{address} of {count}");
            }
        }
    }
}
