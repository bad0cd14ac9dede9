//! TLS certificates for verifying services: those of the system, or those that OpenSSL's environment variables name.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use crate::error::{Error, Result, WrapErr};

const FILE_VARIABLE: &str = "SSL_CERT_FILE";
const FOLDERS_VARIABLE: &str = "SSL_CERT_DIR";

/// The certificate bundles of Debian, Fedora, openSUSE, CentOS and Alpine.
const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificate folder of these systems.
const SYSTEM_FOLDER: &str = "/etc/ssl/certs";

/// The TLS configuration. `None` if neither the system nor the environment variables have certificates.
///
/// # Errors
/// The certificates that a variable names cannot be read.
pub(super) fn client_config() -> Result<Option<Arc<ClientConfig>>> {
    let trusted = trusted(env::var_os(FILE_VARIABLE), env::var_os(FOLDERS_VARIABLE))?;
    if trusted.is_empty() {
        return Ok(None);
    }
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let context = "reading the certificates of this system";
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build().wrap_err(context)?;
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().wrap_err(context)?;
    let verifier = Arc::new(Verifier { verifier, trusted });
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

type Certificates = HashSet<CertificateDer<'static>>;

/// The certificates of a file and of folders, by default those of the system.
fn trusted(file: Option<OsString>, folders: Option<OsString>) -> Result<Certificates> {
    let mut trusted = Certificates::new();
    match file.filter(|file| !file.is_empty()) {
        Some(file) => {
            let wrong =
                |what: String| Error::Config(format!("{FILE_VARIABLE}: {}: {what}", Path::new(&file).display()));
            let read = read_file(Path::new(&file)).map_err(|error| wrong(error.to_string()))?;
            if read.is_empty() {
                return Err(wrong("no certificate found; expected PEM, `-----BEGIN CERTIFICATE-----`".into()));
            }
            trusted.extend(read);
        }
        None => {
            trusted.extend(SYSTEM_FILES.iter().find_map(|file| read_file(Path::new(file)).ok()).unwrap_or_default())
        }
    }
    match folders.filter(|folders| !folders.is_empty()) {
        Some(folders) => {
            let read: Certificates = env::split_paths(&folders).flat_map(|folder| read_folder(&folder)).collect();
            if read.is_empty() {
                let folders = Path::new(&folders).display();
                return Err(Error::Config(format!(
                    "{FOLDERS_VARIABLE}: {folders}: no certificate found; expected PEM files"
                )));
            }
            trusted.extend(read);
        }
        None => trusted.extend(read_folder(Path::new(SYSTEM_FOLDER))),
    }
    Ok(trusted)
}

/// The certificates in a PEM file, ignoring other content.
fn read_file(path: &Path) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let bytes = fs::read(path)?;
    Ok(CertificateDer::pem_slice_iter(&bytes).filter_map(std::result::Result::ok).collect())
}

/// The certificates of all files in a folder. Most are there twice, under a name and under a hash.
fn read_folder(path: &Path) -> Certificates {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files: HashSet<PathBuf> = entries.filter_map(|entry| entry.path().canonicalize().ok()).collect();
    files.iter().filter(|file| file.is_file()).filter_map(|file| read_file(file).ok()).flatten().collect()
}

/// Verifies certificates like rustls, but accepts a trusted certificate of the service itself even if it is marked as an
/// authority: `openssl req -x509` makes such certificates, and OpenSSL accepts them.
#[derive(Debug)]
struct Verifier {
    verifier: Arc<WebPkiServerVerifier>,
    trusted: Certificates,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        match self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // rustls verifies the dates before it returns this error.
            Err(error) if is_authority(&error) && self.trusted.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Whether a certificate was rejected because it is marked as an authority.
fn is_authority(error: &TlsError) -> bool {
    // The error type is private to a dependency.
    matches!(error, TlsError::InvalidCertificate(CertificateError::Other(cause)) if cause.to_string() == "CaUsedAsEndEntity")
}

/// How to fix a TLS error; `None` if it may be temporary.
pub(super) fn advice(error: &TlsError) -> Option<String> {
    use rustls::AlertDescription::{CloseNotify, InternalError, UserCanceled};
    Some(match error {
        TlsError::InvalidCertificate(why) => match why {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name; use a host name that it contains".into()
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => "renew it, or correct the clock of this machine".into(),
            CertificateError::Revoked => "it was revoked; renew it".into(),
            _ => format!(
                "if you trust the service, set the environment variable {FILE_VARIABLE} to a PEM file with the certificate of its \
                 authority"
            ),
        },
        TlsError::InvalidMessage(_) => "it does not speak TLS; use http://, or another port".into(),
        TlsError::AlertReceived(InternalError | CloseNotify | UserCanceled) => return None,
        TlsError::AlertReceived(_) | TlsError::PeerIncompatible(_) => {
            "it rejects the TLS versions or ciphers of this client".into()
        }
        _ => return None,
    })
}
