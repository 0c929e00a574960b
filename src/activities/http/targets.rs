//! What an `http` step may call. Its requests leave from the operator's address, which may reach what the operation's
//! author may not: so every address is checked when it is dialled, after the name was resolved.
//!
//! By default that is the internet and the Services of the operation's own namespace. The namespace's annotation
//! `holdfast.dev/http-targets` adds to it, and so does the operator's flag `--allow-http`. Neither ever opens link-local
//! addresses, the API server or the operator itself; loopback only the flag does, by a range within loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::addresses::{Kind, canonical, kind};
use crate::api::HTTP_TARGETS_ANNOTATION;

/// What the operator's administrator decided for every namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetPolicy {
    /// The domain of the cluster's Services, such as `cluster.local`.
    pub cluster_domain: String,
    /// What every namespace may call (`--allow-http`).
    pub allowed: Vec<Rule>,
    /// What nobody may call, whatever is allowed: the API server and the operator.
    pub never: Vec<Never>,
}

/// An endpoint that nobody may call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Never {
    /// What it is, for the message: "the API server".
    pub what: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port; `None` for every one.
    pub port: Option<u16>,
}

impl TargetPolicy {
    /// What operations in a namespace may call, given the value of its annotation `holdfast.dev/http-targets`. Entries
    /// of it that can't be read allow nothing, and refusals say so.
    pub fn for_namespace(self: &Arc<Self>, namespace: &str, annotation: Option<&str>) -> Targets {
        let mut rules = Vec::new();
        let mut unreadable = Vec::new();
        for entry in annotation.into_iter().flat_map(|list| list.split(',')) {
            let entry = entry.trim();
            match entry.parse() {
                Ok(rule) => rules.push(rule),
                Err(_) if entry.is_empty() => {}
                Err(_) => unreadable.push(entry.to_owned()),
            }
        }
        Targets {
            namespace: namespace.to_owned(),
            rules,
            unreadable,
            policy: self.clone(),
        }
    }
}

/// Something that may be called: `10.1.2.3`, `10.0.0.0/8`, `inventory.corp` or `*.corp`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Addresses, whatever the name.
    Network(IpNet),
    /// A host name, whatever its address.
    Host(String),
    /// Every name below a domain, but not the domain itself.
    Below(String),
}

/// Why a text is not a rule.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address (10.1.2.3), a range (10.0.0.0/8) or a host name (inventory.corp, *.corp)")]
pub struct RuleError(String);

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        // The names are compared as URLs give them: in lower case, other alphabets in punycode.
        let name = |text: &str| match url::Host::parse(text.trim_end_matches('.')) {
            Ok(url::Host::Domain(name)) if !name.contains(['*', '/', ':']) => Ok(name),
            _ => Err(RuleError(text.to_owned())),
        };
        match text.strip_prefix("*.") {
            Some(domain) => name(domain).map(Self::Below),
            None => name(text).map(Self::Host),
        }
    }
}

impl Rule {
    fn allows(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Self::Network(network) => network.contains(&address) || network.contains(&canonical(address)),
            Self::Host(name) => name == host,
            Self::Below(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
        }
    }

    /// True if it names loopback addresses alone: so loopback is opened knowingly, not by a wide range or a name.
    fn is_loopback(&self) -> bool {
        match self {
            Self::Network(IpNet::V4(network)) => Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).contains(network),
            Self::Network(IpNet::V6(network)) => network.prefix_len() == 128 && network.addr().is_loopback(),
            Self::Host(_) | Self::Below(_) => false,
        }
    }
}

/// What the operations of a namespace may call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Targets {
    namespace: String,
    rules: Vec<Rule>,
    unreadable: Vec<String>,
    policy: Arc<TargetPolicy>,
}

/// How the addresses of a host are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It is an address, or a name that always means the same ones.
    Known(Vec<IpAddr>),
    /// By this name. A name with a dot is asked for as it is (it ends in a dot), so that no search domain of the
    /// operator's pod can make another of it.
    Name(String),
}

/// A host, and how an operation of a namespace means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// The name or address, in lower case, without brackets or a final dot.
    name: String,
    /// How it is resolved.
    pub(super) lookup: Lookup,
    /// True if it names a Service of the operation's own namespace.
    own_service: bool,
}

impl Targets {
    /// How a host of a URL is meant.
    pub(super) fn host(&self, host: &str) -> Host {
        let name = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let service = self.service_name(&name);
        let own_service = service
            .as_deref()
            .is_some_and(|full| full.ends_with(&format!(".{}.svc.{}", self.namespace, self.policy.cluster_domain)));
        let lookup = if let Ok(address) = name.parse::<IpAddr>() {
            Lookup::Known(vec![address])
        } else if name == "localhost" || name.ends_with(".localhost") {
            Lookup::Known(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]) // RFC 6761
        } else if let Some(full) = service {
            Lookup::Name(full + ".")
        } else if name.contains('.') {
            Lookup::Name(format!("{name}."))
        } else {
            Lookup::Name(name.clone())
        };
        Host {
            name,
            lookup,
            own_service,
        }
    }

    /// The full name of a Service: of one in the operation's own namespace from `web.ns`, of any from `web.ns.svc`.
    fn service_name(&self, name: &str) -> Option<String> {
        let domain = &self.policy.cluster_domain;
        if name.ends_with(&format!(".svc.{domain}")) {
            Some(name.to_owned())
        } else if name.ends_with(".svc") {
            Some(format!("{name}.{domain}"))
        } else {
            let (service, namespace) = name.split_once('.')?;
            (namespace == self.namespace && !service.is_empty()).then(|| format!("{name}.svc.{domain}"))
        }
    }

    /// Whether a host may be called at an address that it resolved to. `alias` is the name that the host's name is an
    /// alias of, if it is one.
    ///
    /// # Errors
    /// Why not, and what can be done.
    pub(super) fn check(&self, host: &Host, alias: Option<&str>, address: SocketAddr) -> Result<(), TargetNotAllowed> {
        let ip = address.ip();
        let refuse = |why: Refusal| Err(TargetNotAllowed(self.refusal(host, ip, &why)));
        let never = self.policy.never.iter().find(|never| {
            canonical(never.address) == canonical(ip) && never.port.is_none_or(|port| port == address.port())
        });
        if let Some(never) = never {
            return refuse(Refusal::Never(never.what.clone()));
        }
        let allows = |rule: &Rule| rule.allows(&host.name, ip);
        match kind(ip) {
            Kind::Never(what) => return refuse(Refusal::Never(what.to_owned())),
            Kind::Loopback
                if !self
                    .policy
                    .allowed
                    .iter()
                    .any(|rule| rule.is_loopback() && allows(rule)) =>
            {
                return refuse(Refusal::Loopback);
            }
            Kind::Loopback | Kind::Public => return Ok(()),
            Kind::Private => {}
        }
        if self.policy.allowed.iter().chain(&self.rules).any(allows) {
            return Ok(());
        }
        match (host.own_service, alias) {
            (true, None) => Ok(()),
            (true, Some(alias)) => refuse(Refusal::Alias(alias.to_owned())),
            (false, _) => refuse(Refusal::Private),
        }
    }
}

enum Refusal {
    Never(String),
    Loopback,
    Private,
    Alias(String),
}

impl Targets {
    /// What a refusal says: which host, at which address, why, and what can be done.
    fn refusal(&self, host: &Host, address: IpAddr, why: &Refusal) -> String {
        let (namespace, name) = (&self.namespace, &host.name);
        let mut message = format!("operations in namespace {namespace} may not call {name}");
        if address.to_string() != *name {
            message += &format!(" at {address}");
        }
        let ask = format!(
            "add {name} to the annotation {HTTP_TARGETS_ANNOTATION} of namespace {namespace}, or ask the operator's administrator for --allow-http"
        );
        message += &match why {
            Refusal::Never(what) => format!(": it is {what}, which no step may call"),
            Refusal::Loopback => format!(
                ": it is the operator's own machine; only the operator's administrator can allow it, by --allow-http {address}"
            ),
            Refusal::Private => {
                format!(": it is neither a public address nor a Service of that namespace (<name>.{namespace}); {ask}")
            }
            Refusal::Alias(alias) => {
                format!(": the Service is only an alias of {alias}, which is not a public address; {ask}")
            }
        };
        if !self.unreadable.is_empty() {
            message += &format!(
                " (not readable in that annotation: {}; each must be an address, a range such as 10.0.0.0/8 or a host name)",
                self.unreadable.join(", ")
            );
        }
        message
    }
}

/// A target that an operation may not call: which, why, and what can be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetNotAllowed(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> Arc<TargetPolicy> {
        Arc::new(TargetPolicy {
            cluster_domain: "cluster.local".into(),
            allowed: allowed.iter().map(|rule| rule.parse().unwrap()).collect(),
            never: vec![
                Never {
                    what: "the API server".into(),
                    address: "10.96.0.1".parse().unwrap(),
                    port: None,
                },
                Never {
                    what: "the API server".into(),
                    address: "127.0.0.1".parse().unwrap(),
                    port: Some(6443),
                },
            ],
        })
    }

    fn prod(allowed: &[&str], annotation: &str) -> Targets {
        policy(allowed).for_namespace("prod", Some(annotation))
    }

    fn check(targets: &Targets, host: &str, address: &str) -> Result<(), String> {
        let address = SocketAddr::new(address.parse().unwrap(), 443);
        targets
            .check(&targets.host(host), None, address)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn public_addresses_and_services_of_the_own_namespace_are_allowed_by_default() {
        let targets = prod(&[], "");
        assert_eq!(check(&targets, "api.example.com", "93.184.216.34"), Ok(()));
        for own in [
            "web.prod",
            "web.prod.svc",
            "web.prod.svc.cluster.local",
            "WEB.prod.svc.cluster.local.",
            "web-0.web.prod.svc",
        ] {
            assert_eq!(check(&targets, own, "10.1.2.3"), Ok(()), "{own}");
        }
        for other in [
            "web.dev",
            "web.dev.svc",
            "web.dev.svc.cluster.local",
            "web",
            "prod.svc.cluster.local",
            "a.b.prod",
            "10.1.2.3",
        ] {
            let error = check(&targets, other, "10.1.2.3").unwrap_err();
            assert!(
                error.contains("neither a public address nor a Service of that namespace"),
                "{other}: {error}"
            );
            assert!(error.contains("holdfast.dev/http-targets"), "{error}");
        }
    }

    #[test]
    fn a_name_is_resolved_as_it_is_so_that_no_search_domain_can_redirect_it() {
        let targets = prod(&[], "");
        for (host, name) in [
            ("web.prod", "web.prod.svc.cluster.local."),
            ("web.prod.svc", "web.prod.svc.cluster.local."),
            ("web.prod.svc.cluster.local", "web.prod.svc.cluster.local."),
            ("web.dev.svc", "web.dev.svc.cluster.local."),
            ("web.dev", "web.dev."),
            ("api.example.com", "api.example.com."),
            ("web", "web"),
        ] {
            assert_eq!(targets.host(host).lookup, Lookup::Name(name.into()), "{host}");
        }
        assert_eq!(
            targets.host("[::1]").lookup,
            Lookup::Known(vec![IpAddr::V6(Ipv6Addr::LOCALHOST)])
        );
    }

    #[test]
    fn a_service_that_is_an_alias_of_another_name_gets_no_more_than_that_name() {
        let targets = prod(&[], "");
        let host = targets.host("db.prod");
        let alias = Some("db.internal.corp");
        let private = targets
            .check(&host, alias, "10.1.2.3:443".parse().unwrap())
            .unwrap_err();
        assert!(
            private.to_string().contains("only an alias of db.internal.corp"),
            "{private}"
        );
        assert!(targets.check(&host, alias, "1.1.1.1:443".parse().unwrap()).is_ok());
    }

    #[test]
    fn the_annotation_and_the_flag_allow_addresses_ranges_and_names() {
        for targets in [
            prod(
                &[],
                "10.1.2.3, inventory.corp,*.apps.corp , 192.168.0.0/16, nonsense/99",
            ),
            prod(&["10.1.2.3", "inventory.corp", "*.apps.corp", "192.168.0.0/16"], ""),
        ] {
            assert_eq!(check(&targets, "10.1.2.3", "10.1.2.3"), Ok(()));
            assert_eq!(check(&targets, "x.corp", "192.168.7.7"), Ok(()));
            assert_eq!(check(&targets, "inventory.corp", "10.9.9.9"), Ok(()));
            assert_eq!(check(&targets, "a.b.apps.corp", "10.9.9.9"), Ok(()));
            for refused in ["apps.corp", "evilapps.corp", "x.inventory.corp"] {
                assert!(check(&targets, refused, "10.9.9.9").is_err(), "{refused}");
            }
        }
        let error = check(&prod(&[], "nonsense/99"), "x.corp", "10.9.9.9").unwrap_err();
        assert!(
            error.contains("not readable in that annotation: nonsense/99"),
            "{error}"
        );
    }

    #[test]
    fn no_rule_opens_link_local_addresses_or_the_api_server() {
        let targets = prod(
            &["0.0.0.0/0", "::/0", "127.0.0.0/8", "*.corp"],
            "0.0.0.0/0,169.254.0.0/16,::/0,*.corp",
        );
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "fd00:ec2::254",
        ] {
            let error = check(&targets, "x.corp", address).unwrap_err();
            assert!(error.contains("no step may call"), "{address}: {error}");
        }
        let error = check(&targets, "web.prod", "10.96.0.1").unwrap_err();
        assert!(error.contains("it is the API server"), "{error}");
        let host = targets.host("127.0.0.1");
        assert!(targets.check(&host, None, "127.0.0.1:6443".parse().unwrap()).is_err());
        assert!(targets.check(&host, None, "127.0.0.1:8080".parse().unwrap()).is_ok());
    }

    #[test]
    fn loopback_is_opened_by_the_operators_flag_alone_and_only_knowingly() {
        let by_flag = prod(&["127.0.0.0/8", "::1"], "");
        for host in ["127.0.0.1", "localhost", "x.localhost"] {
            assert_eq!(check(&by_flag, host, "127.0.0.1"), Ok(()), "{host}");
        }
        assert_eq!(check(&by_flag, "[::1]", "::1"), Ok(()));
        for targets in [
            prod(&[], "127.0.0.0/8,::1,localhost"),
            prod(&["0.0.0.0/0", "::/0", "localhost"], ""),
        ] {
            let error = check(&targets, "localhost", "127.0.0.1").unwrap_err();
            assert!(
                error.contains("only the operator's administrator can allow it"),
                "{error}"
            );
            assert!(check(&targets, "localhost", "::1").is_err());
        }
    }

    #[test]
    fn a_rule_that_can_not_be_read_is_refused() {
        for text in ["", "a b", "http://x", "10.0.0.0/33", "*", "a.*.b", "x:80"] {
            assert!(text.parse::<Rule>().is_err(), "{text:?}");
        }
        assert_eq!(
            "BÜCHER.example".parse::<Rule>().unwrap(),
            Rule::Host("xn--bcher-kva.example".into())
        );
    }
}
