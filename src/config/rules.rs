//! Rules that span settings, and the protection that follows from them.

use std::net::{IpAddr, Ipv4Addr};

use super::Config;
use super::error::ConfigError;

/// What a client from elsewhere gets in protected mode, before its connection is closed.
pub const PROTECTED_MODE_TEXT: &str = "DENIED Gyre is running in protected mode because protected mode is enabled \
and no password is set for clients. In this mode connections are only accepted from the loopback interface. If you \
want to connect from external computers to Gyre you may adopt one of the following solutions: 1) Just disable \
protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Gyre \
from the same host the server is running, however MAKE SURE Gyre is not publicly accessible from internet if you do \
so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by \
editing the Gyre configuration file, and setting the protected mode option to 'no', and then restarting the server. \
3) If you started the server manually just for testing, restart it with the '--protected-mode no' option. 4) Set a \
password with '--requirepass'. NOTE: You only need to do one of the above things in order for the server to start \
accepting connections from the outside.";

/// Whether a client at `peer` is turned away with [`PROTECTED_MODE_TEXT`]: protected mode is on, there is no password,
/// and the client is not on this machine.
pub fn protected_mode_denies(config: &Config, peer: IpAddr) -> bool {
    config.protected_mode && config.requirepass.is_empty() && !is_loopback(peer)
}

/// The address of the peer port: `peer-bind`, or else `bind`; but loopback as long as there is no cluster secret, since
/// whoever reaches the peer port could read and write everything.
pub fn peer_bind_address(config: &Config) -> Result<IpAddr, ConfigError> {
    if !config.cluster_secret.is_empty() {
        return Ok(config.peer_bind.unwrap_or(config.bind));
    }
    match config.peer_bind {
        None if is_loopback(config.bind) => Ok(config.bind),
        None => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(address) if is_loopback(address) => Ok(address),
        Some(address) => Err(ConfigError::Contradiction(format!(
            "peer-bind {address} needs a cluster-secret: without one the peer port is bound to loopback only, \
             because whoever reaches it can read and write everything"
        ))),
    }
}

/// Checks what no single setting can know.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    peer_bind_address(config)?;
    if config.peer_port == 0 {
        return Err(ConfigError::Contradiction(format!(
            "port {} leaves no room for the peer port at port + 10000; give peer-port",
            config.port
        )));
    }
    let ports = [
        ("port", config.port),
        ("peer-port", config.peer_port),
        ("http-port", config.http_port.unwrap_or(0)),
    ];
    for (index, (name, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports.iter().skip(index + 1).find(|(_, other)| other == port) {
            return Err(ConfigError::Contradiction(format!("{name} and {other} are both {port}")));
        }
    }
    if config.cluster_secret.is_empty() {
        let remote = config
            .seeds
            .iter()
            .find(|seed| seed.host.parse::<IpAddr>().is_ok_and(|address| !is_loopback(address)));
        if let Some(seed) = remote {
            return Err(ConfigError::Contradiction(format!(
                "seed {seed} is on another machine, which needs a cluster-secret on every node: without one the \
                 peer port is bound to loopback only"
            )));
        }
    }
    Ok(())
}

/// Whether `address` is loopback, IPv4 addresses in IPv6 clothes included.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPort, Secret};

    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn protected_mode_turns_away_only_strangers_without_a_password() {
        let mut config = Config::default();
        assert!(protected_mode_denies(&config, ELSEWHERE));
        assert!(protected_mode_denies(&config, "::ffff:10.0.0.1".parse().unwrap()));
        for local in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(!protected_mode_denies(&config, local.parse().unwrap()), "{local}");
        }
        config.requirepass = Secret::new("p");
        assert!(!protected_mode_denies(&config, ELSEWHERE));
        let config = Config { protected_mode: false, ..Config::default() };
        assert!(!protected_mode_denies(&config, ELSEWHERE));
    }

    #[test]
    fn without_a_secret_the_peer_port_stays_on_loopback() {
        let mut config = Config::default();
        assert!(peer_bind_address(&config).unwrap().is_loopback());
        config.bind = "::1".parse().unwrap();
        assert_eq!(peer_bind_address(&config).unwrap(), config.bind);
        config.peer_bind = Some(ELSEWHERE);
        let text = peer_bind_address(&config).unwrap_err().to_string();
        assert!(text.contains("peer-bind 10.0.0.1") && text.contains("cluster-secret"), "{text}");
    }

    #[test]
    fn with_a_secret_the_peer_port_is_bound_where_asked() {
        let mut config = Config { cluster_secret: Secret::new("s"), ..Config::default() };
        assert_eq!(peer_bind_address(&config).unwrap(), config.bind);
        config.peer_bind = Some(ELSEWHERE);
        assert_eq!(peer_bind_address(&config).unwrap(), ELSEWHERE);
    }

    #[test]
    fn seeds_elsewhere_need_a_secret() {
        let seeds = vec![HostPort { host: "10.0.0.2".into(), port: 16379 }];
        let mut config = Config { seeds, ..Config::default() };
        assert!(check(&config).unwrap_err().to_string().contains("10.0.0.2:16379"));
        config.cluster_secret = Secret::new("s");
        assert!(check(&config).is_ok());
    }

    #[test]
    fn ports_must_differ_and_exist() {
        let config = Config { peer_port: 6379, ..Config::default() };
        assert_eq!(check(&config).unwrap_err().to_string(), "port and peer-port are both 6379");
        let config = Config { http_port: Some(16379), ..Config::default() };
        assert_eq!(check(&config).unwrap_err().to_string(), "peer-port and http-port are both 16379");
        let config = Config { port: 60000, peer_port: 0, ..Config::default() };
        assert!(check(&config).unwrap_err().to_string().contains("give peer-port"));
    }
}
