//! Name resolution by the system, with the one thing that tokio's leaves out: the canonical name.

use std::net::IpAddr;

use dns_lookup::{AddrInfoHints, SockType, getaddrinfo};

/// What a name resolved to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its addresses, in the order of preference.
    pub(super) addresses: Vec<IpAddr>,
    /// The name that it is an alias of (a CNAME, such as a Service of type ExternalName), if it is one.
    pub(super) alias: Option<String>,
}

/// Asks for the canonical name too; the same number in glibc, musl and macOS. For a name with addresses of its own they
/// answer that name, and for an alias what it leads to.
const AI_CANONNAME: i32 = 2;

/// Resolves a name.
///
/// # Errors
/// What the resolver said.
pub(super) async fn lookup(name: &str) -> Result<Found, String> {
    let asked = name.to_owned();
    // getaddrinfo blocks; a caller that gives up leaves it to its own timeout.
    let found = tokio::task::spawn_blocking(move || getaddresses(&asked)).await;
    found.unwrap_or_else(|error| Err(error.to_string()))
}

fn getaddresses(name: &str) -> Result<Found, String> {
    let hints = AddrInfoHints {
        flags: AI_CANONNAME,
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let found: Vec<_> = getaddrinfo(Some(name), None, Some(hints))
        .and_then(|found| Ok(found.collect::<Result<Vec<_>, _>>()?))
        .map_err(|error| std::io::Error::from(error).to_string())?;
    let canonical = found.iter().find_map(|entry| entry.canonname.clone());
    Ok(Found {
        addresses: found.iter().map(|entry| entry.sockaddr.ip()).collect(),
        alias: canonical.filter(|canonical| !same_name(canonical, name)),
    })
}

fn same_name(one: &str, other: &str) -> bool {
    one.trim_end_matches('.')
        .eq_ignore_ascii_case(other.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_alias_of_itself_however_it_is_written() {
        assert!(same_name("web.prod.svc.cluster.local", "Web.prod.svc.cluster.local."));
        assert!(!same_name("db.corp.example", "db.prod.svc.cluster.local."));
    }

    #[tokio::test]
    async fn an_address_resolves_to_itself() {
        let found = lookup("192.0.2.7").await.unwrap();
        assert_eq!(found.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.alias, None);
    }
}
