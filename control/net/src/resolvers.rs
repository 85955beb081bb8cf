//! The host's resolvers.
use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// Port of DNS (RFC 1035).
const DNS_PORT: u16 = 53;

/// Those of `/etc/resolv.conf`, as it is now.
pub(crate) fn of_host() -> Vec<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    parse(&text).into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

fn parse(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()?.parse().ok()
    });
    servers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_the_rest_is_passed_over() {
        let text = "# comment\nsearch a b\nnameserver 192.0.2.1\nnameserver ::1\nnameserver x\n";
        let want: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(parse(text), want);
    }
}
