//! Pebble, a small ACME server, with a DNS server for which every name is 127.0.0.1.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::client::Connection;
use super::{Address, Authority, Part, eventually, free_port};

/// A CA about to start. It checks names at port `http` and port `tls`.
pub fn pebble(http: u16, tls: u16) -> Builder {
    Builder {
        http,
        tls,
        port: free_port(),
        validity: None,
        external_account: None,
        authority: Arc::new(Authority::new("pebble")),
    }
}

pub struct Builder {
    http: u16,
    tls: u16,
    port: u16,
    validity: Option<u64>,
    external_account: Option<(String, String)>,
    authority: Arc<Authority>,
}

/// A CA at work, ended with the test.
pub struct Pebble {
    part: Part,
    _dns: Part,
    _dir: TempDir,
    management: u16,
    authority: Arc<Authority>,
}

impl Builder {
    /// How long its certificates live, in seconds.
    pub fn validity(mut self, seconds: u64) -> Self {
        self.validity = Some(seconds);
        self
    }

    /// It takes only who has this account with it: key identifier and MAC key in base64url.
    pub fn external_account(mut self, kid: &str, key: &str) -> Self {
        self.external_account = Some((kid.to_owned(), key.to_owned()));
        self
    }

    /// Another with the same place and without what this one will know.
    pub fn again(&self) -> Self {
        Self { external_account: self.external_account.clone(), authority: self.authority.clone(), ..*self }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Who vouches for the certificate of its directory, in PEM.
    pub fn vouched_by(&self) -> String {
        self.authority.pem()
    }

    #[track_caller]
    pub fn start(self) -> Pebble {
        let dir = tempfile::tempdir().expect("a folder");
        let (management, dns) = (free_port(), free_port());
        let identity = self.authority.issue(&["localhost"]);
        let write =
            |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("the folder takes files");
        write("own.pem", &identity.cert);
        write("own.key", &identity.key);
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": dir.path().join("own.pem"),
            "privateKey": dir.path().join("own.key"),
            "httpPort": self.http,
            "tlsPort": self.tls,
            "ocspResponderURL": "",
        });
        if let Some(seconds) = self.validity {
            config["certificateValidityPeriod"] = json!(seconds);
        }
        if let Some((kid, key)) = &self.external_account {
            config["externalAccountBindingRequired"] = json!(true);
            config["externalAccountMACKeys"] = json!({ kid: key });
        }
        write("config.json", &json!({ "pebble": config }).to_string());
        let dns = name_server(dns);
        let part = ca(&dir.path().join("config.json"), &dns.1, self.port);
        Pebble { part, _dns: dns.0, _dir: dir, management, authority: self.authority }
    }
}

impl Pebble {
    /// The root of the certificates that it gives, in PEM; another after every start.
    #[track_caller]
    pub fn root(&self) -> String {
        let address = Address::Tcp(([127, 0, 0, 1], self.management).into());
        let mut connection = eventually("pebble's management interface", || {
            Connection::tls(&address, "localhost", self.authority.client(&["http/1.1"])).ok()
        });
        connection.get("/roots/0").send().expect(200).text()
    }

    /// How many certificates it gave.
    pub fn issued(&self) -> usize {
        self.part.output().iter().filter(|line| line.contains("Issued certificate serial")).count()
    }
}

fn name_server(port: u16) -> (Part, String) {
    let (address, management) = (format!("127.0.0.1:{port}"), free_port());
    let mut command = Command::new("pebble-challtestsrv");
    command.args(["-dns01", &address, "-http01", "", "-https01", "", "-tlsalpn01", ""]);
    command.args(["-management", &format!("127.0.0.1:{management}"), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
    (Part::at_port(&mut command, port), address)
}

fn ca(config: &Path, dns: &str, port: u16) -> Part {
    let mut command = Command::new("pebble");
    command.arg("-config").arg(config).args(["-dnsserver", dns]);
    // No pause before a check; and now and then a nonce that is not taken, as happens with real ones.
    command.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "15")]);
    Part::at_port(&mut command, port)
}
