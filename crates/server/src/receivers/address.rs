//! Addresses that may hold a password.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use ureq::http::Uri;

/// An address as it was typed. What prints it leaves out user, password and query: a log is read by many.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

/// What an address says, decoded.
pub(crate) struct Parts {
    pub(crate) scheme: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// An IPv6 address stands in brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// Begins with `/`, as it was typed.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
}

impl Address {
    /// As it was typed, with what is secret in it.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// The address in parts; otherwise what is wrong with it, in words without a secret.
    pub(crate) fn parts(&self) -> Result<Parts, &'static str> {
        const NOT_ONE: &str = "this is no address of the form scheme://host/path";
        let uri: Uri = self.0.parse().map_err(|_| NOT_ONE)?;
        let authority = uri.authority().ok_or(NOT_ONE)?;
        if authority.host().is_empty() || authority.host() == "[]" {
            return Err("there is no host in it");
        }
        let login = authority.as_str().rsplit_once('@').map(|(login, _)| login);
        let (user, password) = match login.map(|l| l.split_once(':').unwrap_or((l, ""))) {
            Some((user, "")) => (Some(user), None),
            Some((user, password)) => (Some(user), Some(password)),
            None => (None, None),
        };
        let decoded = |text: Option<&str>| {
            text.map(|t| decoded(t).ok_or("a % in it is not followed by two hexadecimal digits"))
                .transpose()
        };
        Ok(Parts {
            scheme: uri.scheme_str().ok_or(NOT_ONE)?.to_ascii_lowercase(),
            user: decoded(user)?,
            password: decoded(password)?,
            host: authority.host().to_owned(),
            port: port(authority.as_str())?,
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }
}

/// The port, where one is named.
fn port(authority: &str) -> Result<Option<u16>, &'static str> {
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.rsplit_once(':').map_or(Ok(None), |(_, port)| {
        let number = port.parse().ok().filter(|n| *n > 0);
        number.map(Some).ok_or("the port is no number up to 65535")
    })
}

/// Text with `%41` for `A` as it is meant; none where a `%` is not followed by two digits, or it is not UTF-8.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str(&self.0);
        };
        // a password with a / in it is a mistake, but it is a password
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        write!(f, "{scheme}://{rest}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for Address {
    // a refusal by the parser of arguments would print the address
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_holds_no_secret() {
        for (typed, shown) in [
            ("http://a:8080/b?key=s3cret#x", "http://a:8080/b"),
            ("mqtt://me:s3cret@a/line/1", "mqtt://a/line/1"),
            ("rtsp://me:s3c/s3cret@a/1", "rtsp://a/1"),
            ("/dev/video0", "/dev/video0"),
        ] {
            let address = Address::from(typed);
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), format!("{shown:?}"));
            assert_eq!(address.secret(), typed);
        }
    }

    #[test]
    fn an_address_has_parts() {
        let parts = Address::from("MQTT://me%40b:p%3Aw@[::1]:99/a%20b?c=d")
            .parts()
            .unwrap();
        assert_eq!(parts.scheme, "mqtt");
        assert_eq!(parts.user.as_deref(), Some("me@b"));
        assert_eq!(parts.password.as_deref(), Some("p:w"));
        assert_eq!((parts.host.as_str(), parts.port), ("[::1]", Some(99)));
        assert_eq!(decoded(&parts.path).as_deref(), Some("/a b"));
        assert_eq!(parts.query.as_deref(), Some("c=d"));
        for wrong in [
            "a",
            "/a",
            "http://",
            "http://me@",
            "http://a:70000/",
            "http://a%zz@b/",
            "http://a b/",
            "",
        ] {
            assert!(Address::from(wrong).parts().is_err(), "{wrong}");
        }
    }
}
