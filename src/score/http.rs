//! Scores by an HTTP service.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use polars::prelude::DataFrame;
use serde_json::{Value, json};
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::Session;
use super::answer::Answer;
use super::answers::Attempt;
use super::deadline::Deadline;
use super::endpoint::Endpoint;
use super::external::{ExternalScore, ScorerClient};
use super::fault::{FaultKind, ScorerFault};
use super::json::{parse, parse_score, record_answer, records};
use super::proxy::Proxy;
use super::secrets::{Secrets, expand_variables, secret_parameter};
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX};

/// The maximum connection timeout.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum size of a response body.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// Scores by an HTTP service. Each request is a `POST`:
///
/// ```text
/// POST URL      {"items":  [{"db_idx": 17, "smiles": "CCO", "mw": 46.07}, …]}
/// 200           {"scores": [{"db_idx": 17, "score": 0.5}, {"db_idx": 18, "score": null, "reason": "too large"}, …]}
///            or {"scores": [0.5, null, …]}
/// ```
///
/// The body may also be the list alone. Objects may be in any order. Numbers must be in the order of the items, one for each.
///
/// [`ExternalScore`] describes what happens to an item. For HTTP:
/// - The service is unavailable if there is no connection, and for status 408, 409, 425, 429, 502 and 503. It is retried
///   after the backoff or `Retry-After`, whichever is longer. Reasons are, for example, `HTTP 429` or `connection: …`.
/// - An untrusted certificate, or a service that does not speak TLS, stops the run at once. Certificates are verified
///   against the system's, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`, as in OpenSSL.
/// - Status 401 to 405, 407, 410, 451 and redirects (which are not followed) stop the run at once, with the service's message.
/// - A response that is not JSON or has no scores is not retried, as a retry would cost the same again.
/// - Any other status, a timeout, a lost connection, missing items and wrong ids count as no answer.
///
/// Each request has an `Idempotency-Key` header. If no answer arrives, the retry of the same items has the same key. A
/// service that stores its answers by this key can return them again without repeating the work.
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
    /// Names of headers, and of the environment variables with their values. Values are read for each request and never
    /// stored.
    headers: Vec<(String, String)>,
    /// The identifier of the run, for idempotency keys.
    run: String,
    /// The endpoint in this run, resolved on first use.
    endpoint: OnceLock<Endpoint>,
}

impl HttpScore {
    /// A service at `http://…` or `https://…`.
    pub fn new(url: impl Into<String>) -> Self {
        let http = Http { url: url.into(), headers: Vec::new(), run: String::new(), endpoint: OnceLock::new() };
        ExternalScore::with_client(http, 32, Some(Duration::from_secs(60)))
    }

    /// Sends a header with the value of an environment variable.
    pub fn header(mut self, name: impl Into<String>, variable: impl Into<String>) -> Self {
        self.client.headers.push((name.into(), variable.into()));
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
    fn endpoint(&self) -> Result<&Endpoint> {
        if let Some(endpoint) = self.endpoint.get() {
            return Ok(endpoint);
        }
        let endpoint = Endpoint::resolve(self.expanded_url()?)?;
        Ok(self.endpoint.get_or_init(|| endpoint))
    }

    /// The URL with environment variables replaced.
    fn expanded_url(&self) -> Result<Uri> {
        expand_variables(&self.url)?.0.parse().map_err(|_| self.bad_url("is not a valid URL"))
    }

    fn fault(&self, error: ureq::Error, deadline: &Deadline, secrets: &Secrets) -> Result<ScorerFault> {
        Ok(match error {
            ureq::Error::BodyExceedsLimit(_) => {
                invalid_answer(format!("returned more than {} MiB", MAX_BODY_BYTES >> 20))
            }
            ureq::Error::BadUri(_) => ScorerFault::Fatal(self.bad_url("is not a valid URL")),
            error => self.endpoint()?.fault(error, deadline.timeout_fault(), secrets),
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
        let public = self.url.split(['?', '#']).next().unwrap_or_default();
        if public.contains('@') { "the URL" } else { public }
    }

    fn bad_url(&self, what: &str) -> Error {
        Error::Config(format!("score.url: `{}` {what}", self.public_url()))
    }
}

impl ScorerClient for Http {
    fn request(&self, items: &DataFrame, attempt: &mut Attempt, deadline: &Deadline) -> Result<(), ScorerFault> {
        let body = serde_json::to_vec(&json!({"items": records(items)?})).wrap_err("writing a request")?;
        let (headers, in_url, endpoint) = (self.headers()?, expand_variables(&self.url)?.1, self.endpoint()?);
        let values: Vec<_> = headers.iter().map(|(_, value)| String::from_utf8_lossy(value.as_bytes())).collect();
        let proxy_secrets = endpoint.proxy.as_ref().map_or(Vec::new(), Proxy::secrets);
        let texts = values.iter().map(|value| &**value).chain(in_url.iter().chain(&proxy_secrets).map(String::as_str));
        let secrets = Secrets::new(texts);
        let mut request = endpoint
            .agent
            .post(&endpoint.url)
            .config()
            .timeout_global(deadline.limit())
            .timeout_connect(Some(
                deadline.limit().map_or(MAX_CONNECT_TIMEOUT, |limit| limit.mul_f64(0.9).min(MAX_CONNECT_TIMEOUT)),
            ))
            .build()
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .header("Idempotency-Key", self.idempotency_key(&body));
        for (name, value) in endpoint.headers.iter().chain(&headers) {
            request = request.header(name, value);
        }
        // On a thread, because a running request cannot be cancelled in any other way.
        let response = deadline.run(move || request.send(&body[..]).and_then(Response::read))?;
        let response = match response.ok_or_else(|| deadline.timeout_fault())? {
            Ok(response) => response,
            Err(error) => return Err(self.fault(error, deadline, &secrets)?),
        };
        let through = endpoint.proxy.as_ref().map_or(String::new(), |proxy| format!(" through {proxy}"));
        let message = || match response.body.trim_ascii() {
            [] => format!("HTTP {}", response.status),
            body => format!("HTTP {}: {}", response.status, secrets.excerpt(body)),
        };
        match response.status {
            200..=299 => record_answers(&response.body, items, attempt, &secrets),
            408 | 409 | 425 | 429 | 502 | 503 => {
                Err(ScorerFault::outage(format!("HTTP {}{through}", response.status), response.retry_after))
            }
            504 => Err(ScorerFault::new(FaultKind::Timeout, format!("HTTP 504{through}"))),
            500.. => Err(ScorerFault::malfunction(format!("HTTP {}", response.status))),
            300..=399 | 401..=405 | 407 | 410 | 451 => {
                let who = if response.status == 407 { &through } else { "" };
                let reason = format!("{}{who}; fix the cause, then resume with --resume", message());
                Err(ScorerFault::Fatal(Error::Score { iteration: None, reason }))
            }
            _ => Err(ScorerFault::malfunction(message())),
        }
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        if let Some(parameter) = secret_parameter(&self.url) {
            let variable = parameter.to_uppercase().replace('-', "_");
            let what = format!("contains a secret; use an environment variable instead: {parameter}=${{{variable}}}");
            return Err(self.bad_url(&what));
        }
        let url = self.expanded_url()?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(self.bad_url("does not begin with http:// or https://"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // The URL is stored in run.json.
            return Err(self.bad_url("contains a user name or password; send them in a header instead (score.headers)"));
        }
        self.headers()?;
        self.endpoint()?;
        records(items).map(|_| ())
    }

    fn begin(&mut self, session: &Session) {
        self.run = session.id.clone();
        self.endpoint = OnceLock::new();
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
struct Response {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Response {
    fn read(mut response: ureq::http::Response<ureq::Body>) -> std::result::Result<Self, ureq::Error> {
        let status = response.status().as_u16();
        let retry_after = parse_retry_after(response.headers());
        let body = match response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec() {
            // For an error, the status is enough.
            Err(_) if !(200..300).contains(&status) => Vec::new(),
            body => body?,
        };
        Ok(Response { status, retry_after, body })
    }
}

/// Records the scores of a body: `{"scores": […]}` or a bare list, of objects or of numbers in order.
fn record_answers(body: &[u8], items: &DataFrame, attempt: &mut Attempt, secrets: &Secrets) -> Result<(), ScorerFault> {
    let excerpt = || secrets.excerpt(body);
    let mut answer = parse(body).map_err(|_| invalid_answer(format!("returned invalid JSON: {}", excerpt())))?;
    secrets.redact_json(&mut answer);
    let scores = match &answer {
        Value::Object(fields) => fields.get("scores").and_then(Value::as_array),
        Value::Array(scores) => Some(scores),
        _ => None,
    };
    let scores =
        scores.ok_or_else(|| invalid_answer(format!("returned JSON without a list `scores`: {}", excerpt())))?;
    if !scores.is_empty() && scores.iter().all(Value::is_object) {
        return scores.iter().try_for_each(|score| record_answer(score, attempt));
    }
    if scores.is_empty() {
        return Ok(());
    }
    if scores.len() != items.height() {
        // The numbers cannot be matched with items.
        return Err(ScorerFault::wrong_ids(format!("returned {} numbers for {} items", scores.len(), items.height())));
    }
    for (item, score) in schema::u64s(items, DB_IDX)?.into_iter().zip(scores) {
        attempt.record(item, Answer::new(parse_score(Some(score), None), None, None))?;
    }
    Ok(())
}

/// A fault that is not retried, as a retry would cost the same again.
fn invalid_answer(reason: String) -> ScorerFault {
    ScorerFault::new(FaultKind::InvalidAnswer, reason)
}

/// Parses `Retry-After`: a number of seconds, or a date.
fn parse_retry_after(headers: &HeaderMap) -> Option<Duration> {
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
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let parsed = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("Retry-After", value.parse().unwrap());
            parse_retry_after(&headers)
        };
        assert_eq!(parsed("7"), Some(Duration::from_secs(7)));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(parsed("Fri, 31 Dec 2100 23:59:59 GMT").unwrap() > Duration::from_secs(86_400 * 365));
        for wrong in ["", "soon", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn debug_output_has_no_secrets() {
        let score = HttpScore::new("https://example.org/score?key=hunter2").header("Authorization", "TOKEN");
        assert_eq!(
            format!("{score:?}"),
            r#"HttpScore { url: "https://example.org/score", headers: [("Authorization", "TOKEN")], .. }"#
        );
    }
}
