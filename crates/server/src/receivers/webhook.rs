//! Verdicts as HTTP requests.
//!
//! Each is a POST of its JSON with an `Idempotency-Key` that stays the same however often it is sent, and with a secret it
//! is signed: `X-Flawtune-Signature: t=<seconds since 1970>,v1=<HMAC-SHA256 of "t.body" in hex>`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::queue::{Backoff, Outcome, Queue, Told};
use super::{Address, ReceiverError};
use crate::verdict::Part;

const OPTION: &str = "webhook";
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read, so that its connection serves again.
const ANSWER_BYTES: u64 = 64 << 10;
const SECRET_HINT: &str =
    "name a file that holds the secret and nothing else with `webhook_secret_file`";

/// Reads the secret that requests are signed with.
pub(super) fn secret(path: &Path) -> Result<Vec<u8>, ReceiverError> {
    let option = "webhook_secret_file";
    let mut secret = std::fs::read(path).map_err(|source| ReceiverError::Io {
        option,
        path: path.to_owned(),
        source,
        hint: SECRET_HINT,
    })?;
    while secret.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        secret.pop();
    }
    if secret.is_empty() {
        return Err(ReceiverError::File {
            option,
            path: path.to_owned(),
            found: "the file is empty".into(),
            hint: SECRET_HINT,
        });
    }
    Ok(secret)
}

/// What a server said to a request.
enum Answer {
    Taken,
    /// It will not have it, whenever it is asked.
    Refused(String),
    /// Another time, at the earliest after this long.
    Later(String, Duration),
}

/// A server that is told.
pub(super) struct Webhook {
    agent: Agent,
    url: String,
    login: Option<String>,
    secret: Option<Vec<u8>>,
    /// How long a verdict is worth telling.
    patience: Duration,
}

impl Webhook {
    /// Where the verdicts of `address` go, and a name for it that a log may hold.
    pub(super) fn new(
        address: &Address,
        secret: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<(Self, String), ReceiverError> {
        let wrong = |found: &str| ReceiverError::Address {
            option: OPTION,
            address: address.clone(),
            found: found.to_owned(),
            hint: "name an address such as https://host/path with `webhook`; what is special in a password is written as %40",
        };
        let parts = address.parts().map_err(wrong)?;
        if !matches!(parts.scheme.as_str(), "http" | "https") {
            return Err(wrong("only http and https are served"));
        }
        let origin = match parts.port {
            Some(port) => format!("{}://{}:{port}", parts.scheme, parts.host),
            None => format!("{}://{}", parts.scheme, parts.host),
        };
        let query = parts.query.map(|q| format!("?{q}")).unwrap_or_default();
        let login = parts.user.map(|user| {
            let login = format!("{user}:{}", parts.password.unwrap_or_default());
            format!("Basic {}", BASE64_STANDARD.encode(login))
        });
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent = Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .http_status_as_error(false)
            // what is signed for one server is not for another
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("flawtune/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .new_agent();
        let webhook = Self {
            agent,
            url: format!("{origin}{}{query}", parts.path),
            login,
            secret,
            patience,
        };
        // a path may be a secret too: some services know their users by nothing else
        Ok((webhook, format!("webhook {origin}")))
    }

    /// Sends until no more comes.
    pub(super) fn work(&self, queue: &Queue) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        while let Some(told) = queue.take() {
            let outcome = self.deliver(&told, queue, &mut backoff);
            queue.settle(outcome);
        }
    }

    fn deliver(&self, told: &Told, queue: &Queue, backoff: &mut Backoff) -> Outcome {
        let (part, receiver) = (told.part.part, queue.name.as_str());
        let body = match serde_json::to_vec(&*told.part) {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(receiver, part, %error, "a verdict cannot be written as JSON");
                return Outcome::Failed;
            }
        };
        loop {
            match self.post(&told.part, &body) {
                Answer::Taken => {
                    if !backoff.is_fresh() {
                        tracing::info!(receiver, "verdicts are taken again");
                    }
                    backoff.reset();
                    return Outcome::Sent;
                }
                Answer::Refused(reason) => {
                    backoff.reset();
                    tracing::warn!(receiver, part, reason, "a verdict is refused");
                    return Outcome::Failed;
                }
                Answer::Later(reason, earliest) => {
                    if backoff.is_fresh() {
                        tracing::warn!(
                            receiver,
                            part,
                            reason,
                            "a verdict is not taken: trying again"
                        );
                    }
                    let pause = backoff.pause().max(earliest);
                    if told.at.elapsed() + pause >= self.patience {
                        tracing::warn!(receiver, part, reason, "a verdict is given up");
                        return Outcome::Failed;
                    }
                    if !queue.rest(pause) {
                        return Outcome::Dropped;
                    }
                }
            }
        }
    }

    fn post(&self, part: &Part, body: &[u8]) -> Answer {
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", key(part));
        if let Some(login) = &self.login {
            request = request.header("Authorization", login);
        }
        if let Some(secret) = &self.secret {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_or(0, |d| d.as_secs());
            request = request.header("X-Flawtune-Signature", signature(secret, now, body));
        }
        let answer = match request.send(body) {
            Ok(answer) => answer,
            Err(e) => return Answer::Later(e.to_string(), Duration::ZERO),
        };
        let (status, headers) = (answer.status(), answer.headers());
        let after = headers.get("Retry-After").and_then(|v| v.to_str().ok());
        let earliest = after.and_then(pause_asked_for).unwrap_or_default();
        let rest = answer.into_body().into_reader().take(ANSWER_BYTES);
        drop(std::io::copy(&mut { rest }, &mut std::io::sink()));
        match status.as_u16() {
            200..300 => Answer::Taken,
            408 | 429 | 500.. => Answer::Later(format!("it answers {status}"), earliest),
            _ => Answer::Refused(format!("it answers {status}")),
        }
    }
}

/// What a verdict is known by, in the letters that a header may have.
fn key(part: &Part) -> String {
    let mut key = String::new();
    for byte in part.detector.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            key.push(char::from(byte));
        } else {
            let _ = write!(key, "%{byte:02X}");
        }
    }
    let _ = write!(key, "-{}", part.part);
    key
}

/// What proves that a request is ours, and when it was made.
fn signature(secret: &[u8], time: u64, body: &[u8]) -> String {
    let mut text = format!("t={time},v1=");
    // a key of any length will do
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(format!("{time}.").as_bytes());
        mac.update(body);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// `Retry-After`: seconds, or the time when.
fn pause_asked_for(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let when = httpdate::parse_http_date(text).ok()?;
    Some(when.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::tests::part;
    use super::*;

    #[test]
    fn a_signature_is_that_of_others() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            signature(b"secret", 1_700_000_000, b"{\"a\":1}"),
            "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
        );
    }

    #[test]
    fn a_key_fits_in_a_header() {
        let mut part = part(7, "a.png");
        assert_eq!(key(&part), "lids-7");
        part.detector = "Deckel groß\n%".into();
        assert_eq!(key(&part), "Deckel%20gro%C3%9F%0A%25-7");
    }

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        assert_eq!(pause_asked_for(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(
            pause_asked_for("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::ZERO)
        );
        let soon = SystemTime::now() + Duration::from_secs(90);
        let pause = pause_asked_for(&httpdate::fmt_http_date(soon)).unwrap();
        assert!((88..=90).contains(&pause.as_secs()), "{pause:?}");
        assert_eq!(pause_asked_for("soon"), None);
    }

    #[test]
    fn only_addresses_of_servers_are_taken() {
        let open = |text: &str| Webhook::new(&text.into(), None, ANSWER);
        let (webhook, name) = open("https://me:pw@host:8443/hook/s3cret?a=b").unwrap();
        assert_eq!(name, "webhook https://host:8443");
        assert_eq!(webhook.url, "https://host:8443/hook/s3cret?a=b");
        assert_eq!(webhook.login.as_deref(), Some("Basic bWU6cHc="));
        for wrong in ["ftp://host/", "file:///etc/passwd", "host/path", "-x"] {
            let text = open(wrong).err().unwrap().to_string();
            assert!(text.contains("\nhint: "), "{text}");
        }
    }
}
