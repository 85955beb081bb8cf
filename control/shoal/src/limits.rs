//! What the kernel allows this process.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shoal_identity::MAX_CONNECTIONS;

/// Files open besides connections of nodes: databases, containers' logs and sockets, the API.
const OTHERS: u64 = 8_192;

/// Raises the limit of open files to what a manager of the largest cluster needs: every node has a
/// connection. Gives the limit there was, which is the containers', if it was raised.
pub(crate) fn allow_files() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let wanted = raised(&before, MAX_CONNECTIONS as u64 + OTHERS)?;
    let refused = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => return before.current,
        Err(error) => error,
    };
    // Without CAP_SYS_RESOURCE (in a container) what is allowed must do.
    let most = Rlimit { current: before.maximum, maximum: before.maximum };
    let raised = before.current != before.maximum && setrlimit(Resource::Nofile, most).is_ok();
    let limit = getrlimit(Resource::Nofile).current;
    tracing::warn!(
        error = %refused, limit, wanted = MAX_CONNECTIONS as u64 + OTHERS,
        "fewer files may be open than a manager of the largest cluster needs: set LimitNOFILE"
    );
    before.current.filter(|_| raised)
}

/// `None` when it is high enough.
fn raised(limit: &Rlimit, wanted: u64) -> Option<Rlimit> {
    limit.current.filter(|current| *current < wanted)?;
    let maximum = limit.maximum.map(|most| most.max(wanted));
    Some(Rlimit { current: Some(wanted), maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_only_ever_raised() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(raised(&limit(None, None), 100), None);
        assert_eq!(raised(&limit(Some(100), Some(100)), 100), None);
        assert_eq!(raised(&limit(Some(10), Some(500)), 100), Some(limit(Some(100), Some(500))));
        assert_eq!(raised(&limit(Some(10), Some(50)), 100), Some(limit(Some(100), Some(100))));
        assert_eq!(raised(&limit(Some(10), None), 100), Some(limit(Some(100), None)));
    }
}
