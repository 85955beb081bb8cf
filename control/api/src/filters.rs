//! The `filters` parameter of lists. Pure.
use crate::error::ApiError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Filters by key; values of one key are alternatives (labels: all must match).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    /// `{"key": {"value": true}}`, since API 1.22.
    Maps(BTreeMap<String, BTreeMap<String, bool>>),
    /// `{"key": ["value"]}`, which older clients send.
    Lists(BTreeMap<String, Vec<String>>),
}

impl Filters {
    /// Reads the parameter and checks that only keys of `accepted` are in it.
    pub(crate) fn parse(text: Option<&str>, accepted: &[&str]) -> Result<Filters, ApiError> {
        let text = text.unwrap_or_default();
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let wire: Wire = serde_json::from_str(text).map_err(|_| {
            ApiError::bad(
                "invalid filter: the filters parameter must be JSON of the form {\"key\":{\"value\":true}}",
            )
        })?;
        let filters = Filters(match wire {
            Wire::Maps(m) => m.into_iter().map(|(k, v)| (k, v.into_keys().collect())).collect(),
            Wire::Lists(m) => m.into_iter().map(|(k, v)| (k, v.into_iter().collect())).collect(),
        });
        match filters.0.keys().find(|k| !accepted.contains(&k.as_str())) {
            Some(key) => Err(ApiError::bad(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// Values asked for under a key.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether anything is asked for under a key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|v| !v.is_empty())
    }

    /// Whether one of the key's values satisfies `test`, or the key is not asked for.
    pub(crate) fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(test)
    }

    /// Whether `actual` is one of the key's values.
    pub(crate) fn exact(&self, key: &str, actual: &str) -> bool {
        self.any(key, |v| v == actual)
    }

    /// Whether `actual` starts with one of the key's values.
    pub(crate) fn prefix(&self, key: &str, actual: &str) -> bool {
        self.any(key, |v| actual.starts_with(v))
    }

    /// Whether all labels asked for (`name` or `name=value`) are there.
    pub(crate) fn labels<'a>(&self, key: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.values(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => lookup(name) == Some(value),
            None => lookup(wanted).is_some(),
        })
    }

    /// Reads a key with one boolean value.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        let mut found = None;
        for value in self.values(key) {
            found = Some(match value {
                "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
                "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
                _ => return Err(ApiError::bad(format!("invalid filter '{key}={value}'"))),
            });
        }
        Ok(found)
    }
}

/// Looks a label up in a specification's labels.
pub(crate) fn in_labels<'a>(
    labels: &'a Option<HashMap<String, String>>,
) -> impl Fn(&str) -> Option<&'a str> {
    move |name| labels.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["name", "label", "dangling"];

    #[test]
    fn both_forms_of_filters_are_read() {
        let maps = Filters::parse(Some(r#"{"name":{"a":true,"b":true}}"#), &KEYS).unwrap();
        let lists = Filters::parse(Some(r#"{"name":["a","b"]}"#), &KEYS).unwrap();
        assert_eq!(maps, lists);
        assert!(maps.prefix("name", "bad") && !maps.prefix("name", "cab"));
        assert!(maps.exact("name", "a") && !maps.exact("name", "ab"));
        assert_eq!(Filters::parse(None, &KEYS).unwrap(), Filters::default());
        assert_eq!(Filters::parse(Some("{}"), &KEYS).unwrap(), Filters::default());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let e = Filters::parse(Some(r#"{"colour":{"red":true}}"#), &KEYS).unwrap_err();
        assert_eq!(e.message, "invalid filter 'colour'");
        assert!(Filters::parse(Some("[]"), &KEYS).is_err());
    }

    #[test]
    fn all_labels_asked_for_must_match() {
        let f = Filters::parse(Some(r#"{"label":["a","b=1"]}"#), &KEYS).unwrap();
        let labels = |text: &'static [(&str, &str)]| {
            f.labels("label", |n| text.iter().find(|(k, _)| *k == n).map(|(_, v)| *v))
        };
        assert!(labels(&[("a", ""), ("b", "1")]));
        assert!(!labels(&[("a", ""), ("b", "2")]));
        assert!(!labels(&[("b", "1")]));
    }

    #[test]
    fn a_flag_must_be_a_boolean() {
        let f = |t| Filters::parse(Some(t), &KEYS).unwrap().flag("dangling");
        assert_eq!(f(r#"{"dangling":["true"]}"#).unwrap(), Some(true));
        assert_eq!(f("{}").unwrap(), None);
        assert!(f(r#"{"dangling":["maybe"]}"#).is_err());
    }
}
