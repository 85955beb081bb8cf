//! One event, its form on the wire, and who wants to hear of it. Pure.
use crate::{error::ApiError, filters::Filters};
use serde_json::{Value, json};
use shoal_model::{ObjectKind, Timestamp};
use std::collections::BTreeMap;

/// What the cluster's events are about.
pub(super) const KINDS: [ObjectKind; 5] = [
    ObjectKind::Node,
    ObjectKind::Network,
    ObjectKind::Service,
    ObjectKind::Secret,
    ObjectKind::Config,
];

/// The scope of all events there are.
const SCOPE: &str = "swarm";

/// What happened to an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Create,
    Update,
    Remove,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Remove => "remove",
        }
    }
}

/// An event of one object of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(super) kind: ObjectKind,
    pub(super) action: Action,
    pub(super) id: String,
    pub(super) name: String,
    /// Labels of the object, for filters; not told.
    pub(super) labels: BTreeMap<String, String>,
    /// What is told besides the name.
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) time: Timestamp,
}

impl Event {
    /// A creation, for tests.
    #[cfg(test)]
    pub(super) fn of(kind: ObjectKind, id: &str, time: Timestamp) -> Event {
        let (id, name, action) = (id.to_owned(), format!("name-of-{id}"), Action::Create);
        let [labels, attributes] = [BTreeMap::new(), BTreeMap::new()];
        Event { kind, action, id, name, labels, attributes, time }
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Docker's form.
    pub(crate) fn json(&self) -> Value {
        let mut attributes = json!(self.attributes);
        attributes["name"] = self.name.as_str().into();
        json!({
            "Type": self.kind.as_str(),
            "Action": self.action.as_str(),
            "Actor": { "ID": self.id, "Attributes": attributes },
            "scope": SCOPE,
            "time": self.time.0.div_euclid(1_000_000_000),
            "timeNano": self.time.0,
        })
    }

    fn label(&self, key: &str) -> Option<&str> {
        let told = (key == "name").then_some(&self.name);
        let told = told.or_else(|| self.attributes.get(key)).or_else(|| self.labels.get(key));
        told.map(String::as_str)
    }
}

/// Filters there are. Others are of events that only nodes know of.
const FILTERS: [&str; 9] =
    ["type", "event", "scope", "label", "node", "network", "service", "secret", "config"];

/// Filters that Docker has besides: of what only a node knows.
const OF_NODES: [&str; 5] = ["container", "image", "volume", "plugin", "daemon"];

/// Which events are asked for: by kind, by action, and when they happened.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    filters: Filters,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Wanted {
    /// Reads the filters. What only events of one node could satisfy is refused: there are none.
    pub(crate) fn new(
        filters: Option<&str>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Wanted, ApiError> {
        let all = [&FILTERS[..], &OF_NODES[..]].concat();
        let filters = Filters::parse(filters, &all)?;
        if let Some(key) = OF_NODES.iter().find(|key| filters.has(key)) {
            return Err(ApiError::absent(&format!("events of one node (filter '{key}') are")));
        }
        let local = filters.has("scope") && !filters.exact("scope", SCOPE);
        let known = |kind: &str| KINDS.iter().any(|k| k.as_str() == kind);
        if local {
            return Err(ApiError::absent("events of one node (filter 'scope=local') are"));
        }
        if let Some(kind) = filters.values("type").find(|kind| !known(kind)) {
            return Err(ApiError::absent(&format!("events of type {kind} are")));
        }
        Ok(Wanted { filters, since, until })
    }

    /// Whether an event is asked for. Names and ids are compared by their beginnings, as Docker does.
    pub(crate) fn includes(&self, event: &Event) -> bool {
        let f = &self.filters;
        let of = |kind: ObjectKind| {
            let named = |v: &str| {
                event.kind == kind && (event.id.starts_with(v) || event.name.starts_with(v))
            };
            f.any(kind.as_str(), named)
        };
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time <= until)
            && f.exact("type", event.kind.as_str())
            && f.exact("event", event.action.as_str())
            && KINDS.into_iter().all(of)
            && f.labels("label", |key| event.label(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(filters: Value) -> Result<Wanted, ApiError> {
        Wanted::new(Some(&filters.to_string()), None, None)
    }

    fn event() -> Event {
        Event {
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            attributes: BTreeMap::from([("replicas.new".to_owned(), "3".to_owned())]),
            ..Event::of(ObjectKind::Service, "abc", Timestamp(1_700_000_000_000_000_005))
        }
    }

    #[test]
    fn an_event_has_docker_s_form() {
        let expected = json!({
            "Type": "service",
            "Action": "create",
            "Actor": { "ID": "abc", "Attributes": { "name": "name-of-abc", "replicas.new": "3" } },
            "scope": "swarm",
            "time": 1_700_000_000,
            "timeNano": 1_700_000_000_000_000_005_i64,
        });
        assert_eq!(event().json(), expected);
    }

    #[test]
    fn filters_choose_by_kind_action_name_and_label() {
        let table = [
            (json!({}), true),
            (json!({ "type": ["service"] }), true),
            (json!({ "type": ["node", "service"] }), true),
            (json!({ "type": ["secret"] }), false),
            (json!({ "event": ["create"] }), true),
            (json!({ "event": ["update", "remove"] }), false),
            (json!({ "scope": ["swarm"] }), true),
            (json!({ "scope": ["swarm", "local"] }), true),
            (json!({ "service": ["name-of"] }), true),
            (json!({ "service": ["ab"] }), true),
            (json!({ "service": ["other", "abc"] }), true),
            (json!({ "service": ["bc"] }), false),
            (json!({ "node": ["name-of"] }), false),
            (json!({ "label": ["team"] }), true),
            (json!({ "label": ["team=a", "name=name-of-abc", "replicas.new=3"] }), true),
            (json!({ "label": ["team=b"] }), false),
            (json!({ "label": ["team=a", "none"] }), false),
            (json!({ "type": ["service"], "event": ["update"] }), false),
        ];
        for (filters, expected) in table {
            assert_eq!(wanted(filters.clone()).unwrap().includes(&event()), expected, "{filters}");
        }
    }

    #[test]
    fn since_and_until_include_their_own_moment() {
        let at = |offset: i64| Some(Timestamp(event().time.0 + offset));
        let table = [
            (None, None, true),
            (at(0), at(0), true),
            (at(1), None, false),
            (None, at(-1), false),
            (at(-1), at(1), true),
        ];
        for (since, until, expected) in table {
            let wanted = Wanted::new(None, since, until).unwrap();
            assert_eq!(wanted.includes(&event()), expected, "{since:?} {until:?}");
        }
    }

    #[test]
    fn events_of_one_node_are_refused_by_the_filter_that_asks_for_them() {
        for (filters, words) in [
            (json!({ "container": ["web"] }), "events of one node (filter 'container')"),
            (json!({ "daemon": ["x"] }), "events of one node (filter 'daemon')"),
            (json!({ "scope": ["local"] }), "events of one node (filter 'scope=local')"),
            (json!({ "type": ["service", "image"] }), "events of type image are"),
        ] {
            let refused = wanted(filters).unwrap_err();
            assert_eq!(refused.status, 501);
            assert!(refused.message.contains(words), "{refused}");
        }
        assert_eq!(wanted(json!({ "colour": ["red"] })).unwrap_err().status, 400);
    }
}
