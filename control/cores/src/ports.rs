//! Published ports: the same port on every node, held by one service.
use shoal_model::{
    PortKey, PortWish, PublishedPort, Service, State,
    bugs::{self, Bug},
    docker, port_wishes,
};
use std::collections::BTreeMap;

/// Ports the cluster chooses from when a service does not say (Docker's range).
const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Why a port cannot be published.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PortError {
    /// Another service has it. Docker's text.
    #[error("port '{port}' is already in use by service '{name}' ({id}) as an ingress port")]
    InUse {
        /// The port.
        port: u16,
        /// Name of the service that has it.
        name: String,
        /// Its id.
        id: String,
    },
    /// The nodes' programs have a table for so many and no more.
    #[error(
        "too many published ports: the cluster has {held} of {max}, and this service asks for {asked} \
         more; remove a service that publishes some, or publish fewer"
    )]
    TooMany {
        /// Ports other services have.
        held: usize,
        /// Ports this one wants.
        asked: usize,
        /// Most there can be.
        max: usize,
    },
    /// No port left to choose.
    #[error(
        "no port left to publish target port {target} on: all of {}-{} are in use; name a published port",
        DYNAMIC.start(),
        DYNAMIC.end()
    )]
    Exhausted {
        /// Port in the container.
        target: u16,
    },
}

/// Whether the ports of `spec` are free, or its own (`service`: its id once it has one).
pub fn check_ports(
    state: &State,
    service: Option<&str>,
    spec: &docker::ServiceSpec,
) -> Result<(), PortError> {
    Ports::of(state).check(service, &port_wishes(spec))
}

/// Who has which port: what the state says, and what was given since.
pub(crate) struct Ports<'a> {
    state: &'a State,
    given: BTreeMap<PortKey, &'a Service>,
}

impl<'a> Ports<'a> {
    pub(crate) fn of(state: &'a State) -> Ports<'a> {
        Ports { state, given: BTreeMap::new() }
    }

    fn holder(&self, port: PortKey) -> Option<&'a Service> {
        self.given.get(&port).copied().or_else(|| self.state.port_holder(port))
    }

    /// Ports that others than `service` have.
    fn of_others(&self, service: Option<&str>) -> usize {
        let more = self.given.keys().filter(|port| self.state.port_holder(**port).is_none());
        let all = self.state.ports_held() + more.count();
        let Some(service) = service.and_then(|id| self.state.services.get(id)) else { return all };
        let given = service.endpoint.iter().flat_map(|e| &e.ports);
        let given = given.map(|p| (p.protocol, p.published));
        let asked = port_wishes(&service.spec).into_iter().map(|w| (w.protocol, w.published));
        let mut mine: Vec<PortKey> = given.chain(asked).collect();
        mine.sort_unstable();
        mine.dedup();
        all - mine.iter().filter(|p| self.holder(**p).is_some_and(|s| s.id == service.id)).count()
    }

    fn check(&self, service: Option<&str>, wishes: &[PortWish]) -> Result<(), PortError> {
        for wish in wishes.iter().filter(|w| w.published != 0) {
            let holder = self.holder((wish.protocol, wish.published));
            let shared = bugs::active(Bug::SharePort);
            if let Some(other) = holder.filter(|s| service != Some(s.id.as_str()) && !shared) {
                let (name, id) = (other.name().to_owned(), other.id.clone());
                return Err(PortError::InUse { port: wish.published, name, id });
            }
        }
        if wishes.is_empty() {
            return Ok(());
        }
        let (held, asked) = (self.of_others(service), wishes.len());
        let max = usize::try_from(shoal_maps::MAX_PORTS).unwrap_or(usize::MAX);
        if held + asked > max {
            return Err(PortError::TooMany { held, asked, max });
        }
        Ok(())
    }

    /// Ports of a service: as asked for; where it left the choice, what it had, else the lowest free.
    pub(crate) fn give(
        &mut self,
        service: &'a Service,
        had: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>, PortError> {
        let wishes = port_wishes(&service.spec);
        self.check(Some(&service.id), &wishes)?;
        let mut left = had.to_vec();
        let mut given = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let had = left.iter().position(|p| {
                (p.protocol, p.target) == (wish.protocol, wish.target)
                    && (wish.published == 0 || wish.published == p.published)
            });
            let had = had.map(|at| left.remove(at).published);
            let published = match (wish.published, had) {
                (0, Some(port)) => port,
                (0, None) => DYNAMIC
                    .into_iter()
                    .find(|port| self.holder((wish.protocol, *port)).is_none())
                    .ok_or(PortError::Exhausted { target: wish.target })?,
                (port, _) => port,
            };
            self.given.insert((wish.protocol, published), service);
            given.push(PublishedPort { protocol: wish.protocol, published, target: wish.target });
        }
        given.extend(left.into_iter().filter(|_| bugs::active(Bug::KeepPort)));
        Ok(given)
    }
}
