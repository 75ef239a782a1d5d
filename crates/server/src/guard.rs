//! Who may come in, and what for.
//!
//! On this machine's own addresses nobody logs in. Then two things keep other pages of the same browser out: the name that a request
//! was sent to must be this machine's (a foreign name that was pointed here is refused), and whatever changes something and comes
//! from a browser must carry a header that only our own page sends. With `--token-file` there are people, roles and sessions;
//! programs send the token itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::App;
use crate::refusal::Refusal;
use crate::store::{Role, Store, User, now};

/// The header that our page sends with everything that changes something.
pub(crate) const HEADER: &str = "x-flawtune";
/// What it says where nobody logs in.
pub(crate) const LOCAL: &str = "local";
/// The cookie of a session.
pub(crate) const COOKIE: &str = "flawtune";
/// How long a session lasts.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Log-ins that may fail before one has to wait.
const FAILURES: u32 = 5;
/// How long then.
const PATIENCE: Duration = Duration::from_secs(300);
/// The shortest secret.
const SECRET: usize = 16;
/// The shortest password.
const PASSWORD: usize = 10;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The person; `None` where nobody logs in, or a program with the token.
    pub(crate) user: Option<User>,
    /// What may be done.
    pub(crate) role: Role,
    /// What [`HEADER`] must say.
    pub(crate) csrf: String,
}

impl Caller {
    /// The name for the audit log.
    pub(crate) fn name(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.name.as_str())
    }

    /// Refuses who may not.
    ///
    /// # Errors
    /// A role that is too low.
    pub(crate) fn must_be(&self, role: Role) -> Result<(), Refusal> {
        if self.role >= role {
            return Ok(());
        }
        Err(Refusal::forbidden(format!(
            "only the role {} may do this; yours is {}",
            role.name(),
            self.role.name()
        ))
        .hint("ask who looks after this server"))
    }
}

/// The gate.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// BLAKE3 hash of the token; none: nobody logs in.
    token: Option<blake3::Hash>,
    failures: Mutex<HashMap<String, (u32, Instant)>>,
    secure: bool,
}

impl Gate {
    /// With this secret, where there is one. `secure`: people come by HTTPS only. The first time, the person admin is made.
    ///
    /// # Errors
    /// A secret that is too short; the database.
    pub(crate) fn new(secret: Option<&str>, secure: bool, store: &Store) -> Result<Self, Refusal> {
        if let Some(secret) = secret {
            if secret.len() < SECRET {
                return Err(Refusal::wrong(format!(
                    "the token has {} characters, wanted at least {SECRET}",
                    secret.len()
                ))
                .hint("openssl rand -hex 16 makes one"));
            }
            if store.users()?.is_empty() {
                let admin = User {
                    name: "admin".into(),
                    role: Role::Admin,
                };
                store.set_user(&admin, &hashed(secret)?, None)?;
            }
        }
        Ok(Self {
            token: secret.map(|s| blake3::hash(s.as_bytes())),
            failures: Mutex::default(),
            secure,
        })
    }

    /// Whether people log in.
    pub(crate) fn locked(&self) -> bool {
        self.token.is_some()
    }

    /// Who asks, by the headers.
    fn caller(&self, store: &Store, headers: &HeaderMap) -> Result<Option<Caller>, Refusal> {
        let Some(token) = &self.token else {
            return Ok(Some(Caller {
                user: None,
                role: Role::Admin,
                csrf: LOCAL.into(),
            }));
        };
        if let Some(given) = bearer(headers) {
            // hashes are compared: how long it takes tells nothing of the token
            return Ok((blake3::hash(given.as_bytes()) == *token).then(|| Caller {
                user: None,
                role: Role::Admin,
                csrf: String::new(),
            }));
        }
        let Some(session) = cookie(headers) else {
            return Ok(None);
        };
        of_session(store, session)
    }

    /// Begins a session and returns its cookie.
    ///
    /// # Errors
    /// A wrong name or password; too many tries.
    pub(crate) fn log_in(
        &self,
        store: &Store,
        from: IpAddr,
        name: &str,
        password: &str,
    ) -> Result<HeaderValue, Refusal> {
        let who = [format!("name {name}"), format!("address {from}")];
        self.may_try(&who)?;
        let found = store.user(name)?;
        // one who does not exist takes as long
        let hash = match &found {
            Some((_, hash)) => hash.clone(),
            None => hashed("nobody has this password")?,
        };
        let right = PasswordHash::new(&hash).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        });
        let Some((user, _)) = found.filter(|_| right) else {
            self.failed(&who);
            return Err(Refusal::unknown("the name or the password is wrong"));
        };
        self.failures().retain(|key, _| !who.contains(key));
        let (token, csrf) = (random(), random());
        let expires = now() + SESSION.as_millis() as i64;
        let hash = blake3::hash(token.as_bytes()).to_hex();
        store.begin_session(&hash, &csrf, &user.name, expires)?;
        Ok(self.cookie(&token, SESSION.as_secs()))
    }

    /// The cookie of a session, or one that ends it.
    fn cookie(&self, token: &str, seconds: u64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!(
            "{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"
        );
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Ends the session that the headers name; returns the cookie that takes the other's place.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn log_out(
        &self,
        store: &Store,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, Refusal> {
        if let Some(token) = cookie(headers) {
            store.end_session(&blake3::hash(token.as_bytes()).to_hex())?;
        }
        Ok(self.cookie("", 0))
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_try(&self, who: &[String]) -> Result<(), Refusal> {
        let mut failures = self.failures();
        failures.retain(|_, (_, last)| last.elapsed() < PATIENCE);
        if who
            .iter()
            .any(|key| failures.get(key).is_some_and(|(n, _)| *n >= FAILURES))
        {
            return Err(Refusal {
                said: crate::refusal::Said {
                    error: "too many log-ins failed".into(),
                    hint: Some("wait five minutes".into()),
                    worse: false,
                },
                ..Refusal::busy(PATIENCE.as_secs())
            });
        }
        Ok(())
    }

    fn failed(&self, who: &[String]) {
        let mut failures = self.failures();
        for key in who {
            let entry = failures.entry(key.clone()).or_insert((0, Instant::now()));
            *entry = (entry.0 + 1, Instant::now());
        }
    }
}

/// Who has a session with this token.
///
/// # Errors
/// The database.
pub(crate) fn of_session(store: &Store, token: &str) -> Result<Option<Caller>, Refusal> {
    let found = store.session(&blake3::hash(token.as_bytes()).to_hex())?;
    Ok(found.map(|(user, csrf)| Caller {
        role: user.role,
        user: Some(user),
        csrf,
    }))
}

/// The hash of a password, as it is kept.
///
/// # Errors
/// A password that is too short; a machine without random numbers.
pub(crate) fn hashed(password: &str) -> Result<String, Refusal> {
    if password.chars().count() < PASSWORD {
        return Err(Refusal::wrong(format!(
            "the password has fewer than {PASSWORD} characters"
        )));
    }
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|e| Refusal::wrong(format!("the password cannot be hashed: {e}")))
}

/// 256 random bits, in hex.
fn random() -> String {
    let bytes: [u8; 32] = rand::random();
    blake3::Hash::from_bytes(bytes).to_hex().to_string()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// Whether a browser says that it sends this for a page.
fn of_a_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Whether the name that a request was sent to is this machine's own.
fn is_here(uri: &Uri, headers: &HeaderMap) -> bool {
    let named = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    // HTTP/2 has it in the address
    let Some(host) = named.or_else(|| uri.authority().map(Authority::as_str)) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What anybody may see.
fn is_open(path: &str) -> bool {
    path == "/"
        || path.starts_with("/page/")
        || path.starts_with("/health/")
        || path.starts_with("/v2/health/")
        || path == "/api/state"
        || path == "/api/login"
}

/// Lets a request in, or not.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let let_in = admit(&app, &request);
    let mut response = match let_in {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    app.metrics.request(response.status().as_u16());
    for (name, value) in ALWAYS {
        let headers = response.headers_mut();
        headers
            .entry(HeaderName::from_static(name))
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Headers of every answer.
const ALWAYS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
         form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

fn admit(app: &App, request: &Request) -> Result<Option<Caller>, Refusal> {
    let (headers, path) = (request.headers(), request.uri().path());
    if !app.gate.locked() && !is_here(request.uri(), headers) {
        return Err(Refusal::forbidden(
            "this server answers only to the names of its own machine: localhost, 127.0.0.1",
        )
        .hint("start it with --token-file to reach it by another name"));
    }
    let caller = app.gate.caller(&app.store, headers)?;
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(caller) = caller else {
        // a log-in is guarded by its content type, which no foreign page can send
        return if is_open(path) {
            Ok(None)
        } else {
            Err(Refusal::unknown("log in first")
                .hint("programs send the header 'Authorization: Bearer TOKEN'"))
        };
    };
    let by_token = app.gate.locked() && caller.user.is_none();
    let needed = changes && !by_token && (app.gate.locked() || of_a_browser(headers));
    let said = headers.get(HEADER).and_then(|h| h.to_str().ok());
    if needed && path != "/api/login" && said != Some(&caller.csrf) {
        return Err(Refusal::forbidden(format!(
            "the header '{HEADER}' is missing or wrong: the request may be of a foreign page"
        ))
        .hint("load the page again"));
    }
    Ok(Some(caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_to(host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        is_here(&Uri::from_static("/"), &headers)
    }

    #[test]
    fn a_foreign_name_that_was_pointed_here_is_not_here() {
        for host in [
            "localhost",
            "localhost:7878",
            "127.0.0.1:7878",
            "[::1]:7878",
            "127.9.9.9",
        ] {
            assert!(sent_to(host), "{host}");
        }
        for host in [
            "evil.example:7878",
            "localhost.evil.example",
            "192.168.1.4:7878",
            "",
            "1",
        ] {
            assert!(!sent_to(host), "{host}");
        }
    }

    #[test]
    fn a_request_without_a_host_names_it_in_its_address() {
        let none = HeaderMap::new();
        assert!(is_here(&Uri::from_static("https://localhost:7878/"), &none));
        assert!(!is_here(&Uri::from_static("https://evil.example/"), &none));
        assert!(!is_here(&Uri::from_static("/"), &none));
    }

    #[test]
    fn the_session_is_found_among_cookies() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("a=b; flawtune=xyz; c"),
        );
        assert_eq!(cookie(&headers), Some("xyz"));
        headers.insert(header::COOKIE, HeaderValue::from_static("notflawtune=xyz"));
        assert_eq!(cookie(&headers), None);
    }
}
