//! OperationActions: which of them wait for which operation, and the way of the answer back to each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::cached::{Cached, version};
use super::clock::Clock;
use super::within::within;
use crate::api::{ActionState, CloudOperation, DecidedAction, FIELD_MANAGER, OperationAction, Time};
use crate::engine::Action;

/// The admission policy's binding that lets nobody name another as the one who asks.
const POLICY_BINDING: &str = "holdfast-actions";
/// How soon the admission policy is looked for again where the API server doesn't say whether it is there.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long an action waits for its operation to be seen before it is looked up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits at last before it is looked up again, where that failed.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// What is known of the actions.
#[derive(Default)]
struct Known {
    /// Those that don't say yet what came of them, by namespace and operation, then by uid.
    waiting: HashMap<(String, String), BTreeMap<String, Arc<OperationAction>>>,
    /// The uids of those that were told what came of them, until the watch shows it, too: what it shows of the time before
    /// must not be decided on again.
    told: HashSet<String>,
    /// Which of both a list that is under way has not shown yet; only then are they gone.
    missing: HashSet<String>,
}

impl Known {
    /// Takes out one that waits. False if it doesn't.
    fn take(&mut self, namespace: &str, operation: &str, uid: &str) -> bool {
        let key = (namespace.to_owned(), operation.to_owned());
        let Some(actions) = self.waiting.get_mut(&key) else {
            return false;
        };
        let waited = actions.remove(uid).is_some();
        if actions.is_empty() {
            self.waiting.remove(&key);
        }
        waited
    }
}

/// The actions, as last seen.
pub struct Actions {
    client: Client,
    clock: Arc<dyn Clock>,
    /// True if admission vouches for who asks.
    verified: bool,
    known: Mutex<Known>,
    /// True once all of them have been listed.
    listed: watch::Sender<bool>,
}

impl Actions {
    /// None is known yet. Asks the API server whether admission vouches for who asks.
    pub async fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        let verified = loop {
            match within(bindings.get_opt(POLICY_BINDING)).await {
                Ok(found) => break found.is_some(),
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => break false,
                Err(error) => warn!(binding = POLICY_BINDING, %error, "the admission policy can't be looked up"),
            }
            sleep(LOOK_AGAIN).await;
        };
        if !verified {
            warn!(
                binding = POLICY_BINDING,
                "no admission policy vouches for who creates OperationActions: they are recorded as unverified, and approvals by name are refused"
            );
        }
        Self {
            client,
            clock,
            verified,
            known: Mutex::default(),
            listed: watch::Sender::new(false),
        }
    }

    /// Returns once all actions are known. A pass before that would take one that was decided on for one that has said so
    /// itself, forget it, and decide on it again.
    pub async fn are_known(&self) {
        // Fails only once this is gone.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The actions that wait for an operation, in the order of their creation.
    pub fn on(&self, namespace: &str, operation: &str) -> Vec<Action> {
        let known = self.known();
        let Some(actions) = known.waiting.get(&(namespace.to_owned(), operation.to_owned())) else {
            return vec![];
        };
        let mut actions: Vec<_> = actions.iter().collect();
        // A resourceVersion tells apart what was created in the same second.
        actions.sort_by_key(|(_, action)| (action.metadata.creation_timestamp.clone(), version(&***action)));
        actions
            .into_iter()
            .map(|(uid, action)| Action {
                name: action.name_any(),
                uid: uid.clone(),
                created: action
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|time| Time::new(time.0)),
                verified: self.verified,
                spec: action.spec.clone(),
            })
            .collect()
    }

    /// Takes in an action. Answers the operation that it is for, if it waits.
    fn see(&self, action: OperationAction) -> Option<ObjectRef<Cached>> {
        let namespace = action.namespace().unwrap_or_default();
        let operation = action.spec.operation_ref.name.clone();
        let uid = action.uid().unwrap_or_default();
        let decided = action.status.as_ref().is_some_and(|status| status.state.is_some());
        let mut known = self.known();
        known.missing.remove(&uid);
        if decided || action.metadata.deletion_timestamp.is_some() {
            known.told.remove(&uid);
            known.take(&namespace, &operation, &uid);
            return None;
        }
        if known.told.contains(&uid) {
            return None;
        }
        let reference = ObjectRef::new(&operation).within(&namespace);
        known
            .waiting
            .entry((namespace, operation))
            .or_default()
            .insert(uid, Arc::new(action));
        Some(reference)
    }

    /// The operations that may be gone after this event, and have actions that wait for them.
    pub fn left_behind(&self, event: &watcher::Event<Cached>) -> Vec<ObjectRef<Cached>> {
        let known = self.known();
        let awaited = known
            .waiting
            .keys()
            .map(|(namespace, name)| ObjectRef::new(name).within(namespace));
        match event {
            watcher::Event::Delete(operation) => awaited
                .filter(|awaited| *awaited == ObjectRef::from_obj(operation))
                .collect(),
            watcher::Event::InitDone => awaited.collect(), // whatever happened while the watch was interrupted
            _ => vec![],
        }
    }

    /// Follows the actions. Yields the operation of each one that waits, or is deleted before it was decided on.
    pub fn follow(
        self: Arc<Self>,
        namespace: Option<&str>,
    ) -> impl Stream<Item = Result<ObjectRef<Cached>, watcher::Error>> + use<> {
        let client = self.client.clone();
        let api: Api<OperationAction> =
            namespace.map_or_else(|| Api::all(client.clone()), |ns| Api::namespaced(client.clone(), ns));
        watcher(api, watcher::Config::default())
            .default_backoff()
            .filter_map(move |event| {
                let wakes = match event {
                    Ok(watcher::Event::Apply(action) | watcher::Event::InitApply(action)) => self.see(action).map(Ok),
                    Ok(watcher::Event::Delete(action)) => {
                        let (namespace, uid) =
                            (action.namespace().unwrap_or_default(), action.uid().unwrap_or_default());
                        let operation = action.spec.operation_ref.name;
                        let mut known = self.known();
                        known.told.remove(&uid);
                        let waited = known.take(&namespace, &operation, &uid);
                        waited.then(|| Ok(ObjectRef::new(&operation).within(&namespace)))
                    }
                    Ok(watcher::Event::Init) => {
                        let known = &mut *self.known();
                        let uids = known.waiting.values().flat_map(BTreeMap::keys).chain(&known.told);
                        known.missing = uids.cloned().collect();
                        None
                    }
                    Ok(watcher::Event::InitDone) => {
                        let known = &mut *self.known();
                        let gone = std::mem::take(&mut known.missing);
                        known.told.retain(|uid| !gone.contains(uid));
                        known.waiting.retain(|_, actions| {
                            actions.retain(|uid, _| !gone.contains(uid));
                            !actions.is_empty()
                        });
                        self.listed.send_replace(true);
                        None
                    }
                    Err(error) => Some(Err(error)),
                };
                std::future::ready(wakes)
            })
    }

    /// Tells actions what came of them, as their operation's status says, and makes it their owner.
    ///
    /// # Errors
    /// When one could not be told; it is told again with the next pass. The others were told, if the API server answers.
    pub async fn answer(&self, operation: &CloudOperation) -> Result<(), kube::Error> {
        let Some(status) = &operation.status else { return Ok(()) };
        let namespace = operation.namespace().unwrap_or_default();
        let mut outcome = Ok(());
        for decided in &status.actions {
            let action = self.waiting(&namespace, &operation.name_any(), &decided.uid);
            let Some(action) = action else { continue };
            match self.tell(&action, decided, Some(operation)).await {
                Err(refused @ kube::Error::Api(_)) => outcome = Err(refused),
                told => told?,
            }
        }
        outcome
    }

    /// An action, if it waits.
    fn waiting(&self, namespace: &str, operation: &str, uid: &str) -> Option<Arc<OperationAction>> {
        let key = (namespace.to_owned(), operation.to_owned());
        self.known().waiting.get(&key)?.get(uid).cloned()
    }

    /// Tells an action what came of it, and holds it for told, unless the watch was faster.
    async fn tell(
        &self,
        action: &OperationAction,
        decided: &DecidedAction,
        owner: Option<&CloudOperation>,
    ) -> Result<(), kube::Error> {
        self.write(action, decided, owner).await?;
        let mut known = self.known();
        let namespace = action.namespace().unwrap_or_default();
        if known.take(&namespace, &action.spec.operation_ref.name, &decided.uid) {
            known.told.insert(decided.uid.clone());
        }
        Ok(())
    }

    async fn write(
        &self,
        action: &OperationAction,
        decided: &DecidedAction,
        owner: Option<&CloudOperation>,
    ) -> Result<(), kube::Error> {
        let namespace = action.namespace().unwrap_or_default();
        let name = action.name_any();
        let api: Api<OperationAction> = Api::namespaced(self.client.clone(), &namespace);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        // The owner first: an action that says what came of it is never looked at again.
        if let Some(owner) = owner {
            let mut owners = action.metadata.owner_references.clone().unwrap_or_default();
            let uid = owner.uid().unwrap_or_default();
            if owners.iter().all(|owner| owner.uid != uid) {
                owners.push(OwnerReference {
                    api_version: CloudOperation::api_version(&()).into_owned(),
                    kind: CloudOperation::kind(&()).into_owned(),
                    name: owner.name_any(),
                    uid,
                    ..OwnerReference::default()
                });
                let patch = Patch::Merge(json!({"metadata": {"uid": decided.uid, "ownerReferences": owners}}));
                let answer = within(api.patch_metadata(&name, &params, &patch)).await;
                match is_gone(&api, &name, &decided.uid, answer).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    // That it stays when its operation goes is better than that nobody is told.
                    Err(kube::Error::Api(said)) if matches!(said.code, 403 | 422) => warn!(
                        namespace,
                        action = name,
                        error = said.message,
                        "its operation can't be made its owner: delete it once it isn't needed"
                    ),
                    Err(error) => return Err(error),
                }
            }
        }
        let status = json!({"state": decided.state, "message": decided.message, "time": decided.time});
        let patch = Patch::Merge(json!({"metadata": {"uid": decided.uid}, "status": status}));
        let answer = within(api.patch_status(&name, &params, &patch)).await;
        if !is_gone(&api, &name, &decided.uid, answer).await? {
            info!(
                namespace,
                name = action.spec.operation_ref.name,
                action = name,
                state = ?decided.state,
                what = decided.message,
                "action decided"
            );
        }
        Ok(())
    }

    /// Rejects what waits for an operation that isn't there, after a moment in which it may yet be seen.
    pub async fn reject_unless_exists(&self, operation: ObjectRef<Cached>) {
        let namespace = operation.namespace.clone().unwrap_or_default();
        let api: Api<CloudOperation> = Api::namespaced(self.client.clone(), &namespace);
        let mut pause = PATIENCE;
        while !self.on(&namespace, &operation.name).is_empty() {
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE); // for the next time, if this fails
            match within(api.get_metadata_opt(&operation.name)).await {
                Ok(None) => self.reject(&operation).await,
                Ok(Some(_)) => return, // the watch brings it, and then its actions are decided on
                Err(error) => warn!(namespace, name = operation.name, %error, "can't look up an action's operation"),
            }
        }
    }

    async fn reject(&self, operation: &ObjectRef<Cached>) {
        let namespace = operation.namespace.clone().unwrap_or_default();
        for action in self.on(&namespace, &operation.name) {
            let waiting = self.waiting(&namespace, &operation.name, &action.uid);
            let decided = DecidedAction {
                name: action.name,
                uid: action.uid,
                state: ActionState::Rejected,
                message: format!("there is no CloudOperation {} in namespace {namespace}", operation.name),
                time: self.clock.now(),
            };
            if let Some(waiting) = waiting
                && let Err(error) = self.tell(&waiting, &decided, None).await
            {
                warn!(namespace, action = decided.name, %error, "an action could not be rejected");
            }
        }
    }
}

/// True if the action is gone, or another has its name. A patch with another uid is a conflict, but not every conflict is
/// that: an action that is taken for gone is never told, and would be decided on again.
async fn is_gone<T>(
    api: &Api<OperationAction>,
    name: &str,
    uid: &str,
    answer: Result<T, kube::Error>,
) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(false),
        Err(error @ kube::Error::Api(_)) if matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) =>
        {
            let found = within(api.get_metadata_opt(name)).await?;
            match found.is_some_and(|found| found.metadata.uid.as_deref() == Some(uid)) {
                true => Err(error),
                false => Ok(true),
            }
        }
        Err(error) => Err(error),
    }
}
