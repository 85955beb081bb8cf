//! What templates are expanded from.
use super::value::{Text, Value};
use shoal_model::AssignedTask;
use std::collections::BTreeMap;

/// What is known of a task, its service and its node (SwarmKit's `template.Context`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// `.Service.ID`
    pub service_id: String,
    /// `.Service.Name`
    pub service_name: String,
    /// `.Service.Labels`
    pub service_labels: BTreeMap<String, String>,
    /// `.Node.ID`
    pub node_id: String,
    /// `.Node.Hostname`
    pub node_hostname: String,
    /// `.Node.Platform.OS`
    pub node_os: String,
    /// `.Node.Platform.Architecture`
    pub node_architecture: String,
    /// `.Task.ID`
    pub task_id: String,
    /// `.Task.Name`
    pub task_name: String,
    /// `.Task.Slot`, the node's id for a task that has none
    pub task_slot: String,
}

impl Context {
    /// Of a task on a node.
    pub fn new(
        assigned: &AssignedTask,
        node_id: &str,
        hostname: &str,
        (os, architecture): (&str, &str),
    ) -> Context {
        let task = &assigned.task;
        Context {
            service_id: task.service_id.clone(),
            service_name: assigned.service_name.clone(),
            service_labels: assigned.service_labels.clone(),
            node_id: node_id.to_owned(),
            node_hostname: hostname.to_owned(),
            node_os: os.to_owned(),
            node_architecture: architecture.to_owned(),
            task_id: task.id.clone(),
            task_name: task.name.clone(),
            task_slot: match task.slot {
                0 => node_id.to_owned(),
                slot => slot.to_string(),
            },
        }
    }
}

/// What a payload's template may use besides, all of it as its task has it.
#[derive(Clone, Default)]
pub struct Sources<'a> {
    /// Content of the task's secrets by target, as the service names it.
    pub secrets: BTreeMap<&'a str, &'a [u8]>,
    /// Content of the task's configs by target, as the service names it.
    pub configs: BTreeMap<&'a str, &'a [u8]>,
    /// Variables of the service, `KEY=value`.
    pub env: &'a [String],
    /// Whether the template itself is secret.
    pub secret: bool,
}

/// A part of the context that has fields.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Part {
    Root,
    Service,
    Node,
    Platform,
    Task,
}

impl Part {
    /// Go's word for its type.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Part::Root => "Context",
            Part::Service => "Service",
            Part::Node => "Node",
            Part::Platform => "Platform",
            Part::Task => "Task",
        }
    }

    /// Its fields, in SwarmKit's order.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Part::Root => &["Service", "Node", "Task"],
            Part::Service => &["ID", "Name", "Labels"],
            Part::Node => &["ID", "Hostname", "Platform"],
            Part::Platform => &["Architecture", "OS"],
            Part::Task => &["ID", "Name", "Slot"],
        }
    }

    pub(super) fn field<'a>(self, context: &'a Context, name: &str) -> Option<Value<'a>> {
        let text = |text: &'a String| Some(Value::Text(Text::Lent(text.as_bytes())));
        let part = |part| Some(Value::Part(context, part));
        match (self, name) {
            (Part::Root, "Service") => part(Part::Service),
            (Part::Root, "Node") => part(Part::Node),
            (Part::Root, "Task") => part(Part::Task),
            (Part::Service, "ID") => text(&context.service_id),
            (Part::Service, "Name") => text(&context.service_name),
            (Part::Service, "Labels") => Some(Value::Labels(&context.service_labels)),
            (Part::Node, "ID") => text(&context.node_id),
            (Part::Node, "Hostname") => text(&context.node_hostname),
            (Part::Node, "Platform") => part(Part::Platform),
            (Part::Platform, "OS") => text(&context.node_os),
            (Part::Platform, "Architecture") => text(&context.node_architecture),
            (Part::Task, "ID") => text(&context.task_id),
            (Part::Task, "Name") => text(&context.task_name),
            (Part::Task, "Slot") => text(&context.task_slot),
            _ => None,
        }
    }
}
