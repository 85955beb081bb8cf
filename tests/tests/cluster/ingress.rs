//! The routing mesh's network is removed and made anew, larger, while services on other networks go on.

use crate::fixture::Scene;
use anyhow::ensure;
use shoal_tests::{Cluster, Host, Page, Segment, address, patiently, wait_for, web_image};

/// What the client sees at a published port of both nodes.
fn ask_everywhere(cluster: &Cluster, port: u16) {
    let client: &Host = cluster.client(0);
    let (own4, own6) = address(Segment::Clients, 0);
    for node in cluster.nodes() {
        for (url, own) in [
            (format!("http://{}:{port}/", node.addr()), own4),
            (format!("http://[{}]:{port}/", node.addr6()), own6),
        ] {
            let page = wait_for(&format!("{url} on {}", node.name()), patiently(), || {
                let response = client.http_get(&url)?;
                ensure!(response.status == 200, "{}", response.status);
                Page::parse(&response.body)
            });
            assert_eq!(page.unwrap().client, own, "{url}");
        }
    }
}

#[test]
fn the_meshs_network_is_made_anew_larger_and_what_is_on_others_does_not_notice() {
    let cluster = Cluster::builder().nodes(2).clients(1).swarm().start().unwrap();
    cluster.load_image(&web_image().unwrap()).unwrap();
    let mut scene = Scene::on(&cluster);
    scene.network("app", &[]);
    let probe = scene.probe("probe", "app");
    scene.service("web", 2, &["--network", "app"], &[]);
    let ask = "timeout 5 wget -q -O /dev/null http://web/";
    wait_for("an answer", patiently(), || cluster.exec(&probe, ask)?.ok()).unwrap();
    let script = format!(
        "(while [ ! -e /tmp/stop ]; do {ask} || echo x >>/tmp/failed; echo x >>/tmp/asked; \
         usleep 10000; done; touch /tmp/done) >/dev/null 2>&1 </dev/null &"
    );
    cluster.exec(&probe, &script).unwrap().ok().unwrap();

    scene.service("published", 1, &["-p", "8080:80"], &[]);
    ask_everywhere(&cluster, 8080);
    let first = cluster.node(0);
    let remove = || first.api("DELETE", "/networks/ingress", "").unwrap();
    let refused = remove();
    assert!(
        refused.body.contains("ingress network cannot be removed because service"),
        "{refused:?}"
    );
    scene.docker(&["service", "rm", "published"]);
    // Its task may still be told to stop.
    wait_for("the network to go", patiently(), || {
        let answer = remove();
        ensure!(answer.status == 204, "{}: {}", answer.status, answer.body);
        Ok(())
    })
    .unwrap();
    let create = ["service", "create", "-d", "--name", "early", "-p", "8081:80", "x"];
    let refused = first.docker(&create).unwrap();
    assert!(refused.stderr.contains("no ingress network is present"), "{refused:?}");

    let larger =
        ["network", "create", "-d", "overlay", "--ingress", "--ipv6", "--subnet", "10.77.0.0/20"];
    scene.docker(&[&larger[..], &["mesh"]].concat());
    scene.service("again", 1, &["-p", "8080:80"], &[]);
    ask_everywhere(&cluster, 8080);
    let subnet = "{{(index .IPAM.Config 0).Subnet}} {{.Ingress}} {{.EnableIPv6}}";
    let shown = scene.docker(&["network", "inspect", "-f", subnet, "mesh"]);
    assert_eq!(shown, "10.77.0.0/20 true true");

    let counted = "touch /tmp/stop; [ -e /tmp/done ] && wc -l </tmp/asked; cat /tmp/failed; true";
    let asked = wait_for("the loop to end", patiently(), || {
        let said = cluster.exec(&probe, counted)?.ok()?;
        ensure!(!said.is_empty(), "it goes on");
        Ok(said)
    });
    let asked = asked.unwrap();
    assert!(asked.parse::<u32>().is_ok_and(|asked| asked > 20), "asked, and failed: {asked}");
}
