//! Checks a set of peers before anything is changed.

use crate::{OverlayError, Peer, encode_public_key};
use ipnetwork::IpNetwork;
use std::{collections::BTreeSet, net::IpAddr};

/// Peers the engine takes: more than nodes of the largest cluster (10,000). Each needs some 5 KB, and up to 256 packets while its handshake is on.
pub const MAX_PEERS: usize = 16_384;
/// Allowed IPs over all peers: as many as there can be endpoints in the node's eBPF table.
pub const MAX_ALLOWED_IPS: usize = 65_536;

/// Refuses peers that are listed twice, that are ourselves, that share an address, or are too many.
pub(crate) fn check(peers: &[Peer], own_key: &[u8; 32]) -> Result<(), OverlayError> {
    let networks: usize = peers.iter().map(|p| p.allowed_ips.len()).sum();
    bound("peers", peers.len(), MAX_PEERS)?;
    bound("allowed IPs", networks, MAX_ALLOWED_IPS)?;
    let mut seen = BTreeSet::new();
    for Peer { public_key, .. } in peers {
        if public_key == own_key {
            return Err(OverlayError::OwnKey(encode_public_key(public_key)));
        }
        if !seen.insert(public_key) {
            return Err(OverlayError::DuplicatePeer(encode_public_key(public_key)));
        }
    }
    refuse_overlaps(peers)
}

fn bound(what: &'static str, count: usize, limit: usize) -> Result<(), OverlayError> {
    match count <= limit {
        true => Ok(()),
        false => Err(OverlayError::TooMany { what, count, limit }),
    }
}

/// In order of their first address, with the wider network first, two networks overlap exactly if
/// one lies within the widest that began before it and has not ended.
fn refuse_overlaps(peers: &[Peer]) -> Result<(), OverlayError> {
    let mut networks: Vec<(IpAddr, u8, IpNetwork, &Peer)> = peers
        .iter()
        .flat_map(|peer| {
            peer.allowed_ips.iter().map(move |net| (net.network(), net.prefix(), *net, peer))
        })
        .collect();
    networks.sort_by_key(|&(start, prefix, ..)| (start, prefix));
    let mut widest: Option<(IpNetwork, &Peer)> = None;
    for (start, _, net, peer) in networks {
        match widest {
            Some((first_net, first)) if first_net.contains(start) => {
                if first.public_key != peer.public_key {
                    return Err(OverlayError::Overlap {
                        first: encode_public_key(&first.public_key),
                        first_net,
                        second: encode_public_key(&peer.public_key),
                        second_net: net,
                    });
                }
            }
            _ => widest = Some((net, peer)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(key: u8, nets: &[&str]) -> Peer {
        let allowed_ips = nets.iter().map(|n| n.parse().unwrap()).collect();
        Peer { public_key: [key; 32], endpoint: None, allowed_ips, keepalive: None, ends: None }
    }

    fn refusal(peers: &[Peer]) -> String {
        check(peers, &[9; 32]).unwrap_err().to_string()
    }

    #[test]
    fn disjoint_peers_are_accepted() {
        let peers = [
            peer(1, &["10.0.0.0/24", "10.0.0.7/32", "fd00::1/128"]),
            peer(2, &["10.0.1.0/24", "fd00::2/128"]),
            peer(3, &[]),
        ];
        assert!(check(&peers, &[9; 32]).is_ok());
    }

    #[test]
    fn an_overlap_is_refused_and_both_peers_are_named() {
        for (a, b) in [
            ("10.0.0.5/32", "10.0.0.5/32"),
            ("10.0.0.0/24", "10.0.0.5/32"),
            ("10.0.0.5/32", "0.0.0.0/0"),
            ("fd00::/64", "fd00::1/128"),
            ("10.0.0.77/24", "10.0.0.1/24"),
        ] {
            let message = refusal(&[peer(1, &["10.9.0.0/16", a]), peer(2, &[b])]);
            for name in [a, b, &encode_public_key(&[1; 32]), &encode_public_key(&[2; 32])] {
                assert!(message.contains(name), "{a} {b}: {message}");
            }
        }
    }

    #[test]
    fn an_overlap_behind_a_narrower_network_of_the_same_peer_is_found() {
        let peers = [peer(1, &["10.0.0.0/8", "10.0.0.0/24"]), peer(2, &["10.200.0.1/32"])];
        assert!(refusal(&peers).contains("overlap"));
    }

    #[test]
    fn a_peer_listed_twice_or_being_ourselves_is_refused() {
        assert!(refusal(&[peer(1, &[]), peer(1, &[])]).contains("listed twice"));
        assert!(refusal(&[peer(9, &[])]).contains("own public key"));
    }

    #[test]
    fn more_than_the_bound_is_refused_with_the_numbers() {
        let net: IpNetwork = "10.0.0.1/32".parse().unwrap();
        let mut many = peer(1, &[]);
        many.allowed_ips = vec![net; MAX_ALLOWED_IPS + 1];
        let message = refusal(&[many]);
        assert!(message.contains("65537 allowed IPs") && message.contains("65536"), "{message}");
    }
}
