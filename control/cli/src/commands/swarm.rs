//! `swarm init|join|join-token|leave`.
use crate::{
    args::{MemberAddresses, SwarmCommand, SwarmInit, SwarmJoin},
    client::Client,
    error::{CliError, CliResult},
    text::at,
};
use serde_json::{Value, json};

/// Docker's port for the control API.
const PORT: u16 = 2377;

pub(crate) async fn run(client: &Client, command: SwarmCommand) -> CliResult<()> {
    match command {
        SwarmCommand::Init(init) => self::init(client, init).await,
        SwarmCommand::Join(join) => self::join(client, join).await,
        SwarmCommand::JoinToken { role, quiet, rotate } => {
            join_token(client, &role, quiet, rotate).await
        }
        SwarmCommand::Leave { force } => {
            let force = if force { "?force=1" } else { "" };
            client.post(&format!("/swarm/leave{force}"), &json!({})).await?;
            println!("Node left the swarm.");
            Ok(())
        }
    }
}

fn addresses(a: &MemberAddresses) -> Value {
    json!({
        "ListenAddr": a.listen_addr,
        "AdvertiseAddr": a.advertise_addr,
        "DataPathAddr": a.data_path_addr,
        "Availability": a.availability,
    })
}

async fn init(client: &Client, init: SwarmInit) -> CliResult<()> {
    let mut request = addresses(&init.addresses);
    let mut spec = json!({});
    if let Some(expiry) = init.cert_expiry {
        spec["CAConfig"] = json!({ "NodeCertExpiry": expiry });
    }
    if let Some(period) = init.dispatcher_heartbeat {
        spec["Dispatcher"] = json!({ "HeartbeatPeriod": period });
    }
    if let Some(limit) = init.task_history_limit {
        spec["Orchestration"] = json!({ "TaskHistoryRetentionLimit": limit });
    }
    request["Spec"] = spec;
    request["DataPathPort"] = init.data_path_port.into();
    request["DefaultAddrPool"] = init.default_addr_pool.into();
    request["SubnetSize"] = init.default_addr_pool_mask_length.into();
    let node: String = client.post_json("/swarm/init", &request).await?;
    println!("Swarm initialized: current node ({node}) is now a manager.\n");
    show_join(client, &node, "worker").await?;
    println!(
        "To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.\n"
    );
    Ok(())
}

async fn join(client: &Client, join: SwarmJoin) -> CliResult<()> {
    let mut request = addresses(&join.addresses);
    request["JoinToken"] = join.token.into();
    let port = join.remote.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
    let remote = if port { join.remote } else { format!("{}:{PORT}", join.remote) };
    request["RemoteAddrs"] = json!([remote]);
    client.post("/swarm/join", &request).await?;
    let info: Value = client.get("/info").await?;
    let manager = info.pointer("/Swarm/ControlAvailable").and_then(Value::as_bool);
    let role = if manager == Some(true) { "manager" } else { "worker" };
    println!("This node joined a swarm as a {role}.");
    Ok(())
}

async fn join_token(client: &Client, role: &str, quiet: bool, rotate: bool) -> CliResult<()> {
    if rotate {
        let swarm: Value = client.get("/swarm").await?;
        let version = &swarm["Version"]["Index"];
        let flag = if role == "worker" { "rotateWorkerToken" } else { "rotateManagerToken" };
        let path = format!("/swarm/update?version={version}&{flag}=true");
        client.post(&path, &swarm["Spec"]).await?;
        if !quiet {
            println!("Successfully rotated {role} join token.\n");
        }
    }
    if quiet {
        println!("{}", token(client, role).await?);
        return Ok(());
    }
    let info: Value = client.get("/info").await?;
    show_join(client, at(&info, "/Swarm/NodeID"), role).await
}

async fn token(client: &Client, role: &str) -> CliResult<String> {
    let swarm: Value = client.get("/swarm").await?;
    let key = if role == "worker" { "/JoinTokens/Worker" } else { "/JoinTokens/Manager" };
    Ok(at(&swarm, key).to_owned())
}

async fn show_join(client: &Client, node: &str, role: &str) -> CliResult<()> {
    let node: Value = client.get(&format!("/nodes/{node}")).await?;
    let addr = at(&node, "/ManagerStatus/Addr");
    if addr.is_empty() {
        return Err(CliError::usage("this node has no manager address yet: try again"));
    }
    let token = token(client, role).await?;
    println!("To add a {role} to this swarm, run the following command:\n");
    println!("    shoal swarm join --token {token} {addr}\n");
    Ok(())
}
