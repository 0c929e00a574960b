//! The vectors of expressions are what a real API server makes of them.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use holdfast_e2e::cel_vectors::{self, Answer, GROUP, LABEL, Vector};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;

/// How many requests are under way at once.
const CONCURRENCY: usize = 32;
/// How long the API server may take to put policies in force.
const PATIENCE: Duration = Duration::from_secs(300);

struct Cluster {
    policies: Api<DynamicObject>,
    bindings: Api<DynamicObject>,
    definitions: Api<DynamicObject>,
    objects: Api<DynamicObject>,
}

impl Cluster {
    fn new(client: &Client) -> Self {
        let api = |group: &str, kind: &str, plural: &str| {
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
            Api::all_with(client.clone(), &resource)
        };
        let admission = "admissionregistration.k8s.io";
        Self {
            policies: api(admission, "MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
            bindings: api(
                admission,
                "MutatingAdmissionPolicyBinding",
                "mutatingadmissionpolicybindings",
            ),
            definitions: api(
                "apiextensions.k8s.io",
                "CustomResourceDefinition",
                "customresourcedefinitions",
            ),
            objects: api(GROUP, "CelVector", "celvectors"),
        }
    }

    async fn clean(&self) {
        let ours = ListParams::default().labels(LABEL);
        self.bindings
            .delete_collection(&DeleteParams::default(), &ours)
            .await
            .unwrap();
        self.policies
            .delete_collection(&DeleteParams::default(), &ours)
            .await
            .unwrap();
    }

    /// Puts a vector's policy in place; an answer already, if the compiler refuses it.
    async fn prepare(&self, number: usize, vector: &Vector) -> Option<Answer> {
        let created = create(&self.policies, vector.policy(number), false).await;
        match created {
            Ok(_) => {
                create(&self.bindings, cel_vectors::binding(number), false)
                    .await
                    .unwrap();
                None
            }
            Err(kube::Error::Api(status)) if status.message.contains("spec.variables[0].expression: ") => {
                Some(Answer::Refused(reason(&status.message)))
            }
            Err(error) => panic!("{}: {error}", vector.expr),
        }
    }

    /// Has a vector evaluated; nothing, while its policy is not in force.
    async fn evaluate(&self, number: usize) -> Option<Answer> {
        match create(&self.objects, cel_vectors::object(number), true).await {
            Ok(object) => {
                let result = object.data.get("result")?;
                Some(Answer::Value {
                    type_name: result["type"].as_str().unwrap().to_owned(),
                    value: result["value"].clone(),
                })
            }
            // A policy that fails says which it is.
            Err(kube::Error::Api(status)) if status.message.contains(&cel_vectors::name(number)) => {
                Some(Answer::Failed(reason(&status.message)))
            }
            // The kind of the objects is new, and may not be served yet.
            Err(kube::Error::Api(status)) if status.is_not_found() => None,
            Err(error) => panic!("vector {number}: {error}"),
        }
    }

    async fn evaluate_in_force(&self, number: usize) -> Answer {
        let started = Instant::now();
        loop {
            if let Some(answer) = self.evaluate(number).await {
                return answer;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the policy of vector {number} is not in force"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What the API server says of the expression, without the expression.
fn reason(message: &str) -> String {
    let reason = ["compilation failed: ", "resulted in error: ", "failed to "]
        .iter()
        .find_map(|start| message.find(start));
    let mut lines = message[reason.unwrap_or(0)..]
        .lines()
        .filter(|line| !line.trim_start().starts_with('|'));
    lines.next().unwrap_or_default().to_owned()
}

async fn create(api: &Api<DynamicObject>, object: Value, dry_run: bool) -> kube::Result<DynamicObject> {
    let parameters = PostParams {
        dry_run,
        field_manager: None,
    };
    api.create(&parameters, &serde_json::from_value(object).unwrap()).await
}

#[tokio::test]
async fn the_vectors_of_expressions_are_what_the_api_server_says() {
    let cluster = Cluster::new(&Client::try_default().await.unwrap());
    let vectors = cel_vectors::vectors();
    cluster.clean().await;
    match create(&cluster.definitions, cel_vectors::crd(), false).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => drop(other.unwrap()),
    }

    let numbered = || stream::iter(vectors.iter().enumerate());
    let refused: Vec<Option<Answer>> = numbered()
        .map(|(number, vector)| cluster.prepare(number, vector))
        .buffered(CONCURRENCY)
        .collect()
        .await;
    // By the time that the last is in force, the others are.
    let answers: Vec<Answer> = stream::iter(refused.into_iter().enumerate())
        .map(|(number, refused)| {
            let cluster = &cluster;
            async move {
                match refused {
                    Some(answer) => answer,
                    None => cluster.evaluate_in_force(number).await,
                }
            }
        })
        .buffered(CONCURRENCY)
        .collect()
        .await;

    cluster.clean().await;
    cluster
        .definitions
        .delete(&format!("celvectors.{GROUP}"), &DeleteParams::default())
        .await
        .unwrap();
    let wrong = vectors
        .iter()
        .zip(&answers)
        .filter(|(vector, answer)| !vector.agrees(answer));
    let wrong = wrong
        .map(|(vector, answer)| {
            format!(
                "{}\n  the vector: {:?}\n  the server: {answer:?}",
                vector.expr, vector.value
            )
        })
        .collect::<Vec<_>>();
    assert!(
        wrong.is_empty(),
        "{} of {} vectors differ:\n{}",
        wrong.len(),
        vectors.len(),
        wrong.join("\n")
    );
}
