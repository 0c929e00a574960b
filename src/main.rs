//! The `holdfast` command: the operator, and what it is installed with.
#![forbid(unsafe_code)]
#![deny(clippy::expect_used, clippy::unwrap_used)]

mod reference;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast::activities::callbacks::Callbacks;
use holdfast::activities::http::{Never, Rule, TargetPolicy, Wire};
use holdfast::controllers::{self, Config, Environment, Health, SystemClock};
use holdfast::server::callbacks::Network;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// For how long an answer of the API server may stay silent. A watch's ends after 290 s.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs cloud operations durably, with nothing but a Kubernetes cluster.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator, in a cluster or on a laptop against the current kubeconfig context.
    Operator(Box<OperatorArgs>),
    /// Prints the custom resource definitions, for `kubectl apply -f -`.
    Crds {
        /// Only this one, by its plural.
        name: Option<String>,
        /// Print their plurals.
        #[arg(long)]
        names: bool,
    },
    /// Prints the reference of the custom resources' fields, in Markdown.
    Reference,
}

#[derive(Args)]
struct OperatorArgs {
    /// Serve this namespace alone; all namespaces if absent.
    #[arg(long, env = "HOLDFAST_NAMESPACE")]
    namespace: Option<String>,
    /// The namespace of the Lease by which one of several operators leads. Default: the served namespace, else the
    /// kubeconfig's.
    #[arg(long, env = "POD_NAMESPACE")]
    lease_namespace: Option<String>,
    /// For how long leadership lasts after a renewal: how long a crash goes unnoticed, at most.
    #[arg(long, default_value = "10s", value_parser = duration)]
    lease_duration: Duration,
    /// Where /healthz, /readyz, /metrics and callbacks are served.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Where services reach this operator's --listen, for callbacks of `http` steps with `async`: a URL such as
    /// http://holdfast.holdfast-system.svc:8080. None: such steps fail.
    #[arg(long, env = "HOLDFAST_CALLBACK_URL", value_parser = callback_url)]
    callback_url: Option<url::Url>,
    /// What `http` steps may call beyond public addresses and their own namespace's Services: addresses, CIDR ranges
    /// and host names, separated by commas. The only way to allow loopback.
    #[arg(long, value_delimiter = ',')]
    allow_http: Vec<Rule>,
    /// The cluster's DNS domain.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// The operator's own address: `http` steps may never call it, and other replicas forward callbacks to it. Default:
    /// that of --listen, for the latter.
    #[arg(long, env = "POD_IP")]
    pod_ip: Option<IpAddr>,
    /// How long attempts under way may take to end after SIGTERM.
    #[arg(long, default_value = "25s", value_parser = duration)]
    shutdown_timeout: Duration,
    /// Hold every operation: for a look around after a restore of the cluster's etcd.
    #[arg(long)]
    hold_all: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

fn duration(text: &str) -> Result<Duration, holdfast::api::DurationError> {
    text.parse::<holdfast::api::Duration>().map(|duration| duration.get())
}

fn callback_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    let plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    match plain {
        true => Ok(url),
        false => Err("an http or https address without query and fragment is needed".into()),
    }
}

/// Why the command could not do its work.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("no cluster to talk to: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("the cluster's configuration can't be used: {0}")]
    Client(#[from] kube::Error),
    #[error("{address} can't be listened on: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("{0}")]
    Output(#[from] std::io::Error),
    #[error("the CRDs can't be printed: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Crds { name, names } => print_crds(name.as_deref(), names),
        Command::Reference => print_reference(),
        Command::Operator(arguments) => operate(*arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_crds(only: Option<&str>, names: bool) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    for crd in holdfast::api::crds() {
        let plural = &crd.spec.names.plural;
        if names {
            writeln!(out, "{plural}")?;
            continue;
        }
        if only.is_some_and(|only| only != plural) {
            continue;
        }
        write!(out, "---\n{}", serde_yaml::to_string(&crd)?)?;
    }
    Ok(())
}

fn print_reference() -> Result<(), CommandError> {
    let mut text = String::new();
    // Writing into a String can't fail.
    let _ = reference::write(&mut text, &holdfast::api::crds());
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

#[tokio::main]
async fn operate(arguments: OperatorArgs) -> Result<(), CommandError> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_runtime=error,kube_client=error"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }

    let mut cluster = kube::Config::infer().await?;
    cluster.default_retry = false; // retries inside the client would hide faults, and the outcome of writes
    // A list that stops half-way, or a watch whose connection is dead, is begun anew. A watch is silent for no longer: the
    // API server ends it before.
    cluster.read_timeout = Some(READ_TIMEOUT);
    cluster.reset_reader_on_write = true;
    let default_namespace = cluster.default_namespace.clone();
    let address = arguments.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| CommandError::Listen { address, error })?;
    let bound = listener.local_addr()?;
    let targets = TargetPolicy {
        cluster_domain: arguments.cluster_domain,
        allowed: arguments.allow_http,
        never: never(
            &cluster.cluster_url,
            arguments.callback_url.as_ref(),
            arguments.pod_ip,
            bound,
        )
        .await,
    };
    let client = Client::try_from(cluster)?;

    let health = Arc::new(Health::default());
    info!(address = %bound, version = env!("CARGO_PKG_VERSION"), "holdfast");
    let lease_namespace = arguments
        .lease_namespace
        .or(arguments.namespace.clone())
        .unwrap_or(default_namespace);
    let callbacks = Arc::new(Callbacks::new(client.clone(), &lease_namespace, arguments.callback_url));
    tokio::spawn({
        let router = holdfast::server::router(health.clone(), callbacks.clone(), Arc::new(Network::new()));
        async move {
            if let Err(error) = axum::serve(listener, router).await {
                error!(%error, "the HTTP server ended");
            }
        }
    });

    let (stop, shutdown) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });

    let config = Config {
        namespace: arguments.namespace,
        lease_namespace,
        lease_duration: arguments.lease_duration,
        shutdown_timeout: arguments.shutdown_timeout,
        targets,
        hold_all: arguments.hold_all,
        host: std::env::var("HOSTNAME").unwrap_or_else(|_| "holdfast".into()),
        address: Some(arguments.pod_ip.unwrap_or(bound.ip()))
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| SocketAddr::new(ip, bound.port()).to_string()),
    };
    let environment = Environment {
        client,
        clock: Arc::new(SystemClock),
        transport: Arc::new(Wire::new()),
        callbacks,
    };
    controllers::run(config, environment, health, shutdown).await;
    info!("stopped");
    Ok(())
}

/// What `http` steps may never call: the API server, at the addresses where it is reached, and this process: its Pod, its
/// Service, where it listens.
async fn never(
    cluster: &http::Uri,
    callbacks: Option<&url::Url>,
    pod_ip: Option<IpAddr>,
    listens: SocketAddr,
) -> Vec<Never> {
    let host = cluster.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = cluster.port_u16().unwrap_or(443);
    let api_server = addresses(host, port).await.into_iter().map(|address| Never {
        what: "the API server".into(),
        address,
        port: Some(port),
    });
    // An address outside of the cluster may be that of others, too.
    let service = callbacks.and_then(url::Url::host_str);
    let service = match service.filter(|host| host.split('.').nth(2) == Some("svc")) {
        Some(host) => addresses(host, 443).await,
        None => vec![],
    };
    let listens_at = match listens.ip() {
        ip if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        ip => vec![ip],
    };
    let own = pod_ip.into_iter().chain(service).map(|address| (address, None));
    let own = own.chain(listens_at.into_iter().map(|address| (address, Some(listens.port()))));
    let own = own.map(|(address, port)| Never {
        what: "the operator".into(),
        address,
        port,
    });
    api_server.chain(own).collect()
}

/// The addresses of a host. A name that doesn't resolve now is no way to it either.
async fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let found = tokio::net::lookup_host((host, port)).await;
    found.map_or_else(|_| vec![], |found| found.map(|address| address.ip()).collect())
}
