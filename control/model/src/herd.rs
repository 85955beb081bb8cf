//! How fast many nodes may come back to a manager: what agents keep to, and what managers count on.
use std::time::Duration;

/// Nodes that a manager takes up in a second once they call: a handshake (about 2 ms of a core) and a
/// transaction, which those that wait together share. Half of what one core does with nothing else to do.
const TAKEN_UP_PER_SECOND: u32 = 250;

/// What a new leader takes to read a task into what nodes are told, on a core it shares.
const READ: Duration = Duration::from_micros(50);

/// Attempts in a second that all nodes together may make while no manager answers.
const ATTEMPTS_PER_SECOND: u32 = 500;

/// Bounds of [`longest_pause`]. The upper one would be 8 s (swarmkit's), but not for ten thousand nodes.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Bounds of [`patience`]. With the lower one the leader's loss is noticed before the next one leads.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
const MOST_PATIENCE: Duration = Duration::from_secs(8);

/// How long a manager that has just begun to lead is busy with nodes that come back.
/// Beside that it reads all tasks.
pub fn return_spread(nodes: usize, tasks: usize) -> Duration {
    Duration::from_secs(1) * count(nodes) / TAKEN_UP_PER_SECOND + READ * count(tasks)
}

/// The longest pause of a node between two attempts to find a manager: in a small cluster a second,
/// so that nobody is missed who is there. Whole seconds: nodes are told when it changes.
pub fn longest_pause(nodes: usize) -> Duration {
    let paced = Duration::from_secs(count(nodes).div_ceil(ATTEMPTS_PER_SECOND).into());
    paced.clamp(SHORTEST, LONGEST)
}

/// How long a node whose pauses are so long waits for a sign of life before it looks for another manager: one
/// that is busy with thousands of nodes is not gone.
pub fn patience(longest_pause: Duration) -> Duration {
    (longest_pause / 4).clamp(LEAST_PATIENCE, MOST_PATIENCE)
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX).min(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_clusters_come_back_at_once_and_large_ones_take_their_time() {
        let times = |nodes| (return_spread(nodes, 0).as_millis(), longest_pause(nodes).as_millis());
        assert_eq!(times(0), (0, 1_000));
        assert_eq!(times(3), (12, 1_000));
        assert_eq!(times(1_000), (4_000, 2_000));
        assert_eq!(times(1_001), (4_004, 3_000));
        assert_eq!(times(10_000), (40_000, 20_000));
        assert_eq!(return_spread(10_000, 1_000_000).as_secs(), 90);
        assert_eq!(longest_pause(usize::MAX), LONGEST);
        let patience = |nodes| patience(longest_pause(nodes)).as_millis();
        assert_eq!([3, 1_000, 5_000, 10_000].map(patience), [2_000, 2_000, 2_500, 5_000]);
        assert_eq!(patience(usize::MAX), 7_500);
    }
}
