use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A range of addresses: `"10.0.0.0/8"`, `"2001:db8::/32"`, or one address, `"192.0.2.7"`.
///
/// A range with host bits set (`"10.0.0.1/8"`) is refused, for it nearly always is a slip. An IPv4 address that
/// arrives mapped into IPv6 (`::ffff:10.0.0.1`) is matched as the IPv4 address that it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr(IpNet);

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
        Ok(Self(net))
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
    }
}
