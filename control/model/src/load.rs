//! What the living tasks of a node take of it.
use crate::{
    bugs::{self, Bug},
    generic::GenericResource,
    task::{HostPort, Task, TaskState},
};
use std::collections::BTreeMap;

/// What a node carries. Sums are wide enough for any number of tasks with any reservation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Tasks that take room.
    pub seated: u64,
    /// Those of them that are to stay. One told to stop still holds what it reserved, but does not count here.
    pub tasks: u64,
    /// Reserved processor time, 10⁻⁹ cores.
    pub nano_cpus: i128,
    /// Reserved memory, bytes.
    pub memory_bytes: i128,
    /// Generic resources without names that are given away, by kind.
    pub discrete: BTreeMap<String, i64>,
    /// Generic resources with names that are given away, by kind and name, and to how many tasks.
    pub named: BTreeMap<(String, String), u32>,
    /// Ports taken in `host` mode, and by how many tasks.
    pub host_ports: BTreeMap<HostPort, u32>,
}

impl Load {
    /// The load with the task.
    pub fn add(&mut self, task: &Task) {
        let (nano_cpus, memory_bytes) = task.reservations();
        self.seated += 1;
        self.tasks += u64::from(task.stays());
        self.nano_cpus += i128::from(nano_cpus);
        self.memory_bytes += i128::from(memory_bytes);
        for resource in &task.assigned_generic_resources {
            match resource {
                GenericResource::Discrete { kind, value } => {
                    *self.discrete.entry(kind.clone()).or_default() += value;
                }
                GenericResource::Named { kind, value } => {
                    *self.named.entry((kind.clone(), value.clone())).or_default() += 1;
                }
            }
        }
        for port in &task.host_ports {
            *self.host_ports.entry(*port).or_default() += 1;
        }
    }

    /// The load without the task, which [`Load::add`] had added as it is.
    pub(crate) fn remove(&mut self, task: &Task) {
        let (nano_cpus, memory_bytes) = task.reservations();
        self.seated -= 1;
        self.tasks -= u64::from(task.stays());
        self.nano_cpus -= i128::from(nano_cpus);
        self.memory_bytes -= i128::from(memory_bytes);
        for resource in &task.assigned_generic_resources {
            match resource {
                GenericResource::Discrete { kind, value } => {
                    lessen(&mut self.discrete, kind.clone(), *value);
                }
                GenericResource::Named { kind, value } => {
                    lessen(&mut self.named, (kind.clone(), value.clone()), 1);
                }
            }
        }
        for port in &task.host_ports {
            lessen(&mut self.host_ports, *port, 1);
        }
    }
}

fn lessen<K: Ord, N: std::ops::SubAssign + Default + PartialEq>(
    counts: &mut BTreeMap<K, N>,
    key: K,
    by: N,
) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= by;
        if *count == N::default() {
            counts.remove(&key);
        }
    }
}

impl Task {
    /// Whether it waits for the scheduler.
    pub fn waits(&self) -> bool {
        self.status.state == TaskState::Pending && self.stays()
    }

    /// Whether nobody has told it to stop. (A job's task is to become `Complete`.)
    pub fn stays(&self) -> bool {
        self.desired <= TaskState::Complete
    }

    /// The node it takes room on: the scheduler has confirmed it, and it has not ended.
    pub fn seat(&self) -> Option<&str> {
        let seated = self.status.state >= TaskState::Assigned && !self.status.state.is_terminal();
        self.node_id.as_deref().filter(|_| seated)
    }

    /// Processor time (10⁻⁹ cores) and memory (bytes) it reserves.
    pub fn reservations(&self) -> (i64, i64) {
        if bugs::active(Bug::FreeReservationsEarly) && !self.stays() {
            return (0, 0);
        }
        let asked = self.spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
        let of = |value: Option<i64>| value.unwrap_or(0).max(0);
        (of(asked.and_then(|r| r.nano_cpus)), of(asked.and_then(|r| r.memory_bytes)))
    }
}
