//! At rest a global service has one wanted task on each node that may have one, and none elsewhere; on a
//! paused node what runs goes on, and nothing has to be made.
use super::{Invariant, Rest, Step, Verdict, capacity, places, slots};
use shoal_model::{Availability, Mode, Node, NodeState, Service};
use std::collections::BTreeSet;

pub(super) struct Global;

impl Invariant for Global {
    fn name(&self) -> &'static str {
        "global"
    }

    fn applied(&mut self, _: &Step<'_>) -> Verdict {
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        let mut global = rest.state.services.values().filter(|s| s.mode() == Mode::Global);
        global.try_for_each(|service| at_rest(rest, service))
    }
}

fn at_rest(rest: &Rest<'_>, service: &Service) -> Verdict {
    let name = service.name();
    let mut places = places(rest.state, service);
    for node in rest.state.nodes.values() {
        let id = node.id.as_str();
        let tasks = places.remove(id).unwrap_or_default();
        let wanted = tasks.iter().filter(|t| slots::is_wanted(t)).count();
        if !suits(service, node) {
            if wanted > 0 {
                return Err(format!("{name} wants a task on {id}, which may have none"));
            }
        } else if node.availability == Availability::Pause {
            // One of a new version may wait there for ever beside the old one, if `start-first` began so.
            let versions: BTreeSet<u64> =
                tasks.iter().filter(|t| slots::is_wanted(t)).map(|t| t.spec_version).collect();
            if wanted > versions.len() || wanted > 2 {
                return Err(format!("{name} wants {wanted} tasks on {id}"));
            }
        } else {
            slots::has_its_task(rest, service, id, &tasks)?;
        }
    }
    match places.keys().next() {
        Some(place) => Err(format!("{name} has a task in {place}, which is no node")),
        None => Ok(()),
    }
}

/// Whether the service may have a task on the node, paused or not.
pub(super) fn suits(service: &Service, node: &Node) -> bool {
    let template = service.spec.task_template.as_ref();
    let placement = template.and_then(|t| t.placement.as_ref());
    let constraints = placement.and_then(|p| p.constraints.as_deref()).unwrap_or_default();
    node.status.state != NodeState::Down
        && node.availability != Availability::Drain
        && constraints.iter().all(|c| capacity::satisfied(node, c))
}
