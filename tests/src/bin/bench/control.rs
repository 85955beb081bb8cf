//! The control plane, on real clusters: what people wait for, and what a lost host costs.

mod fleet;
mod loss;
mod peers;
mod services;
mod writes;

use crate::report::Row;

pub(crate) fn run(quick: bool) -> anyhow::Result<Vec<Row>> {
    let runs = if quick { 1 } else { 5 };
    let mut rows = services::rows(runs)?;
    rows.extend(loss::rows(runs)?);
    rows.extend(writes::rows(runs, quick)?);
    Ok(rows)
}
