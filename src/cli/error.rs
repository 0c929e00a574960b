//! Why a command could not do its work.

/// Why a command could not do its work: what happened, to what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The kubeconfig can't be used.
    #[error(
        "no cluster to talk to: {0}\nName one by KUBECONFIG, --kubeconfig or --context; kubectl config get-contexts lists those of your kubeconfig"
    )]
    Kubeconfig(String),
    /// The API server refused, or can't be reached.
    #[error("{what}: {}{}", kube_message(error), next_step(error))]
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
    #[error(
        "CloudOperation {0} was deleted before it ended: what it had under way was stopped, and nothing undone. Run it anew from its file, if it is to end"
    )]
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

impl CliError {
    /// True if whoever read the output has seen enough, as `head` has.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// What can be done about it, on a line of its own; nothing where what the API server said is all that there is to say.
fn next_step(error: &kube::Error) -> String {
    let step = match error {
        kube::Error::Api(status) => match status.code {
            401 => "Log in again: the API server doesn't know you",
            403 => {
                "Ask who administers the namespace for that right; the roles holdfast-view, holdfast-edit and holdfast-admin have what this command needs"
            }
            404 => "If Holdfast is not installed there, or an older version: kubectl holdfast version says what is",
            409 => "Somebody changed it at the same moment: look at it, and run this once more",
            429 => "Nothing is wrong with what you asked for: run this once more in a moment",
            500.. => {
                "Nothing is wrong with what you asked for, and it may have been done all the same: look (kubectl get cops,opact), then run this once more"
            }
            _ => return String::new(),
        },
        kube::Error::SerdeError(_) => {
            "Is the plugin as new as the cluster? kubectl holdfast version says what is installed"
        }
        _ => "Is it the right cluster, and up? kubectl cluster-info asks the same one",
    };
    format!("\n{step}")
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_next() {
        for (code, said) in [
            (401, "Log in again"),
            (403, "the roles holdfast-view, holdfast-edit and holdfast-admin"),
            (404, "kubectl holdfast version"),
            (409, "run this once more"),
            (429, "in a moment"),
            (503, "it may have been done all the same"),
        ] {
            let mut status = kube::core::Status::failure("no", "");
            status.code = code;
            let error = CliError::cluster("CloudOperation web can't be read")(kube::Error::Api(status.boxed()));
            let (what, next) = error
                .to_string()
                .split_once('\n')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .unwrap();
            assert_eq!(what, "CloudOperation web can't be read: no");
            assert!(next.contains(said), "{code}: {next}");
        }
        // What was invalid is said by the API server, field by field.
        let mut status = kube::core::Status::failure("spec.steps: Required", "Invalid");
        status.code = 422;
        let error = CliError::cluster("it can't be created")(kube::Error::Api(status.boxed()));
        assert_eq!(error.to_string(), "it can't be created: spec.steps: Required");
    }
}
