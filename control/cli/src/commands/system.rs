//! `version` and `info`.
use crate::{
    client::{API_VERSION, Client},
    error::CliResult,
    text::{at, binary_size, list, number},
};
use serde_json::Value;

pub(crate) async fn version(client: &Client) -> CliResult<()> {
    println!("Client:");
    println!(" Version:           {}", env!("CARGO_PKG_VERSION"));
    println!(" API version:       {API_VERSION}");
    println!(" OS/Arch:           {}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let v: Value = client.get("/version").await?;
    println!("\nServer: {}", at(&v, "/Platform/Name"));
    println!(" Engine:");
    println!("  Version:          {}", at(&v, "/Version"));
    let min = at(&v, "/MinAPIVersion");
    println!("  API version:      {} (minimum version {min})", at(&v, "/ApiVersion"));
    println!("  Git commit:       {}", at(&v, "/GitCommit"));
    println!("  OS/Arch:          {}/{}", at(&v, "/Os"), at(&v, "/Arch"));
    println!("  Kernel version:   {}", at(&v, "/KernelVersion"));
    Ok(())
}

pub(crate) async fn info(client: &Client) -> CliResult<()> {
    let i: Value = client.get("/info").await?;
    println!("Server:");
    println!(" Containers: {}", number(&i, "/Containers"));
    println!("  Running: {}", number(&i, "/ContainersRunning"));
    println!("  Paused: {}", number(&i, "/ContainersPaused"));
    println!("  Stopped: {}", number(&i, "/ContainersStopped"));
    println!(" Images: {}", number(&i, "/Images"));
    println!(" Server Version: {}", at(&i, "/ServerVersion"));
    println!(" Storage Driver: {}", at(&i, "/Driver"));
    println!(" Logging Driver: {}", at(&i, "/LoggingDriver"));
    println!(" Cgroup Driver: {}", at(&i, "/CgroupDriver"));
    swarm(&i);
    println!(" Kernel Version: {}", at(&i, "/KernelVersion"));
    println!(" Operating System: {}", at(&i, "/OperatingSystem"));
    println!(" OSType: {}", at(&i, "/OSType"));
    println!(" Architecture: {}", at(&i, "/Architecture"));
    println!(" CPUs: {}", number(&i, "/NCPU"));
    println!(" Total Memory: {}", binary_size(number(&i, "/MemTotal")));
    println!(" Name: {}", at(&i, "/Name"));
    println!(" ID: {}", at(&i, "/ID"));
    println!(" Docker Root Dir: {}", at(&i, "/DockerRootDir"));
    if !list(&i, "/Labels").is_empty() {
        println!(" Labels:");
        for label in list(&i, "/Labels") {
            println!("  {}", label.as_str().unwrap_or_default());
        }
    }
    Ok(())
}

fn swarm(i: &Value) {
    let state = at(i, "/Swarm/LocalNodeState");
    println!(" Swarm: {state}");
    if state == "inactive" || state == "locked" {
        return;
    }
    println!("  NodeID: {}", at(i, "/Swarm/NodeID"));
    if !at(i, "/Swarm/Error").is_empty() {
        println!("  Error: {}", at(i, "/Swarm/Error"));
    }
    let manager = i.pointer("/Swarm/ControlAvailable").and_then(Value::as_bool).unwrap_or(false);
    println!("  Is Manager: {}", if manager { "true" } else { "false" });
    if manager && at(i, "/Swarm/Error").is_empty() {
        println!("  ClusterID: {}", at(i, "/Swarm/Cluster/ID"));
        println!("  Managers: {}", number(i, "/Swarm/Managers"));
        println!("  Nodes: {}", number(i, "/Swarm/Nodes"));
        let pools = list(i, "/Swarm/Cluster/DefaultAddrPool").iter().filter_map(Value::as_str);
        println!("  Default Address Pool: {}", pools.collect::<Vec<_>>().join(" "));
        println!("  SubnetSize: {}", number(i, "/Swarm/Cluster/SubnetSize"));
        println!("  Data Path Port: {}", number(i, "/Swarm/Cluster/DataPathPort"));
    }
    println!("  Node Address: {}", at(i, "/Swarm/NodeAddr"));
    let managers = list(i, "/Swarm/RemoteManagers");
    if !managers.is_empty() {
        println!("  Manager Addresses:");
        for manager in managers {
            println!("   {}", at(manager, "/Addr"));
        }
    }
}
