//! The verbs that write: create, update, patch, delete, deletecollection.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use crate::{
    apply::Owners,
    builtin,
    objects::{self, Part, meta},
    resources::Resource,
    selector::Filter,
    state::{Author, Call, State, seconds},
    status::{self, FieldError, Result},
    store::Key,
    typed,
};

impl State {
    /// POST to a collection.
    pub fn create(&mut self, call: &Call) -> Result<Arc<Value>> {
        let target = &call.target;
        let object = objects::parse(&target.resource, &call.body, &target.namespace, "")?;
        self.create_object(call, object, false)
    }

    fn create_object(&mut self, call: &Call, mut object: Value, applies: bool) -> Result<Arc<Value>> {
        let (resource, namespace) = (&*call.target.resource, call.target.namespace.as_str());
        self.check_namespace(resource, namespace, meta(&object, "name"))?;
        if !matches!(meta(&object, "resourceVersion"), "" | "0") {
            return Err(status::internal(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        if meta(&object, "name").is_empty() && !meta(&object, "generateName").is_empty() {
            let prefix: String = meta(&object, "generateName").chars().take(58).collect();
            object["metadata"]["name"] = format!("{prefix}{}", self.name_suffix()).into();
        }
        let sent = object.clone();
        if resource.status
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        self.set_system_fields(resource, &mut object, call.info.time);
        builtin::prepare(&mut object);
        objects::normalize(resource, &mut object);
        object["metadata"].as_object_mut().map(|m| m.remove("resourceVersion"));
        objects::validate(resource, None, &object, Part::Main)?;
        if resource.kind == "CustomResourceDefinition" {
            crate::resources::Resources::builtin().define(&object)?;
        }
        let key = Key::new(resource, namespace, meta(&object, "name"));
        if self.store.get(&key).is_some() {
            return Err(status::already_exists(resource, &key.name));
        }
        let (schema, manager) = (resource.schema.as_ref(), call.manager(applies));
        let owners = match applies {
            true => Owners::default()
                .apply(&json!({}), &sent, schema, &manager, true)
                .map(|(_, owners)| owners),
            false => Ok(Owners::default().updated(&json!({}), &object, schema, &manager)),
        };
        Ok(self.put(&Author::of(call), key, object, Arc::new(owners.unwrap_or_default())))
    }

    /// PUT of an object or of its status.
    pub fn update(&mut self, call: &Call) -> Result<Arc<Value>> {
        let target = &call.target;
        let resource = &*target.resource;
        let new = objects::parse(resource, &call.body, &target.namespace, &target.name)?;
        let live = match self.existing(call) {
            Ok((_, live, _)) => live,
            Err(_) if resource.create_on_update && target.subresource.is_empty() && meta(&new, "uid").is_empty() => {
                return self.create_object(call, new, false);
            }
            Err(missing) => return Err(missing),
        };
        check_uid(resource, call, &live, &new)?;
        if meta(&new, "resourceVersion").is_empty() && !resource.unconditional {
            return Err(status::unconditional_update(resource, &target.name));
        }
        self.change(call, new, None)
    }

    /// PATCH of an object or of its status, in any of the formats.
    pub fn patch(&mut self, call: &Call) -> Result<Arc<Value>> {
        let resource = &*call.target.resource;
        let format = call.content_type.split(';').next().unwrap_or_default();
        if format == "application/apply-patch+yaml" {
            return self.apply(call);
        }
        let (_, live, _) = self.existing(call)?;
        let mut new = Value::clone(&live);
        patch_value(resource, &mut new, format, &call.body)?;
        self.change(call, new, None)
    }

    fn apply(&mut self, call: &Call) -> Result<Arc<Value>> {
        let target = &call.target;
        let resource = &*target.resource;
        if call.query.get("fieldManager").is_empty() {
            return Err(status::invalid_options(
                "PatchOptions",
                FieldError::required("fieldManager", "is required for apply patch"),
            ));
        }
        let body: Value =
            serde_yaml::from_slice(&call.body).map_err(|e| status::bad_request(format!("error decoding YAML: {e}")))?;
        if body["kind"].as_str().is_none_or(str::is_empty) {
            return Err(status::bad_request("invalid object type: /, Kind="));
        }
        if !target.subresource.is_empty() {
            self.existing(call)?;
        }
        if let Some(why) = resource
            .schema
            .as_ref()
            .and_then(|schema| typed::mismatch(schema, &body))
        {
            let (namespace, name) = (meta(&body, "namespace"), meta(&body, "name"));
            let of = format!("{namespace}/{name}; {}, Kind={}", resource.api_version(), resource.kind);
            return Err(status::internal(format!(
                "failed to create typed patch object ({of}): {why}"
            )));
        }
        let applied = objects::identify(resource, body, &target.namespace, &target.name)?;
        let Ok((_, live, owners)) = self.existing(call) else {
            let uid = meta(&applied, "uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(status::conflict(resource, &target.name, why));
            }
            return self.create_object(call, applied, true);
        };
        let version = meta(&applied, "resourceVersion");
        if !version.is_empty() && version != meta(&live, "resourceVersion") {
            return Err(status::modified(resource, &target.name));
        }
        check_immutable(resource, &live, &applied)?;
        let applied = own_part(resource, applied, &target.subresource);
        let manager = call.manager(true);
        let (merged, owners) = owners
            .apply(
                &live,
                &applied,
                resource.schema.as_ref(),
                &manager,
                call.query.is_set("force"),
            )
            .map_err(|conflicts| status::apply_conflict(&conflicts))?;
        self.change(call, merged, Some(owners))
    }

    /// Writes a changed object: `new` is what the client wants of the whole object; `owners` are given by an apply.
    pub fn change(&mut self, call: &Call, new: Value, owners: Option<Owners>) -> Result<Arc<Value>> {
        let resource = &*call.target.resource;
        let (key, live, live_owners) = self.existing(call)?;
        let version = meta(&new, "resourceVersion");
        if !version.is_empty() && version != meta(&live, "resourceVersion") {
            return Err(status::modified(resource, &key.name));
        }
        check_immutable(resource, &live, &new)?;
        let part = if call.target.subresource == "status" {
            Part::Status
        } else {
            Part::Main
        };
        let new = objects::identify(resource, new, &key.namespace, &key.name)?;
        let mut new = objects::carry_over(resource, &live, new, part);
        if part == Part::Main {
            builtin::prepare_update(&mut new);
        }
        objects::normalize(resource, &mut new);
        objects::validate(resource, Some(&live), &new, part)?;
        builtin::check_update(resource, &live, &new)?;
        new["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        if objects::changes_generation(resource, &live, &new) {
            let generation = live["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = (generation + 1).into();
        }
        let owners = match owners {
            Some(owners) => owners,
            None if new == *live => return Ok(live),
            None => live_owners.updated(&live, &new, resource.schema.as_ref(), &call.manager(false)),
        };
        if new == *live && owners == *live_owners {
            return Ok(live);
        }
        let author = Author::of(call);
        if objects::is_terminating(&new) && objects::finalizers(&new).is_empty() {
            self.remove(&author, &key);
            return Ok(Arc::new(new));
        }
        Ok(self.put(&author, key, new, Arc::new(owners)))
    }

    /// DELETE of an object: itself while finalizers hold it, else a Status that says it is gone.
    pub fn delete(&mut self, call: &Call) -> Result<Arc<Value>> {
        let (key, live, _) = self.existing(call)?;
        let options = delete_options(call)?;
        let resource = &*call.target.resource;
        if let Some(preconditions) = &options.preconditions {
            check_preconditions(
                resource,
                &live,
                preconditions.uid.as_deref(),
                preconditions.resource_version.as_deref(),
            )?;
        }
        let author = Author::of(call);
        Ok(self.delete_object(&author, resource, &key, policy(resource, &options)).unwrap_or_else(|| {
            let mut details = json!({"name": key.name, "kind": key.resource, "uid": meta(&live, "uid")});
            if !key.group.is_empty() {
                details["group"] = key.group.clone().into();
            }
            Arc::new(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}))
        }))
    }

    /// DELETE of a collection: the objects that it was about.
    pub fn delete_collection(&mut self, call: &Call) -> Result<Vec<Arc<Value>>> {
        let resource = call.target.resource.clone();
        let options = delete_options(call)?;
        let filter = Filter::new(
            &resource,
            call.query.get("labelSelector"),
            call.query.get("fieldSelector"),
        )?;
        let all = self
            .store
            .list_at(self.store.revision(), &resource, &call.target.namespace);
        let selected: Vec<_> = all.into_iter().filter(|(_, object)| filter.matches(object)).collect();
        for (key, _) in &selected {
            self.delete_object(&Author::of(call), &resource, key, policy(&resource, &options));
        }
        Ok(selected.into_iter().map(|(_, object)| object).collect())
    }

    /// Removes an object, or marks it as deleted while finalizers hold it; then it is the answer.
    pub fn delete_object(
        &mut self,
        author: &Author,
        resource: &Resource,
        key: &Key,
        policy: Policy,
    ) -> Option<Arc<Value>> {
        let stored = self.store.get(key)?.clone();
        let mut object = Value::clone(&stored.object);
        let mut waits_for = objects::finalizers(&object);
        let own = match policy {
            Policy::Background => None,
            Policy::Foreground => Some("foregroundDeletion"),
            Policy::Orphan => Some("orphan"),
        };
        waits_for.retain(|f| f != "orphan" && f != "foregroundDeletion" || policy == Policy::Background);
        waits_for.extend(own.map(str::to_owned));
        let is_namespace = resource.kind == "Namespace" && resource.group.is_empty();
        if waits_for.is_empty() && !is_namespace {
            self.remove(author, key);
            return None;
        }
        if !objects::is_terminating(&object) {
            object["metadata"]["deletionTimestamp"] = seconds(author.time).into();
            object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            if let Some(generation) = object["metadata"]["generation"].as_i64() {
                object["metadata"]["generation"] = (generation + 1).into();
            }
            if is_namespace {
                object["status"]["phase"] = "Terminating".into();
            }
        }
        if !waits_for.is_empty() {
            object["metadata"]["finalizers"] = waits_for.into();
        }
        if object == *stored.object {
            return Some(stored.object);
        }
        Some(self.put(author, key.clone(), object, stored.owners))
    }
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

fn policy(resource: &Resource, options: &DeleteOptions) -> Policy {
    match options.propagation_policy.as_deref() {
        Some("Foreground") => Policy::Foreground,
        Some("Orphan") => Policy::Orphan,
        // Of all resources, batch/v1 keeps the oldest default.
        None if resource.group == "batch" && options.orphan_dependents.is_none() => Policy::Orphan,
        _ if options.orphan_dependents == Some(true) => Policy::Orphan,
        _ => Policy::Background,
    }
}

/// The options of a DELETE: from its body, or if it has none from its query.
fn delete_options(call: &Call) -> Result<DeleteOptions> {
    if call.body.is_empty() {
        let policy = call.query.get("propagationPolicy");
        let propagation_policy = (!policy.is_empty()).then(|| policy.to_owned());
        return Ok(DeleteOptions {
            propagation_policy,
            ..DeleteOptions::default()
        });
    }
    serde_json::from_slice(&call.body).map_err(|e| status::bad_request(format!("DeleteOptions: {e}")))
}

fn check_preconditions(resource: &Resource, live: &Value, uid: Option<&str>, version: Option<&str>) -> Result<()> {
    let (name, live_uid, live_version) = (meta(live, "name"), meta(live, "uid"), meta(live, "resourceVersion"));
    if let Some(uid) = uid.filter(|uid| *uid != live_uid) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({live_uid}). The object might have been deleted and then recreated"
        );
        return Err(status::precondition(resource, name, why));
    }
    if let Some(version) = version.filter(|version| *version != live_version) {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({live_version}). The object might have been modified"
        );
        return Err(status::precondition(resource, name, why));
    }
    Ok(())
}

/// What of an applied object its endpoint writes: nothing else is owned.
fn own_part(resource: &Resource, mut applied: Value, subresource: &str) -> Value {
    if let Some(fields) = applied.as_object_mut() {
        match subresource {
            "status" => fields.retain(|name, _| ["apiVersion", "kind", "status"].contains(&name.as_str())),
            _ if resource.status => drop(fields.remove("status")),
            _ => {}
        }
    }
    applied
}

/// A PUT of another uid's object is a conflict.
fn check_uid(resource: &Resource, call: &Call, live: &Value, new: &Value) -> Result<()> {
    let (given, actual) = (meta(new, "uid"), meta(live, "uid"));
    if given.is_empty() || given == actual {
        return Ok(());
    }
    let key = call.key();
    let path = format!("{}/{}/{}", resource.storage_prefix(), key.namespace, key.name).replace("//", "/");
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {given}, UID in object meta: {actual}"
    );
    Err(status::conflict(resource, &key.name, why))
}

/// A patch of the uid is an invalid change.
fn check_immutable(resource: &Resource, live: &Value, new: &Value) -> Result<()> {
    let given = meta(new, "uid");
    if given.is_empty() || given == meta(live, "uid") {
        return Ok(());
    }
    let error = FieldError::invalid("metadata.uid", format!("\"{given}\""), "field is immutable");
    Err(status::invalid(resource, meta(live, "name"), vec![error]))
}

/// Applies a JSON patch or a merge patch; a strategic one counts as a merge patch.
pub fn patch_value(resource: &Resource, value: &mut Value, format: &str, body: &[u8]) -> Result<()> {
    let decoding = |e: serde_json::Error| status::bad_request(format!("error decoding patch: {e}"));
    match format {
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(body).map_err(decoding)?;
            json_patch::patch(value, &patch).map_err(|_| status::patch_rejected())
        }
        "application/merge-patch+json" => merge(value, body),
        "application/strategic-merge-patch+json" if !resource.custom => merge(value, body),
        _ => {
            let strategic = if resource.custom {
                ""
            } else {
                ", application/strategic-merge-patch+json"
            };
            Err(status::unsupported_media_type(&format!(
                "application/json-patch+json, application/merge-patch+json{strategic}, application/apply-patch+yaml"
            )))
        }
    }
}

fn merge(value: &mut Value, body: &[u8]) -> Result<()> {
    let patch: Value =
        serde_json::from_slice(body).map_err(|e| status::bad_request(format!("error decoding patch: {e}")))?;
    if !patch.is_object() {
        return Err(status::bad_request(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ));
    }
    json_patch::merge(value, &patch);
    Ok(())
}
