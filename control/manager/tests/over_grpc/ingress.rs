//! The routing mesh's network is removed and made anew.

use crate::support::*;
use shoal_model::{ControlError, ErrorKind, docker};

fn is(error: ControlError, kind: ErrorKind, text: &str) {
    assert_eq!((error.kind, error.message.as_str()), (kind, text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_meshs_network_is_removed_when_nothing_is_published_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let ingress = manager.store().read(|s| s.ingress().unwrap().clone());
    assert_eq!(ingress.subnet.to_string(), "10.0.0.0/24");
    let mut published = service("web", 1, &[]);
    let port = docker::EndpointPortConfig {
        target_port: Some(80),
        published_port: Some(8080),
        ..Default::default()
    };
    let ports = Some(vec![port]);
    published.endpoint_spec = Some(docker::EndpointSpec { mode: None, ports });
    let web = manager.create_service(published.clone()).await.unwrap();
    is(
        manager.remove_network(&ingress.id).await.unwrap_err(),
        ErrorKind::FailedPrecondition,
        &format!(
            "rpc error: code = FailedPrecondition desc = ingress network cannot be removed because service {web} depends on it"
        ),
    );
    manager.remove_service(&web).await.unwrap();
    until(&manager, "no task", |s| s.tasks.is_empty()).await;
    manager.remove_network(&ingress.id).await.unwrap();
    is(
        manager.create_service(published.clone()).await.unwrap_err(),
        ErrorKind::FailedPrecondition,
        "rpc error: code = FailedPrecondition desc = service needs ingress network, but no ingress network is present",
    );

    let subnet = Some("10.9.0.0/16".to_owned());
    let config = Some(vec![docker::IpamConfig { subnet, ..Default::default() }]);
    let mesh = docker::NetworkCreateRequest {
        ingress: Some(true),
        ipam: Some(docker::Ipam { config, ..Default::default() }),
        ..overlay("mesh")
    };
    for (refused, word) in [
        (docker::NetworkCreateRequest { attachable: Some(true), ..mesh.clone() }, "attachable"),
        (docker::NetworkCreateRequest { internal: Some(true), ..mesh.clone() }, "internal"),
    ] {
        let refused = manager.create_network(refused).await.unwrap_err();
        let text = format!("ingress network mesh cannot be {word}");
        assert!(refused.message.contains(&text), "{refused}");
    }
    let id = manager.create_network(mesh.clone()).await.unwrap();
    let another = docker::NetworkCreateRequest { name: "another".to_owned(), ..mesh };
    is(
        manager.create_network(another).await.unwrap_err(),
        ErrorKind::AlreadyExists,
        &format!(
            "rpc error: code = AlreadyExists desc = ingress network ({id}) is already present"
        ),
    );
    manager.create_service(published).await.unwrap();
    let in_mesh = |s: &shoal_model::State| {
        let subnet = s.networks[&id].subnet;
        s.nodes.values().all(|n| n.overlay.address.is_some_and(|at| subnet.contains(at)))
    };
    until(&manager, "the node has an address there", in_mesh).await;
}
