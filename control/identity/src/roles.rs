//! Who may call what. The only place where this is decided.

use crate::Identity;
use shoal_model::Role;
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

/// All methods by path. What is not here may not be called.
pub const METHODS: &[(&str, Caller)] = &[
    ("/shoal.v1.Certificates/Root", Caller::Anyone),
    ("/shoal.v1.Certificates/Issue", Caller::Anyone),
    ("/shoal.v1.Dispatcher/Session", Caller::AnyNode),
    ("/shoal.v1.Dispatcher/PublishLogs", Caller::AnyNode),
    ("/shoal.v1.Dispatcher/Leave", Caller::AnyNode),
];

/// Whether `caller` (`None`: without a certificate) may call the method at `path`.
pub fn authorize(path: &str, caller: Option<&Identity>) -> Result<(), Status> {
    let Some((_, allowed)) = METHODS.iter().find(|(method, _)| *method == path) else {
        return Err(Status::permission_denied(format!("no such method: {path}")));
    };
    judge(path, *allowed, caller)
}

fn judge(path: &str, allowed: Caller, caller: Option<&Identity>) -> Result<(), Status> {
    match (allowed, caller.map(|c| c.role)) {
        (Caller::Anyone, _)
        | (Caller::AnyNode, Some(_))
        | (Caller::Manager, Some(Role::Manager)) => Ok(()),
        (Caller::AnyNode | Caller::Manager, None) => Err(Status::unauthenticated(format!(
            "{path} needs a node certificate and none was presented; join the swarm first"
        ))),
        (Caller::Manager, Some(Role::Worker)) => {
            Err(Status::permission_denied(format!("{path} may only be called by managers")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn identity(role: Role) -> Identity {
        Identity { node_id: "n".into(), role, cluster_id: "c".into() }
    }

    #[test]
    fn every_pair_of_rule_and_caller_is_decided() {
        let (worker, manager) = (identity(Role::Worker), identity(Role::Manager));
        let callers = [None, Some(&worker), Some(&manager)];
        let table = [
            (Caller::Anyone, [None, None, None]),
            (Caller::AnyNode, [Some(Code::Unauthenticated), None, None]),
            (Caller::Manager, [Some(Code::Unauthenticated), Some(Code::PermissionDenied), None]),
        ];
        for (rule, expected) in table {
            for (caller, code) in callers.into_iter().zip(expected) {
                let result = judge("/m", rule, caller).err().map(|s| s.code());
                assert_eq!(result, code, "{rule:?} {caller:?}");
            }
        }
    }

    #[test]
    fn every_pair_of_method_and_caller_is_as_intended() {
        let (worker, manager) = (identity(Role::Worker), identity(Role::Manager));
        // Columns: without a certificate, worker, manager.
        let table = [
            ("/shoal.v1.Certificates/Root", [true, true, true]),
            ("/shoal.v1.Certificates/Issue", [true, true, true]),
            ("/shoal.v1.Dispatcher/Session", [false, true, true]),
            ("/shoal.v1.Dispatcher/PublishLogs", [false, true, true]),
            ("/shoal.v1.Dispatcher/Leave", [false, true, true]),
            ("/shoal.v1.Dispatcher/session", [false, false, false]),
            ("/shoal.v1.Dispatcher/Session/", [false, false, false]),
            ("/shoal.v1.Raft/Append", [false, false, false]),
            ("", [false, false, false]),
        ];
        for (path, expected) in table {
            let results = [None, Some(&worker), Some(&manager)].map(|c| authorize(path, c).is_ok());
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
