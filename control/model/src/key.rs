//! An id as a key of ordered maps.
use std::{cmp::Ordering, fmt};

/// Bytes of an id that are kept in place; the cluster's own ids have 25. Longer ones work, too.
const IN_PLACE: usize = 30;

/// Bytes that are compared at once. Ids are random: they seldom agree in more.
const HEAD: usize = 8;

/// An id, ordered as its text, without a pointer to follow for each comparison: there may be a million
/// of a kind, so that what a look-up costs is what everything costs.
#[derive(Clone)]
pub struct IdKey(Bytes);

#[derive(Clone)]
enum Bytes {
    /// Behind its end it is zero.
    InPlace(u8, [u8; IN_PLACE]),
    Elsewhere(Box<[u8]>),
}

impl IdKey {
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::InPlace(length, bytes) => &bytes[..usize::from(*length)],
            Bytes::Elsewhere(bytes) => bytes,
        }
    }

    /// The beginning, as a number in the order of the texts. Texts of equal beginnings may differ.
    fn head(&self) -> u64 {
        let bytes = match &self.0 {
            Bytes::InPlace(_, bytes) => &bytes[..],
            Bytes::Elsewhere(bytes) => bytes,
        };
        bytes.first_chunk::<HEAD>().map_or(0, |head| u64::from_be_bytes(*head))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        // It is made of text only.
        str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

impl From<&str> for IdKey {
    fn from(id: &str) -> IdKey {
        let mut bytes = [0; IN_PLACE];
        match (u8::try_from(id.len()), bytes.get_mut(..id.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(id.as_bytes());
                IdKey(Bytes::InPlace(length, bytes))
            }
            _ => IdKey(Bytes::Elsewhere(id.as_bytes().into())),
        }
    }
}

impl From<&String> for IdKey {
    fn from(id: &String) -> IdKey {
        id.as_str().into()
    }
}

impl Default for IdKey {
    /// Before all others.
    fn default() -> IdKey {
        IdKey(Bytes::InPlace(0, [0; IN_PLACE]))
    }
}

impl PartialEq for IdKey {
    fn eq(&self, other: &IdKey) -> bool {
        self.head() == other.head() && self.bytes() == other.bytes()
    }
}

impl Eq for IdKey {}

impl PartialOrd for IdKey {
    fn partial_cmp(&self, other: &IdKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for IdKey {
    fn cmp(&self, other: &IdKey) -> Ordering {
        match self.head().cmp(&other.head()) {
            Ordering::Equal => self.bytes().cmp(other.bytes()),
            different => different,
        }
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_in_the_order_of_their_ids_however_long_they_are() {
        let long = "n".repeat(IN_PLACE + 1);
        let mut ids =
            ["b", "", "ab", "a", &long, &long[1..], "nn", "é", "z", "12345678", "123456789"];
        ids.sort_unstable();
        let mut keys: Vec<IdKey> = ids.iter().rev().map(|id| IdKey::from(*id)).collect();
        keys.sort();
        assert_eq!(keys.iter().map(IdKey::as_str).collect::<Vec<_>>(), ids);
        assert_eq!(keys[0], IdKey::default());
    }

    proptest! {
        /// With few different characters, NUL among them, so that beginnings are often equal.
        #[test]
        fn keys_compare_as_their_texts(a in "[\\x00ab]{0,12}", b in "[\\x00ab]{0,12}", n in 0..40_usize) {
            let more = |text: &str| format!("{}{text}", "a".repeat(n));
            for (a, b) in [(a.clone(), b.clone()), (more(&a), more(&b)), (more(&a), b.clone())] {
                let (one, other) = (IdKey::from(&a), IdKey::from(&b));
                prop_assert_eq!(one.cmp(&other), a.cmp(&b));
                prop_assert_eq!(one == other, a == b);
                prop_assert_eq!(one.as_str(), &a);
            }
        }
    }

    #[test]
    fn a_key_is_small() {
        assert_eq!(size_of::<IdKey>(), 32);
    }
}
