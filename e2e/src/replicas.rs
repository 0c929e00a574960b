//! Replicas of the operator behind one address, as a Service is: connections go to one after the other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::operator::Operator;
use crate::world::World;

/// The address, and who is behind it. Ends when it is dropped.
pub struct Replicas {
    address: SocketAddr,
    behind: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Replicas {
    /// Nobody is behind it yet.
    ///
    /// # Panics
    /// If no port can be had.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind: Arc<Mutex<Vec<String>>> = Arc::default();
        let known = behind.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.is_empty() {
                    continue; // closed: nobody is there
                }
                known.rotate_left(1);
                let next = known[0].clone();
                tokio::spawn(async move {
                    if let Ok(mut replica) = TcpStream::connect(next).await {
                        // Ends with either side.
                        let _ = copy_bidirectional(&mut client, &mut replica).await;
                    }
                });
            }
        });
        Self {
            address,
            behind,
            task: task.abort_handle(),
        }
    }

    /// Starts an operator that is behind it.
    pub async fn operator(&self, world: &World) -> Operator {
        let url = format!("http://{}", self.address);
        let operator = world.operator_with(&["--allow-http", "127.0.0.1", "--callback-url", &url]);
        let address = operator.address().await;
        self.behind().push(address);
        operator
    }

    /// From now on only this one is behind it.
    pub async fn only(&self, operator: &Operator) {
        *self.behind() = vec![operator.address().await];
    }

    fn behind(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// POSTs JSON with a bearer token, and answers the status and the JSON. 0: there was no answer.
///
/// # Panics
/// If the URL is not plain http.
pub async fn post(url: &str, token: &str, body: &str) -> (u16, Value) {
    let rest = url.strip_prefix("http://").expect("a plain http address");
    let (address, path) = rest.split_once('/').expect("a path");
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or(0), serde_json::from_str(body).unwrap_or_default())
}
