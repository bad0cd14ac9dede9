//! Scores by an HTTP service.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use polars::prelude::DataFrame;
use serde_json::{Value, json};
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::Session;
use super::answers::{Answer, Attempt};
use super::external::{Ask, ExternalScore};
use super::json::{parse, put_record, records, score_of};
use super::proxy::Proxy;
use super::route::Route;
use super::secrets::{Secrets, expanded, parameter_with_a_secret};
use super::trouble::{Kind, Trouble};
use super::wait::Wait;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX};

/// The maximum connection timeout.
const CONNECT: Duration = Duration::from_secs(30);

/// The maximum size of a response body.
const LONGEST: u64 = 64 << 20;

/// Scores by an HTTP service. Each batch is one request:
///
/// ```text
/// POST URL      {"items":  [{"db_idx": 17, "smiles": "CCO", "mw": 46.07}, …]}
/// 200           {"scores": [{"db_idx": 17, "score": 0.5}, {"db_idx": 18, "score": null, "reason": "too large"}, …]}
///            or {"scores": [0.5, null, …]}
/// ```
///
/// The list may also be the whole body. Objects may be in any order. Numbers must be in the order of the items, one for each.
///
/// [`ExternalScore`] describes what happens to an item. For HTTP:
/// - The service is unavailable if there is no connection, and for status 408, 409, 425, 429, 502 and 503. It is retried
///   after the backoff or `Retry-After`, whichever is longer. The reasons are such as `HTTP 429`, `connection: …`.
/// - An untrusted certificate, or a service that does not speak TLS, stops the run at once. Certificates are verified
///   against the system's, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`, as in OpenSSL.
/// - Status 401 to 405, 407, 410, 451 and redirects (which are not followed) stop the run at once, with the service's message.
/// - A response that is not JSON or has no scores is not retried, as a retry would cost the same again.
/// - Any other status, a timeout, a lost connection, missing items and wrong ids count as no answer.
///
/// Each request has an `Idempotency-Key` header, which is the same if the same items are retried because no answer arrived.
/// A service that stores its answers by this key can return them again without repeating the work.
///
/// Proxies are configured as in curl: `http_proxy`, `https_proxy`, `all_proxy` (or in capitals), with exceptions in `no_proxy`.
///
/// `${NAME}` in the URL is replaced by an environment variable, so that secrets need not be stored in files.
///
/// A request in flight when the run is interrupted is abandoned; the service may still process it.
pub type HttpScore = ExternalScore<Http>;

/// The connections of an [`HttpScore`].
pub struct Http {
    url: String,
    /// Header ⇒ environment variable. The values are read for each request and never stored.
    headers: Vec<(String, String)>,
    /// The identifier of the run, for idempotency keys.
    run: String,
    /// The endpoint in this run, resolved on first use.
    route: OnceLock<Route>,
}

impl HttpScore {
    /// A service at `http://…` or `https://…`.
    pub fn new(url: impl Into<String>) -> Self {
        let http = Http { url: url.into(), headers: Vec::new(), run: String::new(), route: OnceLock::new() };
        ExternalScore::of(http, 32, Some(Duration::from_secs(60)))
    }

    /// Sends a header with the value of an environment variable.
    pub fn header(mut self, name: impl Into<String>, variable: impl Into<String>) -> Self {
        self.scorer.headers.push((name.into(), variable.into()));
        self
    }
}

impl Http {
    /// The headers with their values. Messages contain the variable, never its value.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let header = |(name, variable): &(String, String)| {
            let wrong = |what: &str| {
                Error::Config(format!("score.headers: `{name}`: the environment variable `{variable}` {what}"))
            };
            let header = HeaderName::try_from(name.as_str())
                .map_err(|_| Error::Config(format!("score.headers: `{name}` is not a valid header name")))?;
            let value = std::env::var(variable).map_err(|_| wrong("is not set"))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| wrong("contains characters that are not allowed in a header"))?;
            if header == AUTHORIZATION && value.to_str().is_err() {
                return Err(wrong("contains characters outside of ASCII, which are not allowed in this header"));
            }
            value.set_sensitive(true);
            Ok((header, value))
        };
        self.headers.iter().map(header).collect()
    }

    /// Resolves the endpoint.
    fn route(&self) -> Result<&Route> {
        if let Some(route) = self.route.get() {
            return Ok(route);
        }
        let route = Route::to(self.expanded()?)?;
        Ok(self.route.get_or_init(|| route))
    }

    /// The URL with environment variables replaced.
    fn expanded(&self) -> Result<Uri> {
        expanded(&self.url)?.0.parse().map_err(|_| self.bad_url("is not a valid URL"))
    }

    fn trouble(&self, error: ureq::Error, wait: &Wait, secrets: &Secrets) -> Result<Trouble> {
        Ok(match error {
            ureq::Error::BodyExceedsLimit(_) => unusable(format!("returned more than {} MiB", LONGEST >> 20)),
            ureq::Error::BadUri(_) => Trouble::Stop(self.bad_url("is not a valid URL")),
            error => self.route()?.trouble(error, wait.timed_out(), secrets),
        })
    }

    /// The idempotency key: the same for the same request in the same run.
    fn idempotency_key(&self, body: &[u8]) -> String {
        let mut key = blake3::Hasher::new();
        key.update(self.run.as_bytes()).update(&[0]).update(self.url.as_bytes()).update(&[0]).update(body);
        key.finalize().to_hex()[..32].to_string()
    }

    /// The URL without parts that may be secret.
    fn public_url(&self) -> &str {
        let shown = self.url.split(['?', '#']).next().unwrap_or_default();
        if shown.contains('@') { "the URL" } else { shown }
    }

    fn bad_url(&self, what: &str) -> Error {
        Error::Config(format!("score.url: `{}` {what}", self.public_url()))
    }
}

impl Ask for Http {
    fn ask(&self, items: &DataFrame, attempt: &mut Attempt, wait: &Wait) -> Result<(), Trouble> {
        let body = serde_json::to_vec(&json!({"items": records(items)?})).wrap_err("writing a batch")?;
        let (headers, in_url, route) = (self.headers()?, expanded(&self.url)?.1, self.route()?);
        let values: Vec<_> = headers.iter().map(|(_, value)| String::from_utf8_lossy(value.as_bytes())).collect();
        let of_proxy = route.proxy.as_ref().map_or(Vec::new(), Proxy::secrets);
        let texts = values.iter().map(|value| &**value).chain(in_url.iter().chain(&of_proxy).map(String::as_str));
        let secrets = Secrets::new(texts);
        let mut request = route
            .agent
            .post(&route.url)
            .config()
            .timeout_global(wait.limit())
            .timeout_connect(Some(wait.limit().map_or(CONNECT, |limit| limit.mul_f64(0.9).min(CONNECT))))
            .build()
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .header("Idempotency-Key", self.idempotency_key(&body));
        for (name, value) in route.headers.iter().chain(&headers) {
            request = request.header(name, value);
        }
        // On a thread, because nothing else can end a request early.
        let answer = wait.run(move || request.send(&body[..]).and_then(Reply::read))?;
        let answer = match answer.ok_or_else(|| wait.timed_out())? {
            Ok(answer) => answer,
            Err(error) => return Err(self.trouble(error, wait, &secrets)?),
        };
        let through = route.proxy.as_ref().map_or(String::new(), |proxy| format!(" through {proxy}"));
        let said = || match answer.body.trim_ascii() {
            [] => format!("HTTP {}", answer.status),
            body => format!("HTTP {}: {}", answer.status, secrets.excerpt(body)),
        };
        match answer.status {
            200..=299 => put_answers(&answer.body, items, attempt, &secrets),
            408 | 409 | 425 | 429 | 502 | 503 => {
                Err(Trouble::away(format!("HTTP {}{through}", answer.status), answer.retry_after))
            }
            504 => Err(Trouble::unanswered(Kind::Slow, format!("HTTP 504{through}"))),
            500.. => Err(Trouble::broken(format!("HTTP {}", answer.status))),
            300..=399 | 401..=405 | 407 | 410 | 451 => {
                let who = if answer.status == 407 { &through } else { "" };
                let reason = format!("{}{who}; fix the cause, then resume with --resume", said());
                Err(Trouble::Stop(Error::Score { iteration: None, reason }))
            }
            _ => Err(Trouble::broken(said())),
        }
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        if let Some(parameter) = parameter_with_a_secret(&self.url) {
            let variable = parameter.to_uppercase().replace('-', "_");
            let what = format!("contains a secret; use an environment variable instead: {parameter}=${{{variable}}}");
            return Err(self.bad_url(&what));
        }
        let url = self.expanded()?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(self.bad_url("does not begin with http:// or https://"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // The URL is stored in run.json.
            return Err(self.bad_url("contains a user name or password; send them in a header instead (score.headers)"));
        }
        self.headers()?;
        self.route()?;
        records(items).map(|_| ())
    }

    fn begin(&mut self, session: &Session) {
        self.run = session.id.clone();
        self.route = OnceLock::new();
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpScore")
            .field("url", &self.public_url())
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// A response of the service.
struct Reply {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Reply {
    fn read(mut response: ureq::http::Response<ureq::Body>) -> std::result::Result<Self, ureq::Error> {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let body = match response.body_mut().with_config().limit(LONGEST).read_to_vec() {
            // The status is sufficient.
            Err(_) if !(200..300).contains(&status) => Vec::new(),
            body => body?,
        };
        Ok(Reply { status, retry_after, body })
    }
}

/// Records the scores of a body: `{"scores": […]}` or a bare list, of objects or of numbers in order.
fn put_answers(body: &[u8], items: &DataFrame, attempt: &mut Attempt, secrets: &Secrets) -> Result<(), Trouble> {
    let said = || secrets.excerpt(body);
    let mut answer = parse(body).map_err(|_| unusable(format!("returned invalid JSON: {}", said())))?;
    secrets.redact(&mut answer);
    let scores = match &answer {
        Value::Object(fields) => fields.get("scores").and_then(Value::as_array),
        Value::Array(scores) => Some(scores),
        _ => None,
    };
    let scores = scores.ok_or_else(|| unusable(format!("returned JSON without a list `scores`: {}", said())))?;
    if !scores.is_empty() && scores.iter().all(Value::is_object) {
        return scores.iter().try_for_each(|score| put_record(score, attempt));
    }
    if scores.is_empty() {
        return Ok(());
    }
    if scores.len() != items.height() {
        // There is no way to match numbers and items.
        return Err(Trouble::void(format!("returned {} numbers for {} items", scores.len(), items.height())));
    }
    for (item, score) in schema::u64s(items, DB_IDX)?.into_iter().zip(scores) {
        attempt.put(item, Answer::new(score_of(Some(score), None), None, None))?;
    }
    Ok(())
}

/// A fault that is not retried, as a retry would cost the same again.
fn unusable(reason: String) -> Trouble {
    Trouble::unanswered(Kind::Unusable, reason)
}

/// Parses `Retry-After`: a number of seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_a_server_asks_for_is_in_seconds_or_until_a_date() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("Retry-After", value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(asked("Fri, 31 Dec 2100 23:59:59 GMT").unwrap() > Duration::from_secs(86_400 * 365));
        for wrong in ["", "soon", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(asked(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn secrets_show_nowhere() {
        let score = HttpScore::new("https://example.org/score?key=hunter2").header("Authorization", "TOKEN");
        assert_eq!(
            format!("{score:?}"),
            r#"HttpScore { url: "https://example.org/score", headers: [("Authorization", "TOKEN")], .. }"#
        );
    }
}
