//! Where the cores that follow the changes want nothing, those that look at everything want nothing.
use super::{Invariant, Rest, Step, Verdict};
use shoal_cores::{allocate, orchestrate};

pub(super) struct Overlooked;

impl Invariant for Overlooked {
    fn name(&self) -> &'static str {
        "overlooked"
    }

    fn applied(&mut self, _: &Step<'_>) -> Verdict {
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        let mut wanted = orchestrate(rest.state, rest.now, &mut || "new".to_owned());
        wanted.extend(allocate(rest.state, rest.now));
        match wanted.first() {
            Some(change) => Err(format!("{} changes are overlooked: {change:?}", wanted.len())),
            None => Ok(()),
        }
    }
}
