//! The control plane without machines.

mod placement;

use crate::report::Row;

pub(crate) use placement::place;

pub(crate) fn run(quick: bool) -> anyhow::Result<Vec<Row>> {
    placement::rows(quick)
}
