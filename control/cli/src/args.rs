//! Commands and flags, with Docker's names and defaults.
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Which daemon to talk to.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// Daemon socket to connect to [default: $SHOAL_HOST, $DOCKER_HOST, unix:///run/shoal/shoal.sock]
    #[arg(short = 'H', long, value_name = "HOST")]
    pub host: Option<String>,
}

/// A client command.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show version information
    Version,
    /// Display system-wide information
    Info,
    /// Manage Swarm
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Manage Swarm nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Manage Swarm services
    #[command(subcommand)]
    Service(Box<ServiceCommand>),
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// List images
    Images(ImageList),
    /// Load an image from a tar archive or STDIN
    Load(Load),
    /// List containers
    Ps(ContainerList),
    /// Fetch the logs of a container
    Logs(Logs),
    /// Execute a command in a running container
    Exec(Exec),
    /// Return low-level information on objects
    Inspect(Inspect),
}

/// Commands on the cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum SwarmCommand {
    /// Initialize a swarm
    Init(SwarmInit),
    /// Join a swarm as a node and/or manager
    Join(SwarmJoin),
    /// Manage join tokens
    JoinToken {
        /// worker or manager
        #[arg(value_parser = ["worker", "manager"])]
        role: String,
        /// Only display token
        #[arg(short, long)]
        quiet: bool,
        /// Rotate join token
        #[arg(long)]
        rotate: bool,
    },
    /// Leave the swarm
    Leave {
        /// Force this node to leave the swarm, ignoring warnings
        #[arg(short, long)]
        force: bool,
    },
    /// Unlock swarm
    Unlock,
    /// Manage the unlock key
    UnlockKey {
        /// Only display token
        #[arg(short, long)]
        quiet: bool,
        /// Rotate unlock key
        #[arg(long)]
        rotate: bool,
    },
    /// Update the swarm
    Update(SwarmUpdate),
}

/// `swarm update`.
#[derive(Args, Clone, Debug)]
pub struct SwarmUpdate {
    /// Change manager autolocking setting (true|false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub autolock: Option<bool>,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub cert_expiry: Option<i64>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub dispatcher_heartbeat: Option<i64>,
    /// Task history retention limit
    #[arg(long)]
    pub task_history_limit: Option<i64>,
}

/// Addresses of a member.
#[derive(Args, Clone, Debug)]
pub struct MemberAddresses {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "", hide_default_value = true)]
    pub advertise_addr: String,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377")]
    pub listen_addr: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value = "", hide_default_value = true)]
    pub data_path_addr: String,
    /// Availability of the node
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    pub availability: String,
}

/// `swarm init`.
#[derive(Args, Clone, Debug)]
pub struct SwarmInit {
    /// Addresses.
    #[command(flatten)]
    pub addresses: MemberAddresses,
    /// Enable manager autolocking (requiring an unlock key to start a stopped manager)
    #[arg(long)]
    pub autolock: bool,
    /// Force create a new cluster from current state
    #[arg(long)]
    pub force_new_cluster: bool,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub cert_expiry: Option<i64>,
    /// UDP port of the overlay (1024 - 49151)
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub data_path_port: u32,
    /// Default address pool in CIDR format
    #[arg(long)]
    pub default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, default_value_t = 24)]
    pub default_addr_pool_mask_length: u32,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub dispatcher_heartbeat: Option<i64>,
    /// Task history retention limit
    #[arg(long)]
    pub task_history_limit: Option<i64>,
}

/// `swarm join`.
#[derive(Args, Clone, Debug)]
pub struct SwarmJoin {
    /// HOST:PORT of a manager
    pub remote: String,
    /// Token for entry into the swarm
    #[arg(long, default_value = "", hide_default_value = true)]
    pub token: String,
    /// Addresses.
    #[command(flatten)]
    pub addresses: MemberAddresses,
}

/// Commands on nodes.
#[derive(Subcommand, Clone, Debug)]
pub enum NodeCommand {
    /// List nodes in the swarm
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Display detailed information on one or more nodes
    Inspect {
        /// self|NODE
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Update a node
    Update {
        /// NODE
        node: String,
        /// Availability of the node
        #[arg(long, value_parser = ["active", "pause", "drain"])]
        availability: Option<String>,
        /// Role of the node
        #[arg(long, value_parser = ["worker", "manager"])]
        role: Option<String>,
        /// Add or update a node label (key=value)
        #[arg(long)]
        label_add: Vec<String>,
        /// Remove a node label if exists
        #[arg(long)]
        label_rm: Vec<String>,
    },
    /// Promote one or more nodes to manager in the swarm
    Promote {
        /// NODE
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Demote one or more nodes from manager in the swarm
    Demote {
        /// NODE
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Remove one or more nodes from the swarm
    #[command(visible_alias = "remove")]
    Rm {
        /// NODE
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Force remove a node from the swarm
        #[arg(short, long)]
        force: bool,
    },
    /// List tasks running on one or more nodes, defaults to current node
    Ps {
        /// NODE
        nodes: Vec<String>,
        /// How to list them.
        #[command(flatten)]
        listing: TaskListing,
    },
}

/// What lists have in common.
#[derive(Args, Clone, Debug)]
pub struct Listing {
    /// Filter output based on conditions provided (key=value)
    #[arg(short, long)]
    pub filter: Vec<String>,
    /// Only display IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// What lists of tasks have in common.
#[derive(Args, Clone, Debug)]
pub struct TaskListing {
    /// Filter output based on conditions provided (key=value)
    #[arg(short, long)]
    pub filter: Vec<String>,
    /// Do not map IDs to Names
    #[arg(long)]
    pub no_resolve: bool,
    /// Do not truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only display task IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// Commands on services.
#[derive(Subcommand, Clone, Debug)]
pub enum ServiceCommand {
    /// Create a new service
    Create(ServiceCreate),
    /// List services
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// List the tasks of one or more services
    Ps {
        /// SERVICE
        #[arg(required = true)]
        services: Vec<String>,
        /// How to list them.
        #[command(flatten)]
        listing: TaskListing,
    },
    /// Display detailed information on one or more services
    Inspect {
        /// SERVICE
        #[arg(required = true)]
        services: Vec<String>,
    },
    /// Scale one or multiple replicated services
    Scale {
        /// SERVICE=REPLICAS
        #[arg(required = true)]
        scales: Vec<String>,
        /// Exit immediately instead of waiting for the service to converge
        #[arg(short, long)]
        detach: bool,
    },
    /// Update a service
    Update(ServiceUpdate),
    /// Revert changes to a service's configuration
    Rollback {
        /// SERVICE
        service: String,
        /// How to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Remove one or more services
    #[command(visible_alias = "remove")]
    Rm {
        /// SERVICE
        #[arg(required = true)]
        services: Vec<String>,
    },
    /// Fetch the logs of a service or task
    Logs {
        /// SERVICE|TASK
        reference: String,
        /// Which lines.
        #[command(flatten)]
        lines: LogLines,
        /// Do not map IDs to Names in output
        #[arg(long)]
        no_resolve: bool,
        /// Do not include task IDs in output
        #[arg(long)]
        no_task_ids: bool,
        /// Do not truncate output
        #[arg(long)]
        no_trunc: bool,
        /// Do not neatly format logs
        #[arg(long)]
        raw: bool,
    },
}

/// How to wait for a service.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    pub detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags that `service create` and `service update` share.
#[derive(Args, Clone, Debug)]
pub struct ServiceSettings {
    /// Number of tasks
    #[arg(long)]
    pub replicas: Option<i64>,
    /// Maximum number of tasks per node (default 0 = unlimited)
    #[arg(long)]
    pub replicas_max_per_node: Option<i64>,
    /// Endpoint mode (vip or dnsrr)
    #[arg(long, value_parser = ["vip", "dnsrr"])]
    pub endpoint_mode: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Container hostname
    #[arg(long)]
    pub hostname: Option<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long)]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    pub workdir: Option<String>,
    /// Mount the container's root filesystem as read only
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub read_only: Option<bool>,
    /// Allocate a pseudo-TTY
    #[arg(short, long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub tty: Option<bool>,
    /// Signal to stop the container
    #[arg(long)]
    pub stop_signal: Option<String>,
    /// Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s)
    #[arg(long, value_parser = crate::durations::parse)]
    pub stop_grace_period: Option<i64>,
    /// Command to run to check health
    #[arg(long, conflicts_with = "no_healthcheck")]
    pub health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse, conflicts_with = "no_healthcheck")]
    pub health_interval: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse, conflicts_with = "no_healthcheck")]
    pub health_timeout: Option<i64>,
    /// Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse, conflicts_with = "no_healthcheck")]
    pub health_start_period: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse, conflicts_with = "no_healthcheck")]
    pub health_start_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, conflicts_with = "no_healthcheck")]
    pub health_retries: Option<i64>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub no_healthcheck: bool,
    /// Limit CPUs
    #[arg(long, value_parser = crate::text::parse_cpus)]
    pub limit_cpu: Option<i64>,
    /// Limit Memory
    #[arg(long, value_parser = crate::text::parse_size)]
    pub limit_memory: Option<i64>,
    /// Limit maximum number of processes (default 0 = unlimited)
    #[arg(long)]
    pub limit_pids: Option<i64>,
    /// Reserve CPUs
    #[arg(long, value_parser = crate::text::parse_cpus)]
    pub reserve_cpu: Option<i64>,
    /// Reserve Memory
    #[arg(long, value_parser = crate::text::parse_size)]
    pub reserve_memory: Option<i64>,
    /// Restart when condition is met
    #[arg(long, value_parser = ["none", "on-failure", "any"])]
    pub restart_condition: Option<String>,
    /// Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_parser = crate::durations::parse)]
    pub restart_delay: Option<i64>,
    /// Maximum number of restarts before giving up
    #[arg(long)]
    pub restart_max_attempts: Option<i64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub restart_window: Option<i64>,
    /// How an update goes.
    #[command(flatten)]
    pub update: UpdateFlags,
    /// How a rollback goes.
    #[command(flatten)]
    pub rollback: RollbackFlags,
}

/// `--update-*`.
#[derive(Args, Clone, Debug)]
pub struct UpdateFlags {
    /// Maximum number of tasks updated simultaneously (0 to update all at once) (default 1)
    #[arg(long)]
    pub update_parallelism: Option<i64>,
    /// Delay between updates (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_parser = crate::durations::parse)]
    pub update_delay: Option<i64>,
    /// Duration after each task update to monitor for failure (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_parser = crate::durations::parse)]
    pub update_monitor: Option<i64>,
    /// Action on update failure ("pause", "continue", "rollback") (default "pause")
    #[arg(long, value_parser = ["pause", "continue", "rollback"])]
    pub update_failure_action: Option<String>,
    /// Failure rate to tolerate during an update (default 0)
    #[arg(long)]
    pub update_max_failure_ratio: Option<f64>,
    /// Update order ("start-first", "stop-first") (default "stop-first")
    #[arg(long, value_parser = ["start-first", "stop-first"])]
    pub update_order: Option<String>,
}

/// `--rollback-*`.
#[derive(Args, Clone, Debug)]
pub struct RollbackFlags {
    /// Maximum number of tasks rolled back simultaneously (0 to roll back all at once) (default 1)
    #[arg(long)]
    pub rollback_parallelism: Option<i64>,
    /// Delay between task rollbacks (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_parser = crate::durations::parse)]
    pub rollback_delay: Option<i64>,
    /// Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_parser = crate::durations::parse)]
    pub rollback_monitor: Option<i64>,
    /// Action on rollback failure ("pause", "continue") (default "pause")
    #[arg(long, value_parser = ["pause", "continue"])]
    pub rollback_failure_action: Option<String>,
    /// Failure rate to tolerate during a rollback (default 0)
    #[arg(long)]
    pub rollback_max_failure_ratio: Option<f64>,
    /// Rollback order ("start-first", "stop-first") (default "stop-first")
    #[arg(long, value_parser = ["start-first", "stop-first"])]
    pub rollback_order: Option<String>,
}

/// `service create`.
#[derive(Args, Clone, Debug)]
pub struct ServiceCreate {
    /// IMAGE
    pub image: String,
    /// COMMAND and ARG...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// Service name
    #[arg(long)]
    pub name: Option<String>,
    /// Service mode ("replicated", "global", "replicated-job", "global-job")
    #[arg(long, default_value = "replicated")]
    pub mode: String,
    /// Number of job tasks to run concurrently (default equal to --replicas)
    #[arg(long)]
    pub max_concurrent: Option<i64>,
    /// Set environment variables
    #[arg(short, long)]
    pub env: Vec<String>,
    /// Service labels
    #[arg(short, long)]
    pub label: Vec<String>,
    /// Container labels
    #[arg(long)]
    pub container_label: Vec<String>,
    /// Placement constraints
    #[arg(long)]
    pub constraint: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "pref")]
    pub placement_pref: Vec<String>,
    /// User defined resources
    #[arg(long)]
    pub generic_resource: Vec<String>,
    /// Network attachments
    #[arg(long)]
    pub network: Vec<String>,
    /// Publish a port as a node port
    #[arg(short, long)]
    pub publish: Vec<String>,
    /// Add Linux capabilities
    #[arg(long)]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    pub cap_drop: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub settings: ServiceSettings,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `service update`.
#[derive(Args, Clone, Debug)]
pub struct ServiceUpdate {
    /// SERVICE
    pub service: String,
    /// Service image tag
    #[arg(long)]
    pub image: Option<String>,
    /// Service command args
    #[arg(long, allow_hyphen_values = true)]
    pub args: Option<String>,
    /// Force update even if no changes require it
    #[arg(long)]
    pub force: bool,
    /// Rollback to previous specification
    #[arg(long = "rollback")]
    pub back: bool,
    /// Move running tasks, one after the other, until they are spread evenly again
    #[arg(long)]
    pub rebalance: bool,
    /// Add or update an environment variable
    #[arg(long)]
    pub env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long)]
    pub env_rm: Vec<String>,
    /// Add or update a service label
    #[arg(long)]
    pub label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long)]
    pub label_rm: Vec<String>,
    /// Add or update a container label
    #[arg(long)]
    pub container_label_add: Vec<String>,
    /// Remove a container label by its key
    #[arg(long)]
    pub container_label_rm: Vec<String>,
    /// Add or update a placement constraint
    #[arg(long)]
    pub constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long)]
    pub constraint_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "pref")]
    pub placement_pref_add: Vec<String>,
    /// Remove a placement preference
    #[arg(long, value_name = "pref")]
    pub placement_pref_rm: Vec<String>,
    /// Add a Generic resource
    #[arg(long)]
    pub generic_resource_add: Vec<String>,
    /// Remove a Generic resource
    #[arg(long)]
    pub generic_resource_rm: Vec<String>,
    /// Add a network
    #[arg(long)]
    pub network_add: Vec<String>,
    /// Remove a network
    #[arg(long)]
    pub network_rm: Vec<String>,
    /// Add or update a published port
    #[arg(long)]
    pub publish_add: Vec<String>,
    /// Remove a published port by its target port
    #[arg(long)]
    pub publish_rm: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub settings: ServiceSettings,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// Commands on networks.
#[derive(Subcommand, Clone, Debug)]
pub enum NetworkCommand {
    /// Create a network
    Create(NetworkCreate),
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// What to list.
        #[command(flatten)]
        listing: Listing,
        /// Do not truncate the output
        #[arg(long)]
        no_trunc: bool,
    },
    /// Display detailed information on one or more networks
    Inspect {
        /// NETWORK
        #[arg(required = true)]
        networks: Vec<String>,
        /// Verbose output for diagnostics
        #[arg(short, long)]
        verbose: bool,
    },
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm {
        /// NETWORK
        #[arg(required = true)]
        networks: Vec<String>,
    },
}

/// `network create`.
#[derive(Args, Clone, Debug)]
pub struct NetworkCreate {
    /// NETWORK
    pub name: String,
    /// Driver to manage the Network
    #[arg(short, long, default_value = "overlay")]
    pub driver: String,
    /// Enable manual container attachment
    #[arg(long)]
    pub attachable: bool,
    /// Restrict external access to the network
    #[arg(long)]
    pub internal: bool,
    /// Enable IPv6 address assignment
    #[arg(long)]
    pub ipv6: bool,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long)]
    pub subnet: Vec<String>,
    /// IPv4 or IPv6 Gateway for the subnet
    #[arg(long)]
    pub gateway: Vec<String>,
    /// Set metadata on a network
    #[arg(long)]
    pub label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long)]
    pub opt: Vec<String>,
}

/// Commands on images.
#[derive(Subcommand, Clone, Debug)]
pub enum ImageCommand {
    /// Load an image from a tar archive or STDIN
    Load(Load),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ImageList),
    /// Display detailed information on one or more images
    Inspect {
        /// IMAGE
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove one or more images
    Rm {
        /// IMAGE
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag {
        /// SOURCE_IMAGE[:TAG]
        source: String,
        /// TARGET_IMAGE[:TAG]
        target: String,
    },
}

/// `load`.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long)]
    pub input: Option<PathBuf>,
    /// Suppress the load output
    #[arg(short, long)]
    pub quiet: bool,
}

/// `images`.
#[derive(Args, Clone, Debug)]
pub struct ImageList {
    /// REPOSITORY[:TAG]
    pub repository: Option<String>,
    /// What to list.
    #[command(flatten)]
    pub listing: Listing,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
}

/// `ps`.
#[derive(Args, Clone, Debug)]
pub struct ContainerList {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    pub all: bool,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long)]
    pub last: Option<u64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    pub latest: bool,
    /// What to list.
    #[command(flatten)]
    pub listing: Listing,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
}

/// Which lines of a log.
#[derive(Args, Clone, Debug)]
pub struct LogLines {
    /// Show extra details provided to logs
    #[arg(long)]
    pub details: bool,
    /// Follow log output
    #[arg(short, long)]
    pub follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")
    #[arg(long)]
    pub since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    pub tail: String,
    /// Show timestamps
    #[arg(short, long)]
    pub timestamps: bool,
}

/// `logs`.
#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// CONTAINER
    pub container: String,
    /// Which lines.
    #[command(flatten)]
    pub lines: LogLines,
    /// Show logs before a timestamp or relative time
    #[arg(long)]
    pub until: Option<String>,
}

/// `exec`.
#[derive(Args, Clone, Debug)]
pub struct Exec {
    /// CONTAINER
    pub container: String,
    /// COMMAND and ARG...
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Detached mode: run command in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Set environment variables
    #[arg(short, long)]
    pub env: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long)]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    pub workdir: Option<String>,
}

/// `inspect`.
#[derive(Args, Clone, Debug)]
pub struct Inspect {
    /// NAME|ID
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Only inspect objects of the given type
    #[arg(long = "type")]
    pub kind: Option<String>,
}
