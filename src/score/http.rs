//! Scores by an HTTP service.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use polars::prelude::DataFrame;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::Session;
use super::answers::{Answer, Attempt};
use super::external::{Ask, ExternalScore};
use super::json::{parse, put_record, records, score_of};
use super::secrets::{Secrets, expanded, parameter_with_a_secret};
use super::trouble::{Kind, Trouble};
use super::wait::Wait;
use crate::error::{Doing, Error, Result, one_line};
use crate::schema::{self, DB_IDX};

/// The longest that a connection may take.
const CONNECT: Duration = Duration::from_secs(30);

/// The longest body that is taken as an answer.
const LONGEST: u64 = 64 << 20;

/// Scores by a service. Each batch is one request:
///
/// ```text
/// POST URL      {"items":  [{"db_idx": 17, "smiles": "CCO", "mw": 46.07}, …]}
/// 200           {"scores": [{"db_idx": 17, "score": 0.5}, {"db_idx": 18, "score": null, "reason": "too large"}, …]}
///            or {"scores": [0.5, null, …]}
/// ```
///
/// The list may also come bare. Objects may come in any order; numbers are in the order of the items, one for each.
///
/// What happens to an item, [`ExternalScore`] says. Here,
/// - the service is away while there is no connection, and with status 408, 409, 425, 429, 502 and 503; it is asked again
///   after the longer of our wait and `Retry-After`. The reasons are such as `HTTP 429`, `connection: …`;
/// - status 401 to 405, 407, 410, 451 and redirects, which are not followed, stop the run at once, with the service's words;
/// - an answer that is not JSON or has no scores is not asked for again, as it would cost the same again;
/// - another status, a time-out, a lost connection, items left out and wrong ids are no answer.
///
/// Each request has a header `Idempotency-Key`, the same whenever the same items are asked again because no answer came:
/// a service that keeps its answers by it can give them again without working twice.
///
/// `${NAME}` in the URL stands for an environment variable, so that a key need not stand in files.
///
/// A request in flight when the run is interrupted is left to itself; the service may still work on it.
pub type HttpScore = ExternalScore<Http>;

/// The connections of an [`HttpScore`].
pub struct Http {
    url: String,
    /// Header ⇒ environment variable. The values are read when they are sent, and are kept nowhere.
    headers: Vec<(String, String)>,
    /// The run that asks, for the idempotency keys.
    run: String,
    agent: ureq::Agent,
}

impl HttpScore {
    /// A service at `http://…` or `https://…`.
    pub fn new(url: impl Into<String>) -> Self {
        // As many connections as there are requests in flight.
        const IDLE: usize = 1024;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(IDLE)
            .max_idle_connections_per_host(IDLE)
            .user_agent(concat!("uphill/", env!("CARGO_PKG_VERSION")));
        let agent = config.build().into();
        let http = Http { url: url.into(), headers: Vec::new(), run: String::new(), agent };
        ExternalScore::of(http, 32, Some(Duration::from_secs(60)))
    }

    /// Sends a header whose value stands in an environment variable.
    pub fn header(mut self, name: impl Into<String>, variable: impl Into<String>) -> Self {
        self.scorer.headers.push((name.into(), variable.into()));
        self
    }
}

impl Http {
    /// The headers with their values. Messages name the variable, never the value.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let header = |(name, variable): &(String, String)| {
            let wrong = |what: &str| {
                Error::Config(format!("score.headers: `{name}`: the environment variable `{variable}` {what}"))
            };
            let header = HeaderName::try_from(name.as_str())
                .map_err(|_| Error::Config(format!("score.headers: `{name}` is not a header's name")))?;
            let value = std::env::var(variable).map_err(|_| wrong("is not set"))?;
            let mut value =
                HeaderValue::try_from(value).map_err(|_| wrong("has characters that a header cannot have"))?;
            value.set_sensitive(true);
            Ok((header, value))
        };
        self.headers.iter().map(header).collect()
    }

    fn trouble(&self, error: ureq::Error, wait: &Wait, secrets: &Secrets) -> Trouble {
        let reason = format!("connection: {}", secrets.redacted(&one_line(&error.to_string())));
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Trouble::away(reason, None),
            ureq::Error::Timeout(_) => wait.timed_out(),
            ureq::Error::BodyExceedsLimit(_) => unusable(format!("answered more than {} MiB", LONGEST >> 20)),
            ureq::Error::BadUri(_) => Trouble::Stop(self.bad_url("is not a URL")),
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Rustls(_)
            | ureq::Error::Tls(_) => Trouble::away(reason, None),
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::TimedOut => wait.timed_out(),
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
                | ErrorKind::AddrNotAvailable => Trouble::away(reason, None),
                // What the system's resolver says has no kind.
                _ if error.to_string().contains("failed to lookup address") => Trouble::away(reason, None),
                _ => Trouble::broken(reason),
            },
            _ => Trouble::broken(reason),
        }
    }

    /// The same whenever this run asks for the same.
    fn idempotency_key(&self, body: &[u8]) -> String {
        let mut key = blake3::Hasher::new();
        key.update(self.run.as_bytes()).update(&[0]).update(self.url.as_bytes()).update(&[0]).update(body);
        key.finalize().to_hex()[..32].to_string()
    }

    /// The URL without what may be secret in it.
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
        let body = serde_json::to_vec(&json!({"items": records(items)?})).doing("writing a batch")?;
        let (headers, (url, in_url)) = (self.headers()?, expanded(&self.url)?);
        let values: Vec<_> = headers.iter().map(|(_, value)| String::from_utf8_lossy(value.as_bytes())).collect();
        let secrets = Secrets::new(values.iter().map(|value| &**value).chain(in_url.iter().map(String::as_str)));
        let mut request = self
            .agent
            .post(&url)
            .config()
            .timeout_global(wait.limit())
            .timeout_connect(Some(wait.limit().map_or(CONNECT, |limit| limit.mul_f64(0.9).min(CONNECT))))
            .build()
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .header("Idempotency-Key", self.idempotency_key(&body));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        // On a thread, as nothing else ends a request before its time.
        let answer = wait.run(move || request.send(&body[..]).and_then(Reply::read))?;
        let answer = answer.ok_or_else(|| wait.timed_out())?.map_err(|error| self.trouble(error, wait, &secrets))?;
        let said = || match answer.body.trim_ascii() {
            [] => format!("HTTP {}", answer.status),
            body => format!("HTTP {}: {}", answer.status, secrets.excerpt(body)),
        };
        match answer.status {
            200..=299 => put_answers(&answer.body, items, attempt, &secrets),
            408 | 409 | 425 | 429 | 502 | 503 => {
                Err(Trouble::away(format!("HTTP {}", answer.status), answer.retry_after))
            }
            504 => Err(Trouble::unanswered(Kind::Slow, "HTTP 504")),
            500.. => Err(Trouble::broken(format!("HTTP {}", answer.status))),
            300..=399 | 401..=405 | 407 | 410 | 451 => {
                let reason = format!("{}; mend what it refuses, then go on with --resume", said());
                Err(Trouble::Stop(Error::Score { iteration: None, reason }))
            }
            _ => Err(Trouble::broken(said())),
        }
    }

    fn check(&self, items: &DataFrame) -> Result<()> {
        if let Some(parameter) = parameter_with_a_secret(&self.url) {
            let variable = parameter.to_uppercase().replace('-', "_");
            let what = format!("has a secret in it: name an environment variable, as in {parameter}=${{{variable}}}");
            return Err(self.bad_url(&what));
        }
        let url: Uri = expanded(&self.url)?.0.parse().map_err(|_| self.bad_url("is not a URL"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(self.bad_url("does not begin with http:// or https://"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // It would be kept in run.json.
            return Err(self.bad_url("has a user name or password in it: send them in a header, by score.headers"));
        }
        self.headers()?;
        records(items).map(|_| ())
    }

    fn begin(&mut self, session: &Session) {
        self.run = session.id.clone();
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

/// What a service answers.
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
            // The status says enough.
            Err(_) if !(200..300).contains(&status) => Vec::new(),
            body => body?,
        };
        Ok(Reply { status, retry_after, body })
    }
}

/// Takes the scores of a body: `{"scores": […]}` or a bare list, of objects or of numbers in order.
fn put_answers(body: &[u8], items: &DataFrame, attempt: &mut Attempt, secrets: &Secrets) -> Result<(), Trouble> {
    let said = || secrets.excerpt(body);
    let mut answer = parse(body).map_err(|_| unusable(format!("answered what is not JSON: {}", said())))?;
    secrets.redact(&mut answer);
    let scores = match &answer {
        Value::Object(fields) => fields.get("scores").and_then(Value::as_array),
        Value::Array(scores) => Some(scores),
        _ => None,
    };
    let scores = scores.ok_or_else(|| unusable(format!("answered JSON without a list `scores`: {}", said())))?;
    if !scores.is_empty() && scores.iter().all(Value::is_object) {
        return scores.iter().try_for_each(|score| put_record(score, attempt));
    }
    if scores.is_empty() {
        return Ok(());
    }
    if scores.len() != items.height() {
        // Whose they are cannot be known.
        return Err(Trouble::void(format!("answered {} numbers for {} items", scores.len(), items.height())));
    }
    for (item, score) in schema::u64s(items, DB_IDX)?.into_iter().zip(scores) {
        attempt.put(item, Answer::new(score_of(Some(score), None), None, None))?;
    }
    Ok(())
}

/// What would cost the same again.
fn unusable(reason: String) -> Trouble {
    Trouble::unanswered(Kind::Unusable, reason)
}

/// How long a server asks to be left alone: in seconds, or until a date.
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
