//! Certificates for a server and its clients: a CA of one's own, and what a certificate says.

use crate::tls::{TlsError, file, write_private};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use tidegate_proto::access::{AccessError, check_principal};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The CA's certificate in its folder: what servers and clients trust.
pub const CA_CERT: &str = "ca-cert.pem";
/// Its key. Whoever has it can be anybody.
pub const CA_KEY: &str = "ca-key.pem";
/// Longest a certificate may be good, in days.
pub const DAYS_MAX: u32 = 3_650;
/// Most certificates made at once.
const NAMES_MAX: usize = 1_000;
/// Certificates are good from an hour ago, for clocks that are late.
const EARLY_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// Why there is no certificate, or none that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A file cannot be read or written, or is none.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file is there already.
    #[error("`{}` exists already; --force replaces it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A name that no file or certificate can have.
    #[error("`{name}` is no name for a {what}: {rule}")]
    Name {
        /// The name.
        name: String,
        /// Whose.
        what: &'static str,
        /// What names there are.
        rule: &'static str,
    },
    /// A number out of its range.
    #[error("{what}: {found}, allowed are {min} to {max}")]
    Range {
        /// What.
        what: &'static str,
        /// The number.
        found: u64,
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// The library refused.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// Bytes that are no certificate.
    #[error("this is no certificate")]
    Parse,
    /// Its time is over, or has not come.
    #[error("it is good from {from_s} to {until_s} (seconds since 1970), and now is {now_s}")]
    Time {
        /// From when.
        from_s: i64,
        /// Until when.
        until_s: i64,
        /// Now.
        now_s: u64,
    },
    /// A client's certificate that says of nobody who it is.
    #[error("the certificate names nobody: it needs a common name, or a DNS name or URI")]
    Nobody,
    /// A client's certificate that could be understood in two ways.
    #[error("the certificate has {0} common names, allowed is one")]
    Names(usize),
    /// The name is none a principal can have.
    #[error(transparent)]
    Principal(#[from] AccessError),
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertsRequest {
    /// Names and addresses the server's certificate is good for; none for no server's certificate.
    pub hosts: Vec<String>,
    /// Clients, by the principals they are to be.
    pub clients: Vec<String>,
    /// How long certificates are good, in days: 1 to 3,650.
    pub days: u32,
    /// Whether files that exist are replaced.
    pub force: bool,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The file.
    pub path: PathBuf,
    /// What it is: `CA`, `server`, `client`, `certificate`, `key`.
    pub what: &'static str,
    /// Whom or what it is for.
    pub names: Vec<String>,
    /// From and until when it is good, in seconds since 1970; `None` for keys.
    pub good_s: Option<(i64, i64)>,
    /// For keys: whether others than the owner may read it.
    pub exposed: bool,
}

/// Makes a CA in `dir`, a certificate for a server, and one for each client.
///
/// # Errors
/// [`CertsError`] when a name is none, a file exists, or the folder cannot be used. Nothing was written then, except where the
/// disk itself failed half-way.
pub fn init(dir: &Path, request: &CertsRequest, now_s: u64) -> Result<Vec<Shown>, CertsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    // Each CA a name of its own: of two with one name a peer would say that a signature is bad, not that it knows another CA.
    let own: String = key.der_bytes().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("tidegate CA {own}"));
    // As long as anything it signs can be good.
    period(&mut params, now_s, DAYS_MAX)?;
    let certificate = params.self_signed(&key)?;
    let mut files = Files::default();
    files.add(dir.join(CA_KEY), key.serialize_pem(), true);
    files.add(dir.join(CA_CERT), certificate.pem(), false);
    make(dir, request, now_s, &Issuer::new(params, key), files)
}

/// Makes further certificates with the CA in `dir`.
///
/// # Errors
/// As [`init`].
pub fn add(dir: &Path, request: &CertsRequest, now_s: u64) -> Result<Vec<Shown>, CertsError> {
    make(dir, request, now_s, &issuer(dir)?, Files::default())
}

/// The CA in `dir`.
fn issuer(dir: &Path) -> Result<Issuer<'static, KeyPair>, CertsError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(file("read", &path)).map_err(CertsError::from)
    };
    let pem =
        |what| move |_| TlsError::Pem { what, path: dir.join(if what == "CA" { CA_CERT } else { CA_KEY }) };
    let key = KeyPair::from_pem(&read(CA_KEY)?).map_err(pem("private key"))?;
    Ok(Issuer::from_ca_cert_pem(&read(CA_CERT)?, key).map_err(pem("CA"))?)
}

/// What to make for one of several servers that connect to each other: good for both sides of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRequest {
    /// Where the files go.
    pub out: PathBuf,
    /// Names and addresses it is good for; the first is also its common name.
    pub names: Vec<String>,
    /// The beginning of the files' names.
    pub file: &'static str,
    /// How long it is good, in days: 1 to 3,650.
    pub days: u32,
    /// Whether files that exist are replaced.
    pub force: bool,
}

/// Makes a certificate for a server that is also a client, with the CA in `dir`.
///
/// # Errors
/// As [`init`].
pub fn peer(dir: &Path, request: &PeerRequest, now_s: u64) -> Result<Vec<Shown>, CertsError> {
    range("days", request.days.into(), 1, DAYS_MAX.into())?;
    range("names", request.names.len() as u64, 1, NAMES_MAX as u64)?;
    let issuer = issuer(dir)?;
    let mut params = CertificateParams::new(request.names.clone())?;
    params.distinguished_name.push(DnType::CommonName, request.names[0].as_str());
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let mut files = Files::default();
    signed(&mut files, &request.out, request.file, params, request.days, now_s, &issuer)?;
    files.write(&request.out, request.force)
}

/// The DNS names that a certificate is good for.
///
/// # Errors
/// [`CertsError::Parse`] for bytes that are no certificate.
pub fn dns_names(der: &CertificateDer<'_>) -> Result<Vec<String>, CertsError> {
    let certificate = parse(der)?;
    let found = certificate.subject_alternative_name().map_err(|_| CertsError::Parse)?;
    let names = found.map(|found| &found.value.general_names[..]).unwrap_or_default();
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Ok(dns.collect())
}

fn make(
    dir: &Path,
    request: &CertsRequest,
    now_s: u64,
    issuer: &Issuer<'_, KeyPair>,
    mut files: Files,
) -> Result<Vec<Shown>, CertsError> {
    let count = request.hosts.len().max(request.clients.len()) as u64;
    range("names", count, 0, NAMES_MAX as u64)?;
    range("days", request.days.into(), 1, DAYS_MAX.into())?;
    if !request.hosts.is_empty() {
        for host in &request.hosts {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '*' | '_');
            if host.is_empty() || host.len() > 253 || !host.chars().all(good) {
                let rule = "a DNS name or an IP address of 1 to 253 characters";
                return Err(CertsError::Name { name: host.escape_debug().to_string(), what: "host", rule });
            }
        }
        let mut params = CertificateParams::new(request.hosts.clone())?;
        params.distinguished_name.push(DnType::CommonName, request.hosts[0].as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        signed(&mut files, dir, "server", params, request.days, now_s, issuer)?;
    }
    for client in &request.clients {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(1..=64).contains(&client.len()) || !client.chars().all(good) || client.starts_with('.') {
            let rule = "1 to 64 letters, digits, `.`, `-` and `_`, not beginning with a dot";
            return Err(CertsError::Name { name: client.escape_debug().to_string(), what: "client", rule });
        }
        check_principal(client)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, client.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        signed(&mut files, dir, &format!("client-{client}"), params, request.days, now_s, issuer)?;
    }
    files.write(dir, request.force)
}

fn range(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), CertsError> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(CertsError::Range { what, found, min, max }) }
}

fn period(params: &mut CertificateParams, now_s: u64, days: u32) -> Result<(), CertsError> {
    let instant = |at: i64| {
        let min = 0;
        let out = CertsError::Range { what: "time of day", found: now_s, min, max: 253_402_300_799 };
        OffsetDateTime::from_unix_timestamp(at).map_err(|_| out)
    };
    let now = i64::try_from(now_s).unwrap_or(i64::MAX / 2);
    params.not_before = instant(now - EARLY_S)?;
    params.not_after = instant(now + i64::from(days) * DAY_S)?;
    Ok(())
}

fn signed(
    files: &mut Files,
    dir: &Path,
    name: &str,
    mut params: CertificateParams,
    days: u32,
    now_s: u64,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(), CertsError> {
    period(&mut params, now_s, days)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    files.add(dir.join(format!("{name}-key.pem")), key.serialize_pem(), true);
    files.add(dir.join(format!("{name}-cert.pem")), certificate.pem(), false);
    Ok(())
}

/// Files to be written: all of them or, if one is in the way, none.
#[derive(Default)]
struct Files(Vec<(PathBuf, String, bool)>);

impl Files {
    fn add(&mut self, path: PathBuf, text: String, private: bool) {
        self.0.push((path, text, private));
    }

    fn write(self, dir: &Path, force: bool) -> Result<Vec<Shown>, CertsError> {
        for (at, (path, ..)) in self.0.iter().enumerate() {
            if path.exists() && !force || self.0[..at].iter().any(|(other, ..)| other == path) {
                return Err(CertsError::Exists { path: path.clone() });
            }
        }
        std::fs::create_dir_all(dir).map_err(file("create", dir))?;
        let mut shown = Vec::new();
        for (path, text, private) in &self.0 {
            if *private {
                write_private(path, text.as_bytes())?;
            } else {
                std::fs::write(path, text).map_err(file("write", path))?;
            }
            shown.extend(show(path)?);
        }
        Ok(shown)
    }
}

/// What is in a file, or in each `.pem` of a folder, in the order of their names.
///
/// # Errors
/// [`CertsError`] when it cannot be read or holds neither certificate nor key.
pub fn show(path: &Path) -> Result<Vec<Shown>, CertsError> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut files: Vec<PathBuf> =
            entries.map_err(file("read", path))?.iter().map(std::fs::DirEntry::path).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "pem"));
        files.sort();
        let mut shown = Vec::new();
        for file in &files {
            shown.extend(show(file)?);
        }
        return Ok(shown);
    }
    let text = std::fs::read(path).map_err(file("read", path))?;
    let none = || TlsError::Pem { what: "certificate or key", path: path.to_path_buf() };
    let mut shown = Vec::new();
    for der in CertificateDer::pem_slice_iter(&text) {
        shown.push(describe(path, &der.map_err(|_| none())?)?);
    }
    if shown.is_empty() {
        rustls::pki_types::PrivateKeyDer::from_pem_slice(&text).map_err(|_| none())?;
        let what = "key";
        shown.push(Shown {
            path: path.to_path_buf(),
            what,
            names: Vec::new(),
            good_s: None,
            exposed: exposed(path)?,
        });
    }
    Ok(shown)
}

#[cfg(unix)]
fn exposed(path: &Path) -> Result<bool, CertsError> {
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::metadata(path).map_err(file("read", path))?;
    Ok(meta.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn exposed(_: &Path) -> Result<bool, CertsError> {
    Ok(false)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertsError> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|_| CertsError::Parse)
}

fn describe(path: &Path, der: &CertificateDer<'_>) -> Result<Shown, CertsError> {
    let certificate = parse(der)?;
    let usage = certificate.extended_key_usage().ok().flatten().map(|usage| usage.value);
    let what = match usage {
        _ if certificate.is_ca() => "CA",
        Some(usage) if usage.server_auth && !usage.client_auth => "server",
        Some(usage) if usage.client_auth && !usage.server_auth => "client",
        _ => "certificate",
    };
    let mut names = common_names(&certificate);
    let alternatives = alternatives(&certificate);
    if what == "server" || names.is_empty() {
        names = alternatives;
    } else {
        names.extend(alternatives);
    }
    let time = &certificate.validity;
    let good_s = Some((time.not_before.timestamp(), time.not_after.timestamp()));
    Ok(Shown { path: path.to_path_buf(), what, names, good_s, exposed: false })
}

fn common_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject().iter_common_name();
    names.filter_map(|name| name.as_str().ok()).map(str::to_owned).collect()
}

/// DNS names, URIs and addresses, in the order in which the certificate has them.
fn alternatives(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|ip| std::net::Ipv4Addr::from(ip).to_string());
            let six = <[u8; 16]>::try_from(*bytes).map(|ip| std::net::Ipv6Addr::from(ip).to_string());
            four.or(six).ok()
        }
        _ => None,
    };
    names.map_or_else(Vec::new, |names| names.value.general_names.iter().filter_map(name).collect())
}

/// Whose certificate this is: its common name, or where it has none, its first DNS name or URI. That it can be believed was
/// decided in the handshake.
///
/// # Errors
/// [`CertsError`] when it names nobody, or two, or somebody who cannot be.
pub fn principal(der: &CertificateDer<'_>) -> Result<String, CertsError> {
    let certificate = parse(der)?;
    let mut names = common_names(&certificate);
    // One that cannot be read as text must not count as none.
    let count = certificate.subject().iter_common_name().count();
    if count > 1 || count != names.len() {
        return Err(CertsError::Names(count));
    }
    if names.is_empty() {
        let all = certificate.subject_alternative_name().ok().flatten();
        let first = all.and_then(|all| {
            all.value.general_names.iter().find_map(|name| match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
                _ => None,
            })
        });
        names.extend(first);
    }
    let name = names.pop().ok_or(CertsError::Nobody)?;
    check_principal(&name)?;
    Ok(name)
}

/// Whether a certificate's time has come and is not over.
///
/// # Errors
/// [`CertsError::Time`] when not, [`CertsError::Parse`] when it is none.
pub fn check_time(der: &CertificateDer<'_>, now_s: u64) -> Result<(), CertsError> {
    let time = &parse(der)?.validity;
    let (from_s, until_s) = (time.not_before.timestamp(), time.not_after.timestamp());
    let now = i64::try_from(now_s).unwrap_or(i64::MAX);
    if (from_s..=until_s).contains(&now) { Ok(()) } else { Err(CertsError::Time { from_s, until_s, now_s }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn request() -> CertsRequest {
        CertsRequest {
            hosts: vec!["localhost".into(), "10.0.0.1".into(), "::1".into()],
            clients: vec!["desk-1".into(), "feed".into()],
            days: 30,
            force: false,
        }
    }

    #[test]
    fn a_folder_of_certificates_is_made_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let made = init(dir.path(), &request(), NOW).unwrap();
        let mut shown = show(dir.path()).unwrap();
        assert_eq!((made.len(), shown.len()), (8, 8));
        shown.retain(|one| one.what != "key");
        let day = |days: i64| NOW as i64 + days * DAY_S;
        let from = NOW as i64 - EARLY_S;
        let brief: Vec<_> = shown.iter().map(|one| (one.what, one.names.join(" "), one.good_s)).collect();
        assert_eq!(
            brief,
            [
                ("CA", shown[0].names[0].clone(), Some((from, day(3_650)))),
                ("client", "desk-1".to_owned(), Some((from, day(30)))),
                ("client", "feed".to_owned(), Some((from, day(30)))),
                ("server", "localhost 10.0.0.1 ::1".to_owned(), Some((from, day(30)))),
            ]
        );
        assert!(made.iter().all(|one| !one.exposed), "keys are for their owner");
        let der = std::fs::read(dir.path().join("client-desk-1-cert.pem")).unwrap();
        let der = CertificateDer::from_pem_slice(&der).unwrap();
        assert_eq!(principal(&der).unwrap(), "desk-1");
        check_time(&der, NOW).unwrap();
        assert!(matches!(check_time(&der, NOW + 31 * 86_400), Err(CertsError::Time { .. })));
        assert!(matches!(check_time(&der, 5), Err(CertsError::Time { .. })));
    }

    #[test]
    fn what_is_there_is_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &request(), NOW).unwrap();
        let before = std::fs::read(dir.path().join(CA_CERT)).unwrap();
        assert!(matches!(init(dir.path(), &request(), NOW), Err(CertsError::Exists { .. })));
        // Further ones of the same CA; one that exists stops all of them.
        let more = CertsRequest { hosts: vec![], clients: vec!["new".into(), "feed".into()], ..request() };
        assert!(
            matches!(add(dir.path(), &more, NOW), Err(CertsError::Exists { path }) if path.ends_with("client-feed-key.pem"))
        );
        assert!(!dir.path().join("client-new-cert.pem").exists());
        let made = add(dir.path(), &CertsRequest { clients: vec!["new".into()], ..more }, NOW).unwrap();
        assert_eq!(made.len(), 2);
        assert_eq!(std::fs::read(dir.path().join(CA_CERT)).unwrap(), before);
        let forced = init(dir.path(), &CertsRequest { force: true, ..request() }, NOW).unwrap();
        assert!(forced.iter().all(|one| !one.exposed));
        assert_ne!(std::fs::read(dir.path().join(CA_CERT)).unwrap(), before);
    }

    #[test]
    fn names_that_cannot_be_are_refused_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new");
        for (hosts, clients, days) in [
            (&["a b"][..], &[][..], 1),
            (&[""], &[], 1),
            (&[], &["../../etc/passwd"], 1),
            (&[], &[""], 1),
            (&[], &["anonymous"], 1),
            (&[], &["twice", "twice"], 1),
            (&[], &["a"], 0),
            (&[], &["a"], 3_651),
        ] {
            let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
            let request = CertsRequest { hosts: owned(hosts), clients: owned(clients), days, force: true };
            init(&dir, &request, NOW).unwrap_err();
            assert!(!dir.exists());
        }
    }

    #[test]
    fn a_principal_is_one_name() {
        let key = KeyPair::generate().unwrap();
        let made = |common: &[&str], alternatives: &[&str]| {
            let names: Vec<String> = alternatives.iter().map(|&name| name.to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for name in common {
                params.distinguished_name.push(DnType::CommonName, *name);
            }
            principal(params.self_signed(&key).unwrap().der()).map_err(|error| error.to_string())
        };
        assert_eq!(made(&["desk"], &["other.example"]).as_deref(), Ok("desk"));
        assert_eq!(made(&[], &["10.0.0.1", "desk.example", "b.example"]).as_deref(), Ok("desk.example"));
        assert!(made(&[], &["10.0.0.1"]).unwrap_err().contains("names nobody"));
        assert!(made(&["anonymous"], &[]).unwrap_err().contains("nobody else can have it"));
        assert!(made(&["a\nb"], &[]).unwrap_err().contains("is no name of a principal"));
    }
}
