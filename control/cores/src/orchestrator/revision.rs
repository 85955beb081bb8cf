//! From one specification of a service to another, and back.
use shoal_model::{JobStatus, Service, Timestamp, UpdateState, UpdateStatus, docker};

/// Versions kept that differ in their placement alone; tasks of older ones are replaced.
const MOST_PLACEMENTS: usize = 16;

/// What a new specification changes for the tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revision {
    /// Nothing: they stay (labels, replicas, update settings).
    None,
    /// Where they may run: those whose node suits stay.
    Placement,
    /// What they are: all are replaced.
    Tasks,
}

/// The service with a new specification. An update that goes on is cancelled; a job runs anew.
pub fn revise(
    present: &Service,
    spec: docker::ServiceSpec,
    revision: Revision,
    now: Timestamp,
) -> Service {
    let (spec_version, placement_versions) = match revision {
        Revision::None => (present.spec_version, present.placement_versions.clone()),
        Revision::Placement => (next_version(present), with_placement(present)),
        Revision::Tasks => (next_version(present), Vec::new()),
    };
    Service {
        spec,
        spec_version,
        placement_versions,
        previous_spec: Some(present.spec.clone()),
        previous_spec_version: present.spec_version,
        update_status: None,
        job_status: next_iteration(present, now),
        ..present.clone()
    }
}

/// The service with the specification it had before, as the user asks: doing it twice leads back.
/// `None` when there is none.
pub fn roll_back(present: &Service, now: Timestamp) -> Option<Service> {
    let mut service = swapped(present)?;
    let message = "manually requested rollback";
    let status = UpdateStatus::begin(UpdateState::RollbackStarted, message, now);
    service.previous_spec = Some(present.spec.clone());
    service.previous_spec_version = present.spec_version;
    service.update_status = Some(status);
    service.job_status = next_iteration(present, now);
    Some(service)
}

/// The service with the specification it had before, since its update failed: there is no way back
/// to what failed. `None` when there is none.
pub(super) fn rolled_back_by_itself(
    present: &Service,
    message: String,
    now: Timestamp,
) -> Option<Service> {
    let mut service = swapped(present)?;
    let started = present.update_status.as_ref().map_or(now, |u| u.started);
    let status = UpdateStatus::begin(UpdateState::RollbackStarted, message, now);
    service.update_status = Some(UpdateStatus { started, ..status });
    Some(service)
}

fn swapped(present: &Service) -> Option<Service> {
    let mut service = present.clone();
    service.spec = service.previous_spec.take()?;
    // Tasks that still have the former version are as they should be.
    service.spec_version = match service.previous_spec_version {
        0 => next_version(present),
        version => version,
    };
    service.placement_versions = match present.placement_versions.contains(&service.spec_version) {
        true => vec![present.spec_version],
        false => Vec::new(),
    };
    service.previous_spec_version = 0;
    Some(service)
}

/// The number of the transaction that made the present form, and one: no version of this service had
/// it before, also after ways back.
fn next_version(present: &Service) -> u64 {
    present.meta.version.max(present.spec_version) + 1
}

fn with_placement(present: &Service) -> Vec<u64> {
    let mut versions = present.placement_versions.clone();
    versions.push(present.spec_version);
    let surplus = versions.len().saturating_sub(MOST_PLACEMENTS);
    versions.drain(..surplus);
    versions
}

fn next_iteration(present: &Service, now: Timestamp) -> Option<JobStatus> {
    present.job_status.map(|job| JobStatus { iteration: job.iteration + 1, last_execution: now })
}
