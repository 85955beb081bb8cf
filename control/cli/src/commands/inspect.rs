//! `inspect` of anything.
use super::each;
use crate::{
    args::Inspect,
    client::Client,
    error::{CliError, CliResult},
    text::{escape, pretty},
};
use serde_json::Value;

/// Kinds in Docker's order, and where they are.
const KINDS: [(&str, &str, &str); 10] = [
    ("container", "/containers/", "/json"),
    ("image", "/images/", "/json"),
    ("network", "/networks/", ""),
    ("volume", "/volumes/", ""),
    ("service", "/services/", "?insertDefaults=true"),
    ("task", "/tasks/", ""),
    ("node", "/nodes/", ""),
    ("plugin", "/plugins/", "/json"),
    ("secret", "/secrets/", ""),
    ("config", "/configs/", ""),
];

/// Prints what the daemon knows of each object as a JSON list; goes on after a refusal.
pub(crate) async fn several(
    client: &Client,
    names: &[String],
    path: impl Fn(&str) -> String,
) -> CliResult<()> {
    let mut found: Vec<Value> = Vec::new();
    let result = each(names, async |name| {
        found.push(client.get(&path(name)).await?);
        Ok(())
    })
    .await;
    println!("{}", pretty(&found));
    result
}

pub(crate) async fn any(client: &Client, inspect: Inspect) -> CliResult<()> {
    if let Some(kind) = &inspect.kind
        && !KINDS.iter().any(|(k, ..)| k == kind)
    {
        return Err(CliError::usage(format!("\"{kind}\" is not a valid value for --type")));
    }
    let kinds = KINDS.iter().filter(|(k, ..)| inspect.kind.as_deref().is_none_or(|i| i == *k));
    let mut found: Vec<Value> = Vec::new();
    let result = each(&inspect.names, async |name| {
        for (_, before, after) in kinds.clone() {
            match client.get(&format!("{before}{}{after}", escape(name))).await {
                Ok(value) => {
                    found.push(value);
                    return Ok(());
                }
                Err(e) if e.is_not_found() => {}
                // A node outside a cluster, or a worker, knows no cluster objects.
                Err(CliError::Daemon { status: 503, .. }) if inspect.kind.is_none() => {}
                Err(e) => return Err(e),
            }
        }
        let kind = inspect.kind.as_deref().unwrap_or("object");
        Err(CliError::usage(format!("Error: No such {kind}: {name}")))
    })
    .await;
    println!("{}", pretty(&found));
    result
}
