//! When to try again, and when to beat. Pure: random numbers (0 to 1) come in as arguments.
use std::time::Duration;

/// Bounds of the pause between attempts to connect (swarmkit's).
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(8);

/// Part of a period by which a beat may come earlier or later (swarmkit: 0.5 s of 5 s).
const JITTER: f64 = 0.1;

/// Pauses between attempts to connect: anything up to a ceiling that doubles. So nodes that lost
/// their manager at the same moment do not come back at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { ceiling: FIRST }
    }
}

impl Backoff {
    /// The pause before the next attempt, after a session that lasted for some time (zero: there
    /// was none). Only one that lasted begins anew: a manager that throws everybody out at once is
    /// not to be run down.
    pub(crate) fn pause(&mut self, lasted: Duration, random: f64) -> Duration {
        if lasted >= LAST {
            self.ceiling = FIRST;
        }
        let pause = self.ceiling.mul_f64(random.clamp(0.0, 1.0));
        self.ceiling = (self.ceiling * 2).min(LAST);
        pause
    }
}

/// Time until the next beat.
pub(crate) fn beat(period: Duration, random: f64) -> Duration {
    period.mul_f64(1.0 + JITTER * (2.0 * random.clamp(0.0, 1.0) - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_to_8_seconds_and_begins_anew_after_a_session() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u128> =
            (0..9).map(|_| backoff.pause(Duration::ZERO, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1_600, 3_200, 6_400, 8_000, 8_000]);
        let short = Duration::from_secs(7);
        assert_eq!(backoff.pause(short, 1.0), LAST, "thrown out again and again");
        assert_eq!(backoff.pause(Duration::from_secs(8), 1.0), FIRST);
    }

    #[test]
    fn pauses_are_spread_over_everything_below_the_ceiling() {
        let mut backoff = Backoff { ceiling: LAST };
        for (random, millis) in [(0.0, 0), (0.25, 2_000), (0.5, 4_000), (7.0, 8_000)] {
            assert_eq!(backoff.pause(Duration::ZERO, random).as_millis(), millis);
        }
    }

    #[test]
    fn an_hour_without_a_manager_is_some_hundred_attempts() {
        let mut backoff = Backoff::default();
        let (mut gone, mut attempts, mut seed) = (Duration::ZERO, 0_u32, 7_u32);
        while gone < Duration::from_secs(3_600) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            gone += backoff.pause(Duration::ZERO, f64::from(seed) / f64::from(u32::MAX));
            attempts += 1;
        }
        assert!((700..1_200).contains(&attempts), "{attempts}");
    }

    #[test]
    fn beats_keep_within_a_tenth_of_their_period() {
        let second = Duration::from_secs(1);
        let at = |random| beat(second, random).as_millis();
        assert_eq!([at(0.0), at(0.5), at(1.0)], [900, 1_000, 1_100]);
    }
}
