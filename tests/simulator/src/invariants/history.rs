//! Ended tasks are kept only as far as history goes.
use super::{Invariant, Rest, Step, Verdict, place, rebalance::BACK_OFF};
use shoal_model::{MadeBy, Task, TaskState};
use std::collections::BTreeMap;

pub(super) struct History;

impl Invariant for History {
    fn name(&self) -> &'static str {
        "history"
    }

    fn applied(&mut self, _: &Step<'_>) -> Verdict {
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        let state = rest.state;
        let orchestration = state.cluster.as_ref().and_then(|c| c.spec.orchestration.as_ref());
        let limit = orchestration.and_then(|o| o.task_history_retention_limit).unwrap_or(5);
        for service in state.services.values() {
            if service.update_status.as_ref().is_some_and(|u| u.in_progress()) {
                continue; // its update counts what has failed
            }
            let mut slots: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
            for task in state.tasks_of_service(&service.id) {
                slots.entry(place(task)).or_default().push(task);
            }
            for (slot, tasks) in slots {
                // What a job has done stays in its present iteration.
                let done = |t: &&&Task| {
                    t.status.state == TaskState::Complete
                        && t.job_iteration.is_some()
                        && t.job_iteration == service.iteration()
                };
                // A move that failed stays until another may be tried.
                let backs_off = |t: &&&Task| {
                    t.made_by == MadeBy::Rebalance
                        && t.times.running.is_none()
                        && rest.now < t.meta.created.after(BACK_OFF)
                };
                let ended = tasks
                    .iter()
                    .filter(|t| t.status.state.is_terminal() && t.desired == TaskState::Shutdown)
                    .filter(|t| !done(t) && !backs_off(t));
                let attempts = tasks
                    .iter()
                    .filter_map(|t| t.spec.restart_policy.as_ref().and_then(|p| p.max_attempts));
                let most = attempts.max().map_or(0, |a| a + 1).max(limit).max(1);
                let ended = ended.count() as i64;
                if ended > most {
                    let name = service.name();
                    return Err(format!(
                        "place {slot} of {name} keeps {ended} ended tasks, not {most}"
                    ));
                }
            }
        }
        if let Some(task) = state
            .tasks
            .values()
            .find(|t| !state.services.contains_key(&t.service_id) && t.status.state.is_terminal())
        {
            return Err(format!("{} has ended, and its service is gone", task.id));
        }
        Ok(())
    }
}
