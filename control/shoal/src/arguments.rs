//! Flags of `shoal daemon`, named as dockerd's where they mean the same, and of `shoal net`.
use clap::Args;
use shoal_net::NetArguments;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Flags of the daemon.
#[derive(Args, Debug)]
pub(crate) struct DaemonArguments {
    /// Daemon socket(s) to serve the API on: unix://PATH or tcp://LOOPBACK:PORT
    #[arg(short = 'H', long = "host", default_value = "unix:///run/shoal/shoal.sock")]
    pub(crate) hosts: Vec<String>,
    /// Root directory of persistent state
    #[arg(long, default_value = "/var/lib/shoal")]
    pub(crate) data_root: PathBuf,
    /// Root directory for execution state files
    #[arg(long, default_value = "/run/shoal")]
    pub(crate) exec_root: PathBuf,
    /// Path to use for daemon PID file
    #[arg(short = 'p', long)]
    pub(crate) pidfile: Option<PathBuf>,
    /// Log more
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
    /// Address to serve Prometheus metrics on
    #[arg(long, default_value = "127.0.0.1:9323")]
    pub(crate) metrics_addr: SocketAddr,
    /// Set key=value labels to the daemon
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Advertise a user-defined resource: KIND=NUMBER or KIND=NAME
    #[arg(long = "node-generic-resource", value_name = "KIND=VALUE")]
    pub(crate) node_generic_resources: Vec<String>,
    /// DNS server to forward other names to, instead of the host's
    #[arg(long = "dns", value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
    /// Default address or interface for swarm advertised address
    #[arg(long, value_name = "ADDRESS|INTERFACE")]
    pub(crate) swarm_default_advertise_addr: Option<String>,
    /// Parent cgroup for all containers
    #[arg(long, default_value = "shoal")]
    pub(crate) cgroup_parent: String,
    /// Folder in a BPF file system to pin programs and maps in; mounted there if there is none
    #[arg(long, default_value = "/sys/fs/bpf/shoal")]
    pub(crate) bpf_root: PathBuf,
}

/// Flags of the `shoal net` process; the daemon gives them.
#[derive(Args, Debug)]
pub(crate) struct NetCommand {
    /// Control socket
    #[arg(long)]
    socket: PathBuf,
    /// Folder of the private key
    #[arg(long)]
    state: PathBuf,
    /// Folder of the last table
    #[arg(long)]
    runtime: PathBuf,
    /// Overlay device
    #[arg(long)]
    device: String,
    /// UDP port
    #[arg(long)]
    port: u16,
    /// MTU of the overlay device, bytes
    #[arg(long)]
    mtu: u32,
    /// Resolver for other names; the host's, as they change, if there is none
    #[arg(long = "resolver")]
    resolvers: Vec<SocketAddr>,
}

impl From<NetCommand> for NetArguments {
    fn from(command: NetCommand) -> NetArguments {
        NetArguments {
            socket: command.socket,
            state: command.state,
            runtime: command.runtime,
            device: command.device,
            port: command.port,
            mtu: command.mtu,
            resolvers: command.resolvers,
        }
    }
}
