//! Handshakes between this acceptor and a client of the same library.

use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::api::file;
use crate::api::files::Files;
use crate::api::tls::load;
use crate::model::problem::Problems;
use crate::model::request::ClientCertificate;
use crate::model::settings::read_file;
use crate::server::acme::challenges::Posted;

/// A folder with certificates of one authority in it.
struct World {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    challenges: Arc<Challenges>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Self { folder, authority: authority("Our CA"), challenges: Arc::default() };
        world.write("ca.pem", &world.authority.pem());
        world
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Writes `NAME.pem` and `NAME.key` of a certificate for these hosts.
    fn issue(&self, name: &str, hosts: &[&str]) {
        self.issue_with(name, hosts, |_| ());
    }

    fn issue_with(&self, name: &str, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let (chain, key) = self.certificate(name, hosts, change);
        self.write(&format!("{name}.pem"), &chain);
        self.write(&format!("{name}.key"), &key);
    }

    /// The PEM texts of a certificate whose common name is `name`, and of its key.
    fn certificate(&self, name: &str, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(hosts.iter().map(|host| host.to_string()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    fn load(&self, table: &str) -> (Option<Material>, Vec<String>) {
        let tls = settings(table);
        let mut problems = Problems::default();
        let material = load(&tls, &Files::new(self.folder.path()), &mut problems);
        assert_eq!(material.is_none(), problems.has_problems(), "{problems:?}");
        let folder = self.folder.path().display().to_string();
        (material, problems.iter().map(|problem| problem.to_string().replace(&folder, "FOLDER")).collect())
    }

    fn acceptor(&self, table: &str) -> Acceptor {
        let (material, problems) = self.load(table);
        assert_eq!(problems, [""; 0]);
        Acceptor::new(material.unwrap(), self.challenges.clone()).unwrap()
    }

    /// A client that trusts the authority.
    fn client(&self) -> ClientConfig {
        self.client_with(None)
    }

    /// The same, showing a certificate: PEM texts of it and of its key.
    fn client_with(&self, shown: Option<&(String, String)>) -> ClientConfig {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let Some((chain, key)) = shown else { return builder.with_no_client_auth() };
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The table as it stands in a file, below `[gateway.tls]`.
fn settings(table: &str) -> file::Tls {
    let (read, problems) = read_file::<file::Tls>(table, &|_| None, true);
    assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    read.unwrap()
}

/// A connection: the client's end, and the gateway's with what it was told.
type Connected = (tokio_rustls::client::TlsStream<DuplexStream>, TlsStream<DuplexStream>);

/// Shakes hands and exchanges a byte each way, since a client of TLS 1.3 learns only then that it was refused.
async fn connect(acceptor: &Acceptor, client: &Arc<ClientConfig>, name: &str) -> io::Result<Connected> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(client.clone());
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let (mut client, mut server) = (client?, server?.expect("no challenge"));
    server.write_all(b"x").await?;
    client.read_u8().await?;
    client.write_all(b"y").await?;
    server.read_u8().await?;
    Ok((client, server))
}

/// The common name of the certificate that a client of `name` is shown.
async fn shown(acceptor: &Acceptor, client: &Arc<ClientConfig>, name: &str) -> String {
    let mut config = (**client).clone();
    // The test wants to see certificates for other names as well.
    config.dangerous().set_certificate_verifier(Arc::new(Anything));
    let (client, _) = connect(acceptor, &Arc::new(config), name).await.unwrap();
    common_name(client.get_ref().1)
}

fn common_name(connection: &ClientConnection) -> String {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let leaf = connection.peer_certificates().unwrap().first().unwrap();
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    leaf.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

#[derive(Debug)]
struct Anything;

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

const ONE: &str = r#"certificates = [{ cert = "one.pem", key = "one.key" }]"#;

const SEVERAL: &str = r#"certificates = [
    { cert = "one.pem", key = "one.key" },
    { cert = "two.pem", key = "two.key" },
    { cert = "wild.pem", key = "wild.key" },
]"#;

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_its_certificate() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    world.issue("two", &["two.example.com", "Second.example.com"]);
    world.issue("wild", &["*.example.com", "*.two.example.com"]);
    let acceptor = world.acceptor(SEVERAL);
    let client = Arc::new(world.client());
    for (name, wanted) in [
        ("one.example.com", "one"),
        ("two.example.com", "two"),
        ("SECOND.example.com", "two"),
        ("any.example.com", "wild"),
        ("a.two.example.com", "wild"),
        ("a.b.example.com", "one"),
        ("example.com", "one"),
        ("elsewhere.org", "one"),
        ("127.0.0.1", "one"),
    ] {
        assert_eq!(shown(&acceptor, &client, name).await, wanted, "{name}");
    }
    connect(&acceptor, &client, "one.example.com").await.unwrap();
}

#[tokio::test]
async fn both_protocols_and_both_versions_are_spoken() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    let acceptor = world.acceptor(ONE);
    let check = async |offered: &[&[u8]], wanted: Option<&[u8]>| {
        let mut client = world.client();
        client.alpn_protocols = offered.iter().map(|one| one.to_vec()).collect();
        let connected = connect(&acceptor, &Arc::new(client), "one.example.com").await;
        assert_eq!(
            connected.ok().and_then(|(_, server)| server.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)),
            wanted.map(<[u8]>::to_vec)
        );
    };
    check(&[b"http/1.1", b"h2"], Some(b"h2")).await;
    check(&[b"http/1.1"], Some(b"http/1.1")).await;
    check(&[], None).await;
    check(&[b"spdy"], None).await;
    let old = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS12]);
    let mut roots = RootCertStore::empty();
    roots.add(world.authority.der().clone()).unwrap();
    let old = Arc::new(old.unwrap().with_root_certificates(roots).with_no_client_auth());
    connect(&acceptor, &old, "one.example.com").await.unwrap();
    let newer = world.acceptor(&format!("{ONE}\nminimum_version = \"1.3\""));
    assert!(connect(&newer, &old, "one.example.com").await.is_err());
}

#[tokio::test]
async fn certificates_are_swapped_while_a_connection_lives() {
    let world = World::new();
    world.issue_with("one", &["one.example.com"], |params| params.distinguished_name.push(DnType::CommonName, "old"));
    let acceptor = world.acceptor(ONE);
    // No client remembers a session, so that each handshake shows a certificate.
    let client = || Arc::new(world.client());
    let (mut living, mut server) = connect(&acceptor, &client(), "one.example.com").await.unwrap();
    assert_eq!(common_name(living.get_ref().1), "old");
    assert!(!acceptor.swap(world.load(ONE).0.unwrap()).unwrap(), "nothing is different yet");

    world.issue_with("one", &["one.example.com"], |params| params.distinguished_name.push(DnType::CommonName, "new"));
    assert!(acceptor.swap(world.load(ONE).0.unwrap()).unwrap());
    assert_eq!(shown(&acceptor, &client(), "one.example.com").await, "new");
    living.write_all(b"z").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'z');
}

#[tokio::test]
async fn a_half_written_rotation_is_a_problem_and_changes_nothing() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    let acceptor = world.acceptor(ONE);
    let (chain, _) = world.certificate("one", &["one.example.com"], |_| ());
    world.write("one.pem", &chain);
    let (material, problems) = world.load(ONE);
    assert!(material.is_none() && problems.len() == 1);
    connect(&acceptor, &Arc::new(world.client()), "one.example.com").await.unwrap();
}

#[tokio::test]
async fn sessions_are_resumed_until_the_rules_change() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    let acceptor = world.acceptor(ONE);
    let client = Arc::new(world.client());
    let kind = async || connect(&acceptor, &client, "one.example.com").await.unwrap().1.get_ref().1.handshake_kind();
    let (full, resumed) = (Some(rustls::HandshakeKind::Full), Some(rustls::HandshakeKind::Resumed));
    assert_eq!([kind().await, kind().await], [full, resumed]);
    world.issue("one", &["one.example.com"]);
    acceptor.swap(world.load(ONE).0.unwrap()).unwrap();
    assert_eq!(kind().await, resumed);
    let rules = format!("{ONE}\nclient_ca = \"ca.pem\"\nclient_auth = \"optional\"");
    assert!(acceptor.swap(world.load(&rules).0.unwrap()).unwrap());
    assert_eq!(kind().await, full);
}

/// What the gateway knows of a client that shows `certificate`; `Err` if it was turned away.
async fn client_of(
    world: &World,
    table: &str,
    certificate: Option<&(String, String)>,
) -> Result<Option<Arc<ClientCertificate>>, ()> {
    let acceptor = world.acceptor(&format!("{ONE}\n{table}"));
    let client = Arc::new(world.client_with(certificate));
    let connected = connect(&acceptor, &client, "one.example.com").await;
    connected.map(|(_, server)| client_certificate(server.get_ref().1)).map_err(|_| ())
}

#[tokio::test]
async fn a_client_shows_a_certificate_of_the_authority_or_is_turned_away() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    let for_clients =
        |params: &mut CertificateParams| params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
    let good = world.certificate("client", &[], for_clients);
    let expired = world.certificate("client", &[], |params| params.not_after = date_time_ymd(2001, 1, 1));
    let stranger =
        World { folder: tempfile::tempdir().unwrap(), authority: authority("Their CA"), challenges: Arc::default() };
    let strange = stranger.certificate("client", &[], for_clients);
    let required = "client_ca = \"ca.pem\"";
    let optional = "client_ca = \"ca.pem\"\nclient_auth = \"optional\"";

    let seen = client_of(&world, required, Some(&good)).await.unwrap().unwrap();
    assert!(seen.subject_dn.ends_with("CN=client") && seen.issuer_dn.ends_with("CN=Our CA"), "{seen:?}");
    assert_eq!(seen.pem, good.0.replace('\r', ""));
    assert!(client_of(&world, optional, Some(&good)).await.unwrap().is_some());
    assert_eq!(client_of(&world, optional, None).await, Ok(None));
    assert_eq!(client_of(&world, "", Some(&good)).await, Ok(None));
    for refused in [None, Some(&expired), Some(&strange)] {
        assert!(client_of(&world, required, refused).await.is_err());
    }
    assert!(client_of(&world, optional, Some(&strange)).await.is_err());
}

#[tokio::test]
async fn another_authority_of_clients_takes_effect_without_a_new_listener() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    let table = format!("{ONE}\nclient_ca = \"ca.pem\"");
    let acceptor = world.acceptor(&table);
    let client = Arc::new(world.client_with(Some(&world.certificate("client", &[], |_| ()))));
    connect(&acceptor, &client, "one.example.com").await.unwrap();
    world.write("ca.pem", &authority("Their CA").pem());
    assert!(acceptor.swap(world.load(&table).0.unwrap()).unwrap());
    // Nor may the session be resumed that was opened under the old authority.
    assert!(connect(&acceptor, &client, "one.example.com").await.is_err());
}

#[tokio::test]
async fn a_challenge_is_answered_to_authorities_only() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    let acceptor = world.acceptor(&format!("{ONE}\nclient_ca = \"ca.pem\""));
    world.issue("challenge", &["one.example.com"]);
    let (material, _) = world.load(r#"certificates = [{ cert = "challenge.pem", key = "challenge.key" }]"#);
    let mut posted = Posted::on(&world.challenges);
    posted.tls("one.example.com", CertifiedKey::clone(&material.unwrap().certificates[0]));
    let ask = async |offered: &[&[u8]], name: &str| {
        let mut client = world.client();
        client.alpn_protocols = offered.iter().map(|one| one.to_vec()).collect();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        client.ok().filter(|_| matches!(server, Ok(None))).map(|client| common_name(client.get_ref().1))
    };
    assert_eq!(ask(&[b"acme-tls/1"], "one.example.com").await.as_deref(), Some("challenge"));
    assert_eq!(ask(&[b"acme-tls/1"], "two.example.com").await, None);
    assert_eq!(ask(&[b"acme-tls/1", b"h2"], "one.example.com").await, None);
    assert_eq!(ask(&[b"h2"], "one.example.com").await, None);
    drop(posted);
    assert_eq!(ask(&[b"acme-tls/1"], "one.example.com").await, None);
}

#[tokio::test]
async fn issued_certificates_are_served_behind_those_of_the_file() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    let acceptor = world.acceptor(ONE);
    world.issue("issued", &["one.example.com", "two.example.com"]);
    let (material, _) = world.load(r#"certificates = [{ cert = "issued.pem", key = "issued.key" }]"#);
    acceptor.serve_issued(material.unwrap().certificates);
    let client = Arc::new(world.client());
    assert_eq!(shown(&acceptor, &client, "one.example.com").await, "one");
    assert_eq!(shown(&acceptor, &client, "two.example.com").await, "issued");
}

/// `wanted` are the problems and warnings, without the place they share.
fn check_problems(world: &World, table: &str, wanted: &[&str]) {
    assert_eq!(world.load(table).1, wanted, "{table}");
}

#[test]
fn files_that_will_not_do_are_problems() {
    let world = World::new();
    world.issue("one", &["one.example.com"]);
    world.issue("two", &["two.example.com"]);
    world.write("empty.pem", "");
    world.write("damaged.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    world.write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n");
    world.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nbm9uc2Vuc2U=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let pair = |cert: &str, key: &str| format!("certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]");
    let check = |cert: &str, key: &str, wanted: &[&str]| check_problems(&world, &pair(cert, key), wanted);
    check("one.pem", "one.key", &[]);
    check(
        "none.pem",
        "none.key",
        &[
            "certificates[0].cert: `none.pem` cannot be read: No such file or directory (os error 2); \
             write a whole path, or one from `FOLDER`",
            "certificates[0].key: `none.key` cannot be read: No such file or directory (os error 2); \
             write a whole path, or one from `FOLDER`",
        ],
    );
    check(
        "one.pem",
        "two.key",
        &["certificates[0].key: the key in `two.key` is not that of the first certificate in `one.pem`; \
           write the key that belongs to it; the host's own certificate stands first in its file"],
    );
    check(
        "empty.pem",
        "one.key",
        &["certificates[0].cert: `empty.pem` has no certificate in it; \
           write a PEM file; a certificate in it begins with `-----BEGIN CERTIFICATE-----`"],
    );
    check(
        "one.pem",
        "one.pem",
        &["certificates[0].key: `one.pem` has no private key in it; \
           write a PEM file; a key in it begins with `-----BEGIN PRIVATE KEY-----`"],
    );
    check(
        "one.pem",
        "locked.key",
        &["certificates[0].key: the key in `locked.key` is encrypted; \
           decrypt it, as with `openssl pkey`, and let only the gateway read the file"],
    );
    for bad in ["damaged.pem", "nonsense.pem"] {
        let (material, problems) = world.load(&pair(bad, "one.key"));
        assert!(material.is_none() && problems.len() == 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("certificates[0].cert: a certificate in `{bad}` cannot be read: ")));
        let (material, problems) = world.load(&format!("{ONE}\nclient_ca = \"{bad}\""));
        assert!(material.is_none() && problems.len() == 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("client_ca: a certificate in `{bad}` cannot be read: ")));
    }
}

#[test]
fn certificates_that_clients_would_refuse_are_warnings() {
    let world = World::new();
    let pair = |name: &str| format!("certificates = [{{ cert = \"{name}.pem\", key = \"{name}.key\" }}]");
    world.issue_with("old", &["a"], |params| params.not_after = date_time_ymd(2001, 2, 3));
    world.issue_with("early", &["a"], |params| params.not_before = date_time_ymd(2901, 2, 3));
    world.issue("nameless", &[]);
    world.issue("address", &["127.0.0.1"]);
    check_problems(
        &world,
        &pair("old"),
        &["certificates[0].cert: the certificate in `old.pem` has expired at 2001-02-03T00:00:00.000Z; \
           renew it: clients refuse it"],
    );
    check_problems(
        &world,
        &pair("early"),
        &["certificates[0].cert: the certificate in `early.pem` is valid from 2901-02-03T00:00:00.000Z only; \
           check this machine's clock: clients refuse it until then"],
    );
    check_problems(
        &world,
        &pair("nameless"),
        &["certificates[0].cert: the certificate in `nameless.pem` names no host; \
           let it have subject alternative names: clients do not look at the common name"],
    );
    check_problems(&world, &pair("address"), &[]);
}

#[test]
fn a_table_that_asks_for_nothing_is_a_problem() {
    let check = |table: &str, wanted: &str| {
        let (_, problems) = read_file::<file::Tls>(table, &|_| None, false);
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [wanted]);
    };
    let add = "add `certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]`, or `[gateway.tls.acme]`";
    check("", &format!("TLS has no certificate; {add}"));
    check(
        &format!("{ONE}\nclient_auth = \"required\""),
        "client_auth: no certificate is asked for without `client_ca`; \
         add `client_ca = \"ca.pem\"`, or leave this key out",
    );
    check(r#"certificates = [{ cert = "one.pem" }]"#, "certificates[0]: `key` is missing; add it to this table");
}
