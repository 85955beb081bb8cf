//! Ids of objects, in Docker's form.

use rand::Rng;

/// Characters of an id.
pub const LEN: usize = 25;

/// A new random id: [`LEN`] characters of `0-9a-z`, 129 bits.
pub fn new() -> String {
    let mut rng = rand::rng();
    (0..LEN).map(|_| char::from_digit(rng.random_range(0..36), 36).expect("below 36")).collect()
}

/// Whether `text` has the form of an id.
pub fn is_valid(text: &str) -> bool {
    text.len() == LEN && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_valid_and_differ() {
        let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| new()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| is_valid(id)));
        let used: std::collections::BTreeSet<char> = ids.iter().flat_map(|id| id.chars()).collect();
        assert_eq!(used.len(), 36, "every digit occurs");
    }

    #[test]
    fn other_forms_are_no_ids() {
        for bad in ["", "abc", &"A".repeat(25), &"a".repeat(24), &"a".repeat(26), &"-".repeat(25)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
