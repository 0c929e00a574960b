//! Server-side apply: who owns which fields, what conflicts, and what an apply leaves out again.
//!
//! Ownership is kept beside the objects, not in `managedFields`, which this server never shows. How lists merge
//! comes from a custom resource's schema; for built-in kinds, from the names of their well-known lists.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::schema::{Merge, Schema};

/// The managers of an object's fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owners(Vec<Owner>);

#[derive(Clone, Debug, PartialEq)]
struct Owner {
    manager: Manager,
    fields: BTreeSet<Path>,
}

/// Who writes, and how: an apply and an update by the same name are two managers.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    pub name: String,
    pub applies: bool,
    pub subresource: String,
}

type Path = Vec<Element>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    Field(String),
    /// An entry of a list, by its keys (as JSON).
    Entry(String),
    /// An entry of a set (as JSON).
    Member(String),
}

/// What is known of the place of a value: its schema, or for built-in kinds the name of its field.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Root(Option<&'a Schema>),
    Schema(&'a Schema),
    Named(&'a str),
    /// Within what a schema leaves open: maps merge, lists don't.
    Open,
}

impl<'a> Shape<'a> {
    fn field(self, name: &'a str) -> Shape<'a> {
        match self {
            Shape::Root(Some(schema)) if name != "metadata" => schema.field(name).map_or(Shape::Open, Shape::Schema),
            Shape::Schema(schema) => schema.field(name).map_or(Shape::Open, Shape::Schema),
            Shape::Open => Shape::Open,
            Shape::Root(_) | Shape::Named(_) => Shape::Named(name),
        }
    }

    fn entry(self) -> Shape<'a> {
        match self {
            Shape::Schema(schema) => schema.entry().map_or(Shape::Open, Shape::Schema),
            Shape::Named(_) => Shape::Named(""),
            Shape::Root(_) | Shape::Open => Shape::Open,
        }
    }

    fn merge(self, value: &Value) -> Merge {
        match (self, value) {
            (Shape::Schema(schema), _) => schema.merge(),
            (_, Value::Object(_)) => Merge::Fields,
            (Shape::Named(name), Value::Array(entries)) => builtin_list(name, entries),
            _ => Merge::Atomic,
        }
    }
}

/// How a built-in kind's list merges.
fn builtin_list(name: &str, entries: &[Value]) -> Merge {
    let keys: &[&str] = match name {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => &["name"],
        "ports" if entries.iter().any(|entry| entry.get("containerPort").is_some()) => &["containerPort"],
        "ports" => &["port"],
        "conditions" => &["type"],
        "ownerReferences" => &["uid"],
        "volumeMounts" => &["mountPath"],
        "finalizers" => return Merge::Set,
        _ => return Merge::Atomic,
    };
    Merge::ByKeys(keys.iter().map(|key| (*key).to_owned()).collect())
}

/// The result of an apply: the object and its owners, or the conflicts as pairs of manager and field.
pub type Applied = Result<(Value, Owners), Vec<(String, String)>>;

impl Owners {
    /// Merges what `manager` applies into the live object (`{}` if there is none).
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        schema: Option<&Schema>,
        manager: &Manager,
        force: bool,
    ) -> Applied {
        let root = Shape::Root(schema);
        let applied_part = owned_part(applied);
        let mut fields = BTreeSet::new();
        leaves(&applied_part, root, &mut Path::new(), &mut fields);

        let mut merged = live.clone();
        merge(&mut merged, &applied_part, root);

        let mut owners = self.clone();
        let mut conflicts = Vec::new();
        for owner in owners.0.iter_mut().filter(|owner| owner.manager != *manager) {
            let lost = |path: &Path| match (at(live, path, root), at(&merged, path, root)) {
                _ if !matches!(path.last(), Some(Element::Field(_))) => None,
                // Maps that merge have their fields' owners.
                (Some(Value::Object(_)), Some(Value::Object(_))) => None,
                (before, Some(after)) => (before != Some(after)).then(|| path.clone()),
                // A map that isn't one any more is lost as a whole.
                (_, None) => {
                    let is_map = |end: &usize| matches!(at(&merged, &path[..*end], root), Some(Value::Object(_)));
                    (1..path.len()).find(|end| !is_map(end)).map(|end| path[..end].to_vec())
                }
            };
            let mut gone: Vec<Path> = owner.fields.iter().filter_map(lost).collect();
            gone.dedup();
            conflicts.extend(gone.iter().map(|path| (owner.manager.shown(applied), shown(path))));
            owner
                .fields
                .retain(|path| !gone.iter().any(|gone| path.starts_with(gone)));
        }
        if !conflicts.is_empty() && !force {
            return Err(conflicts);
        }

        let mine = owners.take(manager);
        let mut dropped: Vec<&Path> = mine
            .difference(&fields)
            .filter(|path| !owners.owns(path))
            // A scalar that has become a map is the applied one's place now.
            .filter(|path| !fields.iter().any(|field| field.starts_with(path)))
            .collect();
        dropped.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in dropped {
            remove(&mut merged, path, root);
        }
        for owner in &mut owners.0 {
            owner.fields.retain(|path| at(&merged, path, root).is_some());
        }
        owners.add(manager.clone(), fields);
        Ok((merged, owners))
    }

    /// After a write that is no apply: the writer owns what it changed.
    pub fn updated(&self, before: &Value, after: &Value, schema: Option<&Schema>, manager: &Manager) -> Self {
        let root = Shape::Root(schema);
        let (before, after) = (owned_part(before), owned_part(after));
        let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
        leaves(&before, root, &mut Path::new(), &mut old);
        leaves(&after, root, &mut Path::new(), &mut new);
        let changed: BTreeSet<Path> = new
            .iter()
            .filter(|path| !old.contains(*path) || at(&before, path, root) != at(&after, path, root))
            .filter(|path| !old.contains(*path) || matches!(path.last(), Some(Element::Field(_))))
            .cloned()
            .collect();
        let mut owners = self.clone();
        for owner in &mut owners.0 {
            owner
                .fields
                .retain(|path| new.contains(path) && !changed.contains(path));
        }
        let mut fields = owners.take(manager);
        fields.extend(changed);
        owners.add(manager.clone(), fields);
        owners
    }

    fn take(&mut self, manager: &Manager) -> BTreeSet<Path> {
        let position = self.0.iter().position(|owner| owner.manager == *manager);
        position.map(|at| self.0.remove(at).fields).unwrap_or_default()
    }

    fn add(&mut self, manager: Manager, fields: BTreeSet<Path>) {
        self.0.retain(|owner| !owner.fields.is_empty());
        if !fields.is_empty() {
            self.0.push(Owner { manager, fields });
            self.0.sort_by(|a, b| a.manager.key().cmp(&b.manager.key()));
        }
    }

    /// Does anyone own this path? Owning a field of a list's entry is not owning the entry.
    fn owns(&self, path: &Path) -> bool {
        self.0.iter().any(|owner| owner.fields.contains(path))
    }
}

impl Manager {
    /// As conflicts name it.
    fn shown(&self, applied: &Value) -> String {
        let mut text = format!("\"{}\"", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource \"{}\"", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(
                " using {}",
                applied["apiVersion"].as_str().unwrap_or_default()
            ));
        }
        text
    }

    fn key(&self) -> (&str, bool, &str) {
        (&self.name, self.applies, &self.subresource)
    }
}

/// The part of an object that managers own: not what identifies it, nor what the server sets.
fn owned_part(object: &Value) -> Value {
    let mut part = object.clone();
    if let Some(fields) = part.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if let Some(metadata) = part.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| ["labels", "annotations", "finalizers", "ownerReferences"].contains(&name.as_str()));
        if metadata.is_empty() {
            part.as_object_mut().map(|fields| fields.remove("metadata"));
        }
    }
    part
}

/// Which entry of a list it is; None where the list merges as a whole.
fn element(how: &Merge, entry: &Value) -> Option<Element> {
    match how {
        Merge::ByKeys(keys) => {
            let keys: Map<String, Value> = keys
                .iter()
                .filter_map(|key| Some((key.clone(), entry.get(key)?.clone())))
                .collect();
            Some(Element::Entry(Value::Object(keys).to_string()))
        }
        Merge::Set => Some(Element::Member(entry.to_string())),
        Merge::Fields | Merge::Atomic => None,
    }
}

fn leaves(value: &Value, shape: Shape, path: &mut Path, found: &mut BTreeSet<Path>) {
    let how = shape.merge(value);
    match (value, &how) {
        (Value::Object(fields), Merge::Fields) if !fields.is_empty() => {
            for (name, field) in fields {
                path.push(Element::Field(name.clone()));
                leaves(field, shape.field(name), path, found);
                path.pop();
            }
        }
        (Value::Array(entries), Merge::ByKeys(_) | Merge::Set) => {
            for entry in entries {
                path.extend(element(&how, entry));
                found.insert(path.clone());
                if entry.is_object() {
                    leaves(entry, shape.entry(), path, found);
                }
                path.pop();
            }
        }
        _ if !path.is_empty() => {
            found.insert(path.clone());
        }
        _ => {}
    }
}

fn at<'v>(value: &'v Value, path: &[Element], shape: Shape) -> Option<&'v Value> {
    let Some((first, rest)) = path.split_first() else {
        return Some(value);
    };
    match first {
        Element::Field(name) => at(value.get(name)?, rest, shape.field(name)),
        entry => {
            let how = shape.merge(value);
            let found = value
                .as_array()?
                .iter()
                .find(|e| element(&how, e).as_ref() == Some(entry))?;
            at(found, rest, shape.entry())
        }
    }
}

fn merge(live: &mut Value, applied: &Value, shape: Shape) {
    let how = shape.merge(applied);
    match (applied, &how) {
        (Value::Object(fields), Merge::Fields) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            for (name, field) in fields {
                merge(&mut live[name.as_str()], field, shape.field(name));
            }
        }
        (Value::Array(entries), Merge::ByKeys(_) | Merge::Set) => {
            let old = live.as_array().cloned().unwrap_or_default();
            *live = Value::Array(merge_lists(&how, &old, entries, shape.entry()));
        }
        _ => *live = applied.clone(),
    }
}

/// The entries of both, those of `new` in its order; those that only `old` has stay where they were among the others.
fn merge_lists(how: &Merge, old: &[Value], new: &[Value], shape: Shape) -> Vec<Value> {
    let same = |a: &Value, b: &Value| element(how, a) == element(how, b);
    let (mut merged, mut left) = (Vec::new(), 0);
    for (at, entry) in new.iter().enumerate() {
        let mut result = entry.clone();
        if let Some(before) = old.iter().find(|o| same(o, entry)) {
            // What stands before this one in the old list, and isn't to come later, stays before it.
            while let Some(other) = old.get(left).filter(|other| !same(other, entry)) {
                let shared = new.iter().any(|n| same(n, other));
                if !shared {
                    merged.push(other.clone());
                }
                left += 1;
            }
            left += usize::from(left < old.len());
            result = before.clone();
            merge(&mut result, entry, shape);
        } else {
            // So do those that stand before the next one that both have.
            let next = new[at..].iter().find(|n| old.iter().any(|o| same(o, n)));
            while let Some(other) = old.get(left).filter(|other| !next.is_some_and(|n| same(n, other))) {
                if !new.iter().any(|n| same(n, other)) {
                    merged.push(other.clone());
                }
                left += 1;
            }
        }
        merged.push(result);
    }
    let rest = old.get(left..).unwrap_or_default();
    merged.extend(rest.iter().filter(|other| !new.iter().any(|n| same(n, other))).cloned());
    merged
}

/// Removes what a path leads to, and the maps and lists that it leaves empty.
fn remove(value: &mut Value, path: &[Element], shape: Shape) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let emptied = |v: &Value| v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty);
    match (first, value) {
        (Element::Field(name), Value::Object(fields)) => {
            if let Some(field) = fields.get_mut(name)
                && !rest.is_empty()
            {
                remove(field, rest, shape.field(name));
            }
            if rest.is_empty() || fields.get(name).is_some_and(emptied) {
                fields.remove(name);
            }
        }
        (entry, list @ Value::Array(_)) => {
            let how = shape.merge(list);
            let Value::Array(entries) = list else { return };
            let Some(at) = entries.iter().position(|e| element(&how, e).as_ref() == Some(entry)) else {
                return;
            };
            if rest.is_empty() {
                entries.remove(at);
            } else if rest
                .iter()
                .all(|e| !matches!(e, Element::Field(name) if is_key(&how, name)))
            {
                remove(&mut entries[at], rest, shape.entry());
            }
        }
        _ => {}
    }
}

/// Keys leave with their entry: without them it couldn't be found.
fn is_key(how: &Merge, name: &str) -> bool {
    matches!(how, Merge::ByKeys(keys) if keys.iter().any(|key| key == name))
}

/// A path as conflicts show it: `.spec.items[name="x"].value`.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    for element in path {
        match element {
            Element::Field(name) => text.push_str(&format!(".{name}")),
            Element::Member(value) => text.push_str(&format!("[={value}]")),
            Element::Entry(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                text.push_str(&format!("[{}]", keys.join(",")));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manager(name: &str) -> Manager {
        Manager {
            name: name.into(),
            applies: true,
            subresource: String::new(),
        }
    }

    fn deployment(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn what_is_no_longer_applied_goes_unless_another_applies_it_too() {
        let both = deployment(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
        let one = deployment(json!([{"name": "a", "image": "1"}]));
        let (live, owners) = Owners::default()
            .apply(&json!({}), &both, None, &manager("x"), false)
            .unwrap();
        let (live, owners) = owners.apply(&live, &one, None, &manager("y"), false).unwrap();
        let (live, owners) = owners.apply(&live, &one, None, &manager("x"), false).unwrap();
        assert_eq!(live, one);
        let (live, owners) = owners.apply(&live, &json!({}), None, &manager("x"), false).unwrap();
        assert_eq!(live, one);
        let (live, owners) = owners.apply(&live, &json!({}), None, &manager("y"), false).unwrap();
        assert_eq!((live, owners), (json!({}), Owners::default()));
    }

    #[test]
    fn another_value_for_an_owned_field_is_a_conflict_unless_forced() {
        let one = deployment(json!([{"name": "a", "image": "1"}]));
        let two = deployment(json!([{"name": "a", "image": "2"}]));
        let (live, owners) = Owners::default()
            .apply(&json!({}), &one, None, &manager("x"), false)
            .unwrap();
        assert_eq!(
            owners.apply(&live, &two, None, &manager("y"), false).unwrap_err(),
            vec![(
                "\"x\"".to_owned(),
                ".spec.template.spec.containers[name=\"a\"].image".to_owned()
            )]
        );
        let (live, owners) = owners.apply(&live, &two, None, &manager("y"), true).unwrap();
        assert_eq!(live, two);
        assert!(owners.apply(&live, &one, None, &manager("x"), false).is_err());
    }

    #[test]
    fn an_update_takes_over_what_it_changes() {
        let (live, owners) = Owners::default()
            .apply(&json!({}), &json!({"data": {"a": "1"}}), None, &manager("x"), false)
            .unwrap();
        let edited = json!({"data": {"a": "2"}});
        let editor = Manager {
            name: "editor".into(),
            applies: false,
            subresource: String::new(),
        };
        let owners = owners.updated(&live, &edited, None, &editor);
        let conflicts = owners
            .apply(
                &edited,
                &json!({"apiVersion": "v1", "data": {"a": "1"}}),
                None,
                &manager("x"),
                false,
            )
            .unwrap_err();
        assert_eq!(
            conflicts,
            vec![("\"editor\" using v1".to_owned(), ".data.a".to_owned())]
        );
    }
}
