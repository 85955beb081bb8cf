//! The clocks: the only place that reads them.
use shoal_model::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Time of day, for what users and the log see.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Time since the manager started, for liveness: it never jumps.
#[derive(Clone, Copy)]
pub(crate) struct Uptime(Instant);

impl Uptime {
    pub(crate) fn start() -> Uptime {
        Uptime(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp(i64::try_from(self.0.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }
}
