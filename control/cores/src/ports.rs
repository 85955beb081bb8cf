//! Published ports: the same port on every node, held by one service.
use crate::spec::{PortWish, port_wishes};
use shoal_model::{
    PublishedPort, Service, State,
    bugs::{self, Bug},
    docker,
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

/// Who has which port.
pub(crate) struct Ports {
    held: BTreeMap<(u8, u16), (String, String)>,
}

impl Ports {
    pub(crate) fn of(state: &State) -> Ports {
        let mut held = BTreeMap::new();
        for service in state.services.values() {
            // What is asked for counts too, as a service just made is not allocated yet; but what is
            // given comes first, then what was asked for earlier.
            let asked = port_wishes(&service.spec).into_iter();
            let asked = asked.map(|w| (false, (w.protocol, w.published)));
            let given = service.endpoint.iter().flat_map(|e| &e.ports);
            let given = given.map(|p| (true, (p.protocol, p.published)));
            for (given, key) in given.chain(asked).filter(|(_, (_, port))| *port != 0) {
                let claim = (!given, service.meta.created, service.id.as_str(), service);
                let best = held.entry(key).or_insert(claim);
                if (best.0, best.1, best.2) > (claim.0, claim.1, claim.2) {
                    *best = claim;
                }
            }
        }
        let owner = |s: &Service| (s.id.clone(), s.name().to_owned());
        Ports { held: held.into_iter().map(|(key, (_, _, _, s))| (key, owner(s))).collect() }
    }

    fn check(&self, service: Option<&str>, wishes: &[PortWish]) -> Result<(), PortError> {
        for wish in wishes.iter().filter(|w| w.published != 0) {
            let owner = self.held.get(&(wish.protocol, wish.published));
            let shared = bugs::active(Bug::SharePort);
            if let Some((id, name)) =
                owner.filter(|(id, _)| service != Some(id.as_str()) && !shared)
            {
                let (name, id) = (name.clone(), id.clone());
                return Err(PortError::InUse { port: wish.published, name, id });
            }
        }
        let others = self.held.values().filter(|(id, _)| service != Some(id.as_str()));
        let (held, asked) = (others.count(), wishes.len());
        let max = usize::try_from(shoal_maps::MAX_PORTS).unwrap_or(usize::MAX);
        if asked > 0 && held + asked > max {
            return Err(PortError::TooMany { held, asked, max });
        }
        Ok(())
    }

    /// Ports of a service: as asked for; where it left the choice, what it had, else the lowest free.
    pub(crate) fn give(
        &mut self,
        service: &Service,
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
                    .find(|port| !self.held.contains_key(&(wish.protocol, *port)))
                    .ok_or(PortError::Exhausted { target: wish.target })?,
                (port, _) => port,
            };
            let owner = (service.id.clone(), service.name().to_owned());
            self.held.insert((wish.protocol, published), owner);
            given.push(PublishedPort { protocol: wish.protocol, published, target: wish.target });
        }
        Ok(given)
    }
}
