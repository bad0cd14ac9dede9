//! HTTP proxy settings: read from the environment, as in curl.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use super::secrets::percent_decode;
use crate::error::{Error, Result};

/// An HTTP proxy, and the variable that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    variable: String,
    pub(super) is_tls: bool,
    /// Without brackets, if it is an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// The user name and password.
    pub(super) login: Option<(String, String)>,
}

impl Proxy {
    /// The proxy for a URL, if there is one for its scheme and `no_proxy` does not exempt the host.
    ///
    /// # Errors
    /// The variable does not contain an HTTP proxy.
    pub(super) fn of(url: &Uri) -> Result<Option<Self>> {
        Self::from(url, &|name| std::env::var(name).ok())
    }

    fn from(url: &Uri, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let value = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let except = value("no_proxy").or_else(|| value("NO_PROXY")).unwrap_or_default();
        if is_exempt(url.host().unwrap_or_default(), port, &except) {
            return Ok(None);
        }
        // In a CGI program, a client can set HTTP_PROXY through a `Proxy` header.
        let scheme_variables = match is_tls {
            true => ["https_proxy", "HTTPS_PROXY"],
            false if variable("REQUEST_METHOD").is_some() => ["http_proxy", "http_proxy"],
            false => ["http_proxy", "HTTP_PROXY"],
        };
        let setting =
            scheme_variables.into_iter().chain(["all_proxy", "ALL_PROXY"]).find_map(|name| Some((name, value(name)?)));
        setting.map(|(name, value)| Self::parse(name, value.trim())).transpose()
    }

    fn parse(variable: &str, value: &str) -> Result<Self> {
        let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let wrong = |what: &str| {
            // The message omits the login, which may contain a password.
            Error::Config(format!(
                "{variable}: `{scheme}://{address}` {what}; expected, for example, http://proxy.example:3128"
            ))
        };
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err(wrong("is a SOCKS proxy, which is not supported"));
            }
            _ => return Err(wrong("is not an HTTP proxy")),
        };
        let (host, port) = split_port(address);
        // The same default ports as in curl.
        let port = port.map_or(Ok(if is_tls { 443 } else { 1080 }), str::parse);
        let (host, Ok(port)) = (host.trim_matches(['[', ']']), port) else { return Err(wrong("is not a valid proxy")) };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong("is not a valid proxy"));
        }
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            (percent_decode(user), percent_decode(password))
        });
        Ok(Proxy { variable: variable.into(), is_tls, host: host.into(), port, login })
    }

    /// The host and port, as in a URL.
    pub(super) fn authority(&self) -> String {
        let Proxy { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The values that must not appear in messages.
    pub(super) fn secrets(&self) -> Vec<String> {
        match &self.login {
            // Without a password, the user name may be a token.
            Some((user, password)) if password.is_empty() => vec![user.clone()],
            Some((user, password)) => vec![password.clone(), format!("{user}:{password}")],
            None => Vec::new(),
        }
    }
}

/// Omits the user name and the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "the proxy {scheme}://{} ({})", self.authority(), self.variable)
    }
}

/// Splits an authority into host and port. An IPv6 host with a port is in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Whether a `no_proxy` list such as `localhost, .example.com, example.org:8080, 10.0.0.0/8, [::1]` contains a host.
/// A name matches its subdomains too.
fn is_exempt(host: &str, port: u16, list: &str) -> bool {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    let matches = |entry: &str| {
        let (name, entry_port) = split_port(entry);
        if entry_port.is_some_and(|entry_port| entry_port.parse() != Ok(port)) {
            return false;
        }
        let name = name.trim_matches(['[', ']']);
        if let Some(address) = address {
            return is_within(address, name);
        }
        let name = name.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase();
        let before = host.strip_suffix(&name).filter(|_| !name.is_empty());
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| entry == "*" || matches(entry))
}

/// Whether an address equals another, or is within a network such as `10.0.0.0/8`.
fn is_within(address: IpAddr, network: &str) -> bool {
    let (network, bits) = match network.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().ok().filter(|bits| *bits <= 128)),
        None => (network, Some(128)),
    };
    let (Ok(network), Some(bits)) = (network.trim_matches(['[', ']']).parse::<IpAddr>(), bits) else { return false };
    let differs = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).checked_shr(32u32.saturating_sub(bits)),
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            return (u128::from(a) ^ u128::from(b)).checked_shr(128 - bits).unwrap_or(0) == 0;
        }
        _ => return false,
    };
    differs.unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, variables: &[(&str, &str)]) -> Result<Option<Proxy>> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        Proxy::from(&url.parse().unwrap(), &value)
    }

    #[test]
    fn the_variable_of_the_scheme_precedes_all_proxy() {
        let found = |url: &str, variables: &[(&str, &str)]| {
            proxy(url, variables).unwrap().map_or("none".into(), |proxy| proxy.to_string())
        };
        let (http, https) = ("http://a/", "https://a/");
        for (url, variables, expected) in [
            (http, &[][..], "none"),
            (http, &[("http_proxy", "http://p:3128")], "the proxy http://p:3128 (http_proxy)"),
            (http, &[("HTTP_PROXY", "p:3128")], "the proxy http://p:3128 (HTTP_PROXY)"),
            (http, &[("HTTP_PROXY", "p:3128"), ("REQUEST_METHOD", "POST")], "none"),
            (http, &[("HTTPS_PROXY", "http://p:3128")], "none"),
            (https, &[("HTTP_PROXY", "http://p:3128")], "none"),
            (https, &[("HTTPS_PROXY", " http://p ")], "the proxy http://p:1080 (HTTPS_PROXY)"),
            (
                https,
                &[("HTTPS_PROXY", "http://q:1"), ("https_proxy", "https://p/")],
                "the proxy https://p:443 (https_proxy)",
            ),
            (https, &[("https_proxy", ""), ("ALL_PROXY", "http://p:1")], "the proxy http://p:1 (ALL_PROXY)"),
            (http, &[("all_proxy", "http://[::1]:8/x")], "the proxy http://[::1]:8 (all_proxy)"),
            (http, &[("http_proxy", "http://me:hunter2@p:1")], "the proxy http://p:1 (http_proxy)"),
        ] {
            assert_eq!(found(url, variables), expected, "{url} {variables:?}");
        }
        let login = proxy(http, &[("http_proxy", "http://me:a%40b@p:1")]).unwrap().unwrap().login;
        assert_eq!(login, Some(("me".into(), "a@b".into())));
    }

    #[test]
    fn an_invalid_proxy_is_rejected_without_showing_its_password() {
        for (value, expected) in [
            ("socks5h://me:hunter2@p:1", "`socks5h://p:1` is a SOCKS proxy"),
            ("ftp://p", "`ftp://p` is not an HTTP proxy"),
            ("http://", "`http://` is not a valid proxy"),
            ("http://p:port", "`http://p:port` is not a valid proxy"),
        ] {
            let error = proxy("http://a/", &[("ALL_PROXY", value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("ALL_PROXY: {expected}")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn no_proxy_lists_hosts_domains_ports_and_networks() {
        for (url, list, expected) in [
            ("http://localhost:7/", "", false),
            ("http://localhost:7/", "*", true),
            ("http://localhost:7/", "a, localhost", true),
            ("http://localhost:7/", "a localhost", true),
            ("http://LOCALHOST.:7/", "a,\tLocalHost.,", true),
            ("http://localhost:7/", "calhost", false),
            ("http://localhost:7/", "localhost:7", true),
            ("http://localhost:7/", "localhost:8", false),
            ("http://localhost/", "localhost:80", true),
            ("https://localhost/", "localhost:443", true),
            ("http://a.example.com/", "example.com", true),
            ("http://a.example.com/", ".example.com:80", true),
            ("http://a.example.com/", "*.example.com", true),
            ("http://example.com/", ".example.com", true),
            ("http://badexample.com/", "example.com", false),
            ("http://127.0.0.1:7/", "127.0.0.1", true),
            ("http://127.0.0.1:7/", "127.0.0.1:7", true),
            ("http://127.0.0.1:7/", "10.0.0.0/8, 127.0.0.0/8", true),
            ("http://127.0.0.1:7/", "127.0.0.2/31", false),
            ("http://127.0.0.1:7/", "0.0.0.0/0", true),
            ("http://127.0.0.1:7/", "127.0.0.1/64", true),
            ("http://127.0.0.1:7/", "0.1", false),
            ("http://[::1]:7/", "::1", true),
            ("http://[::1]:7/", "[::1]", true),
            ("http://[::1]:7/", "[::1]:7", true),
            ("http://[::1]:7/", "[::1]:8", false),
            ("http://[fe80::1]/", "fe80::/10", true),
            ("http://[fe80::1]/", "::/0", true),
            ("http://[fe80::1]/", "fd00::/8", false),
        ] {
            for name in ["NO_PROXY", "no_proxy"] {
                let found = proxy(url, &[("all_proxy", "http://p:1"), (name, list)]).unwrap();
                assert_eq!(found.is_none(), expected, "{url} {list}");
            }
        }
    }
}
