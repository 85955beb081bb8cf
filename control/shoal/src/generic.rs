//! `--node-generic-resource`, in dockerd's syntax. Pure.
use anyhow::{Result, bail, ensure};
use shoal_model::GenericResource;
use std::collections::{BTreeMap, BTreeSet};

/// Kinds and names together; the manager keeps and shows each.
const MOST: usize = 1_000;

/// Reads `KIND=NUMBER` and `KIND=NAME`, one a flag or several with commas. A kind has either one number
/// or names.
pub(crate) fn parse(given: &[String]) -> Result<Vec<GenericResource>> {
    let mut numbers: BTreeMap<&str, i64> = BTreeMap::new();
    let mut names: BTreeSet<(&str, &str)> = BTreeSet::new();
    let fields = given.iter().flat_map(|flag| flag.split(','));
    for term in fields {
        let sides: Vec<&str> = term.split('=').map(str::trim).collect();
        let &[kind, value] = &sides[..] else {
            bail!("incorrect term {term}, missing '=' or malformed expression");
        };
        ensure!(
            !kind.is_empty() && !value.is_empty(),
            "incorrect term {term}: want KIND=NUMBER or KIND=NAME"
        );
        let mixed = || format!("mixed discrete and named resources in expression '{kind}={value}'");
        match value.parse::<i64>() {
            Ok(number) => {
                ensure!(number >= 0, "cannot ask for negative resource {kind}");
                ensure!(!names.iter().any(|(k, _)| *k == kind), mixed());
                let first = numbers.insert(kind, number).is_none();
                ensure!(first, "the number of generic resource {kind} is given twice");
            }
            Err(_) => {
                ensure!(!numbers.contains_key(kind), mixed());
                ensure!(names.insert((kind, value)), "generic resource {term} is given twice");
            }
        }
    }
    let count = numbers.len() + names.len();
    ensure!(count <= MOST, "{count} generic resources are too many: at most {MOST} are kept");
    let discrete = numbers
        .into_iter()
        .map(|(kind, value)| GenericResource::Discrete { kind: kind.to_owned(), value });
    let named = names.into_iter().map(|(kind, value)| GenericResource::Named {
        kind: kind.to_owned(),
        value: value.to_owned(),
    });
    let mut all: Vec<GenericResource> = discrete.chain(named).collect();
    all.sort_by(|a, b| a.kind().cmp(b.kind()).then_with(|| a.cmp(b)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[&str]) -> Result<Vec<GenericResource>> {
        parse(&given.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_and_names_are_read_as_dockerd_does() {
        let named = |value: &str| GenericResource::Named {
            kind: "NVIDIA-GPU".to_owned(),
            value: value.to_owned(),
        };
        let apples = GenericResource::Discrete { kind: "apple".to_owned(), value: 3 };
        let wanted = vec![named("UUID1"), named("UUID2"), apples];
        assert_eq!(read(&["NVIDIA-GPU=UUID2", "apple=3", "NVIDIA-GPU=UUID1"]).unwrap(), wanted);
        assert_eq!(read(&["NVIDIA-GPU=UUID1,NVIDIA-GPU=UUID2, apple=3"]).unwrap(), wanted);
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (given, text) in [
            ("gpu", "incorrect term gpu, missing '=' or malformed expression"),
            ("gpu=1=2", "incorrect term gpu=1=2, missing '=' or malformed expression"),
            ("gpu=", "incorrect term gpu=: want KIND=NUMBER or KIND=NAME"),
            ("gpu=-1", "cannot ask for negative resource gpu"),
            ("gpu=1,gpu=a", "mixed discrete and named resources in expression 'gpu=a'"),
            ("gpu=a,gpu=1", "mixed discrete and named resources in expression 'gpu=1'"),
            ("gpu=1,gpu=2", "the number of generic resource gpu is given twice"),
            ("gpu=a,gpu=a", "generic resource gpu=a is given twice"),
        ] {
            assert_eq!(read(&[given]).unwrap_err().to_string(), text);
        }
    }
}
