//! Secrets of a configuration: stated as text, or where to find them, and never shown.

use std::fmt;
use std::fs::File;
use std::io::Read;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Tokens and keys are shorter; a device or a wrong file is longer.
const MOST_BYTES: u64 = 64 << 10;

/// A token, key or password. It can be copied and exposed; its printed forms say nothing, and it cannot be serialised.
///
/// In a configuration it is text, `{ env = "NAME" }` or `{ file = "path" }`, and is read when the configuration is. Line ends at the end
/// of a file or variable do not belong to it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for whoever sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn checked(text: &str, place: &str) -> Result<Self, String> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err(format!("{place} is empty, expected a secret")) } else { Ok(Self(text.to_owned())) }
    }

    fn of_variable(name: &str) -> Result<Self, String> {
        match std::env::var(name) {
            Ok(text) => Self::checked(&text, &format!("the environment variable {name}")),
            Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set, expected a secret in it")),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is no UTF-8 text")),
        }
    }

    fn of_file(path: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|error| format!("the file {path} could not be read: {error}"))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(format!("the file {path} has more than {MOST_BYTES} bytes, expected a secret"));
        }
        let text = String::from_utf8(bytes).map_err(|_| format!("the file {path} is no UTF-8 text"))?;
        Self::checked(&text, &format!("the file {path}"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is expected, in every refusal: what came is not repeated, it may be the secret.
const FORMS: &str = "text in quotes, { env = \"NAME\" } or { file = \"path\" }";

struct Stated;

impl<'de> Visitor<'de> for Stated {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Secret::checked(text, "the text").map_err(E::custom)
    }

    // The default forms of these repeat the value.
    fn visit_bool<E: Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(format!("expected {FORMS}, got true or false")))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(format!("expected {FORMS}, got a number")))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
        self.visit_i64(0)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Secret, E> {
        self.visit_i64(0)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Secret, E> {
        self.visit_i64(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
        self.visit_i64(0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let wrong = || A::Error::custom(format!("expected {FORMS}, got a table of something else"));
        let find = match map.next_key::<String>()?.as_deref() {
            Some("env") => Secret::of_variable,
            Some("file") => Secret::of_file,
            _ => return Err(wrong()),
        };
        let place: String = map.next_value()?;
        if map.next_key::<String>()?.is_some() {
            return Err(wrong());
        }
        find(&place).map_err(A::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Stated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        key: Secret,
    }

    fn read(text: &str) -> Result<Holder, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_secret_is_text_or_stands_in_a_variable_or_file() {
        assert_eq!(read("key = \"hush\"").unwrap().key.expose(), "hush");
        let path = std::env::temp_dir().join(format!("barograph-secret-{}", std::process::id()));
        std::fs::write(&path, "from file\r\n").unwrap();
        let found = read(&format!("key = {{ file = {:?} }}", path.display().to_string())).unwrap();
        assert_eq!(found.key.expose(), "from file");
        // Cargo sets it for every test.
        let found = read("[key]\nenv = \"CARGO_PKG_NAME\"").unwrap();
        assert_eq!(found.key.expose(), "barograph-server");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn no_printed_form_holds_it() {
        let holder = read("key = \"hush\"").unwrap();
        assert_eq!(format!("{holder:?} {holder:#?} {}", holder.key).matches("hush").count(), 0);
    }

    #[test]
    fn refusals_name_the_place_and_not_what_came() {
        for (text, says) in [
            ("key = 4711", "got a number"),
            ("key = 47.11", "got a number"),
            ("key = true", "got true or false"),
            ("key = \"\"", "the text is empty"),
            ("key = [\"4711\"]", "expected text in quotes"),
            ("key = { value = \"4711\" }", "a table of something else"),
            ("key = { env = \"CARGO_PKG_NAME\", x = \"4711\" }", "a table of something else"),
            ("key = { env = \"BAROGRAPH_NOT_SET\" }", "the environment variable BAROGRAPH_NOT_SET is not set"),
            ("key = { file = \"/nowhere/at/all\" }", "the file /nowhere/at/all could not be read"),
            ("key = { file = \"/dev/zero\" }", "more than 65536 bytes"),
            ("key = { file = \"/dev/null\" }", "the file /dev/null is empty"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(says) && !error.message().contains("47"), "{text}: {}", error.message());
        }
    }
}
