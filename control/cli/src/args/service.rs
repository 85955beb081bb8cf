//! `service` and its options.
use super::{Listing, LogLines, TaskListing};
use clap::{Args, Subcommand};

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
    /// Specify secrets to expose to the service
    #[arg(long)]
    pub secret: Vec<String>,
    /// Specify configurations to expose to the service
    #[arg(long)]
    pub config: Vec<String>,
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
    /// Add or update a secret on a service
    #[arg(long)]
    pub secret_add: Vec<String>,
    /// Remove a secret
    #[arg(long)]
    pub secret_rm: Vec<String>,
    /// Add or update a config file on a service
    #[arg(long)]
    pub config_add: Vec<String>,
    /// Remove a configuration file
    #[arg(long)]
    pub config_rm: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub settings: ServiceSettings,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}
