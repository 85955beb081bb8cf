//! Maglev's table: which task a new flow goes to, the same on every node.
//!
//! Each task has a permutation of the table's entries, made from its id alone, and in turns takes
//! the next entry of its permutation that is free (Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016, section 3.4). So all tasks get equally many entries,
//! give or take one, and when tasks come or go few entries of the others move.
use shoal_maps::MAGLEV_SIZE;

/// Fills a table of [`MAGLEV_SIZE`] entries for tasks given as (id hash, value). The order in which
/// they are given does not matter. Without tasks all entries are zero. At most [`MAGLEV_SIZE`]
/// tasks get entries.
pub fn maglev(tasks: &[(u64, u32)]) -> Vec<u32> {
    let size = MAGLEV_SIZE as usize;
    let mut table = vec![0; size];
    let mut order: Vec<_> = tasks.to_vec();
    order.sort_unstable();
    order.dedup();
    order.truncate(size);
    if order.is_empty() {
        return table;
    }
    let mut cursors: Vec<Cursor> =
        order.iter().map(|(id, value)| Cursor::new(*id, *value)).collect();
    let mut taken = vec![false; size];
    let mut left = size;
    // Ends: each round takes one entry per task, and a permutation reaches every free entry.
    loop {
        for cursor in &mut cursors {
            let entry = cursor.next_free(&taken);
            taken[entry] = true;
            table[entry] = cursor.value;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// A task's place in its permutation.
struct Cursor {
    value: u32,
    position: u32,
    skip: u32,
}

impl Cursor {
    fn new(id: u64, value: u32) -> Cursor {
        // Two independent numbers from one id: any step of 1 to size - 1 visits all entries, since
        // the size is a prime.
        let position = (mix(id) % u64::from(MAGLEV_SIZE)) as u32;
        let skip = (mix(id ^ 0x5851_f42d_4c95_7f2d) % u64::from(MAGLEV_SIZE - 1)) as u32 + 1;
        Cursor { value, position, skip }
    }

    /// Steps to the next entry that is free; there is one.
    fn next_free(&mut self, taken: &[bool]) -> usize {
        loop {
            let entry = self.position as usize;
            self.position = (self.position + self.skip) % MAGLEV_SIZE;
            if !taken[entry] {
                return entry;
            }
        }
    }
}

/// Spreads an id over 64 bits: the output function of SplitMix64 (Steele et al., 2014).
fn mix(id: u64) -> u64 {
    let x = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn tasks(ids: &[u64]) -> Vec<(u64, u32)> {
        ids.iter().enumerate().map(|(i, id)| (*id, i as u32 + 1)).collect()
    }

    fn shares(table: &[u32]) -> BTreeMap<u32, usize> {
        table.iter().fold(BTreeMap::new(), |mut shares, task| {
            *shares.entry(*task).or_default() += 1;
            shares
        })
    }

    #[test]
    fn without_tasks_no_entry_names_one() {
        assert_eq!(maglev(&[]), vec![0; MAGLEV_SIZE as usize]);
    }

    proptest! {
        #[test]
        fn every_task_gets_its_share_give_or_take_one(
            ids in proptest::collection::btree_set(any::<u64>(), 1..100)
        ) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let shares = shares(&maglev(&tasks(&ids)));
            prop_assert_eq!(shares.len(), ids.len());
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            prop_assert!(most - least <= 1);
        }

        #[test]
        fn the_order_in_which_tasks_are_told_does_not_matter(
            ids in proptest::collection::btree_set(any::<u64>(), 1..50), seed: usize
        ) {
            let given = tasks(&ids.into_iter().collect::<Vec<_>>());
            let mut turned = given.clone();
            turned.rotate_left(seed % given.len());
            prop_assert_eq!(maglev(&given), maglev(&turned));
        }

        /// The paper's figure 12: a few per cent move beyond what must.
        #[test]
        fn when_one_task_goes_few_entries_of_the_others_move(
            ids in proptest::collection::btree_set(any::<u64>(), 3..50), which: usize
        ) {
            let all = tasks(&ids.into_iter().collect::<Vec<_>>());
            let gone = all[which % all.len()];
            let rest: Vec<_> = all.iter().copied().filter(|t| *t != gone).collect();
            let (before, after) = (maglev(&all), maglev(&rest));
            let moved = before
                .iter()
                .zip(&after)
                .filter(|(b, a)| **b != gone.1 && a != b)
                .count();
            prop_assert!(!after.contains(&gone.1));
            prop_assert!(moved <= MAGLEV_SIZE as usize / 5, "{moved} entries moved");
        }
    }
}
