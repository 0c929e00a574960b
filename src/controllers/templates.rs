//! What an operation runs that names a template: the template as it was at the operation's start, pinned in an object that
//! is never changed and goes with the operation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value};

use super::histories;
use super::within::within;
use crate::api::{
    CloudOperation, FIELD_MANAGER, HistoryOf, OperationHistory, OperationHistorySpec, OperationState,
    OperationTemplate, PinnedTemplate, TemplateRef, Time,
};
use crate::engine::{self, Resolved};

/// Which part of a journal the template is, in its object's name.
const PIN: &str = "template";
/// How many resolved specs are kept.
const MAX_KNOWN: usize = 1024;
/// How soon, at first, a template that isn't there is looked for again.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How soon at last.
const LAST_LOOK: Duration = Duration::from_secs(300);

/// What operations run that name a template.
pub struct Templates {
    client: Client,
    /// By uid, with the generation of the spec that was completed.
    known: Mutex<Known>,
}

type Known = HashMap<String, (Option<i64>, Arc<Resolved>)>;

/// What an operation runs.
pub enum Runs {
    /// This.
    Known(Arc<Resolved>),
    /// That can't be said now: the state that the operation is in, why, and when to look again.
    Unknown(OperationState, String, Duration),
}

impl Templates {
    /// Nothing is known yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    /// What an operation runs that names this template. The first time it is read and pinned, before anything of the
    /// operation starts; from then on only what is pinned counts.
    ///
    /// # Errors
    /// When the API server gives no answer, or one that says nothing.
    pub async fn resolve(
        &self,
        operation: &CloudOperation,
        template: &TemplateRef,
        now: Time,
    ) -> Result<Runs, kube::Error> {
        let uid = operation.uid().unwrap_or_default();
        let generation = operation.metadata.generation;
        let known = self.known().get(&uid).cloned();
        if let Some((_, resolved)) = known.filter(|(of, _)| *of == generation) {
            return Ok(Runs::Known(resolved));
        }
        let started = operation
            .status
            .as_ref()
            .is_some_and(|status| status.start_time.is_some());
        let pinned = if started {
            self.pinned(operation).await?.ok_or_else(|| {
                let pin = pin_name(operation);
                Runs::Unknown(
                    OperationState::Stuck,
                    format!("OperationHistory {pin}, which holds the template that it runs, is gone: what is under way goes on, and nothing else starts; restore it from a backup, or cancel the operation, which then ends as SpecChanged"),
                    LAST_LOOK,
                )
            })
        } else {
            self.pin(operation, template, now).await?
        };
        let content = match pinned {
            Ok(content) => content,
            Err(unknown) => return Ok(unknown),
        };
        let resolved = Arc::new(engine::resolve(&operation.spec, &content));
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.clear(); // rare, and reading anew costs one request each
        }
        known.insert(uid, (generation, resolved.clone()));
        Ok(Runs::Known(resolved))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing in here panics half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the template and pins it. What is pinned already, by a process that died before it could say so, wins.
    async fn pin(
        &self,
        operation: &CloudOperation,
        template: &TemplateRef,
        now: Time,
    ) -> Result<Result<Map<String, Value>, Runs>, kube::Error> {
        let namespace = operation.namespace().unwrap_or_default();
        let resource = ApiResource::erase::<OperationTemplate>(&());
        let templates: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        let name = &template.name;
        let why = match within(templates.get(name)).await {
            Ok(found) => {
                let spec = found.data.get("spec").and_then(Value::as_object).cloned();
                return self.create_pin(operation, name, spec.unwrap_or_default()).await;
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                if let Some(content) = self.pinned(operation).await? {
                    return Ok(Ok(content));
                }
                format!(
                    "OperationTemplate {name}, which spec.templateRef names, isn't in namespace {namespace}: the operation starts once it is"
                )
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                format!("OperationTemplate {name} can't be read: {}", status.message)
            }
            Err(error) => return Err(error),
        };
        // As long again as it has waited so far: soon at first, as what is applied together may arrive in any order.
        let created = operation.metadata.creation_timestamp.as_ref();
        let waited = created
            .map(|created| now.since(Time::new(created.0)))
            .unwrap_or_default();
        let look_again = waited.clamp(FIRST_LOOK, LAST_LOOK);
        Ok(Err(Runs::Unknown(OperationState::Waiting, why, look_again)))
    }

    async fn create_pin(
        &self,
        operation: &CloudOperation,
        template: &str,
        spec: Map<String, Value>,
    ) -> Result<Result<Map<String, Value>, Runs>, kube::Error> {
        let name = pin_name(operation);
        let uid = operation.uid().unwrap_or_default();
        let pin = OperationHistory {
            metadata: histories::metadata(operation, PIN),
            spec: OperationHistorySpec {
                operation_ref: HistoryOf {
                    name: operation.name_any(),
                    uid,
                },
                template: Some(PinnedTemplate {
                    name: template.to_owned(),
                    spec,
                }),
                ..OperationHistorySpec::default()
            },
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        match within(self.histories(operation).create(&params, &pin)).await {
            Ok(created) => Ok(content(operation, created).ok_or_else(|| taken(&name))),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                Ok(self.pinned(operation).await?.ok_or_else(|| taken(&name)))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 413 | 422) => Ok(Err(Runs::Unknown(
                OperationState::Waiting,
                format!(
                    "OperationHistory {name}, which is to hold the template that it runs, can't be created: {}",
                    status.message
                ),
                LAST_LOOK,
            ))),
            Err(error) => Err(error),
        }
    }

    /// What is pinned for an operation, if it is.
    async fn pinned(&self, operation: &CloudOperation) -> Result<Option<Map<String, Value>>, kube::Error> {
        let found = within(self.histories(operation).get_opt(&pin_name(operation))).await?;
        Ok(found.and_then(|pin| content(operation, pin)))
    }

    fn histories(&self, operation: &CloudOperation) -> Api<OperationHistory> {
        Api::namespaced(self.client.clone(), &operation.namespace().unwrap_or_default())
    }
}

/// The template in a pin, if it is this operation's.
fn content(operation: &CloudOperation, pin: OperationHistory) -> Option<Map<String, Value>> {
    let own = Some(pin.spec.operation_ref.uid) == operation.uid();
    pin.spec.template.filter(|_| own).map(|template| template.spec)
}

fn taken(name: &str) -> Runs {
    Runs::Unknown(
        OperationState::Waiting,
        format!(
            "OperationHistory {name}, which is to hold the template that it runs, belongs to another operation: delete it"
        ),
        LAST_LOOK,
    )
}

/// The name of the object that holds an operation's template.
fn pin_name(operation: &CloudOperation) -> String {
    histories::metadata(operation, PIN).name.unwrap_or_default()
}
