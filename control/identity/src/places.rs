//! How much of something is done at a time: as much as this process keeps up with.
//!
//! With more at a time each waits less for its turn where machines have time; where they have none, what is more
//! urgent waits behind all that was begun. So there are many places until this process' tasks run late, and then
//! fewer and fewer until they do not.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// A task that is later than this finds too many before it. Half of that is the grain of tokio's clock.
const LATE: Duration = Duration::from_millis(3);

/// Places there always are. They are enough to be busy with: what has one is done in a few milliseconds, where
/// the other side is not slow.
const FEWEST: usize = 16;

/// How many places there are to be. Pure.
fn after(places: usize, late: Duration, most: usize) -> usize {
    let next = if late > LATE { places - places / 4 } else { places + FEWEST / 8 };
    next.clamp(FEWEST.min(most), most)
}

/// Places, as many as this process keeps up with.
pub struct Places {
    permits: Arc<Semaphore>,
    count: Mutex<Count>,
    most: usize,
}

struct Count {
    /// Permits there are, taken or not.
    present: usize,
    /// Permits there shall be: those beyond are not given to anybody when they come back.
    wanted: usize,
}

/// A place. Dropping it gives it back.
#[must_use]
pub struct Place {
    places: Arc<Places>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many at most, and at first.
    pub fn new(most: usize) -> Arc<Places> {
        let count = Mutex::new(Count { present: most, wanted: most });
        Arc::new(Places { permits: Arc::new(Semaphore::new(most)), count, most })
    }

    /// To queue for one.
    pub fn queue(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    /// The one that was got in the queue.
    pub fn taken(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        Place { places: Arc::clone(self), permit: Some(permit) }
    }

    /// Takes down how late tasks of this manager are.
    fn note(&self, late: Duration) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.wanted = after(count.wanted, late, self.most);
        let more = count.wanted.saturating_sub(count.present);
        self.permits.add_permits(more);
        count.present += more;
        let fewer = count.present - count.wanted;
        count.present -= self.permits.forget_permits(fewer);
    }

    /// Watches how late this process' tasks are, until it is dropped.
    pub async fn watch(&self) {
        loop {
            let before = Instant::now();
            tokio::time::sleep(PERIOD).await;
            self.note(before.elapsed().saturating_sub(PERIOD));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut count = self.places.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.present > count.wanted {
            permit.forget();
            count.present -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn there_are_few_within_a_second_of_lateness_and_all_some_seconds_after_it() {
        let mut places = 256;
        for _ in 0..40 {
            places = after(places, 30 * MS, 256);
        }
        assert_eq!(places, FEWEST);
        for _ in 0..120 {
            places = after(places, MS, 256);
        }
        assert_eq!(places, 256);
        assert_eq!(after(4, 30 * MS, 4), 4, "never fewer than there are without it");
    }

    #[tokio::test]
    async fn places_that_are_taken_are_fewer_when_they_come_back() {
        let places = Places::new(32);
        let mut taken = Vec::new();
        for _ in 0..32 {
            taken.push(places.taken(places.queue().acquire_owned().await.unwrap()));
        }
        (0..20).for_each(|_| places.note(30 * MS));
        assert_eq!(places.permits.available_permits(), 0);
        taken.truncate(20);
        assert_eq!(places.permits.available_permits(), 0, "12 came back to be forgotten");
        taken.truncate(10);
        assert_eq!(places.permits.available_permits(), FEWEST - 10);
        places.note(MS);
        assert_eq!(places.permits.available_permits(), FEWEST - 10 + FEWEST / 8);
        drop(taken);
        (0..7).for_each(|_| places.note(MS));
        assert_eq!(places.permits.available_permits(), 32);
        places.note(30 * MS);
        assert_eq!(places.permits.available_permits(), 24, "free ones go at once");
    }
}
