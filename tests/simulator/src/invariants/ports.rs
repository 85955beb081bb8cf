//! A published port belongs to one service. At rest a service has the ports it asks for and no other, or says
//! that another has one of them; where it leaves the choice it keeps what it had.
use super::{Invariant, Rest, Step, Verdict};
use shoal_model::{Change, Object, PortWish, PublishedPort, Service, State, port_wishes};
use std::collections::BTreeMap;

pub(super) struct Ports;

impl Invariant for Ports {
    fn name(&self) -> &'static str {
        "ports"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        let mut concerned = false;
        for (change, old) in step.txn.changes.iter().zip(step.old) {
            let Change::Put(Object::Service(new)) = change else { continue };
            concerned = true;
            if let Some(Object::Service(old)) = old {
                keeps_its_port(old, new)?;
            }
        }
        if !concerned {
            return Ok(());
        }
        let mut owners = BTreeMap::new();
        for service in step.state.services.values() {
            for port in service.endpoint.iter().flat_map(|e| &e.ports) {
                let key = (port.protocol, port.published);
                if let Some(other) = owners.insert(key, &service.id) {
                    return Err(format!(
                        "port {} belongs to {other} and to {}",
                        port.published, service.id
                    ));
                }
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        rest.state
            .services
            .values()
            .try_for_each(|service| has_what_it_asks_for(rest.state, service))
    }
}

fn given(service: &Service) -> &[PublishedPort] {
    service.endpoint.as_ref().map(|e| e.ports.as_slice()).unwrap_or_default()
}

fn has_what_it_asks_for(state: &State, service: &Service) -> Verdict {
    let (name, wishes) = (service.name(), port_wishes(&service.spec));
    let Some(endpoint) = &service.endpoint else { return Err(format!("{name} has no endpoint")) };
    let suits = |(has, wish): (&PublishedPort, &PortWish)| {
        (has.protocol, has.target) == (wish.protocol, wish.target)
            && (wish.published == 0 || wish.published == has.published)
    };
    let ports = &endpoint.ports;
    if ports.len() == wishes.len() && ports.iter().zip(&wishes).all(suits) {
        return Ok(());
    }
    let taken = |wish: &PortWish| {
        let mut others = state.services.values().filter(|s| s.id != service.id);
        others.any(|s| given(s).iter().any(|has| has.published == wish.published))
    };
    match ports.is_empty() && !endpoint.err.is_empty() && wishes.iter().any(taken) {
        true => Ok(()),
        false => Err(format!("{name} publishes {ports:?} and asks for {wishes:?}")),
    }
}

/// A service that leaves the choice of its one port keeps the one it has, as long as it is the same in the
/// container.
fn keeps_its_port(old: &Service, new: &Service) -> Verdict {
    let ([had], [has], [wish]) = (given(old), given(new), &port_wishes(&new.spec)[..]) else {
        return Ok(());
    };
    let same = (had.protocol, had.target) == (wish.protocol, wish.target);
    match wish.published == 0 && same && had.published != has.published {
        true => Err(format!(
            "{} was published on {} and is now on {}, which it does not ask for",
            new.name(),
            had.published,
            has.published
        )),
        false => Ok(()),
    }
}
