//! Events of the cluster's objects: what `docker events` shows with scope `swarm`.
//!
//! [`witness`] compares the state with what it saw last and says what happened (pure). One task per
//! server, [`follow`], looks whenever the state has changed and hands the news to [`Events`], which keeps
//! the last ones and gives them to whoever listens.
mod event;
mod witness;

use crate::seam::{Swarm, read};
use shoal_model::Timestamp;
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::broadcast,
    time::{sleep, timeout},
};
use witness::Witness;

pub(crate) use event::{Event, Wanted};

/// Events that are kept for those who ask for what was (Docker's).
const MOST_KEPT: usize = 256;

/// Events that a listener may be behind (Docker's); its stream breaks off then.
const MOST_BEHIND: usize = 1_024;

/// Pause between two looks at the state: so often a second, at most, it is held for events.
const PAUSE: Duration = Duration::from_millis(20);

/// How often the one who leads is looked at, and whether this node is a manager.
const LOOK: Duration = Duration::from_secs(1);

/// The last events, and those who listen. Cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<Hub>);

struct Hub {
    kept: Mutex<VecDeque<Arc<Event>>>,
    /// Taken while `kept` is.
    listeners: Mutex<broadcast::Sender<Arc<Event>>>,
}

impl Default for Events {
    fn default() -> Events {
        let listeners = Mutex::new(broadcast::Sender::new(MOST_BEHIND));
        Events(Arc::new(Hub { kept: Mutex::default(), listeners }))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events(…)")
    }
}

impl Events {
    fn listeners(&self) -> MutexGuard<'_, broadcast::Sender<Arc<Event>>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the streams of all who listen: a node that is no manager hears of nothing.
    fn break_off(&self) {
        *self.listeners() = broadcast::Sender::new(MOST_BEHIND);
    }

    fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MOST_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        // Without listeners it is only kept.
        let _ = self.listeners().send(event);
    }

    /// The events that are kept, and all that come after them.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        // None is published in between.
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().cloned().collect(), self.listeners().subscribe())
    }
}

/// Tells of what happens in the cluster while this node is a manager. Never ends.
pub(crate) async fn follow(events: Events, swarm: Arc<dyn Swarm>) {
    let mut witness: Option<Witness> = None;
    loop {
        let Some((mut versions, leader)) = swarm.progress() else {
            // Whoever listens would wait in vain, and not know that there were any.
            if witness.take().is_some() {
                events.break_off();
            }
            sleep(LOOK).await;
            continue;
        };
        let version = *versions.borrow_and_update();
        if !witness.as_ref().is_some_and(|w| w.knows(version, leader.as_deref())) {
            // A manager that has started is told again what happened long ago. That is no news.
            if witness.is_none() && swarm.catch_up().await.is_err() {
                sleep(LOOK).await;
                continue;
            }
            let leader = leader.as_deref();
            let seen = read(&*swarm, |state| match &mut witness {
                Some(witness) => witness.look(state, leader, now()),
                None => {
                    witness = Some(Witness::new(state, leader));
                    Vec::new()
                }
            });
            // Not a manager any more, or not for the moment: the next round finds out.
            for event in seen.unwrap_or_default() {
                events.publish(event);
            }
        }
        sleep(PAUSE).await;
        let _ = timeout(LOOK, versions.changed()).await;
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp(chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::ObjectKind;

    fn event(number: usize) -> Event {
        Event::of(ObjectKind::Secret, &format!("s{number}"), Timestamp(0))
    }

    #[test]
    fn the_last_ones_are_kept_and_a_listener_hears_of_all_that_come_then() {
        let events = Events::default();
        for number in 0..=MOST_KEPT {
            events.publish(event(number));
        }
        let (kept, mut listener) = events.subscribe();
        assert_eq!((kept.len(), kept[0].id()), (MOST_KEPT, "s1"));
        events.publish(event(999));
        assert_eq!(listener.try_recv().unwrap().id(), "s999");
        assert!(listener.try_recv().is_err());
    }

    #[test]
    fn those_who_listen_are_told_that_nothing_more_comes_and_others_may_listen_again() {
        let events = Events::default();
        let (_, mut first) = events.subscribe();
        events.publish(event(1));
        events.break_off();
        assert_eq!(first.try_recv().unwrap().id(), "s1");
        assert_eq!(first.try_recv().unwrap_err(), broadcast::error::TryRecvError::Closed);
        let (kept, mut second) = events.subscribe();
        events.publish(event(2));
        assert_eq!((kept.len(), second.try_recv().unwrap().id()), (1, "s2"));
    }

    #[test]
    fn a_listener_that_is_too_far_behind_hears_that_it_has_missed_some() {
        let events = Events::default();
        let (_, mut listener) = events.subscribe();
        for number in 0..=MOST_BEHIND {
            events.publish(event(number));
        }
        let missed = listener.try_recv().unwrap_err();
        assert_eq!(missed, broadcast::error::TryRecvError::Lagged(1));
    }
}
