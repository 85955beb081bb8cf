//! Nodes that come back all at once, or again and again.
use shoal_model::Timestamp;
use std::{collections::BTreeMap, time::Duration};

/// Within this time (swarmkit's values) …
const WINDOW: Duration = Duration::from_secs(8);
/// … a node may register so often.
const MOST: u32 = 3;

/// Registrations of the last [`WINDOW`], by node. Bounded by the nodes there are: those that are
/// not in the cluster are refused before.
#[derive(Debug, Default)]
pub struct Registrations {
    nodes: BTreeMap<String, (Timestamp, u32)>,
    swept: Timestamp,
}

impl Registrations {
    /// Whether a node may register now; if not, how long it should wait.
    ///
    /// # Errors
    /// The time until it may.
    pub fn admit(&mut self, node: &str, now: Timestamp) -> Result<(), Duration> {
        if now.since(self.swept) >= WINDOW {
            self.nodes.retain(|_, (first, _)| now.since(*first) < WINDOW);
            self.swept = now;
        }
        let (first, count) = self.nodes.entry(node.to_owned()).or_insert((now, 0));
        if now.since(*first) >= WINDOW {
            (*first, *count) = (now, 0);
        }
        if *count == MOST {
            return Err(WINDOW.saturating_sub(now.since(*first)));
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn a_node_may_register_three_times_in_8_seconds_whatever_others_do() {
        let mut registrations = Registrations::default();
        for ms in [0, 10, 4_000] {
            registrations.admit("n1", at(ms)).unwrap();
        }
        assert_eq!(registrations.admit("n1", at(5_000)), Err(Duration::from_secs(3)));
        registrations.admit("n2", at(5_000)).unwrap();
        assert!(registrations.admit("n1", at(7_999)).is_err());
        registrations.admit("n1", at(8_000)).unwrap();
    }

    #[test]
    fn old_registrations_are_forgotten() {
        let mut registrations = Registrations::default();
        for n in 0..100 {
            registrations.admit(&format!("n{n}"), at(n)).unwrap();
        }
        registrations.admit("late", at(20_000)).unwrap();
        assert_eq!(registrations.nodes.len(), 1);
    }
}
