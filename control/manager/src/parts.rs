//! From a difference to messages of bounded size. Pure.
use shoal_cores::{Delta, PACK};
use shoal_rpc::Assignment;
use std::collections::VecDeque;

/// Bytes of rows after which a message is full: a session keeps a buffer for the largest it ever sent. A row that is larger has a message of its own, so the largest is about the
/// store's largest proposal, 1.5 MiB.
const FULL: usize = PACK;

/// The messages that say it, at least one.
pub(crate) fn parts(delta: &Delta) -> serde_json::Result<VecDeque<Assignment>> {
    let empty = || Assignment {
        generation: delta.generation,
        whole: delta.base.is_none(),
        base: delta.base.unwrap_or_default(),
        more: true,
        ..Assignment::default()
    };
    let mut parts = VecDeque::from([Assignment { kept: delta.kept.clone(), ..empty() }]);
    let mut size = 0;
    let mut place = |parts: &mut VecDeque<Assignment>, bytes: usize| {
        if size > 0 && size + bytes > FULL {
            parts.push_back(empty());
            size = 0;
        }
        size += bytes;
    };
    for key in &delta.gone {
        let key = serde_json::to_vec(key)?;
        place(&mut parts, key.len());
        parts.back_mut().into_iter().for_each(|part| part.gone.push(key.clone()));
    }
    for row in &delta.rows {
        place(&mut parts, row.len());
        parts.back_mut().into_iter().for_each(|part| part.rows.push(row.clone()));
    }
    if let Some(last) = parts.back_mut() {
        last.more = false;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::RowKey;

    #[test]
    fn a_large_difference_goes_in_full_messages_and_keeps_its_order() {
        let row = |n: u8, len: usize| vec![n; len].into();
        let delta = Delta {
            base: Some(4),
            generation: 5,
            gone: vec![RowKey::Network("n".into())],
            rows: vec![row(1, FULL - 100), row(2, 200), row(3, 2 * FULL), row(4, 1)],
            ..Delta::default()
        };
        let parts = parts(&delta).unwrap();
        let rows: Vec<Vec<u8>> =
            parts.iter().map(|p| p.rows.iter().map(|r| r[0]).collect()).collect();
        assert_eq!(rows, [vec![1], vec![2], vec![3], vec![4]]);
        assert_eq!(parts[0].gone.len(), 1);
        assert!(parts.iter().all(|p| !p.whole && p.base == 4 && p.generation == 5));
        let more: Vec<bool> = parts.iter().map(|p| p.more).collect();
        assert_eq!(more, [true, true, true, false]);
    }

    #[test]
    fn an_empty_whole_is_one_message() {
        let parts = parts(&Delta { generation: 9, ..Delta::default() }).unwrap();
        assert_eq!(parts.len(), 1);
        assert!(parts[0].whole && !parts[0].more);
    }
}
