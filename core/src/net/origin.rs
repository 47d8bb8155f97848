//! Which web pages may connect: the `origins` and `hosts` rules as plain functions over header values.

use http::Uri;

use crate::error::Error;

/// The `origins` option.
#[derive(Clone, Debug, Default)]
pub(crate) enum Origins {
    /// The page comes from the host and port that it connects to.
    #[default]
    Same,
    Any,
    List(Vec<Pattern>),
}

/// One allowed origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `null`: sandboxed pages and files.
    Null,
    Exact(Origin),
    /// `https://*.example.org`: every host below, not the host itself.
    Below(Origin),
}

/// Scheme, host and port, as RFC 6454 compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_host(rest)?;
        let port = match port {
            Some(port) => port,
            None => default_port(&scheme)?,
        };
        Some(Self { scheme, host, port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Host (lower case, a v6 address in its brackets) and port of `host`, `host:port` or `[v6]:port`; nothing else may follow.
pub(crate) fn split_host(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.rfind(']') {
        Some(end) if text.starts_with('[') => {
            let rest = &text[end + 1..];
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':')?),
            };
            (&text[..=end], port)
        }
        Some(_) => return None,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~*[]:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(legal) {
        return None;
    }
    let port = match port {
        Some(port) => Some(port.parse().ok()?),
        None => None,
    };
    Some((host.to_ascii_lowercase(), port))
}

impl Origins {
    pub(crate) fn parse(list: &[String]) -> Result<Self, Error> {
        if list == ["*"] {
            return Ok(Self::Any);
        }
        if list.is_empty() {
            return Err(Error::option(
                "origins is empty; leave it out for the same origin, or list origins",
            ));
        }
        list.iter()
            .map(|text| Pattern::parse(text))
            .collect::<Result<_, _>>()
            .map(Self::List)
    }

    /// Whether a page of this origin may connect to what it named in `Host`.
    pub(crate) fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Same => same(origin, host),
            Self::List(patterns) => patterns.iter().any(|pattern| pattern.allows(origin)),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, Error> {
        let refuse = || {
            Error::option(format!(
                "origin {text:?} can't be; write \"https://example.org\", \"https://example.org:8443\", \"https://*.example.org\", \"null\", or \"*\" alone"
            ))
        };
        if text == "null" {
            return Ok(Self::Null);
        }
        let below = text.contains("://*.");
        let origin = Origin::parse(&text.replacen("://*.", "://", 1)).ok_or_else(refuse)?;
        if origin.host.contains('*') {
            return Err(refuse());
        }
        Ok(if below {
            Self::Below(origin)
        } else {
            Self::Exact(origin)
        })
    }

    fn allows(&self, origin: &str) -> bool {
        if origin == "null" {
            return *self == Self::Null;
        }
        let Some(origin) = Origin::parse(origin) else {
            return false;
        };
        match self {
            Self::Null => false,
            Self::Exact(exact) => *exact == origin,
            Self::Below(below) => {
                below.scheme == origin.scheme
                    && below.port == origin.port
                    && origin
                        .host
                        .strip_suffix(&below.host)
                        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// Host and port equal, where a `Host` without a port takes the default of the origin's scheme: TLS may end in front of us.
fn same(origin: &str, host: Option<&str>) -> bool {
    let (Some(origin), Some(host)) = (Origin::parse(origin), host) else {
        return false;
    };
    let Some((name, port)) = split_host(host.trim()) else {
        return false;
    };
    let port = port.or_else(|| default_port(&origin.scheme));
    name == origin.host && port == Some(origin.port)
}

/// The `hosts` option: names that a page may reach a loopback listener under.
#[derive(Clone, Debug, Default)]
pub(crate) enum Hosts {
    /// `localhost`, `127.0.0.1` and `[::1]`.
    #[default]
    Loopback,
    Any,
    List(Vec<String>),
}

impl Hosts {
    pub(crate) fn parse(list: &[String]) -> Result<Self, Error> {
        if list == ["*"] {
            return Ok(Self::Any);
        }
        let legal = |name: &String| matches!(split_host(name), Some((_, None))) && !name.contains('*');
        match list.iter().find(|name| !legal(name)) {
            Some(name) => Err(Error::option(format!(
                "host {name:?} can't be; write a name without scheme and port, \"example.org\", or \"*\" alone"
            ))),
            None if list.is_empty() => Err(Error::option(
                "hosts is empty; leave it out for localhost, or list names",
            )),
            None => Ok(Self::List(list.iter().map(|name| name.to_ascii_lowercase()).collect())),
        }
    }

    pub(crate) fn allow(&self, host: Option<&str>) -> bool {
        let name = host.and_then(|host| split_host(host.trim())).map(|(name, _)| name);
        match (self, name) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Loopback, Some(name)) => matches!(&*name, "localhost" | "127.0.0.1" | "[::1]"),
            (Self::List(names), Some(name)) => names.contains(&name),
        }
    }
}

/// The host that a request names: its `Host` header, or its absolute URI.
pub(crate) fn request_host<'a>(uri: &'a Uri, headers: &'a http::HeaderMap) -> Option<&'a str> {
    match headers.get(http::header::HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(|authority| authority.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(origins: &[&str]) -> Origins {
        let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
        Origins::parse(&origins).unwrap()
    }

    #[test]
    fn the_same_origin_is_the_same_host_and_port() {
        let allow = |origin, host| Origins::Same.allow(origin, Some(host));
        // A browser on the same port.
        assert!(allow("http://localhost:8080", "localhost:8080"));
        assert!(allow("http://[::1]:8080", "[::1]:8080"));
        assert!(allow("http://Example.org", "example.ORG"));
        // Caddy, and nginx with `proxy_set_header Host $host`: TLS ends in front, the Host is kept.
        assert!(allow("https://example.org", "example.org"));
        assert!(allow("https://example.org", "example.org:443"));
        assert!(allow("https://example.org:8443", "example.org:8443"));
        // nginx without it: the Host is the upstream's.
        assert!(!allow("https://example.org", "127.0.0.1:8080"));
        assert!(!allow("http://localhost:3000", "localhost:8080"));
        assert!(!allow("https://example.org:8443", "example.org"));
        assert!(!allow("https://evil.org", "example.org"));
        assert!(!allow("null", "example.org"));
        assert!(!allow("http://example.org.evil.org", "example.org"));
        assert!(!allow("http://user@example.org", "example.org"));
        assert!(!Origins::Same.allow("http://example.org", None));
    }

    #[test]
    fn lists_are_exact_or_one_level_of_wildcard() {
        let origins = list(&["https://example.org", "https://*.example.com", "http://localhost:3000"]);
        assert!(origins.allow("https://example.org", None));
        assert!(origins.allow("https://example.org:443", None));
        assert!(!origins.allow("http://example.org", None));
        assert!(!origins.allow("https://sub.example.org", None));
        assert!(origins.allow("https://a.example.com", None));
        assert!(origins.allow("https://a.b.example.com", None));
        assert!(!origins.allow("https://example.com", None));
        assert!(!origins.allow("https://evilexample.com", None));
        assert!(!origins.allow("https://.example.com", None));
        assert!(!origins.allow("null", None));
        assert!(list(&["null"]).allow("null", None));
        assert!(list(&["*"]).allow("null", None));
    }

    #[test]
    fn what_can_not_be_an_origin_says_what_can() {
        for wrong in [
            "example.org",
            "https://",
            "https://a/b",
            "https://*",
            "https://a.*.org",
            "ftp://x",
            "https://a:99999",
        ] {
            let error = Origins::parse(&[wrong.to_owned()]).unwrap_err();
            assert_eq!(error.code(), "invalid_option");
            assert!(error.to_string().contains("https://*.example.org"), "{error}");
        }
        assert!(Origins::parse(&[]).is_err());
    }

    #[test]
    fn a_loopback_listener_is_reached_under_loopback_names() {
        assert!(Hosts::Loopback.allow(Some("localhost:8080")));
        assert!(Hosts::Loopback.allow(Some("127.0.0.1")));
        assert!(Hosts::Loopback.allow(Some("[::1]:8080")));
        assert!(!Hosts::Loopback.allow(Some("rebound.evil.org:8080")));
        assert!(!Hosts::Loopback.allow(None));
        let hosts = Hosts::parse(&["Example.org".to_owned()]).unwrap();
        assert!(hosts.allow(Some("example.org:443")));
        assert!(!hosts.allow(Some("localhost")));
        assert!(Hosts::parse(&["http://x".to_owned()]).is_err());
    }
}
