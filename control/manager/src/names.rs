//! Names for services that were given none.
use rand::Rng;

const FIRST: [&str; 16] = [
    "amber", "brisk", "calm", "deep", "eager", "fresh", "gentle", "hardy", "ivory", "jolly",
    "keen", "light", "merry", "noble", "quick", "silver",
];
const SECOND: [&str; 16] = [
    "anchovy", "bream", "cod", "dace", "eel", "flounder", "gurnard", "herring", "ide", "ling",
    "mackerel", "perch", "roach", "sprat", "trout", "zander",
];

/// A random name. Two may meet; the store then refuses the second, and the next try has another.
pub(crate) fn random() -> String {
    let mut rng = rand::rng();
    let first = FIRST[rng.random_range(0..FIRST.len())];
    let second = SECOND[rng.random_range(0..SECOND.len())];
    format!("{first}_{second}{}", rng.random_range(0..1_000))
}
