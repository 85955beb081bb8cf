//! Who may call what. The only place where this is decided.

use crate::Identity;
use shoal_model::Role;
use std::time::Duration;
use tonic::Status;

/// Whom a method is open to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Everybody who can reach the port; the method checks what it is given.
    Anyone,
    /// Nodes with a certificate of this cluster.
    AnyNode,
    /// Managers with a certificate of this cluster.
    Manager,
}

/// What the cluster's state says of the node that a certificate names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is a member with this role.
    Member(Role),
    /// It was removed, or never was a member.
    Gone,
    /// The manager that is asked may be behind, and cannot tell: the certificate counts alone.
    Unsure,
}

/// Who looks nodes up for [`crate::serve`], before every call.
pub trait Members: Send + Sync + 'static {
    /// What the state says of a node.
    fn standing(&self, node_id: &str) -> Standing;

    /// How long nodes wait for a connection.
    fn patience(&self) -> Duration;
}

/// All methods by path. What is not here may not be called.
pub const METHODS: &[(&str, Caller)] = &[
    ("/shoal.v1.Certificates/Root", Caller::Anyone),
    ("/shoal.v1.Certificates/Issue", Caller::Anyone),
    ("/shoal.v1.Dispatcher/Session", Caller::AnyNode),
    ("/shoal.v1.Dispatcher/PublishLogs", Caller::AnyNode),
    ("/shoal.v1.Dispatcher/Leave", Caller::AnyNode),
    ("/shoal.v1.Raft/Call", Caller::Manager),
    ("/shoal.v1.Raft/Appends", Caller::Manager),
    ("/shoal.v1.Control/Forward", Caller::Manager),
    ("/shoal.v1.Control/Logs", Caller::Manager),
    ("/shoal.v1.Managers/Join", Caller::Manager),
    ("/shoal.v1.Managers/Leave", Caller::Manager),
    ("/shoal.v1.Managers/List", Caller::AnyNode),
];

/// Whether `caller` (`None`: without a certificate) may call the method at `path`. A method for nodes
/// looks at the state too: certificate and state must both allow it, so that a node that was removed
/// or demoted is refused at once, and a worker's certificate never does for a manager's.
pub fn authorize(
    path: &str,
    caller: Option<&Identity>,
    members: &dyn Members,
) -> Result<(), Status> {
    let Some((_, allowed)) = METHODS.iter().find(|(method, _)| *method == path) else {
        return Err(Status::permission_denied(format!("no such method: {path}")));
    };
    judge(path, *allowed, caller, |id| members.standing(id))
}

fn judge(
    path: &str,
    allowed: Caller,
    caller: Option<&Identity>,
    standing: impl Fn(&str) -> Standing,
) -> Result<(), Status> {
    if allowed == Caller::Anyone {
        return Ok(());
    }
    let Some(caller) = caller else {
        return Err(Status::unauthenticated(format!(
            "{path} needs a node certificate and none was presented; join the swarm first"
        )));
    };
    let managers_only = || {
        let id = &caller.node_id;
        let text = format!("{path} may only be called by managers, and node {id} is a worker");
        Err(Status::permission_denied(text))
    };
    match (allowed, caller.role, standing(&caller.node_id)) {
        (_, _, Standing::Gone) => Err(unknown_node(&caller.node_id)),
        (Caller::Manager, Role::Worker, _)
        | (Caller::Manager, _, Standing::Member(Role::Worker)) => managers_only(),
        _ => Ok(()),
    }
}

/// The certificate is good but the node was removed.
pub fn unknown_node(id: &str) -> Status {
    Status::not_found(format!(
        "node {id} is not in this swarm any more: leave with `swarm leave --force`, then join again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn identity(role: Role) -> Identity {
        Identity { node_id: "n".into(), role, cluster_id: "c".into() }
    }

    const STANDINGS: [Standing; 4] = [
        Standing::Member(Role::Worker),
        Standing::Member(Role::Manager),
        Standing::Gone,
        Standing::Unsure,
    ];

    struct Always(Standing);

    impl Members for Always {
        fn standing(&self, _: &str) -> Standing {
            self.0
        }

        fn patience(&self) -> Duration {
            Duration::from_secs(2)
        }
    }

    #[test]
    fn every_combination_of_rule_certificate_and_standing_is_decided() {
        use Code::{NotFound, PermissionDenied, Unauthenticated};
        // Columns: member as a worker, member as a manager, gone, unsure.
        let (ok, gone, denied) = (None, Some(NotFound), Some(PermissionDenied));
        let nobody = [Some(Unauthenticated); 4];
        let table = [
            (Caller::Anyone, None, [ok; 4]),
            (Caller::Anyone, Some(Role::Worker), [ok; 4]),
            (Caller::Anyone, Some(Role::Manager), [ok; 4]),
            (Caller::AnyNode, None, nobody),
            (Caller::AnyNode, Some(Role::Worker), [ok, ok, gone, ok]),
            (Caller::AnyNode, Some(Role::Manager), [ok, ok, gone, ok]),
            (Caller::Manager, None, nobody),
            (Caller::Manager, Some(Role::Worker), [denied, denied, gone, denied]),
            (Caller::Manager, Some(Role::Manager), [denied, ok, gone, ok]),
        ];
        for (rule, role, expected) in table {
            let caller = role.map(identity);
            for (standing, code) in STANDINGS.into_iter().zip(expected) {
                let result = judge("/m", rule, caller.as_ref(), |_| standing);
                let result = result.err().map(|s| s.code());
                assert_eq!(result, code, "{rule:?} {role:?} {standing:?}");
            }
        }
    }

    #[test]
    fn every_pair_of_method_and_caller_is_as_intended() {
        let (worker, manager) = (identity(Role::Worker), identity(Role::Manager));
        let callers = [
            (None, Standing::Gone),
            (Some(&worker), Standing::Member(Role::Worker)),
            (Some(&manager), Standing::Member(Role::Manager)),
            (Some(&manager), Standing::Member(Role::Worker)),
            (Some(&manager), Standing::Gone),
        ];
        // Columns: without a certificate, worker, manager, demoted manager, removed manager.
        let anyone = [true, true, true, true, true];
        let nodes = [false, true, true, true, false];
        let managers = [false, false, true, false, false];
        let table = [
            ("/shoal.v1.Certificates/Root", anyone),
            ("/shoal.v1.Certificates/Issue", anyone),
            ("/shoal.v1.Dispatcher/Session", nodes),
            ("/shoal.v1.Dispatcher/PublishLogs", nodes),
            ("/shoal.v1.Dispatcher/Leave", nodes),
            ("/shoal.v1.Raft/Call", managers),
            ("/shoal.v1.Raft/Appends", managers),
            ("/shoal.v1.Control/Forward", managers),
            ("/shoal.v1.Control/Logs", managers),
            ("/shoal.v1.Managers/Join", managers),
            ("/shoal.v1.Managers/Leave", managers),
            ("/shoal.v1.Managers/List", nodes),
            ("/shoal.v1.Dispatcher/session", [false; 5]),
            ("/shoal.v1.Dispatcher/Session/", [false; 5]),
            ("/shoal.v1.Raft/Append", [false; 5]),
            ("", [false; 5]),
        ];
        for (path, expected) in table {
            let results = callers.map(|(c, s)| authorize(path, c, &Always(s)).is_ok());
            assert_eq!(results, expected, "{path}");
        }
        assert!(METHODS.iter().all(|(path, _)| table.iter().any(|(tested, _)| tested == path)));
    }

    #[test]
    fn every_method_of_the_protocol_has_a_row() {
        let proto = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../rpc/proto/shoal.proto"
        ))
        .unwrap();
        let mut paths = Vec::new();
        let mut service = "";
        for line in proto.lines() {
            let mut words = line.split([' ', '(']).filter(|w| !w.is_empty());
            match (words.next(), words.next()) {
                (Some("service"), Some(name)) => service = name,
                (Some("rpc"), Some(name)) => paths.push(format!("/shoal.v1.{service}/{name}")),
                _ => {}
            }
        }
        assert_eq!(paths, METHODS.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    }
}
