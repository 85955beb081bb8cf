//! `network create|ls|inspect|rm`.
use super::{each, filters, inspect, pairs};
use crate::{
    args::{Listing, NetworkCommand, NetworkCreate},
    client::Client,
    error::{CliError, CliResult},
    table::Table,
    text::{at, escape, id, natural},
};
use serde_json::{Value, json};

pub(crate) async fn run(client: &Client, command: NetworkCommand) -> CliResult<()> {
    match command {
        NetworkCommand::Create(create) => self::create(client, create).await,
        NetworkCommand::Ls { listing, no_trunc } => ls(client, listing, no_trunc).await,
        NetworkCommand::Inspect { networks, verbose } => {
            let verbose = if verbose { "?verbose=true" } else { "" };
            let path = |n: &str| format!("/networks/{}{verbose}", escape(n));
            inspect::several(client, &networks, path).await
        }
        NetworkCommand::Rm { networks } => {
            each(&networks, async |network| {
                client.delete(&format!("/networks/{}", escape(network))).await?;
                println!("{network}");
                Ok(())
            })
            .await
        }
    }
}

async fn create(client: &Client, create: NetworkCreate) -> CliResult<()> {
    if create.gateway.len() > create.subnet.len() {
        return Err(CliError::usage("every --gateway needs a --subnet to be in"));
    }
    let config: Vec<Value> = create
        .subnet
        .iter()
        .enumerate()
        .map(|(i, subnet)| json!({ "Subnet": subnet, "Gateway": create.gateway.get(i) }))
        .collect();
    let request = json!({
        "Name": create.name,
        "Driver": create.driver,
        "Attachable": create.attachable,
        "Internal": create.internal,
        "Ingress": create.ingress,
        "EnableIPv6": create.ipv6,
        "IPAM": { "Driver": "default", "Config": config },
        "Options": pairs(&create.opt),
        "Labels": pairs(&create.label),
    });
    let answer: Value = client.post_json("/networks/create", &request).await?;
    println!("{}", at(&answer, "/Id"));
    Ok(())
}

async fn ls(client: &Client, listing: Listing, full: bool) -> CliResult<()> {
    let mut networks: Vec<Value> =
        client.get(&format!("/networks?{}", filters(&listing.filter)?)).await?;
    networks.sort_by(|a, b| natural(at(a, "/Name"), at(b, "/Name")));
    if listing.quiet {
        networks.iter().for_each(|n| println!("{}", id(at(n, "/Id"), full)));
        return Ok(());
    }
    let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
    for n in &networks {
        let text = |pointer| at(n, pointer).to_owned();
        table.row(vec![id(at(n, "/Id"), full), text("/Name"), text("/Driver"), text("/Scope")]);
    }
    table.print();
    Ok(())
}
