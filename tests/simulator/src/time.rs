//! Simulated time: nanoseconds since the simulation began, which no clock of the cluster shows.

pub(crate) type Ns = u64;

pub(crate) const MS: Ns = 1_000_000;
pub(crate) const SEC: Ns = 1_000 * MS;
pub(crate) const MINUTE: Ns = 60 * SEC;

/// What the clocks show at the beginning: 1 January 2026.
pub(crate) const EPOCH: i64 = 1_767_225_600_000_000_000;

pub(crate) fn ns(duration: std::time::Duration) -> Ns {
    Ns::try_from(duration.as_nanos()).unwrap_or(Ns::MAX)
}
