//! Tables of tasks, for `service ps` and `node ps`.
use super::query;
use crate::{
    args::TaskListing,
    client::Client,
    error::{CliError, CliResult},
    table::Table,
    text::{ago, at, ellipsis, id, image, natural, number, title},
};
use chrono::Utc;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Width of the error column.
const ERROR_WIDTH: usize = 30;

/// Prints the tasks of services or nodes (`key`) with these ids.
pub(crate) async fn list(
    client: &Client,
    key: &str,
    ids: &[String],
    listing: &TaskListing,
) -> CliResult<()> {
    let mut wanted: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    wanted.insert(key.to_owned(), ids.iter().map(|i| (i.clone(), true)).collect());
    for filter in &listing.filter {
        let (k, v) = filter.split_once('=').ok_or_else(|| {
            CliError::usage(format!("bad format of filter {filter:?} (expected name=value)"))
        })?;
        wanted.entry(k.to_owned()).or_default().insert(v.to_owned(), true);
    }
    let tasks: Vec<Value> = client.get(&format!("/tasks?{}", query(&json!(wanted)))).await?;
    let names = if listing.no_resolve { Names::default() } else { Names::load(client).await? };
    let mut rows: Vec<(String, &Value)> = tasks.iter().map(|t| (names.task(t), t)).collect();
    // By name, the newest of a slot first.
    rows.sort_by(|(a, s), (b, t)| {
        natural(a, b).then_with(|| at(t, "/CreatedAt").cmp(at(s, "/CreatedAt")))
    });
    if listing.quiet {
        rows.iter().for_each(|(_, t)| println!("{}", id(at(t, "/ID"), listing.no_trunc)));
        return Ok(());
    }
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "IMAGE",
        "NODE",
        "DESIRED STATE",
        "CURRENT STATE",
        "ERROR",
        "PORTS",
    ]);
    let mut previous = "";
    for (name, task) in &rows {
        let shown = if name == previous { format!(" \\_ {name}") } else { name.clone() };
        previous = name;
        let full = listing.no_trunc;
        let picture = at(task, "/Spec/ContainerSpec/Image");
        let node = at(task, "/NodeID");
        let error = match at(task, "/Status/Err") {
            "" => String::new(),
            e if full => format!("\"{e}\""),
            e => ellipsis(&format!("\"{e}\""), ERROR_WIDTH),
        };
        let since = ago(at(task, "/Status/Timestamp"), Utc::now()).to_lowercase();
        table.row(vec![
            id(at(task, "/ID"), full),
            shown,
            if full { picture } else { image(picture) }.to_owned(),
            names.nodes.get(node).cloned().unwrap_or_else(|| node.to_owned()),
            title(at(task, "/DesiredState")),
            format!("{} {since}", title(at(task, "/Status/State"))),
            error,
            String::new(),
        ]);
    }
    table.print();
    Ok(())
}

/// Names of services and nodes by id.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) services: BTreeMap<String, String>,
    pub(crate) nodes: BTreeMap<String, String>,
}

impl Names {
    pub(crate) async fn load(client: &Client) -> CliResult<Names> {
        let names = |list: Vec<Value>, pointer: &str| {
            list.iter().map(|o| (at(o, "/ID").to_owned(), at(o, pointer).to_owned())).collect()
        };
        Ok(Names {
            services: names(client.get("/services").await?, "/Spec/Name"),
            nodes: names(client.get("/nodes").await?, "/Description/Hostname"),
        })
    }

    /// `service.slot`, or `service.node` where a node is the slot.
    pub(crate) fn task(&self, task: &Value) -> String {
        let service = at(task, "/ServiceID");
        let service = self.services.get(service).map_or(service, String::as_str);
        format!("{service}.{}", slot(task))
    }
}

/// A task's slot; its node where it has none, as for global services (and a job's first slot).
pub(crate) fn slot(task: &Value) -> String {
    match number(task, "/Slot") {
        0 => at(task, "/NodeID").to_owned(),
        slot => slot.to_string(),
    }
}
