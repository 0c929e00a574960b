//! The seam below which the wire is: [`Wire`](super::Wire) in the operator, a fake in the simulation.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use super::{TargetNotAllowed, Targets};

/// Sends requests. It follows no redirects and judges no answers.
pub trait Transport: Send + Sync {
    /// Sends one request once and reads its answer.
    ///
    /// # Errors
    /// There is no (whole) answer. [`SendError::sent`] says whether the request may have been sent.
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireResponse, SendError>>;
}

/// A request as it is sent.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// The method.
    pub method: Method,
    /// The address: `http` or `https`, with a host, without user name and fragment.
    pub url: Url,
    /// The headers, but for `Host` and the length.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whom to trust in place of the public authorities.
    pub ca: Option<TrustedCa>,
    /// What may be called; checked on the address that is dialled.
    pub targets: Targets,
    /// How much of the answer's body is read, in bytes.
    pub max_response_bytes: usize,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct WireResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or as much of it as may be read.
    pub body: Bytes,
    /// True if the body is longer than that.
    pub truncated: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The host may not be called.
    #[error(transparent)]
    NotAllowed(#[from] TargetNotAllowed),
    /// The host's name could not be resolved.
    #[error("the name {name} could not be resolved: {error}")]
    Dns {
        /// The name that was asked for.
        name: String,
        /// What the resolver said.
        error: String,
    },
    /// There is no connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection could not be secured.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// The connection broke before the whole answer was there.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

impl SendError {
    /// True if the request, or a part of it, may have reached the other side.
    pub fn sent(&self) -> bool {
        matches!(self, Self::NoAnswer(_))
    }
}

/// Certificates that are trusted in place of the public authorities', as PEM that is known to be good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustedCa(Vec<u8>);

impl TrustedCa {
    /// Takes one certificate or several.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        read(pem).map(|_| Self(pem.to_vec()))
    }

    /// The certificates.
    pub(super) fn roots(&self) -> RootCertStore {
        // `parse` read the same bytes, so nothing is left to go wrong; and trusting nobody is the safe side.
        read(&self.0).unwrap_or_else(|_| RootCertStore::empty())
    }
}

fn read(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("not a certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("no PEM certificate (-----BEGIN CERTIFICATE-----) in it".to_owned());
    }
    Ok(roots)
}
