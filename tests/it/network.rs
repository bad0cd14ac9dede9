//! Services as others reach them: certificates of a company, proxies, and what they refuse.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::common::*;
use crate::faults::succeeded;
use crate::scorers_http::Server;

/// A library of sixty items.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = folder();
        exact_library(&folder, &clustered(60, 4, 6, &mut rng(5)));
        Place { folder }
    }

    /// Scores eight items by a service, with some variables.
    fn search(&self, url: &str, out: &str, variables: &[(&str, String)]) -> Output {
        let run = format!(
            "seed = 3\n[database]\npath = 'items.lance'\nk = 5\n[queries]\nsample = 4\n[score]\nurl = '{url}'\nbatch_size = 4\n\
             patience = 1\n[update]\nfeatures = ['name']\n[stop]\nevaluations = 8\n"
        );
        std::fs::write(self.folder.path().join("run.toml"), run).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_uphill"));
        command.args(["search", "run.toml", "--out", out]).current_dir(self.folder.path());
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.envs(variables.iter().map(|(name, value)| (name, value))).output().expect("the binary runs")
    }
}

fn certificate(name: &str) -> PathBuf {
    root().join("tests/tls").join(name)
}

fn variable(name: &'static str, path: PathBuf) -> (&'static str, String) {
    (name, path.to_string_lossy().into_owned())
}

#[test]
fn a_service_is_trusted_by_the_certificates_that_the_environment_names() {
    let place = Place::new();
    let certificates = place.folder.path().join("certificates");
    std::fs::create_dir(&certificates).expect("a folder");
    std::fs::copy(certificate("ca.pem"), certificates.join("0a1b2c3d.0")).expect("copied");
    for (out, service, named) in [
        ("A", "service.pem", variable("SSL_CERT_FILE", certificate("ca.pem"))),
        ("B", "service.pem", variable("SSL_CERT_DIR", certificates)),
        // Its own certificate, as `openssl req -x509` makes it.
        ("C", "own.pem", variable("SSL_CERT_FILE", certificate("own.crt"))),
    ] {
        let server = Server::with_certificate(service);
        let url = format!("https://localhost:{}/weight", server.port());
        succeeded(&place.search(&url, out, &[named]));
        assert_eq!(server.counter.items().len(), 8);
    }
}

#[test]
fn a_tls_error_ends_the_run_at_once_with_advice() {
    let place = Place::new();
    let trusted = || vec![variable("SSL_CERT_FILE", certificate("ca.pem"))];
    let plain = Server::start();
    let servers = ["service.pem", "own.pem", "other.pem", "expired.pem"].map(Server::with_certificate);
    let [service, own, other, expired] = &servers;
    for (out, server, variables, words) in [
        (
            "A",
            service,
            vec![],
            "set the environment variable SSL_CERT_FILE to a PEM file with the certificate of its authority",
        ),
        (
            "B",
            own,
            trusted(),
            "set the environment variable SSL_CERT_FILE to a PEM file with the certificate of its authority",
        ),
        ("C", other, trusted(), "the certificate is for another name; use a host name that it contains"),
        ("D", expired, trusted(), "renew it, or correct the clock of this machine"),
        ("E", &plain, trusted(), "it does not speak TLS; use http://, or another port"),
    ] {
        let url = format!("https://localhost:{}/weight", server.port());
        let output = place.search(&url, out, &variables);
        assert_eq!(output.status.code(), Some(1), "{out}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{out}: {}", stderr(&output));
        assert!(!stderr(&output).contains("retrying"), "{out}: {}", stderr(&output));
        assert!(!stderr(&output).contains("for the scorer (score.patience)"), "{out}: {}", stderr(&output));
    }
}

#[test]
fn missing_certificate_files_are_rejected() {
    let place = Place::new();
    let empty = place.folder.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    for (named, words) in [
        (variable("SSL_CERT_FILE", empty.join("ca.pem")), "SSL_CERT_FILE: "),
        (variable("SSL_CERT_FILE", place.folder.path().join("items.parquet")), "no certificate found"),
        (variable("SSL_CERT_DIR", empty.clone()), "SSL_CERT_DIR: "),
    ] {
        let output = place.search("https://localhost:1/", "run", std::slice::from_ref(&named));
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        // Without TLS none is looked at.
        let server = Server::start();
        let out = format!("plain-{}", server.port());
        succeeded(&place.search(&server.url("weight"), &out, &[named]));
    }
}

/// The first line of a request, and the login to the proxy.
type Request = (String, Option<String>);

/// A proxy that passes requests on, and opens tunnels.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (port, asked) = (listener.local_addr().expect("an address").port(), Arc::default());
        let heard: Arc<Mutex<Vec<_>>> = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let heard = heard.clone();
                std::thread::spawn(move || serve(client, &heard));
            }
        });
        Proxy { port, asked }
    }

    fn variable(&self, name: &'static str) -> (&'static str, String) {
        (name, format!("http://me:hunter2@127.0.0.1:{}", self.port))
    }

    fn first(&self) -> Option<Request> {
        self.asked.lock().expect("whole").first().cloned()
    }
}

/// One request of a client, or a tunnel.
fn serve(client: TcpStream, heard: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let (mut head, mut length, mut login) = (Vec::new(), 0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if lower.starts_with("proxy-authorization:") {
            login = line.split_once(' ').map(|(_, login)| login.trim().to_string());
        } else {
            head.push(line.clone());
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let first = head[0].trim().to_string();
    heard.lock().expect("whole").push((first.clone(), login.clone()));
    let mut client = client;
    if login.as_deref() != Some("Basic bWU6aHVudGVyMg==") {
        return client.write_all(b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if method == "CONNECT" {
        let service = TcpStream::connect(target.replace("localhost", "127.0.0.1")).ok()?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        let (mut from, mut to) = (service.try_clone().ok()?, client.try_clone().ok()?);
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let mut service = service;
        return std::io::copy(&mut reader, &mut service).ok().map(|_| ());
    }
    let (host, path) = target.strip_prefix("http://")?.split_once('/')?;
    let mut service = TcpStream::connect(host).ok()?;
    head[0] = format!("{method} /{path} HTTP/1.1\r\n");
    // One request for each connection.
    head.insert(1, "Connection: close\r\n".into());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    service.write_all(head.concat().as_bytes()).ok()?;
    service.write_all(&body).ok()?;
    std::io::copy(&mut service, &mut client).ok().map(|_| ())
}

#[test]
fn a_service_is_called_through_the_proxy_of_its_scheme() {
    let place = Place::new();
    let (plain, tls) = (Server::start(), Server::with_certificate("service.pem"));
    let trusted = variable("SSL_CERT_FILE", certificate("ca.pem"));
    let http = plain.url("weight");
    let https = format!("https://localhost:{}/weight", tls.port());
    let (post, connect) = (format!("POST {http} HTTP/1.1"), format!("CONNECT localhost:{} HTTP/1.1", tls.port()));
    for (name, url, expected) in [
        ("http_proxy", &http, Some(&post)),
        ("HTTP_PROXY", &http, Some(&post)),
        ("ALL_PROXY", &http, Some(&post)),
        ("HTTPS_PROXY", &http, None),
        ("https_proxy", &https, Some(&connect)),
        ("all_proxy", &https, Some(&connect)),
        ("HTTP_PROXY", &https, None),
    ] {
        let proxy = Proxy::start();
        let out = format!("{name}-{}", url.len());
        succeeded(&place.search(url, &out, &[proxy.variable(name), trusted.clone()]));
        let first = proxy.first();
        assert_eq!(first.as_ref().map(|(line, _)| line), expected, "{name} {url}");
        // And without, where it says so.
        for exempt in ["example.org, 127.0.0.0/8,localhost", "*"] {
            let proxy = Proxy::start();
            let variables = [proxy.variable(name), ("NO_PROXY", exempt.into()), trusted.clone()];
            succeeded(&place.search(url, &format!("{out}-{}", exempt.len()), &variables));
            assert_eq!(proxy.first(), None, "{exempt}");
        }
    }
}

#[test]
fn a_proxy_that_is_unavailable_or_refuses_is_reported_without_its_password() {
    let place = Place::new();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    for (scheme, name) in [("http", "http_proxy"), ("https", "HTTPS_PROXY")] {
        let url = format!("{scheme}://localhost:1/");
        let login = (name, format!("http://me:hunter2@127.0.0.1:{nobody}"));
        let output = place.search(&url, scheme, &[login]);
        assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
        let words = format!("connection through the proxy http://127.0.0.1:{nobody} ({name}): ");
        assert!(stderr(&output).contains(&words), "{}", stderr(&output));
        assert!(!stderr(&output).contains("hunter2"), "{}", stderr(&output));
        let manifest = std::fs::read_to_string(place.folder.path().join(scheme).join("run.json")).expect("run.json");
        assert!(!manifest.contains("hunter2"), "{manifest}");

        let proxy = Proxy::start();
        let wrong = (name, format!("http://me:hunter3@127.0.0.1:{}", proxy.port));
        let output = place.search(&url, &format!("{scheme}-refused"), &[wrong]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let words = format!("through the proxy http://127.0.0.1:{} ({name})", proxy.port);
        assert!(stderr(&output).contains(&words) && stderr(&output).contains("407"), "{}", stderr(&output));
        assert!(!stderr(&output).contains("hunter3"), "{}", stderr(&output));
    }
    let output =
        place.search("http://localhost:1/", "socks", &[("ALL_PROXY", "socks5h://me:hunter2@localhost:1".into())]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("ALL_PROXY: `socks5h://localhost:1` is a SOCKS proxy"), "{}", stderr(&output));
}
