//! TLS on both sides: what clients may do at a listener, and who the gateway is to its upstreams.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme};

use crate::harness::{Authority, Gateway, H2Answer, H2Origin, Identity, Journal, Origin, answer, gateway};

const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nupstream = \"o\"";

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let origin = Origin::saying("ok");
    let authority = Authority::new("test");
    let gw = gateway()
        .config("[server]\nthreads = 2")
        .secured(&authority.issue(&["gateway.test"]), "")
        .everything_to(&origin)
        .start();
    for version in [&TLS13, &TLS12] {
        let client = authority.client_of(&["http/1.1"], &[version], None);
        let visit = || {
            let mut connection = gw.connect_tls("gateway.test", client.clone()).unwrap();
            connection.get("/").send().expect(200).says("ok");
            assert_eq!(connection.tls_version(), version.version);
            connection.handshake()
        };
        assert_eq!(visit(), HandshakeKind::Full);
        for _ in 0..4 {
            assert_eq!(visit(), HandshakeKind::Resumed, "{:?}", version.version);
        }
    }
}

#[test]
fn tls_1_2_is_enough_unless_the_listener_wants_more() {
    let origin = Origin::saying("ok");
    let authority = Authority::new("test");
    let identity = authority.issue(&["gateway.test"]);
    let any = gateway().secured(&identity, "").everything_to(&origin).start();
    let new_only = gateway().secured(&identity, "min_version = \"1.3\"").everything_to(&origin).start();
    let old_client = || authority.client_of(&[], &[&TLS12], None);

    let mut connection = any.connect_tls("gateway.test", old_client()).unwrap();
    connection.get("/").send().expect(200).says("ok");
    assert_eq!(connection.tls_version(), ProtocolVersion::TLSv1_2);

    let refusal = new_only.connect_tls("gateway.test", old_client()).err().expect("TLS 1.2 is refused");
    assert!(refusal.to_string().contains("ProtocolVersion"), "{refusal}");
    let mut connection = new_only.connect_tls("gateway.test", authority.client(&[])).unwrap();
    connection.get("/").send().expect(200);
    assert_eq!(connection.tls_version(), ProtocolVersion::TLSv1_3);
}

/// Verifies as usual, and notes the OCSP response that came with the certificate.
#[derive(Debug)]
struct Noting {
    usual: Arc<WebPkiServerVerifier>,
    stapled: Arc<Journal<Vec<u8>>>,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.stapled.push(ocsp.to_vec());
        self.usual.verify_server_cert(leaf, chain, name, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[test]
fn an_ocsp_response_is_stapled_as_it_is() {
    let origin = Origin::saying("ok");
    let authority = Authority::new("test");
    let (with, without) = (authority.issue(&["with.test"]), authority.issue(&["without.test"]));
    let response: Vec<u8> = (0..1500).map(|i| (i % 251) as u8).collect();
    let gw = gateway()
        .file("with.pem", &with.cert)
        .file("with.key", &with.key)
        .file("with.ocsp", &response)
        .file("without.pem", &without.cert)
        .file("without.key", &without.key)
        .config(
            r#"
            [listen.public]
            address = "127.0.0.1:0"
            [[listen.public.tls.certificates]]
            cert = "with.pem"
            key = "with.key"
            ocsp = "with.ocsp"
            [[listen.public.tls.certificates]]
            cert = "without.pem"
            key = "without.key"
            "#,
        )
        .everything_to(&origin)
        .start();
    for version in [&TLS13, &TLS12] {
        for (name, expected) in [("with.test", response.as_slice()), ("without.test", &[])] {
            let stapled = Arc::new(Journal::default());
            let mut client = authority.client_of(&[], &[version], None);
            let usual = WebPkiServerVerifier::builder_with_provider(
                Arc::new(authority.roots()),
                client.crypto_provider().clone(),
            );
            let verifier = Noting { usual: usual.build().unwrap(), stapled: stapled.clone() };
            client.dangerous().set_certificate_verifier(Arc::new(verifier));
            gw.connect_tls(name, client).unwrap().get("/").send().expect(200);
            assert_eq!(stapled.all(), [expected], "{name} over {:?}", version.version);
        }
    }
}

#[test]
fn a_listener_that_wants_client_certificates() {
    let origin = Origin::saying("ok");
    let (authority, members, strangers) = (Authority::new("test"), Authority::new("members"), Authority::new("others"));
    let identity = authority.issue(&["gateway.test"]);
    let listener =
        |tls: &str| gateway().file("members.pem", members.pem()).secured(&identity, tls).everything_to(&origin).start();
    let required = listener("client_ca = \"members.pem\"");
    let optional = listener("client_ca = \"members.pem\", client_auth = \"optional\"");
    let (member, stranger) = (members.issue(&["member.test"]), strangers.issue(&["member.test"]));

    for version in [&TLS13, &TLS12] {
        // With TLS 1.3 a client learns only after the handshake that its certificate is not welcome.
        let ask = |gw: &Gateway, who: Option<&Identity>| {
            let client = authority.client_of(&[], &[version], who);
            gw.connect_tls("gateway.test", client)
                .and_then(|mut connection| connection.get("/").try_send())
                .map(|response| response.status)
        };
        assert_eq!(ask(&required, Some(&member)).unwrap(), 200);
        assert!(ask(&required, None).is_err());
        assert!(ask(&required, Some(&stranger)).is_err());
        assert_eq!(ask(&optional, Some(&member)).unwrap(), 200);
        assert_eq!(ask(&optional, None).unwrap(), 200);
        assert!(ask(&optional, Some(&stranger)).is_err());
    }
    assert_eq!(origin.requests().len(), 6, "nobody else reached the origin");
}

#[test]
fn a_server_that_wants_to_know_the_gateway() {
    let authority = Authority::new("ours");
    let (ours, foreign) =
        (authority.issue(&["portcullis.test"]), Authority::new("foreign").issue(&["portcullis.test"]));
    let origin = Origin::over_tls(authority.server(&["inner.test"], &[], true), |_| answer(200).body("welcome"));
    let gw = gateway()
        .origin("a", &origin)
        .file("ca.pem", authority.pem())
        .file("ours.pem", &ours.cert)
        .file("ours.key", &ours.key)
        .file("foreign.pem", &foreign.cert)
        .file("foreign.key", &foreign.key)
        .config(
            r#"
            [upstream.o]
            servers = ["@a"]
            tls = { sni = "inner.test", ca = "ca.pem", cert = "ours.pem", key = "ours.key" }
            [upstream.foreign]
            servers = ["@a"]
            tls = { sni = "inner.test", ca = "ca.pem", cert = "foreign.pem", key = "foreign.key" }
            [upstream.nobody]
            servers = ["@a"]
            tls = { sni = "inner.test", ca = "ca.pem" }
            [[route]]
            match = "/foreign"
            upstream = "foreign"
            [[route]]
            match = "/nobody"
            upstream = "nobody"
            "#,
        )
        .config(ROUTE)
        .start();
    // The connection of the pool that is known is open, and stays that pool's own.
    for _ in 0..2 {
        gw.get("/").send().expect(200).says("welcome");
        gw.get("/foreign").send().expect(502).problem("upstream-failed");
        gw.get("/nobody").send().expect(502).problem("upstream-failed");
    }
    assert_eq!(origin.requests_for("/").len(), 2);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn http2_over_tls_to_a_server() {
    let authority = Authority::new("ours");
    let origin = H2Origin::over_tls(authority.server(&["inner.test"], &["h2"], false), |request| {
        match request.target.as_str() {
            "/svc/ping" => H2Answer::grpc(b"pong"),
            _ => H2Answer::new(200).body(format!("{} {}", request.method, request.target)),
        }
    });
    let gw = gateway()
        .set("a", origin.address())
        .file("ca.pem", authority.pem())
        .config("[upstream.o]\nservers = [\"@a\"]\nprotocol = \"h2\"\ntls = { sni = \"inner.test\", ca = \"ca.pem\" }")
        .config(ROUTE)
        .start();
    gw.get("/one").send().expect(200).says("GET /one");
    gw.post("/two").body("a body").send().expect(200).says("POST /two");
    let mut client = gw.h2c();
    client.get("/three").send().expect(200).says("GET /three");
    let pong = client.grpc("/svc/ping", b"ping").send().expect(200);
    assert_eq!(pong.trailers.first("grpc-status"), Some("0"));

    let requests = origin.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[1].text(), "a body");
    for (turn, request) in requests.iter().enumerate() {
        assert_eq!(request.version, "HTTP/2");
        assert_eq!((request.connection, request.turn), (0, turn), "one connection is enough");
        assert_eq!(request.header(":authority"), "gateway.test");
    }
}
