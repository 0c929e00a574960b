//! Why a command could not do its work.

/// Why a command could not do its work: what happened, to what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The kubeconfig can't be used.
    #[error("no cluster to talk to: {0}")]
    Kubeconfig(String),
    /// The API server refused, or can't be reached.
    #[error("{what}: {}", kube_message(error))]
    Cluster {
        /// What was tried.
        what: String,
        /// What came of it.
        error: kube::Error,
    },
    /// There is no such operation.
    #[error("there is no CloudOperation {name} in namespace {namespace}{hint}")]
    NoOperation {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// Where it may be.
        hint: String,
    },
    /// What was asked for can't be done.
    #[error("{0}")]
    Usage(String),
    /// A file can't be read, or is not what is needed.
    #[error("{file}: {message}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// An action was not applied.
    #[error("rejected: {message} (OperationAction {action})")]
    Rejected {
        /// Its name.
        action: String,
        /// Why.
        message: String,
    },
    /// The operation that was waited for is gone.
    #[error("CloudOperation {0} was deleted before it ended")]
    Deleted(String),
    /// It took too long.
    #[error("{0}")]
    Timeout(String),
    /// What there is to print can't be printed.
    #[error("the output can't be written: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// What was tried, and what came of it.
    pub fn cluster(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |error| Self::Cluster { what, error }
    }

    /// The exit code of the process that ends by it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Rejected { .. } => 1,
            Self::Timeout(_) => TIMED_OUT,
            _ => 2,
        }
    }
}

/// The exit code where `--timeout` passed, as `timeout(1)` has it.
pub const TIMED_OUT: u8 = 124;

/// What the API server said, without what only programs read.
fn kube_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
