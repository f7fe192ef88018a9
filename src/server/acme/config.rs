//! The table `acme` in the file, or a list of such tables.
//!
//! ```toml
//! [[listen.public.tls.acme]]
//! names            = ["api.example.com", "www.example.com"]
//! challenge        = "http-01"                       # "tls-alpn-01" unless said otherwise
//! agree_to_terms   = true
//! contact          = "mailto:ops@example.com"
//! directory        = "https://ca.example.com/acme/directory"
//! ca               = "ca.pem"                        # who vouches for the directory's own certificate
//! external_account = { kid = "k1", key = { env = "ACME_HMAC" } }
//! ```

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::Uri;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};

use super::{Acme, Managed};
use crate::build::{Build, Node};
use crate::types::{Secret, SecretText};

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// As many as Let's Encrypt takes.
const MOST_NAMES: usize = 100;

/// `acme` of `tls`.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::server) struct AcmeConfig {
    tables: Vec<Table>,
    /// Whether they are a list in the file.
    list: bool,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Table {
    names: Vec<String>,
    #[serde(default)]
    challenge: Challenge,
    #[serde(default)]
    agree_to_terms: bool,
    contact: Option<String>,
    directory: Option<String>,
    ca: Option<PathBuf>,
    external_account: Option<ExternalAccountConfig>,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct ExternalAccountConfig {
    kid: String,
    key: Secret,
}

/// How the CA checks who has a name.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Challenge {
    #[serde(rename = "http-01")]
    Http01,
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// What a certificate is obtained with.
#[derive(PartialEq)]
pub(super) struct Settings {
    /// In lower case, as they are in the file.
    pub(super) names: Vec<String>,
    pub(super) challenge: Challenge,
    pub(super) contact: Option<String>,
    pub(super) directory: Uri,
    /// Who vouches for the directory, in DER; else whom the system trusts.
    pub(super) roots: Option<Vec<Vec<u8>>>,
    pub(super) external_account: Option<ExternalAccount>,
}

/// An account with the CA that is not of ACME (RFC 8555, section 7.3.4).
#[derive(PartialEq)]
pub(super) struct ExternalAccount {
    pub(super) kid: String,
    /// A secret: nothing here can be shown.
    pub(super) key: Vec<u8>,
}

/// Has the secrets of a listener's `acme` hidden, whatever is reported of their lines.
pub(in crate::server) fn hide_secrets(listener: &Node, build: &mut Build<'_>) {
    let Some(acme) = listener.get("tls").and_then(|tls| tls.get("acme")) else { return };
    for table in acme.array().unwrap_or(std::slice::from_ref(acme)) {
        let key = table.get("external_account").and_then(|account| account.get("key"));
        if let Some(key) = key.filter(|key| key.table().is_none()) {
            build.within_detached(key, |build| build.hide(""));
        }
    }
}

impl AcmeConfig {
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The certificates that it names, each with its key below the current node. What is wrong is reported.
    pub(in crate::server) fn compile(&self, acme: &Acme, build: &mut Build<'_>) -> Vec<(String, Arc<Managed>)> {
        let mut all = Vec::new();
        for (i, table) in self.tables.iter().enumerate() {
            let at = if self.list { format!("acme[{i}]") } else { "acme".to_owned() };
            if acme.shared.store.is_none() {
                build
                    .error(&at, "certificates that are obtained need a place to be kept in")
                    .help("add state_dir = \"/var/lib/portcullis\" to [server]");
            }
            if let Some(settings) = build.within(&at, |build| table.settings(build)) {
                all.push((at, acme.managed(settings)));
            }
        }
        all
    }
}

impl Table {
    fn settings(&self, build: &mut Build<'_>) -> Option<Settings> {
        let before = build.errors();
        if !self.agree_to_terms {
            build
                .error("agree_to_terms", "the CA gives certificates to those who agree to its terms of service")
                .help("read them, and write agree_to_terms = true");
        }
        let names = self.names(build);
        let directory = self.directory(build);
        if let Some(contact) = &self.contact
            && !contact.strip_prefix("mailto:").is_some_and(is_mail_address)
        {
            build.error("contact", format!("`{contact}` is not a contact")).help("write \"mailto:ops@example.com\"");
        }
        let roots = self.ca.as_ref().and_then(|path| {
            build.certificates("ca", path).map(|chain| chain.into_iter().map(|der| der.to_vec()).collect())
        });
        let external_account = self.external_account.as_ref();
        let external_account =
            external_account.and_then(|config| build.within("external_account", |build| config.compile(build)));
        if build.errors() > before {
            return None;
        }
        let contact = self.contact.clone();
        Some(Settings { names, challenge: self.challenge, contact, directory: directory?, roots, external_account })
    }

    fn names(&self, build: &mut Build<'_>) -> Vec<String> {
        if self.names.is_empty() {
            build.error("names", "a certificate is for at least one name");
        }
        if self.names.len() > MOST_NAMES {
            build.error("names", format!("a certificate is for at most {MOST_NAMES} names"));
        }
        let mut names: Vec<String> = Vec::new();
        for (i, name) in self.names.iter().enumerate() {
            let at = format!("names[{i}]");
            let name = name.to_ascii_lowercase();
            if name.contains('*') {
                build
                    .error(
                        &at,
                        format!("`{name}` is a wildcard, which only DNS-01 can prove, and that is not available"),
                    )
                    .help("name the hosts one by one, or put a certificate with the wildcard into `certificates`");
            } else if name.parse::<std::net::IpAddr>().is_ok() || name.starts_with('[') {
                build.error(&at, format!("`{name}` is an address: certificates are obtained for names only"));
            } else if !is_host_name(&name) {
                build
                    .error(&at, format!("`{name}` is not a name that a certificate can be for"))
                    .help("letters, digits, `-` and `.`; other scripts in the form of IDNA, `xn--…`");
            } else if names.contains(&name) {
                build.error(&at, format!("`{name}` is given twice"));
            }
            names.push(name);
        }
        names
    }

    fn directory(&self, build: &mut Build<'_>) -> Option<Uri> {
        let text = self.directory.as_deref().unwrap_or(LETS_ENCRYPT);
        let uri: Option<Uri> = text.parse().ok();
        let is_https = |uri: &Uri| uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty());
        let uri = uri.filter(|uri| is_https(uri) && !text.contains('@'));
        if uri.is_none() {
            build
                .error("directory", format!("`{text}` is not the URL of an ACME directory"))
                .help(format!("write a URL with https, such as \"{LETS_ENCRYPT}\""));
        }
        uri
    }
}

impl ExternalAccountConfig {
    fn compile(&self, build: &mut Build<'_>) -> Option<ExternalAccount> {
        if self.kid.is_empty() {
            build.error("kid", "the CA gives an external account a key identifier");
            return None;
        }
        let text = build.secret("key", &self.key)?;
        let Some(key) = decode(&text) else {
            build.error("key", "the key of an external account is base64 (RFC 4648), as the CA shows it");
            return None;
        };
        Some(ExternalAccount { kid: self.kid.clone(), key })
    }
}

/// With either alphabet, with or without padding: CAs show all of these.
fn decode(text: &SecretText) -> Option<Vec<u8>> {
    let text = text.expose().trim();
    let url_safe = || BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    BASE64_STANDARD.decode(text).or_else(|_| url_safe()).ok().filter(|key| !key.is_empty())
}

/// Letters, digits and hyphens (RFC 1123, section 2.1); the last label is not a number.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or("");
    name.len() <= 253 && name.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

fn is_mail_address(text: &str) -> bool {
    let graphic = text.len() <= 254 && text.bytes().all(|b| b.is_ascii_graphic() && !b"?,".contains(&b));
    graphic && text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && is_host_name(host))
}

impl Settings {
    /// What the certificate is called: its first name.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// What makes it another certificate: who gives it, and for which names.
    pub(super) fn identity(&self) -> String {
        let mut names = self.names.clone();
        names.sort_unstable();
        format!("{}\n{}", self.directory, names.join("\n"))
    }

    /// What makes it another account.
    pub(super) fn account(&self) -> String {
        let kid = self.external_account.as_ref().map_or("", |account| &account.kid);
        format!("{}\n{}\n{kid}", self.directory, self.contact.as_deref().unwrap_or(""))
    }
}

impl<'de> Deserialize<'de> for AcmeConfig {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AcmeVisitor;
        impl<'de> Visitor<'de> for AcmeVisitor {
            type Value = AcmeConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with `names` and `agree_to_terms`, or a list of such")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AcmeConfig, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AcmeConfig { tables: vec![table], list: false })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AcmeConfig, A::Error> {
                let mut tables = Vec::new();
                while let Some(table) = seq.next_element()? {
                    tables.push(table);
                }
                Ok(AcmeConfig { tables, list: true })
            }
        }
        deserializer.deserialize_any(AcmeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_certificate_can_be_for() {
        for name in ["a.example", "localhost", "xn--bcher-kva.example", "1.a-b.example", "a1"] {
            assert!(is_host_name(name), "{name}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for name in ["", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "a_b.c", "a b", "1.2.3", "bücher.example", &long] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn keys_of_external_accounts() {
        let key = |text: &str| decode(&SecretText::new(text));
        for text in ["-_-_AA", "-_-_AA==", "+/+/AA==", " -_-_AA\n"] {
            assert_eq!(key(text), Some(vec![0xfb, 0xff, 0xbf, 0]), "{text}");
        }
        assert!(key("").is_none() && key("not base64!").is_none());
    }
}
