//! Addresses as users write them: `ADDRESS`, `INTERFACE`, each with `:PORT` or without.
use shoal_links::{HostAddress, Links};
use shoal_model::{ControlError, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Port managers listen on when none is given (Docker's).
pub(crate) const CONTROL_PORT: u16 = 2377;
/// The overlay's device is not an address of the host.
const NOT_THE_HOSTS: [&str; 1] = ["shoal0"];

/// Where a manager listens: default any address.
pub(crate) async fn listen(links: &Links, text: &str) -> Result<SocketAddr, ControlError> {
    if text.is_empty() {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), CONTROL_PORT));
    }
    let (host, port) = split(text)?;
    let ip = match host.parse() {
        Ok(ip) => ip,
        Err(_) => of_interface(links, &host, "listen").await?,
    };
    Ok(SocketAddr::new(ip, port.unwrap_or(CONTROL_PORT)))
}

/// Where others reach this node: as given, else the listening address, else the only address.
pub(crate) async fn advertise(
    links: &Links,
    text: &str,
    listen: SocketAddr,
) -> Result<SocketAddr, ControlError> {
    if text.is_empty() {
        let ip = match listen.ip() {
            ip if !ip.is_unspecified() => ip,
            _ => only(links).await?,
        };
        return Ok(SocketAddr::new(ip, listen.port()));
    }
    let (host, port) = split(text)?;
    let ip: IpAddr = match host.parse() {
        Ok(ip) => ip,
        Err(_) => of_interface(links, &host, "advertise").await?,
    };
    if ip.is_unspecified() {
        return Err(invalid(
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        ));
    }
    let mine = all(links).await?;
    if !mine.iter().any(|a| a.address == ip) {
        return Err(invalid(format!(
            "advertise address {ip} is not an address of this host; the overlay needs one of {}",
            mine.iter().map(|a| a.address.to_string()).collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(SocketAddr::new(ip, port.unwrap_or(listen.port())))
}

/// A manager to join: `HOST[:PORT]`; names are resolved.
pub(crate) async fn remote(text: &str) -> Result<Vec<SocketAddr>, ControlError> {
    let (host, port) = split(text)?;
    let port = port.unwrap_or(CONTROL_PORT);
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    found
        .map(Iterator::collect)
        .map_err(|e| invalid(format!("cannot resolve the manager's address {text:?}: {e}")))
}

async fn all(links: &Links) -> Result<Vec<HostAddress>, ControlError> {
    links.node_addresses(&NOT_THE_HOSTS).await.map_err(unknown)
}

async fn only(links: &Links) -> Result<IpAddr, ControlError> {
    let found = links.advertise_address(&NOT_THE_HOSTS).await;
    found.map(|a| a.address).map_err(|e| invalid(e.to_string()))
}

async fn of_interface(links: &Links, name: &str, what: &str) -> Result<IpAddr, ControlError> {
    let all = all(links).await?;
    let mut own = all.iter().filter(|a| a.ifname == name).map(|a| a.address);
    let first = own.next().ok_or_else(|| {
        invalid(format!("could not parse {what} address: {name:?} is neither an IP address nor an interface of this host with one"))
    })?;
    match own.find(|a| a.is_ipv4() == first.is_ipv4()) {
        None => Ok(first),
        Some(second) => Err(invalid(format!(
            "interface {name} has more than one IP address ({first} and {second}): specify one with --{what}-addr"
        ))),
    }
}

/// `host:port`, `[v6]:port`, `host` or a bare IPv6 address.
fn split(text: &str) -> Result<(String, Option<u16>), ControlError> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.map(str::parse::<u16>).transpose();
    match port {
        Ok(port) if !host.is_empty() && port != Some(0) => Ok((host.to_owned(), port)),
        _ => Err(invalid(format!(
            "{text:?} is not an address: want ADDRESS[:PORT], port 1 to 65535"
        ))),
    }
}

fn invalid(message: impl Into<String>) -> ControlError {
    ControlError::new(ErrorKind::InvalidArgument, message)
}

fn unknown(error: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorKind::Unknown, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_with_and_without_port() {
        let host = |t: &str| split(t).unwrap();
        assert_eq!(host("192.0.2.1"), ("192.0.2.1".into(), None));
        assert_eq!(host("192.0.2.1:99"), ("192.0.2.1".into(), Some(99)));
        assert_eq!(host("[2001:db8::1]:99"), ("2001:db8::1".into(), Some(99)));
        assert_eq!(host("2001:db8::1"), ("2001:db8::1".into(), None));
        assert_eq!(host("eth0:2377"), ("eth0".into(), Some(2377)));
    }

    #[test]
    fn a_bad_port_is_named() {
        for bad in ["192.0.2.1:0", "192.0.2.1:x", ":5", "h:70000"] {
            assert!(split(bad).unwrap_err().message.contains(bad), "{bad}");
        }
    }
}
