use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};

/// Where a secret comes from.
///
/// ```toml
/// token = { env = "ADMIN_TOKEN" }
/// token = { file = "/etc/portcullis/admin.token" }
/// token = { credential = "admin" }               # systemd's LoadCredential=
/// token = "in the file"                          # accepted with a warning
/// ```
///
/// Nothing prints a secret: `Debug` shows its source only.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Written in the configuration itself.
    Literal(SecretText),
    /// The value of an environment variable.
    Env(String),
    /// The contents of a file, without one trailing line break.
    File(PathBuf),
    /// A systemd credential, read from `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// Why a secret could not be had; the text never holds any part of it.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretError(String);

impl Secret {
    /// Reads the secret from its source.
    ///
    /// # Errors
    /// The source is missing, unreadable, empty or not UTF-8.
    pub fn read(&self) -> Result<SecretText, SecretError> {
        let text = match self {
            Self::Literal(text) => return Ok(text.clone()),
            Self::Env(name) => {
                std::env::var(name).map_err(|_| SecretError(format!("the environment has no variable `{name}`")))?
            }
            Self::File(path) => read_file(path)?,
            Self::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    SecretError(
                        "$CREDENTIALS_DIRECTORY is not set: systemd sets it for units with LoadCredential=".to_owned(),
                    )
                })?;
                read_file(&PathBuf::from(directory).join(name))?
            }
        };
        if text.is_empty() {
            return Err(SecretError(format!("{self:?} is empty")));
        }
        Ok(SecretText(text))
    }
}

fn read_file(path: &std::path::Path) -> Result<String, SecretError> {
    let text = super::file::read_text(path).map_err(SecretError)?;
    Ok(text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text).to_owned())
}

impl SecretText {
    /// Wraps text that must not be printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("(secret)"),
            Self::Env(name) => write!(f, "environment variable `{name}`"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential `{name}`"),
        }
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SecretError {}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;
        impl<'de> Visitor<'de> for SecretVisitor {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret: { env = \"NAME\" }, { file = \"path\" } or { credential = \"name\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::Literal(SecretText::new(text)))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "lowercase")]
                enum Source {
                    Env(String),
                    File(PathBuf),
                    Credential(String),
                }
                Ok(match Source::deserialize(MapAccessDeserializer::new(map))? {
                    Source::Env(name) => Secret::Env(name),
                    Source::File(path) => Secret::File(path),
                    Source::Credential(name) => Secret::Credential(name),
                })
            }
        }
        deserializer.deserialize_any(SecretVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_secret() {
        let secret = Secret::Literal(SecretText::new("hunter2"));
        assert_eq!(format!("{secret:?} {:?}", secret.read()), "(secret) Ok((secret))");
    }

    #[test]
    fn a_file_loses_one_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        assert_eq!(Secret::File(file.path().into()).read().unwrap().expose(), "s3cret");
        std::fs::write(file.path(), "").unwrap();
        assert!(Secret::File(file.path().into()).read().is_err());
        assert!(Secret::Env("PORTCULLIS_NO_SUCH_VARIABLE".into()).read().is_err());
    }
}
