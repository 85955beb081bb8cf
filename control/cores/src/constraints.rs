//! Placement constraints: `key==value` and `key!=value`.
use shoal_model::{Node, Role};
use std::net::IpAddr;

/// Why a constraint is refused. Docker's texts.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConstraintError {
    /// No operator.
    #[error("constraint expected one operator from ==, !=: '{0}'")]
    NoOperator(String),
    /// The key has characters it must not have.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The value is empty or has characters it must not have.
    #[error("value '{0}' is invalid")]
    Value(String),
}

/// A constraint on the nodes of a service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

/// What of a node is compared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Key {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Architecture,
    NodeLabel(String),
    EngineLabel(String),
    /// Nothing that nodes have.
    Unknown,
}

impl Key {
    /// Whatever its case; but labels have theirs.
    fn of(text: &str) -> Key {
        let after = |prefix: &str| {
            let head = text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix));
            head.map(|_| text[prefix.len()..].to_owned())
        };
        match text.to_ascii_lowercase().as_str() {
            "node.id" => Key::Id,
            "node.hostname" => Key::Hostname,
            "node.ip" => Key::Ip,
            "node.role" => Key::Role,
            "node.platform.os" => Key::Os,
            "node.platform.arch" => Key::Architecture,
            _ => after("node.labels.")
                .map(Key::NodeLabel)
                .or_else(|| after("engine.labels.").map(Key::EngineLabel))
                .unwrap_or(Key::Unknown),
        }
    }
}

impl Constraint {
    /// Reads `key==value` or `key!=value`.
    pub fn parse(text: &str) -> Result<Constraint, ConstraintError> {
        let (key, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((key, value)), None) => (key, true, value),
            (None, Some((key, value))) => (key, false, value),
            (Some(eq), Some(ne)) if eq.0.len() < ne.0.len() => (eq.0, true, eq.1),
            (Some(_), Some(ne)) => (ne.0, false, ne.1),
            (None, None) => return Err(ConstraintError::NoOperator(text.to_owned())),
        };
        let (key, value) = (key.trim(), value.trim());
        let in_key = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let starts = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !key.chars().all(in_key) {
            return Err(ConstraintError::Key(key.to_owned()));
        }
        let in_value =
            |c: char| c.is_ascii_alphanumeric() || c == ' ' || ":-_.*()?+[]\\^$|/".contains(c);
        if value.is_empty() || !value.chars().all(in_value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        Ok(Constraint { key: Key::of(key), equal, value: value.to_owned() })
    }

    /// Whether the node satisfies it. Values match whole, whatever their case; a key that nothing
    /// has is never satisfied.
    pub fn admits(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        let same = |value: &str| value.eq_ignore_ascii_case(&self.value) == self.equal;
        match &self.key {
            Key::Id => same(&node.id),
            Key::Hostname => same(description.map_or("", |d| d.hostname.as_str())),
            Key::Ip => self.admits_ip(&node.status.addr),
            Key::Role => same(match node.role {
                Role::Worker => "worker",
                Role::Manager => "manager",
            }),
            Key::Os => same(description.map_or("", |d| d.os.as_str())),
            Key::Architecture => {
                let machine = description.map_or("", |d| d.architecture.as_str());
                (architecture(machine) == architecture(&self.value)) == self.equal
            }
            Key::NodeLabel(name) => same(node.labels.get(name).map_or("", String::as_str)),
            Key::EngineLabel(name) => {
                let label = description.and_then(|d| d.engine_labels.get(name));
                same(label.map_or("", String::as_str))
            }
            Key::Unknown => false,
        }
    }

    fn admits_ip(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<IpAddr>() else { return !self.equal };
        let inside = match self.value.parse::<ipnetwork::IpNetwork>() {
            Ok(range) => range.contains(address),
            Err(_) => return false,
        };
        inside == self.equal
    }
}

/// One word for each machine: Docker's (amd64), not uname's (x86_64).
pub(crate) fn architecture(machine: &str) -> String {
    match machine.to_ascii_lowercase().as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn a_constraint_matches_by_key_and_operator() {
        let mut world = World::new();
        world.node("n1");
        world.set_node("n1", |n| {
            n.labels.insert("Zone".to_owned(), "East".to_owned());
            n.status.addr = "192.0.2.7".to_owned();
            let labels = &mut n.description.as_mut().unwrap().engine_labels;
            labels.insert("disk".to_owned(), "ssd".to_owned());
        });
        let node = &world.state.nodes["n1"];
        for (text, admitted) in [
            ("node.id==n1", true),
            ("node.id != n1", false),
            ("node.hostname==HOST-N1", true),
            ("node.role==manager", false),
            ("node.role!=manager", true),
            ("node.labels.Zone==east", true),
            ("node.labels.Zone!=east", false),
            ("node.labels.other!=east", true),
            ("node.labels.other==east", false),
            ("node.platform.arch==amd64", true),
            ("node.platform.arch==x86_64", true),
            ("node.platform.arch!=arm64", true),
            ("node.ip==192.0.2.0/24", true),
            ("node.ip!=192.0.2.7", false),
            ("node.nonsense!=x", false),
            ("NODE.ID==N1", true),
            ("Node.Labels.Zone==east", true),
            ("node.labels.zone==east", false),
            ("node.labels.Zone==eas", false),
            ("node.labels.Zone==e.st", false),
            ("engine.labels.disk==ssd", true),
            ("engine.labels.disk!=ssd", false),
            ("engine.labels.other!=ssd", true),
            ("node.platform.os==Linux", true),
            ("node.platform.os!=windows", true),
            ("node.ip==192.0.2.7", true),
            ("node.ip==192.0.2.8", false),
            ("node.ip==198.51.100.0/24", false),
            ("node.ip!=198.51.100.0/24", true),
            ("node.ip==2001:db8::/32", false),
            ("node.ip==nonsense", false),
            ("node.ip!=nonsense", false),
        ] {
            assert_eq!(Constraint::parse(text).unwrap().admits(node), admitted, "{text}");
        }
    }

    #[test]
    fn what_a_node_does_not_tell_is_empty() {
        let mut world = World::new();
        world.node("n1");
        world.set_node("n1", |n| n.description = None);
        world.node("n6");
        world.set_node("n6", |n| n.status.addr = "2001:db8::7".to_owned());
        for (node, text, admitted) in [
            ("n1", "node.hostname!=a", true),
            ("n1", "node.hostname==a", false),
            ("n1", "node.platform.arch!=amd64", true),
            ("n1", "engine.labels.disk!=ssd", true),
            ("n1", "node.ip!=192.0.2.7", true),
            ("n1", "node.ip==192.0.2.7", false),
            ("n6", "node.ip==2001:db8::/32", true),
            ("n6", "node.ip==2001:DB8:0::7", true),
            ("n6", "node.ip!=192.0.2.0/24", true),
        ] {
            let constraint = Constraint::parse(text).unwrap();
            assert_eq!(constraint.admits(&world.state.nodes[node]), admitted, "{node}: {text}");
        }
    }

    #[test]
    fn a_malformed_constraint_says_what_is_wrong() {
        let refused = |text: &str| Constraint::parse(text).unwrap_err().to_string();
        assert_eq!(
            refused("node.role"),
            "constraint expected one operator from ==, !=: 'node.role'"
        );
        assert_eq!(refused("1x==a"), "key '1x' is invalid");
        assert_eq!(refused("node.role=="), "value '' is invalid");
        assert_eq!(refused("node.role===worker"), "value '=worker' is invalid");
        assert_eq!(refused("node.role==a&b"), "value 'a&b' is invalid");
        assert_eq!(refused("==worker"), "key '' is invalid");
        assert_eq!(refused("node role==worker"), "key 'node role' is invalid");
        assert_eq!(
            refused("node.role=worker"),
            "constraint expected one operator from ==, !=: 'node.role=worker'"
        );
    }
}
