//! What goes wrong between here and the other side, and what is known of the effect then.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A server that does with each connection what it is told to.
async fn raw<F: Future<Output = ()> + Send>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, AbortOnDrop) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            serve(connection).await;
        }
    });
    (address, AbortOnDrop(task))
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read_request(connection: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(connection.read_u8().await.unwrap());
    }
}

fn url(address: SocketAddr) -> Value {
    json!({"url": format!("http://{address}/")})
}

#[tokio::test]
async fn a_refused_connection_did_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = Attempt::first().failure(url(address)).await;
    assert_eq!(
        (failure.reason.as_str(), failure.effect),
        ("ConnectionFailed", Effect::None)
    );
    assert_eq!(failure.retry, RetryAdvice::Backoff);
    let says = format!("GET http://{address}/: no connection: ");
    assert!(failure.message.starts_with(&says), "{}", failure.message);
    assert!(failure.message.contains("onnection refused"), "{}", failure.message);
}

#[tokio::test]
async fn a_name_that_does_not_exist_did_nothing() {
    let failure = Attempt::first().failure(json!({"url": "http://name.invalid/"})).await;
    assert_eq!((failure.reason.as_str(), failure.effect), ("DnsFailed", Effect::None));
    assert_eq!(failure.retry, RetryAdvice::Backoff);
    assert!(
        failure
            .message
            .contains("the name name.invalid. could not be resolved: "),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_connection_that_closes_without_or_amid_an_answer_leaves_the_outcome_unknown() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
    ] {
        let (address, _server) = raw(move |mut connection| async move {
            read_request(&mut connection).await;
            connection.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let failure = Attempt::first().failure(url(address)).await;
        assert_eq!(
            (failure.reason.as_str(), failure.effect),
            ("NoAnswer", Effect::Unknown),
            "after {answer:?}"
        );
        assert_eq!(failure.retry, RetryAdvice::Backoff);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_leaves_the_outcome_unknown() {
    let (address, _server) = raw(|mut connection| async move {
        read_request(&mut connection).await;
        connection.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
    })
    .await;
    let failure = Attempt::first().failure(url(address)).await;
    assert_eq!((failure.reason.as_str(), failure.effect), ("NoAnswer", Effect::Unknown));
}

#[tokio::test]
async fn a_call_that_is_given_up_closes_its_connection() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let (address, _server) = raw(move |mut connection| {
        let asked = asked.clone();
        async move {
            read_request(&mut connection).await;
            asked.send("asked").unwrap();
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
            asked.send("closed").unwrap();
        }
    })
    .await;
    let call = tokio::spawn(async move { Attempt::first().run(url(address)).await });
    assert_eq!(was_asked.recv().await, Some("asked"));
    call.abort();
    assert_eq!(was_asked.recv().await, Some("closed"));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_hangs_ends_with_nothing_sent() {
    let (address, _server) = raw(|connection| async move {
        let _held = connection;
        std::future::pending().await
    })
    .await;
    let before = tokio::time::Instant::now();
    let failure = Attempt::first()
        .failure(json!({"url": format!("https://{address}/")}))
        .await;
    assert_eq!(
        (failure.reason.as_str(), failure.effect),
        ("ConnectionFailed", Effect::None)
    );
    assert!(
        failure.message.ends_with("no connection: not within 10 s"),
        "{}",
        failure.message
    );
    assert!(before.elapsed() >= Duration::from_secs(10));
}

/// An authority's certificate, and a server on loopback with one that it issued.
async fn tls_server() -> (String, SocketAddr, AbortOnDrop) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let issued = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![issued.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (address, task) = raw(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            // The client that trusts nobody here breaks off.
            let Ok(mut connection) = acceptor.accept(connection).await else {
                return;
            };
            read_request(&mut connection).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecure";
            connection.write_all(answer).await.unwrap();
            connection.shutdown().await.unwrap();
        }
    })
    .await;
    (certificate.pem(), address, task)
}

#[tokio::test]
async fn tls_trusts_the_authority_that_the_step_names_and_not_others() {
    let (pem, address, _server) = tls_server().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": pem}});
    let cluster = Cluster::default()
        .answering("GET /api/v1/namespaces/prod/configmaps/ca", 200, map)
        .secret("ca", &[("ca.crt", &pem)]);
    let attempt = Attempt::with(cluster);
    let url = format!("https://{address}/");
    for source in ["configMapKeyRef", "secretKeyRef"] {
        let tls = json!({"ca": {source: {"name": "ca", "key": "ca.crt"}}});
        assert_eq!(attempt.result(json!({"url": url, "tls": tls})).await["body"], "secure");
    }

    let failure = attempt.failure(json!({"url": url})).await;
    assert_eq!((failure.reason.as_str(), failure.effect), ("TlsFailed", Effect::None));
    assert_eq!(failure.retry, RetryAdvice::Backoff);
    assert!(failure.message.contains("UnknownIssuer"), "{}", failure.message);
    assert!(failure.message.contains("http.tls.ca"), "{}", failure.message);
}

#[tokio::test]
async fn a_target_that_is_not_allowed_is_never_dialled() {
    let (connected, mut connections) = tokio::sync::mpsc::unbounded_channel();
    let (address, _server) = raw(move |_| {
        connected.send(()).unwrap();
        async {}
    })
    .await;
    let mut attempt = Attempt::first();
    attempt.targets = targets(&[]);
    let port = address.port();
    // Each is another way to write 127.0.0.1.
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "127.1",
    ] {
        let failure = attempt
            .failure(json!({"method": "POST", "url": format!("http://{host}:{port}/")}))
            .await;
        assert_eq!(
            (failure.reason.as_str(), failure.effect),
            ("TargetNotAllowed", Effect::None),
            "{host}"
        );
        assert_eq!(failure.retry, RetryAdvice::Never);
        assert!(failure.message.contains("--allow-http"), "{}", failure.message);
    }
    assert!(connections.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_of_one_namespace_is_no_way_round_for_another() {
    let server = Server::answering(|_| answer(200, &[], "")).await;
    let mut attempt = Attempt::first();
    attempt.result(json!({"url": server.url("/")})).await;
    attempt.targets = targets(&[]);
    let failure = attempt.failure(json!({"url": server.url("/")})).await;
    assert_eq!(failure.reason, "TargetNotAllowed");
    assert_eq!(server.seen().len(), 1);
}
