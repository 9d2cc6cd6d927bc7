//! What an operator has decided once for all clients.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use relay::Proto;

/// The port of every door in the cloud (DESIGN §5).
pub const DOOR_PORT: u16 = 8080;

/// What an operator has decided once for all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Below which `edit.<client>` is, in lower case.
    pub edit_domain: String,
    /// Below which every session has a host of its own.
    pub preview_domain: Option<String>,
    /// Where containers may be. An address outside is never connected to, whatever a record says.
    pub networks: Vec<IpNet>,
    /// The port of a door; any above 1023 where it is none, which is a laptop.
    pub door_port: Option<u16>,
    /// How the public reaches us, for addresses that are told to others.
    pub public: Public,
}

/// How the public reaches us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public {
    /// By which protocol.
    pub proto: Proto,
    /// At which port, if it is not the protocol's own.
    pub port: Option<u16>,
}

impl Public {
    /// The address of a host of ours, with a path that begins with `/`.
    pub fn address(&self, host: &str, path: &str) -> String {
        let proto = self.proto.as_str();
        match self.port {
            Some(port) => format!("{proto}://{host}:{port}{path}"),
            None => format!("{proto}://{host}{path}"),
        }
    }
}

impl Policy {
    /// The address of a door, if a record may name it. What a record says is a hint: it may be stale, and it may be poisoned.
    pub fn door(&self, ip: &str, port: u16) -> Option<SocketAddr> {
        let ip: IpAddr = ip.parse().ok()?;
        let ip = ip.to_canonical();
        // 169.254.169.254 hands out credentials, whatever networks an operator wrote down.
        let never = match ip {
            IpAddr::V4(ip) => {
                ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast()
            }
            IpAddr::V6(ip) => {
                ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast()
            }
        };
        let there = self.networks.iter().any(|network| network.contains(&ip));
        let right = match self.door_port {
            Some(only) => port == only,
            None => port > 1023,
        };
        (!never && there && right).then(|| SocketAddr::new(ip, port))
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            edit_domain: "example.com".to_owned(),
            preview_domain: None,
            networks: vec!["10.0.0.0/16".parse().expect("a network")],
            door_port: Some(DOOR_PORT),
            public: Public {
                proto: Proto::Https,
                port: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_record_leads_out_of_the_networks_of_the_containers() {
        let mut policy = Policy::for_tests();
        let door = |policy: &Policy, ip: &str, port| {
            policy.door(ip, port).map(|address| address.to_string())
        };
        assert_eq!(
            door(&policy, "10.0.3.4", 8080).as_deref(),
            Some("10.0.3.4:8080")
        );
        assert_eq!(
            door(&policy, "::ffff:10.0.3.4", 8080).as_deref(),
            Some("10.0.3.4:8080")
        );
        for (ip, port) in [
            ("10.1.3.4", 8080),
            ("10.0.3.4", 8081),
            ("127.0.0.1", 8080),
            ("169.254.169.254", 8080),
            ("169.254.170.2", 80),
            ("0.0.0.0", 8080),
            ("::1", 8080),
            ("fd00:ec2::254", 8080),
            ("10.0.3.4.evil.com", 8080),
            ("10.0.3.4:22", 8080),
            ("0x0a000304", 8080),
            ("10.3.4", 8080),
            ("", 8080),
        ] {
            assert_eq!(door(&policy, ip, port), None, "{ip}:{port}");
        }
        policy.networks = vec![
            "0.0.0.0/0".parse().expect("a network"),
            "::/0".parse().expect("a network"),
        ];
        for ip in [
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "fe80::1",
            "::",
        ] {
            assert_eq!(
                door(&policy, ip, 8080),
                None,
                "{ip}, whatever an operator wrote"
            );
        }
    }
}
