//! The endpoint of a service: its URL, TLS, and an optional proxy.

use std::io::ErrorKind;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::http::header::{HOST, PROXY_AUTHORIZATION};
use ureq::http::uri::{Authority, Scheme};
use ureq::http::{HeaderName, HeaderValue, Uri};
use ureq::unversioned::resolver::DefaultResolver;

use super::certificates;
use super::connect::connector;
use super::fault::ScorerFault;
use super::proxy::Proxy;
use super::secrets::Secrets;
use crate::error::{Error, Result, WrapErr, first_line};

/// The maximum number of idle connections: enough for all requests in flight.
const MAX_IDLE_CONNECTIONS: usize = 1024;

/// The endpoint of a service.
pub(super) struct Endpoint {
    pub(super) agent: ureq::Agent,
    /// The URL of the request: the service's, or a forward proxy's.
    pub(super) url: Uri,
    /// Headers for the proxy.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) proxy: Option<Proxy>,
    /// The service's host and port, for messages.
    host: String,
}

impl Endpoint {
    /// Resolves the endpoint of an HTTP URL, with proxies and certificates from the environment.
    ///
    /// # Errors
    /// Invalid proxies or certificates in the environment.
    pub(super) fn resolve(url: Uri) -> Result<Self> {
        let (proxy, is_tls) = (Proxy::of(&url)?, url.scheme() == Some(&Scheme::HTTPS));
        let tls = match is_tls || proxy.as_ref().is_some_and(|proxy| proxy.is_tls) {
            true => certificates::client_config()?,
            false => None,
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .user_agent(concat!("uphill/", env!("CARGO_PKG_VERSION")));
        let host = url.authority().map_or(String::new(), Authority::to_string);
        let agent = |tunnel: Option<ureq::Proxy>, origin: Option<String>| {
            let config = config.proxy(tunnel).build();
            ureq::Agent::with_parts(config, connector(tls, origin), DefaultResolver::default())
        };
        Ok(match &proxy {
            // An encrypted tunnel: the proxy cannot read the request.
            Some(through) if is_tls => {
                Endpoint { agent: agent(Some(tunnel(through)?), None), url, headers: Vec::new(), proxy, host }
            }
            Some(through) => {
                let headers = proxy_headers(through, &host)?;
                let agent = agent(None, Some(format!("http://{host}")));
                Endpoint { agent, url: url_at_proxy(through, url)?, headers, proxy, host }
            }
            None => Endpoint { agent: agent(None, None), url, headers: Vec::new(), proxy, host },
        })
    }

    /// Classifies the error of a request.
    pub(super) fn fault(&self, error: ureq::Error, timeout: ScorerFault, secrets: &Secrets) -> ScorerFault {
        let through = self.proxy.as_ref().map_or(String::new(), |proxy| format!(" through {proxy}"));
        if let Some((cause, advice)) = tls_error(&error).and_then(|error| Some((error, certificates::advice(error)?))) {
            let (host, cause) = (secrets.redact_text(&self.host), first_line(&cause.to_string()));
            let reason = format!("TLS with {host}{through}: {cause}: {advice}; then resume with --resume");
            return ScorerFault::Fatal(Error::Score { iteration: None, reason });
        }
        let message = secrets.redact_text(&first_line(&error.to_string()));
        let reason = format!("connection{through}: {message}");
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => ScorerFault::outage(reason, None),
            ureq::Error::Timeout(_) => timeout,
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Rustls(_)
            | ureq::Error::Tls(_) => ScorerFault::outage(reason, None),
            ureq::Error::ConnectProxyFailed(message) => match is_refusal(&message) {
                true => ScorerFault::Fatal(Error::Score {
                    iteration: None,
                    reason: format!("{reason}; fix the cause, then resume with --resume"),
                }),
                false => ScorerFault::outage(reason, None),
            },
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::TimedOut => timeout,
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
                | ErrorKind::AddrNotAvailable => ScorerFault::outage(reason, None),
                // Errors of the system's resolver have no kind.
                _ if error.to_string().contains("failed to lookup address") => ScorerFault::outage(reason, None),
                _ => ScorerFault::malfunction(reason),
            },
            _ => ScorerFault::malfunction(reason),
        }
    }
}

/// The settings of a proxy that tunnels the connection.
fn tunnel(proxy: &Proxy) -> Result<ureq::Proxy> {
    let protocol = if proxy.is_tls { ureq::ProxyProtocol::Https } else { ureq::ProxyProtocol::Http };
    let host = if proxy.host.contains(':') { format!("[{}]", proxy.host) } else { proxy.host.clone() };
    let mut tunnel = ureq::Proxy::builder(protocol).host(&host).port(proxy.port);
    if let Some((user, password)) = &proxy.login {
        tunnel = tunnel.username(user).password(password);
    }
    tunnel.build().map_err(|_| Error::Config(format!("score.url: cannot connect through {proxy}")))
}

/// The URL of a forward proxy, with the path and query of the service.
fn url_at_proxy(proxy: &Proxy, url: Uri) -> Result<Uri> {
    let mut parts = url.into_parts();
    parts.scheme = Some(if proxy.is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(proxy.authority().parse().wrap_err(format!("score.url: {proxy}"))?);
    Uri::from_parts(parts).wrap_err(format!("score.url: {proxy}"))
}

/// The headers for a forward proxy: the name of the service, and the login.
fn proxy_headers(proxy: &Proxy, host: &str) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = vec![(HOST, HeaderValue::try_from(host).wrap_err("score.url")?)];
    if let Some((user, password)) = &proxy.login {
        let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        headers.push((PROXY_AUTHORIZATION, HeaderValue::try_from(login).wrap_err(format!("score.url: {proxy}"))?));
    }
    Ok(headers)
}

fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Whether a proxy refuses a request, rather than being busy: `proxy server responded 407/407`.
fn is_refusal(message: &str) -> bool {
    let status = message.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse::<u16>().ok());
    status.is_some_and(|status| (300..500).contains(&status) && ![408, 425, 429].contains(&status))
}
