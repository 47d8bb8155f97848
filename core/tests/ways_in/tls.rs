//! TLS on both sides, with a CA and certificates made for each run.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use etp_ws::{Client, Pem, Server, ServerBuilder};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::{Dir, Peer, Running, child, echo, run, says, shown, upgrade, with_errors};

/// A CA with a server's and a client's certificate, as PEM files.
struct Pki {
    dir: Dir,
    ca: PathBuf,
    server: (PathBuf, PathBuf),
    client: (PathBuf, PathBuf),
}

impl Pki {
    fn new() -> Self {
        let dir = Dir::new();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // A name of its own, too: certificates are matched by name first.
        params
            .distinguished_name
            .push(DnType::CommonName, format!("a CA in {}", dir.path("").display()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let ca = dir.write("ca.pem", params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        let issue = |name: &str, hosts: &[&str], purpose| {
            let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            let mut params = CertificateParams::new(hosts).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            let cert = params.signed_by(&key, &issuer).unwrap();
            (
                dir.write(&format!("{name}.pem"), cert.pem()),
                dir.write(&format!("{name}.key"), key.serialize_pem()),
            )
        };
        let server = issue(
            "server",
            &["localhost", "127.0.0.1"],
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let client = issue("client", &["a client"], ExtendedKeyUsagePurpose::ClientAuth);
        Self {
            ca,
            server,
            client,
            dir,
        }
    }

    fn builder(&self) -> ServerBuilder {
        echo().tls(&self.server.0, &self.server.1)
    }

    /// A configuration that asks clients for a certificate of this CA.
    fn demanding(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&self.server.0).unwrap()],
                PrivateKeyDer::from_pem_file(&self.server.1).unwrap(),
            )
            .unwrap();
        Arc::new(config)
    }
}

async fn echoes(client: &Client) {
    // Larger than a TLS record, and than what a socket takes at once.
    let large = "ä".repeat(300_000);
    assert_eq!(client.emit_with_ack("echo", large.clone()).await.unwrap(), large);
    assert_eq!(client.emit_with_ack("echo", "hi").await.unwrap(), "hi");
}

#[tokio::test]
async fn a_client_that_trusts_the_ca_is_served_by_name_and_by_address() {
    let pki = Pki::new();
    let running = run(pki.builder()).await;
    assert!(running.url.starts_with("wss://127.0.0.1:"));
    for url in [
        running.url.clone(),
        running.url.replace("127.0.0.1", "localhost"),
        running.url.replace("wss:", "https:"),
    ] {
        let client = Client::builder().ca(&pki.ca).connect(url).await.unwrap();
        echoes(&client).await;
        client.close().await;
    }
    running.shutdown().await;
}

#[tokio::test]
async fn certificates_and_keys_may_be_given_as_text() {
    let pki = Pki::new();
    let text = |path: &PathBuf| Pem::text(std::fs::read(path).unwrap());
    let running = run(echo().tls(text(&pki.server.0), text(&pki.server.1))).await;
    let client = Client::builder()
        .ca(text(&pki.ca))
        .client_cert(text(&pki.client.0), text(&pki.client.1))
        .connect(&running.url)
        .await
        .unwrap();
    echoes(&client).await;
    client.close().await;
    running.shutdown().await;
    let error = echo().tls(Pem::text("none"), text(&pki.server.1)).build().unwrap_err();
    assert_eq!(error.code(), "invalid_option");
    says(&error, &["tls", "the text that was given", "no certificate"]);
}

#[tokio::test]
async fn who_does_not_trust_the_ca_is_told_of_the_three_ways_to() {
    let pki = Pki::new();
    let (builder, mut errors) = with_errors(pki.builder());
    let running = run(builder).await;
    let stranger = Pki::new();
    let error = Client::builder()
        .ca(&stranger.ca)
        .connect(&running.url)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    says(
        &error,
        &[
            &running.address,
            "the system",
            "SSL_CERT_FILE",
            "option ca",
            "UnknownIssuer",
        ],
    );
    let error = errors.next().await;
    assert_eq!(error.code(), "handshake_failed");
    says(&error, &["TLS"]);
    running.shutdown().await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let pki = Pki::new();
    let running = run(pki.builder()).await;
    let url = running.url.replace("127.0.0.1", "127.0.0.2");
    let error = Client::builder().ca(&pki.ca).connect(url).await.unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    running.shutdown().await;
    // A loopback listener has one address only where it was bound to one.
    let running = crate::support::run_at(pki.builder(), "0.0.0.0:0").await;
    let url = running.url.replace("127.0.0.1", "127.0.0.2");
    let error = Client::builder().ca(&pki.ca).connect(url).await.unwrap_err();
    says(&error, &["not valid for name"]);
    running.shutdown().await;
}

#[tokio::test]
async fn a_client_shows_the_certificate_that_the_server_asks_for() {
    let pki = Pki::new();
    let (builder, mut errors) = with_errors(echo().tls_config(pki.demanding()));
    let running = run(builder).await;
    let client = Client::builder()
        .ca(&pki.ca)
        .client_cert(&pki.client.0, &pki.client.1)
        .connect(&running.url)
        .await
        .unwrap();
    echoes(&client).await;

    let without = Client::builder().ca(&pki.ca).connect(&running.url).await.unwrap_err();
    assert_eq!(without.code(), "connect_failed");
    says(&without, &[&running.address, "ertificate"]);
    says(&errors.next().await, &["TLS", "certificate"]);

    let stranger = Pki::new();
    let wrong = Client::builder()
        .ca(&pki.ca)
        .client_cert(&stranger.client.0, &stranger.client.1)
        .connect(&running.url)
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), "connect_failed");
    says(&errors.next().await, &["TLS"]);
    running.shutdown().await;
}

#[tokio::test]
async fn files_that_can_not_be_used_are_named_with_their_option() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let garbage = pki.dir.write("garbage.pem", "this is no PEM");
    let empty = pki.dir.write("empty.pem", "");
    let broken = pki.dir.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    );
    let hollow = pki.dir.write(
        "hollow.pem",
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
    );
    let missing = pki.dir.path("missing.pem");
    let (cert, key) = &pki.server;

    for (cert, key, named) in [
        (&missing, key, &missing),
        (&garbage, key, &garbage),
        (&empty, key, &empty),
        (&broken, key, &broken),
        (&hollow, key, &hollow),
        (cert, &missing, &missing),
        (cert, &garbage, &garbage),
        (cert, &empty, &empty),
        // The wrong way round.
        (key, cert, key),
        (cert, cert, cert),
        (cert, &stranger.server.1, &stranger.server.1),
    ] {
        let error = Server::builder().tls(cert, key).build().unwrap_err();
        assert_eq!(error.code(), "invalid_option");
        says(&error, &["tls", shown(named)]);
    }
    let error = Server::builder().tls(cert, &stranger.server.1).build().unwrap_err();
    says(&error, &["does not fit", shown(cert)]);

    let running = run(pki.builder()).await;
    for bad in [&missing, &garbage, &empty, &broken, &hollow] {
        let error = Client::builder().ca(bad).connect(&running.url).await.unwrap_err();
        assert_eq!(error.code(), "invalid_option");
        says(&error, &["ca", shown(bad)]);
    }
    let (cert, key) = &pki.client;
    for (cert, key, named) in [
        (&missing, key, &missing),
        (&garbage, key, &garbage),
        (cert, &missing, &missing),
        (cert, &garbage, &garbage),
        (cert, &stranger.client.1, &stranger.client.1),
    ] {
        let error = Client::builder()
            .ca(&pki.ca)
            .client_cert(cert, key)
            .connect(&running.url)
            .await
            .unwrap_err();
        assert_eq!(error.code(), "invalid_option");
        says(&error, &["client_cert", shown(named)]);
    }
    running.shutdown().await;
}

#[tokio::test]
async fn plain_and_tls_on_the_wrong_port_say_so() {
    let pki = Pki::new();
    let (builder, mut errors) = with_errors(pki.builder());
    let secure = run(builder).await;
    let error = Client::builder()
        .connect(secure.url.replace("wss:", "ws:"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    says(&error, &[&secure.address, "wss://"]);
    let error = errors.next().await;
    assert_eq!(error.code(), "handshake_failed");
    says(&error, &["TLS"]);
    secure.shutdown().await;

    let (builder, mut errors) = with_errors(echo());
    let plain = run(builder).await;
    let error = Client::builder()
        .ca(&pki.ca)
        .connect(plain.url.replace("ws:", "wss:"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    says(&error, &[&plain.address, "ws://"]);
    assert_eq!(errors.next().await.code(), "handshake_failed");
    plain.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_tls_handshake_counts_in_the_handshake_timeout() {
    let pki = Pki::new();
    let (builder, mut errors) = with_errors(pki.builder().handshake_timeout(Duration::from_secs(4)));
    let running = run(builder).await;
    // A peer that says nothing, and one that stops in the middle of a record.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut peer = running.dial().await;
        peer.send(bytes).await;
        peer.ended().await;
        says(&errors.next().await, &["handshake_timeout", "4s"]);
    }
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_after_the_tls_handshake_is_cut_as_well() {
    let pki = Pki::new();
    let (builder, mut errors) = with_errors(pki.builder());
    let running = run(builder).await;
    let mut peer = Peer::new(dial_tls(&pki, &running).await);
    peer.send("GET /ws HTTP/1.1\r\n").await;
    peer.ended().await;
    says(&errors.next().await, &["handshake_timeout"]);
    running.shutdown().await;
}

async fn dial_tls(pki: &Pki, running: &Running) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(&running.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test]
async fn frames_in_the_record_of_the_request_are_not_lost() {
    let pki = Pki::new();
    let running = run(pki.builder()).await;
    let mut peer = Peer::new(dial_tls(&pki, &running).await);
    peer.send([upgrade(&[]).into_bytes(), crate::support::text("echo||1||x")].concat())
        .await;
    assert_eq!(peer.answer().await.status, 101);
    assert_eq!(peer.text().await, "__ack_echo||1||x");
    drop(peer);
    running.shutdown().await;
}

#[tokio::test]
async fn a_client_takes_a_configuration_as_rustls_has_it() {
    let pki = Pki::new();
    let running = run(pki.builder()).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.ca).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_config(Arc::new(config))
        .connect(&running.url)
        .await
        .unwrap();
    echoes(&client).await;
    running.shutdown().await;
}

/// The child of the next test: dials without `ca`.
#[tokio::test]
#[ignore = "runs as a child of ssl_cert_file_is_the_systems_store"]
async fn dial_with_the_systems_store() {
    let url = std::env::var("ETP_TEST_URL").unwrap();
    let outcome = match Client::builder().connect(url).await {
        Ok(client) => format!("{:?}", client.emit_with_ack("echo", "trusted").await.unwrap()),
        Err(error) => format!("{}: {error}", error.code()),
    };
    eprintln!("OUTCOME {outcome}");
}

#[tokio::test]
async fn ssl_cert_file_is_the_systems_store() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let running = run(pki.builder()).await;
    let mut outcomes = Vec::new();
    for ca in [&pki.ca, &stranger.ca] {
        let program = child("tls::dial_with_the_systems_store");
        let output = Command::new(&program[0])
            .args(&program[1..])
            .env("SSL_CERT_FILE", ca)
            .env_remove("SSL_CERT_DIR")
            .env("ETP_TEST_URL", &running.url)
            .stdout(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let outcome = text
            .lines()
            .find_map(|line| line.strip_prefix("OUTCOME "))
            .expect(&text);
        outcomes.push(outcome.to_owned());
    }
    assert_eq!(outcomes[0], "b\"trusted\"");
    assert!(outcomes[1].starts_with("connect_failed: "), "{}", outcomes[1]);
    assert!(outcomes[1].contains("SSL_CERT_FILE"), "{}", outcomes[1]);
    running.shutdown().await;
}
