//! `swarm init|join|join-token|leave|unlock|unlock-key|update`, and `swarm ca` in [`super::ca`].
use crate::{
    args::{MemberAddresses, SwarmCommand, SwarmInit, SwarmJoin, SwarmUpdate},
    client::Client,
    commands::ca,
    error::{CliError, CliResult},
    text::at,
};
use serde_json::{Value, json};

/// Docker's port for the control API.
const PORT: u16 = 2377;

pub(crate) async fn run(client: &Client, command: SwarmCommand) -> CliResult<()> {
    match command {
        SwarmCommand::Ca(args) => ca::run(client, args).await,
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
        SwarmCommand::Unlock => unlock(client).await,
        SwarmCommand::UnlockKey { quiet, rotate } => unlock_key(client, quiet, rotate).await,
        SwarmCommand::Update(update) => self::update(client, update).await,
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
    if !init.external_ca.is_empty() {
        spec["CAConfig"]["ExternalCAs"] = ca::external(&init.external_ca, "")?;
    }
    if let Some(expiry) = init.cert_expiry {
        spec["CAConfig"]["NodeCertExpiry"] = expiry.into();
    }
    if let Some(period) = init.dispatcher_heartbeat {
        spec["Dispatcher"] = json!({ "HeartbeatPeriod": period });
    }
    if let Some(limit) = init.task_history_limit {
        spec["Orchestration"] = json!({ "TaskHistoryRetentionLimit": limit });
    }
    spec["EncryptionConfig"] = json!({ "AutoLockManagers": init.autolock });
    request["Spec"] = spec;
    request["AutoLockManagers"] = init.autolock.into();
    request["ForceNewCluster"] = init.force_new_cluster.into();
    request["DataPathPort"] = init.data_path_port.into();
    request["DefaultAddrPool"] = init.default_addr_pool.into();
    request["SubnetSize"] = init.default_addr_pool_mask_length.into();
    let node: String = client.post_json("/swarm/init", &request).await?;
    println!("Swarm initialized: current node ({node}) is now a manager.\n");
    show_join(client, &node, "worker").await?;
    println!(
        "To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.\n"
    );
    if init.autolock {
        show_unlock(&key(client).await?);
    }
    Ok(())
}

async fn update(client: &Client, update: SwarmUpdate) -> CliResult<()> {
    let swarm: Value = client.get("/swarm").await?;
    let mut spec = swarm["Spec"].clone();
    for (group, field, value) in [
        ("CAConfig", "NodeCertExpiry", update.cert_expiry),
        ("Dispatcher", "HeartbeatPeriod", update.dispatcher_heartbeat),
        ("Orchestration", "TaskHistoryRetentionLimit", update.task_history_limit),
    ] {
        if let Some(value) = value {
            spec[group][field] = value.into();
        }
    }
    if !update.external_ca.is_empty() {
        spec["CAConfig"]["ExternalCAs"] = ca::external(&update.external_ca, "")?;
    }
    let locked = spec.pointer("/EncryptionConfig/AutoLockManagers").and_then(Value::as_bool);
    if let Some(autolock) = update.autolock {
        spec["EncryptionConfig"] = json!({ "AutoLockManagers": autolock });
    }
    let version = &swarm["Version"]["Index"];
    client.post(&format!("/swarm/update?version={version}"), &spec).await?;
    println!("Swarm updated.");
    if update.autolock == Some(true) && locked != Some(true) {
        show_unlock(&key(client).await?);
    }
    Ok(())
}

async fn key(client: &Client) -> CliResult<String> {
    let answer: Value = client.get("/swarm/unlockkey").await?;
    match at(&answer, "/UnlockKey") {
        "" => Err(CliError::usage("no unlock key is set")),
        key => Ok(key.to_owned()),
    }
}

fn show_unlock(key: &str) {
    println!("To unlock a swarm manager after it restarts, run the `shoal swarm unlock`");
    println!("command and provide the following key:\n\n    {key}\n");
    println!("Please remember to store this key in a password manager, since without it you");
    println!("will not be able to restart the manager.");
}

async fn unlock_key(client: &Client, quiet: bool, rotate: bool) -> CliResult<()> {
    if rotate {
        let swarm: Value = client.get("/swarm").await?;
        let autolock = swarm.pointer("/Spec/EncryptionConfig/AutoLockManagers");
        if autolock.and_then(Value::as_bool) != Some(true) {
            return Err(CliError::usage("cannot rotate because autolock is not turned on"));
        }
        let version = &swarm["Version"]["Index"];
        let path = format!("/swarm/update?version={version}&rotateManagerUnlockKey=true");
        client.post(&path, &swarm["Spec"]).await?;
        if !quiet {
            println!("Successfully rotated manager unlock key.\n");
        }
    }
    let key = key(client).await?;
    match quiet {
        true => println!("{key}"),
        false => show_unlock(&key),
    }
    Ok(())
}

/// The key comes from standard input, where it stays out of the shell's history.
async fn unlock(client: &Client) -> CliResult<()> {
    let info: Value = client.get("/info").await?;
    match at(&info, "/Swarm/LocalNodeState") {
        "inactive" => return Err(CliError::usage("this node is not part of a swarm")),
        "locked" => {}
        _ => return Err(CliError::usage("swarm is not locked")),
    }
    eprint!("Please enter unlock key: ");
    let mut key = String::new();
    std::io::stdin()
        .read_line(&mut key)
        .map_err(|e| CliError::usage(format!("cannot read the unlock key: {e}")))?;
    client.post("/swarm/unlock", &json!({ "UnlockKey": key.trim() })).await?;
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
