//! Services as the API shows them, and looking into their containers.

use crate::{Cluster, Node, Outcome, wait_for};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// A task that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTask {
    /// Task id.
    pub id: String,
    /// Index of its node in the cluster.
    pub node: usize,
    /// Id of its container.
    pub container: String,
    /// First process of its container, as this machine numbers it.
    pub pid: u32,
    /// Network id and IPv4 address, for each of its networks.
    pub addresses: Vec<(String, Ipv4Addr)>,
}

impl RunningTask {
    /// Its address on a network.
    pub fn address_on(&self, network: &str) -> anyhow::Result<Ipv4Addr> {
        let found = self.addresses.iter().find(|(id, _)| id == network);
        found.map(|(_, address)| *address).with_context(|| format!("{self:?} is not on {network}"))
    }
}

impl Cluster {
    /// An object of the API of the first node, decoded. Names need no encoding here: they have only
    /// letters, digits and dashes.
    pub fn object(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.node(0).api("GET", path, "")?;
        if response.status != 200 {
            bail!("GET {path} answers {}: {}", response.status, response.body);
        }
        serde_json::from_str(&response.body).with_context(|| format!("GET {path}: no JSON"))
    }

    /// The tasks of a service that run and shall run.
    pub fn running_tasks(&self, service: &str) -> anyhow::Result<Vec<RunningTask>> {
        // Filters are JSON: {"service":{"NAME":true},"desired-state":{"running":true}}.
        let filters = format!(
            "%7B%22service%22%3A%7B%22{service}%22%3Atrue%7D%2C%22desired-state%22%3A%7B%22running\
             %22%3Atrue%7D%7D"
        );
        let tasks = self.object(&format!("/tasks?filters={filters}"))?;
        let tasks = tasks.as_array().context("/tasks is no list")?.iter();
        let running = tasks.filter(|t| t.pointer("/Status/State") == Some(&Value::from("running")));
        running.map(|task| self.running_task(task)).collect()
    }

    /// Waits until exactly so many tasks of a service run.
    pub fn wait_for_tasks(
        &self,
        service: &str,
        count: usize,
        bound: Duration,
    ) -> anyhow::Result<Vec<RunningTask>> {
        wait_for(&format!("{count} running tasks of {service}"), bound, || {
            let tasks = self.running_tasks(service)?;
            if tasks.len() == count { Ok(tasks) } else { bail!("{} run", tasks.len()) }
        })
    }

    /// The VIP of a service on a network, by its name.
    pub fn vip(&self, service: &str, network: &str) -> anyhow::Result<Ipv4Addr> {
        let network = self.network_id(network)?;
        let service = self.object(&format!("/services/{service}"))?;
        let vips = service.pointer("/Endpoint/VirtualIPs").and_then(Value::as_array);
        let vips = vips.context("the service has no virtual addresses")?;
        let vip = vips.iter().find(|vip| vip["NetworkID"] == network.as_str());
        address_of(vip.and_then(|vip| vip["Addr"].as_str()).context("it has no VIP there")?)
    }

    /// A network's id.
    pub fn network_id(&self, name: &str) -> anyhow::Result<String> {
        let network = self.object(&format!("/networks/{name}"))?;
        Ok(network["Id"].as_str().context("a network without id")?.to_owned())
    }

    /// Runs a shell script in a task's container through `docker exec`.
    pub fn exec(&self, task: &RunningTask, script: &str) -> anyhow::Result<Outcome> {
        self.node(task.node).docker(&["exec", &task.container, "sh", "-c", script])
    }

    fn running_task(&self, task: &Value) -> anyhow::Result<RunningTask> {
        let text = |pointer: &str| {
            let value = task.pointer(pointer).and_then(Value::as_str);
            value.map(str::to_owned).with_context(|| format!("task without {pointer}: {task}"))
        };
        let node = self.object(&format!("/nodes/{}", text("/NodeID")?))?;
        let hostname = node.pointer("/Description/Hostname").and_then(Value::as_str);
        let node = self.nodes().iter().position(|n| Some(n.name()) == hostname);
        let node = node.with_context(|| format!("no node of ours is called {hostname:?}"))?;
        let container = text("/Status/ContainerStatus/ContainerID")?;
        let attachments = task["NetworksAttachments"].as_array().into_iter().flatten();
        let addresses = attachments.filter_map(|attachment| {
            let network = attachment.pointer("/Network/ID")?.as_str()?.to_owned();
            Some((network, address_of(attachment.pointer("/Addresses/0")?.as_str()?).ok()?))
        });
        Ok(RunningTask {
            id: text("/ID")?,
            pid: pid_of(self.node(node), &container)?,
            node,
            container,
            addresses: addresses.collect(),
        })
    }
}

fn pid_of(node: &Node, container: &str) -> anyhow::Result<u32> {
    let pid = node.docker(&["inspect", "--format", "{{.State.Pid}}", container])?.ok()?;
    match pid.parse() {
        Ok(0) | Err(_) => bail!("container {container} has the process number {pid:?}"),
        Ok(pid) => Ok(pid),
    }
}

/// The address of `10.0.1.2/24`.
fn address_of(text: &str) -> anyhow::Result<Ipv4Addr> {
    let address = text.split('/').next().unwrap_or(text);
    address.parse().with_context(|| format!("{text} is no address"))
}

/// The addresses that busybox' nslookup found. None, if there is no such name.
pub fn nslookup(output: &str) -> BTreeSet<IpAddr> {
    // First comes the server's own address, then an empty line.
    let answer = output.split_once("\n\n").map_or("", |(_, answer)| answer);
    answer.lines().filter_map(|line| line.strip_prefix("Address: ")?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_address_is_not_taken_for_an_answer() {
        let found = "Server:\t\t127.0.0.11\nAddress:\t127.0.0.11:53\n\n\
                     Name:\tweb\nAddress: 10.0.1.2\n\n*** Can't find web: No answer\n";
        assert_eq!(nslookup(found), BTreeSet::from(["10.0.1.2".parse().unwrap()]));
        let none = "Server:\t\t127.0.0.11\nAddress:\t127.0.0.11:53\n\n\
                    ** server can't find web: NXDOMAIN\n";
        assert!(nslookup(none).is_empty());
    }
}
