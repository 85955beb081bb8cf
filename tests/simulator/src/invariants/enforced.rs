//! At rest no task of the present specification is wanted on a node that its constraints do not allow: a node
//! that changed its labels or its role has given it up. On a paused or drained node they are not enforced,
//! and global services have an invariant of their own.
use super::{Invariant, Rest, Step, Verdict, capacity, slots};
use shoal_model::{Availability, TaskState};

pub(super) struct Enforced;

impl Invariant for Enforced {
    fn name(&self) -> &'static str {
        "enforced"
    }

    fn applied(&mut self, _: &Step<'_>) -> Verdict {
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        let living = |t: &&shoal_model::Task| {
            slots::is_wanted(t)
                && t.status.state >= TaskState::Assigned
                && !t.status.state.is_terminal()
        };
        for task in rest.state.tasks.values().filter(living) {
            let service = rest.state.services.get(&task.service_id);
            let present =
                service.filter(|s| s.spec_version == task.spec_version && !s.mode().is_global());
            let node = task.node_id.as_ref().and_then(|id| rest.state.nodes.get(id));
            let node = node.filter(|n| n.availability == Availability::Active);
            let (Some(service), Some(node)) = (present, node) else { continue };
            let template = service.spec.task_template.as_ref();
            let placement = template.and_then(|t| t.placement.as_ref());
            let mut all = placement.and_then(|p| p.constraints.as_ref()).into_iter().flatten();
            if let Some(constraint) = all.find(|c| !capacity::satisfied(node, c)) {
                return Err(format!("{} stays on {}, not {constraint}", task.id, node.id));
            }
        }
        Ok(())
    }
}
