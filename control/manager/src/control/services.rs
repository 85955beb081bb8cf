//! Services and their logs.
use crate::{
    Manager, broker, clock,
    control::dependencies::refused,
    error::{from_store, invalid, not_found, out_of_sequence, refuse},
    names, template,
    validate::{self, resolved},
};
use futures_util::stream::BoxStream;
use shoal_cores::{
    check_existence, check_ports, free_endpoint, revise, roll_back, take_rebalance_once,
};
use shoal_identity::id;
use shoal_model::{
    Change, ControlError, ErrorKind, LogLine, LogOptions, Object, ObjectKind, Service, State,
    docker, port_wishes,
};
use std::{mem::discriminant, sync::Arc};

/// Names tried for a service that was given none.
const NAME_ATTEMPTS: usize = 8;

impl Manager {
    /// Makes a service and returns its id. Its tasks follow.
    pub async fn create_service(
        &self,
        mut spec: docker::ServiceSpec,
    ) -> Result<String, ControlError> {
        let unnamed = spec.name.as_deref().is_none_or(str::is_empty);
        for attempt in 1.. {
            if unnamed {
                spec.name = Some(names::random());
            }
            match self.try_create(spec.clone()).await {
                Err(refusal)
                    if unnamed
                        && attempt < NAME_ATTEMPTS
                        && refusal.kind == ErrorKind::AlreadyExists => {}
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn try_create(&self, spec: docker::ServiceSpec) -> Result<String, ControlError> {
        validate::service(&spec)?;
        let spec = validate::filled(spec);
        let service = self.store().read(|state| {
            let mut spec = resolved(state, spec)?;
            if let Some(other) = state.service_named(spec.name.as_deref().unwrap_or_default()) {
                let name = other.name();
                return Err(refuse(
                    ErrorKind::AlreadyExists,
                    format!(
                        "name conflicts with an existing object: service {name} already exists"
                    ),
                ));
            }
            check_ingress(state, &spec)?;
            check_ports(state, None, &spec).map_err(invalid)?;
            check_dependencies(state, &spec)?;
            let rebalance = take_rebalance_once(&mut spec);
            // One transaction instead of two where nothing has to be given.
            let endpoint = free_endpoint(&spec);
            Ok(Service { rebalance, endpoint, ..Service::new(id::new(), spec, clock::now()) })
        })?;
        let id = service.id.clone();
        let change = Change::Put(Object::Service(Arc::new(service)));
        self.store().propose(vec![change]).await.map_err(from_store)?;
        Ok(id)
    }

    /// Replaces a service's specification; with `rollback` by the one before, whatever `spec` says. An
    /// update that goes on is cancelled; a job runs anew.
    /// `version` is the one the user read.
    pub async fn update_service(
        &self,
        id: &str,
        version: u64,
        spec: docker::ServiceSpec,
        rollback: bool,
    ) -> Result<(), ControlError> {
        if !rollback {
            validate::service(&spec)?;
        }
        let service = self.store().read(|state| {
            let present =
                state.services.get(id).ok_or_else(|| not_found(ObjectKind::Service, id))?;
            if present.meta.version != version {
                return Err(out_of_sequence());
            }
            let now = clock::now();
            let service = if rollback {
                roll_back(present, now).ok_or_else(|| {
                    let text = format!("service {id} does not have a previous spec");
                    refuse(ErrorKind::FailedPrecondition, text)
                })?
            } else {
                let mut spec = resolved(state, validate::filled(spec))?;
                let rebalance = take_rebalance_once(&mut spec) || present.rebalance;
                let revision = template::revision(&present.spec, &spec);
                Service { rebalance, ..revise(present, spec, revision, now) }
            };
            if service.spec.name != present.spec.name {
                return Err(invalid("renaming services is not supported"));
            }
            if discriminant(&service.mode()) != discriminant(&present.mode()) {
                return Err(invalid("service mode change is not allowed"));
            }
            check_ingress(state, &service.spec)?;
            check_ports(state, Some(id), &service.spec).map_err(invalid)?;
            check_dependencies(state, &service.spec)?;
            Ok(service)
        })?;
        let change = Change::Put(Object::Service(Arc::new(service)));
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }

    /// Removes a service at once; its tasks vanish as they stop.
    pub async fn remove_service(&self, id: &str) -> Result<(), ControlError> {
        if !self.store().read(|state| state.services.contains_key(id)) {
            return Err(not_found(ObjectKind::Service, id));
        }
        let change = Change::Delete(ObjectKind::Service, id.to_owned());
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }

    /// Lines of the logs of tasks, from their nodes. Ends when all nodes have delivered; with
    /// `follow` that is when the tasks have ended. Dropping the stream tells the nodes to stop.
    pub fn service_logs(
        &self,
        tasks: Vec<String>,
        options: LogOptions,
    ) -> Result<BoxStream<'static, LogLine>, ControlError> {
        broker::subscribe(&self.leading()?, tasks, options)
    }
}

/// Ports are published on the routing mesh, if it has a network. SwarmKit's text.
fn check_ingress(state: &State, spec: &docker::ServiceSpec) -> Result<(), ControlError> {
    if state.ingress().is_some() || port_wishes(spec).is_empty() {
        return Ok(());
    }
    let text = "service needs ingress network, but no ingress network is present";
    Err(refuse(ErrorKind::FailedPrecondition, text))
}

/// What a service refers to must be there.
fn check_dependencies(state: &State, spec: &docker::ServiceSpec) -> Result<(), ControlError> {
    let mut template = spec.task_template.iter();
    template.try_for_each(|t| check_existence(state, t)).map_err(|e| refused(&e))
}
