//! Connections to a container that are being made. A server that is told to stop closes its listening
//! socket, and with it goes every connection whose handshake is not over or that it has not accepted,
//! although a node chose this container while that was right.
use std::{fs, time::Duration};
use tokio::time::{Instant, sleep};

/// How long they are waited for: Linux sends its first SYN-ACK again after a second (RFC 6298,
/// section 2), so a handshake that takes longer has lost a packet.
const LONGEST: Duration = Duration::from_secs(1);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks in a row that must find nothing: a connection that a node chose just before it said that it
/// does so no more may still be behind what it said.
const QUIET: u32 = 3;

/// States of the kernel's `tcp_states.h`, as `/proc/net/tcp` writes them.
const SYN_RECEIVED: &str = "03";
const LISTENS: &str = "0A";

/// Waits until no connection is being made in the network namespace of a process, or long enough.
pub(crate) async fn over(pid: i32) {
    let end = Instant::now() + LONGEST;
    let mut quiet = 0;
    while Instant::now() < end {
        quiet = if under_way(pid) { 0 } else { quiet + 1 };
        if quiet == QUIET {
            return;
        }
        sleep(PAUSE).await;
    }
}

fn under_way(pid: i32) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        // A process that is gone has no connections.
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(being_made)
    })
}

/// Whether a line of `/proc/net/tcp` is a connection that waits for the last part of its handshake, or
/// a listening socket with connections to accept (its number of them is where others have the bytes
/// to read).
fn being_made(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(3);
    match (fields.next(), fields.next().and_then(|queues| queues.split_once(':'))) {
        (Some(SYN_RECEIVED), _) => true,
        (Some(LISTENS), Some((_, waiting))) => waiting.bytes().any(|digit| digit != b'0'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: &str, to_read: &str) -> String {
        format!("   1: 0701000A:0050 0501000A:C35A {state} 00000000:{to_read} 01:00000063 00000000")
    }

    #[test]
    fn a_connection_being_made_is_told_from_others_by_its_state() {
        assert!(being_made(&line("03", "00000000")));
        assert!(being_made(&line("0A", "00000002")), "two wait to be accepted");
        assert!(!being_made(&line("0A", "00000000")));
        for other in ["01", "06"] {
            assert!(!being_made(&line(other, "00000010")), "established, time-wait: {other}");
        }
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        assert!(!being_made(header) && !being_made(""));
    }

    #[tokio::test]
    async fn where_nothing_is_under_way_it_takes_three_looks() {
        let began = Instant::now();
        over(i32::MAX).await;
        let took = began.elapsed();
        assert!(took >= PAUSE * (QUIET - 1) && took < LONGEST, "{took:?}");
    }
}
