//! `node ls|inspect|update|rm|ps`.
use super::{each, filters, inspect, pairs, task};
use crate::{
    args::{Listing, NodeCommand},
    client::Client,
    error::CliResult,
    table::Table,
    text::{at, escape, natural, title},
};
use serde_json::{Value, json};

pub(crate) async fn run(client: &Client, command: NodeCommand) -> CliResult<()> {
    match command {
        NodeCommand::Ls(listing) => ls(client, listing).await,
        NodeCommand::Inspect { nodes } => {
            let mut found = Vec::new();
            for node in nodes {
                found.push(resolve(client, &node).await?);
            }
            inspect::several(client, &found, |n| format!("/nodes/{}", escape(n))).await
        }
        NodeCommand::Update { node, availability, role, label_add, label_rm } => {
            let current: Value = client.get(&format!("/nodes/{}", escape(&node))).await?;
            let mut spec = current["Spec"].clone();
            for (key, value) in [("Availability", availability), ("Role", role)] {
                if let Some(value) = value {
                    spec[key] = value.into();
                }
            }
            if !spec["Labels"].is_object() {
                spec["Labels"] = json!({});
            }
            for (key, value) in pairs(&label_add) {
                spec["Labels"][key] = value.into();
            }
            if let Some(labels) = spec["Labels"].as_object_mut() {
                labels.retain(|key, _| !label_rm.contains(key));
            }
            let (id, version) = (at(&current, "/ID"), &current["Version"]["Index"]);
            client.post(&format!("/nodes/{id}/update?version={version}"), &spec).await?;
            println!("{node}");
            Ok(())
        }
        NodeCommand::Promote { nodes } => {
            each(&nodes, async |node| {
                match give_role(client, node, "manager").await? {
                    true => println!("Node {node} promoted to a manager in the swarm."),
                    false => println!("Node {node} is already a manager."),
                }
                Ok(())
            })
            .await
        }
        NodeCommand::Demote { nodes } => {
            each(&nodes, async |node| {
                match give_role(client, node, "worker").await? {
                    true => println!("Manager {node} demoted in the swarm."),
                    false => println!("Node {node} is already a worker."),
                }
                Ok(())
            })
            .await
        }
        NodeCommand::Rm { nodes, force } => {
            let force = if force { "?force=1" } else { "" };
            each(&nodes, async |node| {
                client.delete(&format!("/nodes/{}{force}", escape(node))).await?;
                println!("{node}");
                Ok(())
            })
            .await
        }
        NodeCommand::Ps { nodes, listing } => {
            let nodes = if nodes.is_empty() { vec!["self".to_owned()] } else { nodes };
            let mut ids = Vec::new();
            for node in nodes {
                let id = resolve(client, &node).await?;
                let node: Value = client.get(&format!("/nodes/{}", escape(&id))).await?;
                ids.push(at(&node, "/ID").to_owned());
            }
            task::list(client, "node", &ids, &listing).await
        }
    }
}

/// Whether the node had another role before.
async fn give_role(client: &Client, node: &str, role: &str) -> CliResult<bool> {
    let node = resolve(client, node).await?;
    let current: Value = client.get(&format!("/nodes/{}", escape(&node))).await?;
    if at(&current, "/Spec/Role") == role {
        return Ok(false);
    }
    let mut spec = current["Spec"].clone();
    spec["Role"] = role.into();
    let (id, version) = (at(&current, "/ID"), &current["Version"]["Index"]);
    client.post(&format!("/nodes/{id}/update?version={version}"), &spec).await?;
    Ok(true)
}

/// `self` becomes this node's id.
async fn resolve(client: &Client, node: &str) -> CliResult<String> {
    if node != "self" {
        return Ok(node.to_owned());
    }
    let info: Value = client.get("/info").await?;
    match at(&info, "/Swarm/NodeID") {
        // Asked as it is, the daemon says why there is no such node.
        "" => Ok(node.to_owned()),
        id => Ok(id.to_owned()),
    }
}

async fn ls(client: &Client, listing: Listing) -> CliResult<()> {
    let mut nodes: Vec<Value> =
        client.get(&format!("/nodes?{}", filters(&listing.filter)?)).await?;
    nodes.sort_by(|a, b| natural(at(a, "/Description/Hostname"), at(b, "/Description/Hostname")));
    if listing.quiet {
        for node in nodes {
            println!("{}", at(&node, "/ID"));
        }
        return Ok(());
    }
    let info: Value = client.get("/info").await?;
    let own = at(&info, "/Swarm/NodeID");
    let mut table = Table::new(&[
        "ID",
        "HOSTNAME",
        "STATUS",
        "AVAILABILITY",
        "MANAGER STATUS",
        "ENGINE VERSION",
    ]);
    for node in &nodes {
        let id = at(node, "/ID");
        let leader = node.pointer("/ManagerStatus/Leader").and_then(Value::as_bool);
        let manager = match leader {
            Some(true) => "Leader".to_owned(),
            _ => title(at(node, "/ManagerStatus/Reachability")),
        };
        table.row(vec![
            format!("{id} {}", if id == own { "*" } else { " " }),
            at(node, "/Description/Hostname").to_owned(),
            title(at(node, "/Status/State")),
            title(at(node, "/Spec/Availability")),
            manager,
            at(node, "/Description/Engine/EngineVersion").to_owned(),
        ]);
    }
    table.print();
    Ok(())
}
