//! Fetching one file of a repository: metadata, transfer with resume, checksum.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;

use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

use super::cache::{Layout, is_hex};
use super::{HubError, LocateOptions, Progress, io};
use crate::config::Family;
use crate::models::{VARIANTS, Variant};

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Bytes between two progress reports.
const REPORT: u64 = 1 << 20;

/// Speaks to the hub about one repository.
pub(super) struct Client<'a> {
    agent: Agent,
    options: &'a LocateOptions,
    variant: &'a Variant,
    repo: &'a str,
}

/// What the hub says about a file.
struct Metadata {
    /// Where its bytes are.
    url: String,
    /// Name of its content in the cache: SHA-256 of large files, the git object of small ones.
    etag: Option<String>,
    size: Option<u64>,
    commit: Option<String>,
}

/// A transfer that did not end well.
enum Broken {
    /// Worth another attempt.
    Passing(String),
    /// The server answered with this status and may answer otherwise later.
    Busy(u16),
    Final(HubError),
}

impl From<HubError> for Broken {
    fn from(e: HubError) -> Self {
        Self::Final(e)
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a LocateOptions, variant: &'a Variant, repo: &'a str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // redirects are followed by hand: the announced checksum is in the answer before the last
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(options.patience))
            .timeout_connect(Some(options.patience))
            .timeout_recv_response(Some(options.patience))
            .timeout_per_read(Some(options.patience))
            .user_agent(concat!("flawtune/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self {
            agent,
            options,
            variant,
            repo,
        }
    }

    /// The address of a file of the repository.
    pub(super) fn address(&self, file: &str) -> String {
        format!(
            "{}/{}/resolve/main/{file}",
            self.options.endpoint, self.repo
        )
    }

    /// Fetches `file` into the cache unless it is there; none if the repository has no such file.
    pub(super) fn file(
        &self,
        layout: &Layout,
        file: &str,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<PathBuf>, HubError> {
        let url = self.address(file);
        let Some(metadata) =
            self.persist(&url, file, on_progress, |client, _| client.metadata(&url))?
        else {
            return Ok(None);
        };
        let commit = metadata.commit.clone().unwrap_or_else(|| "main".into());
        // a server that announces no content: the name of the file stands in
        let etag = metadata
            .etag
            .clone()
            .unwrap_or_else(|| format!("unnamed-{file}"));
        let blob = layout.blob(&etag);
        let blobs = layout.root.join("blobs");
        fs::create_dir_all(&blobs).map_err(io(&blobs))?;

        let (lock_path, lock) = layout.lock_file(&etag)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                on_progress(Progress::Waiting { file });
                lock.lock().map_err(io(&lock_path))?;
            }
            Err(TryLockError::Error(e)) => return Err(io(&lock_path)(e)),
        }
        if !blob.is_file() || metadata.etag.is_none() {
            let incomplete = blobs.join(format!("{etag}.incomplete"));
            let mut target = metadata;
            self.persist(&url, file, on_progress, |client, on_progress| {
                let done = client.transfer(&target, file, &incomplete, on_progress);
                if let Err(Broken::Passing(_) | Broken::Busy(_)) = done {
                    // signed addresses expire: ask for a new one
                    if let Ok(Some(fresh)) = client.metadata(&url) {
                        target.url = fresh.url;
                    }
                }
                done.map(Some)
            })?;
            fs::rename(&incomplete, &blob).map_err(io(&blob))?;
        }
        layout.publish(&commit, file, &etag).map(Some)
    }

    /// Runs `step` until it ends, with growing pauses.
    fn persist<T>(
        &self,
        url: &str,
        file: &str,
        on_progress: &mut dyn FnMut(Progress<'_>),
        mut step: impl FnMut(&Self, &mut dyn FnMut(Progress<'_>)) -> Result<Option<T>, Broken>,
    ) -> Result<Option<T>, HubError> {
        let attempts = self.options.attempts.max(1);
        let mut pause = self.options.pause;
        for attempt in 1.. {
            let (why, status) = match step(self, on_progress) {
                Ok(done) => return Ok(done),
                Err(Broken::Final(e)) => return Err(e),
                Err(Broken::Passing(why)) => (why, None),
                Err(Broken::Busy(status)) => {
                    (format!("the server answered {status}"), Some(status))
                }
            };
            if attempt >= attempts {
                let url = url.to_owned();
                return Err(match status {
                    Some(status) => HubError::Status {
                        url,
                        status,
                        attempts,
                    },
                    None => HubError::Network {
                        url,
                        what: why,
                        attempts,
                    },
                });
            }
            on_progress(Progress::Retrying { file, why, pause });
            sleep(pause);
            pause *= 2;
        }
        Ok(None)
    }

    /// One request, with the token where it belongs.
    fn send(&self, head: bool, url: &str, from: u64) -> Result<Response<Body>, Broken> {
        let mut request = if head {
            self.agent.head(url)
        } else {
            self.agent.get(url)
        };
        // the checksum is that of the plain bytes
        request = request.header("Accept-Encoding", "identity");
        if let Some(token) = self
            .options
            .token
            .as_ref()
            .filter(|_| same_host(url, &self.options.endpoint))
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|e| match e {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Broken::Final(HubError::Answer {
                    url: url.to_owned(),
                    what: e.to_string(),
                })
            }
            e => Broken::Passing(e.to_string()),
        })
    }

    /// Asks about a file; none if there is no such file.
    fn metadata(&self, url: &str) -> Result<Option<Metadata>, Broken> {
        let mut metadata = Metadata {
            url: url.to_owned(),
            etag: None,
            size: None,
            commit: None,
        };
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(true, &metadata.url, 0)?;
            let (status, headers) = (answer.status(), answer.headers());
            let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
            let hub = |name: &str, other: &str| {
                text(name).or_else(|| text(other).filter(|_| !status.is_redirection()))
            };
            metadata.commit = metadata.commit.or_else(|| {
                text("x-repo-commit")
                    .filter(|c| is_name(c))
                    .map(str::to_owned)
            });
            metadata.etag = metadata
                .etag
                .or_else(|| hub("x-linked-etag", "etag").and_then(plain_etag));
            metadata.size = metadata
                .size
                .or_else(|| hub("x-linked-size", "content-length").and_then(|n| n.parse().ok()));
            if status.is_redirection() {
                let target = redirect(&metadata.url, headers)?;
                let away = !same_host(&target, &self.options.endpoint);
                metadata.url = target;
                // storage behind the hub often answers GET alone; the hub has said all there is to know
                if away {
                    return Ok(Some(metadata));
                }
                continue;
            }
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            self.check(&metadata.url, status)?;
            return Ok(Some(metadata));
        }
        Err(HubError::Answer {
            url: url.to_owned(),
            what: "it redirects without end".into(),
        }
        .into())
    }

    /// Brings `incomplete` to its full length and compares its checksum.
    fn transfer(
        &self,
        metadata: &Metadata,
        file: &str,
        incomplete: &Path,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Broken> {
        let disk = |e| Broken::Final(io(incomplete)(e));
        let mut out = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(incomplete)
            .map_err(disk)?;
        let mut done = out.seek(SeekFrom::End(0)).map_err(disk)?;
        if metadata.size.is_some_and(|size| done > size) || metadata.etag.is_none() {
            done = 0;
        }
        let resumed = done > 0;
        if metadata.size.is_none_or(|size| done < size) {
            let mut url = metadata.url.clone();
            let mut answer = self.send(false, &url, done)?;
            for _ in 0..MAX_REDIRECTS {
                if !answer.status().is_redirection() {
                    break;
                }
                url = redirect(&url, answer.headers())?;
                answer = self.send(false, &url, done)?;
            }
            match answer.status() {
                StatusCode::PARTIAL_CONTENT if range_start(answer.headers()) == Some(done) => {}
                // the server sends all of it again, or a range that we did not ask for
                StatusCode::OK => done = 0,
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                    out.set_len(0).map_err(disk)?;
                    return Err(Broken::Passing(
                        "the server cannot continue a transfer; starting over".into(),
                    ));
                }
                status => self.check(&url, status)?,
            }
            out.set_len(done).map_err(disk)?;
            out.seek(SeekFrom::Start(done)).map_err(disk)?;
            let mut body = answer.into_body().into_reader();
            let mut buffer = vec![0; 1 << 16];
            let mut reported = done;
            on_progress(Progress::Bytes {
                file,
                done,
                total: metadata.size,
            });
            loop {
                let n = body
                    .read(&mut buffer)
                    .map_err(|e| Broken::Passing(e.to_string()))?;
                if n == 0 {
                    break;
                }
                out.write_all(&buffer[..n]).map_err(disk)?;
                done += n as u64;
                if done - reported >= REPORT {
                    reported = done;
                    on_progress(Progress::Bytes {
                        file,
                        done,
                        total: metadata.size,
                    });
                }
            }
            out.sync_all().map_err(disk)?;
            on_progress(Progress::Bytes {
                file,
                done,
                total: metadata.size,
            });
        }
        if let Some(size) = metadata.size.filter(|&size| size != done) {
            if done > size {
                out.set_len(0).map_err(disk)?;
            }
            return Err(Broken::Passing(format!(
                "the connection ended after {done} of {size} bytes"
            )));
        }
        self.verify(metadata, file, (incomplete, out), resumed)
    }

    /// Compares the checksum of a file that is as long as announced; what does not fit is gone.
    fn verify(
        &self,
        metadata: &Metadata,
        file: &str,
        (incomplete, mut out): (&Path, File),
        resumed: bool,
    ) -> Result<(), Broken> {
        let disk = |e| Broken::Final(io(incomplete)(e));
        let Some(wanted) = metadata
            .etag
            .as_deref()
            .filter(|e| e.len() == 64 && is_hex(e))
        else {
            return Ok(());
        };
        let found = sha256(&mut out).map_err(disk)?;
        if found.eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        out.set_len(0).map_err(disk)?;
        if resumed {
            return Err(Broken::Passing(
                "what an earlier run left does not fit; starting over".into(),
            ));
        }
        drop(out);
        fs::remove_file(incomplete).map_err(disk)?;
        Err(HubError::Checksum {
            url: self.address(file),
            found,
            wanted: wanted.to_owned(),
        }
        .into())
    }

    /// Turns a status that is not a success into an error.
    fn check(&self, url: &str, status: StatusCode) -> Result<(), Broken> {
        match status.as_u16() {
            200..300 => Ok(()),
            code @ (401 | 403) => Err(self.denied(code).into()),
            code @ (408 | 429 | 500..600) => Err(Broken::Busy(code)),
            code => Err(HubError::Status {
                url: url.to_owned(),
                status: code,
                attempts: 1,
            }
            .into()),
        }
    }

    fn denied(&self, status: u16) -> HubError {
        let page = format!("{}/{}", self.options.endpoint, self.repo);
        let token = self.options.token.is_some();
        let gated = if self.variant.hub().is_some_and(|hub| hub.gated) {
            format!(
                "its weights are gated ({}): open {page}, log in and accept the licence",
                self.variant.licence
            )
        } else {
            format!("see {page}")
        };
        let reason = match (status, token) {
            (401, true) => {
                format!(
                    "the token was not accepted\nhint: make a new one and set HF_TOKEN; {gated}"
                )
            }
            (_, true) => format!(
                "the token's account has no access; {gated} with that account (approval can take days), and let the \
                 token read gated repositories"
            ),
            (_, false) => format!(
                "{gated}; then make a token at {}/settings/tokens and set HF_TOKEN",
                self.options.endpoint
            ),
        };
        // the ungated model nearest in size
        let size = |v: &Variant| {
            (v.sizes.dim * v.sizes.dim * v.sizes.depth).abs_diff(
                self.variant.sizes.dim * self.variant.sizes.dim * self.variant.sizes.depth,
            )
        };
        let near = VARIANTS
            .iter()
            .filter(|v| v.hub().is_some_and(|hub| !hub.gated))
            .filter(|v| v.family == Family::DinoV2 && v.name != self.variant.name)
            .min_by_key(|v| size(v));
        let alternative = near.map_or("dinov2_vits14", |v| v.name).to_owned();
        HubError::Denied {
            repo: self.repo.to_owned(),
            status,
            reason,
            alternative,
        }
    }
}

/// SHA-256 of a whole file, hex.
fn sha256(file: &mut File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// An etag without its quotes, if it can be a file name.
fn plain_etag(etag: &str) -> Option<String> {
    let bare = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    is_name(bare).then(|| bare.to_owned())
}

/// Whether a server's word may become the name of a file of ours.
fn is_name(s: &str) -> bool {
    (1..=128).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// First byte of a `Content-Range: bytes 100-199/200`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    headers
        .get("content-range")?
        .to_str()
        .ok()?
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Scheme and host with port.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |i| i + 3);
    url[host..]
        .find(['/', '?', '#'])
        .map_or(url, |i| &url[..host + i])
}

fn same_host(a: &str, b: &str) -> bool {
    origin(a).eq_ignore_ascii_case(origin(b))
}

/// Where an answer at `url` redirects to.
fn redirect(url: &str, headers: &HeaderMap) -> Result<String, Broken> {
    let bad = |what: &str| {
        Broken::Final(HubError::Answer {
            url: url.to_owned(),
            what: what.to_owned(),
        })
    };
    let target = headers
        .get("location")
        .and_then(|v| v.to_str().ok())
        .ok_or_else(|| bad("it redirects nowhere"))?;
    let target = if let Some(path) = target.strip_prefix("//") {
        format!("{}://{path}", url.split("://").next().unwrap_or("https"))
    } else if target.starts_with('/') {
        format!("{}{target}", origin(url))
    } else {
        target.to_owned()
    };
    if url.starts_with("https://") && !target.starts_with("https://") {
        return Err(bad("it redirects to an address that is not encrypted"));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(origin("http://a:80/b/c"), "http://a:80");
        assert_eq!(origin("https://a?x=/"), "https://a");
        assert!(same_host("https://HF.co/x", "https://hf.co"));
        assert!(!same_host("https://hf.co.evil.com/x", "https://hf.co"));
        assert!(
            !same_host("http://hf.co/x", "https://hf.co"),
            "a token never travels unencrypted"
        );
        let to = |location: &str| {
            let mut h = HeaderMap::new();
            h.insert("location", location.parse().unwrap());
            redirect("https://a/b/c", &h).ok()
        };
        assert_eq!(to("/d").as_deref(), Some("https://a/d"));
        assert_eq!(to("//e/d").as_deref(), Some("https://e/d"));
        assert_eq!(to("https://e/d?s=1").as_deref(), Some("https://e/d?s=1"));
        assert_eq!(to("http://e/d"), None);
    }

    #[test]
    fn names_from_a_server_stay_in_their_folder() {
        assert_eq!(plain_etag("\"abc\"").as_deref(), Some("abc"));
        assert_eq!(plain_etag("W/\"abc\"").as_deref(), Some("abc"));
        for bad in ["\"../x\"", "\"\"", "a/b", ".hidden"] {
            assert_eq!(plain_etag(bad), None, "{bad}");
        }
    }
}
