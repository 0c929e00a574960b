//! Secrets of `http` steps: where they come from, where they go, and that they go nowhere else.

use holdfast::api::{CloudOperation, OperationState};
use holdfast_e2e::world::{World, message_of, output, step};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

fn recorded(operation: &CloudOperation) -> String {
    serde_json::to_string(&operation.status).unwrap()
}

#[tokio::test]
async fn credentials_come_from_secrets_and_are_never_recorded() {
    let world = World::new("http-secrets").await;
    let _operator = world.operator();
    for arguments in [
        ["--from-literal=token=t0p-secret", "api"].as_slice(),
        &[
            "--from-literal=username=svc",
            "--from-literal=password=passw0rd",
            "--type=kubernetes.io/basic-auth",
            "login",
        ],
    ] {
        world
            .prints(&[&["create", "secret", "generic"], arguments].concat())
            .await;
    }
    world
        .run(
            "secrets",
            r#"
            serviceAccountName: runner
            retry: {initialInterval: 10ms, maximumAttempts: 1}
            steps:
            - name: bearer
              http: {url: INVENTORY/bearer, auth: {bearer: {secretKeyRef: {name: api, key: token}}}}
              output: {said: "${result.body.authorization}"}
            - {name: basic, http: {url: INVENTORY/basic, auth: {basic: {secretRef: {name: login}}}}}
            - name: header
              http:
                url: INVENTORY/header
                headers: [{name: X-Api-Key, valueFrom: {secretKeyRef: {name: api, key: token}}}]
            - {name: missing, http: {url: INVENTORY/missing, auth: {bearer: {secretKeyRef: {name: api, key: other}}}}}
            "#,
        )
        .await;
    let ended = world.ends("secrets", OperationState::Failed).await;

    let header = |path: &str, name: &str| world.inventory.requests(path)[0].headers[name].clone();
    assert_eq!(header("/bearer", "authorization"), "Bearer t0p-secret");
    assert_eq!(header("/basic", "authorization"), "Basic c3ZjOnBhc3N3MHJk");
    assert_eq!(header("/header", "x-api-key"), "t0p-secret");
    assert_eq!(
        output(&ended, "bearer"),
        json!({"said": "***"}),
        "an answer that repeats the secret is masked"
    );
    for secret in ["t0p-secret", "passw0rd", "c3ZjOnBhc3N3MHJk"] {
        assert!(!recorded(&ended).contains(secret), "{secret} is recorded");
    }
    assert!(
        world.inventory.requests("/missing").is_empty(),
        "nothing is sent without the secret that it needs"
    );
    let message = message_of(&ended);
    assert!(
        message.contains("api") && message.contains("other"),
        "it names Secret and key: {message}"
    );
}

async fn review(client: &Client, token: &str, audience: &[&str]) -> TokenReviewStatus {
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let review = TokenReview {
        metadata: ObjectMeta::default(),
        spec: TokenReviewSpec {
            token: token.to_owned(),
            audiences: Some(audience.iter().map(|a| (*a).to_owned()).collect()).filter(|a: &Vec<_>| !a.is_empty()),
        },
        status: None,
    };
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap()
}

#[tokio::test]
async fn a_service_account_token_is_good_for_its_audience_alone() {
    let world = World::new("http-token").await;
    let _operator = world.operator();
    world
        .run(
            "token",
            r#"
            serviceAccountName: runner
            steps:
            - {name: call, http: {url: INVENTORY/token-call, auth: {serviceAccountToken: {audience: inventory.example.com}}}}
            "#,
        )
        .await;
    let ended = world.ends("token", OperationState::Succeeded).await;

    let authorization = world.inventory.requests("/token-call")[0].headers["authorization"].clone();
    let token = authorization.strip_prefix("Bearer ").unwrap();
    let status = review(&world.client, token, &["inventory.example.com"]).await;
    assert_eq!(status.authenticated, Some(true), "{status:?}");
    let user = status.user.unwrap().username.unwrap();
    assert_eq!(user, format!("system:serviceaccount:{}:runner", world.namespace));
    let status = review(&world.client, token, &[]).await;
    assert_ne!(
        status.authenticated,
        Some(true),
        "the API server itself must refuse it: {status:?}"
    );
    assert!(!recorded(&ended).contains(token));
}

#[tokio::test]
async fn an_output_secret_takes_what_the_status_must_not_hold() {
    let world = World::new("http-output").await;
    let _operator = world.operator();
    world
        .run(
            "issue",
            r#"
            serviceAccountName: runner
            steps:
            - name: issue
              http: {method: POST, url: INVENTORY/token/abc}
              sensitive: true
              output: {user: "${result.body.user}"}
              outputSecret: {name: issued, data: {token: "${result.body.token}", login: "${result.body.user}:${result.body.token}"}}
            "#,
        )
        .await;
    let ended = world.ends("issue", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "issue"), json!({"user": "svc"}));
    assert!(!recorded(&ended).contains("secret-abc"), "{}", recorded(&ended));

    let secret = world.api::<Secret>().get("issued").await.unwrap();
    let data = secret.data.clone().unwrap();
    assert_eq!(data["token"].0, b"secret-abc");
    assert_eq!(data["login"].0, b"svc:secret-abc");
    let owner = &secret.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("CloudOperation", "issue"));
    assert_eq!(&owner.uid, ended.meta().uid.as_ref().unwrap());
    world.prints(&["delete", "cop", "issue"]).await;
    world.until_gone::<Secret>("issued").await;
}

/// Of an operation whose name is too long for a label.
#[tokio::test]
async fn each_item_has_an_output_secret_of_its_own() {
    let world = World::new("http-outputs").await;
    let _operator = world.operator();
    let name = format!("issue-{}", "x".repeat(100));
    world
        .run(
            &name,
            r#"
            serviceAccountName: runner
            steps:
            - name: issue
              forEach: "['abc', 'def']"
              http: {method: POST, url: "INVENTORY/token/${item}"}
              outputSecret: {name: "issued-${item}", data: {token: "${result.body.token}"}}
            "#,
        )
        .await;
    world.ends(&name, OperationState::Succeeded).await;
    for item in ["abc", "def"] {
        let secret = world.api::<Secret>().get(&format!("issued-{item}")).await.unwrap();
        assert_eq!(secret.data.unwrap()["token"].0, format!("secret-{item}").as_bytes());
    }
    assert_eq!(world.inventory.requests("/token").len(), 2);
}

#[tokio::test]
async fn nothing_that_is_said_to_a_sensitive_step_is_quoted() {
    let world = World::new("http-sensitive").await;
    let _operator = world.operator();
    world
        .run(
            "refused",
            "steps: [{name: a, sensitive: true, http: {method: POST, url: INVENTORY/status/422}}]",
        )
        .await;
    let ended = world.ends("refused", OperationState::Failed).await;
    assert!(message_of(&ended).contains("422"), "{}", message_of(&ended));
    assert!(!recorded(&ended).contains("the inventory says"), "{}", recorded(&ended));
    assert_eq!(step(&ended, "a").failure.as_ref().unwrap().reason, "HttpStatus");
}
