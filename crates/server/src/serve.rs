//! The server from its start to its end.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, middleware};
use axum_server::Handle as ServerHandle;
use axum_server::tls_rustls::RustlsConfig;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast};

use crate::api::extract::{not_so, nowhere};
use crate::app::{App, Notice};
use crate::compute::{self, Queue, Recorder, Registry};
use crate::files::{Files, FilesError, is_name};
use crate::guard::{Gate, guard};
use crate::jobs::Jobs;
use crate::line::Line;
use crate::metrics::Metrics;
use crate::options::ServeOptions;
use crate::receivers::{ReceiverError, Receivers};
use crate::refusal::Refusal;
use crate::sources::{SourceError, SourceOptions, Sources};
use crate::store::{NewVersion, Store, StoreError, VersionKind};
use crate::{api, oip, page};

/// Notices that a slow page may miss before it looks again.
const NOTICES: usize = 1024;
/// Uploads that are read at once.
const UPLOADS: usize = 128;
/// How long requests may take to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long verdicts may take to reach their receivers then.
const TOLD: Duration = Duration::from_secs(10);

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The data folder.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The detector to begin with.
    #[error(transparent)]
    Detector(#[from] flawtune::Error),
    /// A source of images.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A receiver of verdicts.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// Options that make no sense together, or a file that they name.
    #[error("{0}")]
    Input(String),
    /// The address.
    #[error(
        "cannot listen on {address}: {source}\nhint: is another server there? --listen names another address or port"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system.
    #[error("the server ended: {0}")]
    System(#[from] std::io::Error),
}

impl ServeError {
    fn refused(refusal: Refusal) -> Self {
        let hint = refusal.said.hint.map(|hint| format!("\nhint: {hint}"));
        Self::Input(format!(
            "{}{}",
            refusal.said.error,
            hint.unwrap_or_default()
        ))
    }
}

/// A server that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// What to type into a browser.
    pub url: String,
    /// Whether people log in.
    pub locked: bool,
    /// Whether what is sent can be read on the way.
    pub plain: bool,
}

/// Serves until `stop` says so; `on_start` hears where.
///
/// # Errors
/// Anything that keeps it from starting; a system that fails.
pub fn serve(
    options: ServeOptions,
    stop: &'static AtomicBool,
    on_start: impl FnOnce(&Listening),
) -> Result<(), ServeError> {
    let secret = secret(&options)?;
    let files = Arc::new(Files::open(&options.data)?);
    let store = Arc::new(Store::open(&files.database())?);
    let gate = Gate::new(secret.as_deref(), options.tls_cert.is_some(), &store);
    let gate = gate.map_err(ServeError::refused)?;
    let metrics = Arc::new(Metrics::default());
    // half a gigabyte of pixels may wait
    let queue = Arc::new(Queue::new(options.queue, 1 << 28));
    let receivers = Arc::new(Receivers::start(&options.receivers)?);
    let (notices, _) = broadcast::channel(NOTICES);
    let keeping = Arc::new(Mutex::new(()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let app = Arc::new(App {
        registry: Registry::new(options.weights.clone()),
        store,
        files,
        queue,
        jobs: Jobs::default(),
        metrics,
        gate,
        keeping,
        decoding: Semaphore::new(cores.max(2)),
        uploads: Semaphore::new(UPLOADS),
        notices,
        stopping: AtomicBool::new(false),
        receivers: Arc::clone(&receivers),
        sources: Mutex::new(None),
        options,
    });
    let opened = app.options.detector.clone();
    let opened = opened.map(|path| begin_with(&app, &path)).transpose()?;
    let line = line(&app, opened)?;
    let threads = start_work(&app)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(1, 4))
        .enable_all()
        .build()?;
    if let Some(line) = line {
        start_sources(&app, line, runtime.handle())?;
    }
    let served = runtime.block_on(listen(&app, stop, on_start));
    let sources = taken(&app.sources);
    drop(sources.map(Sources::stop));
    // what was taken in is answered and written down
    app.queue.close();
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(app);
    for thread in threads {
        drop(thread.join());
    }
    if let Some(receivers) = Arc::into_inner(receivers) {
        receivers.stop(TOLD);
    }
    served
}

fn taken<T>(from: &Mutex<Option<T>>) -> Option<T> {
    from.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The detector that sources speak to, where there are sources.
fn line(app: &App, opened: Option<String>) -> Result<Option<String>, ServeError> {
    let options = &app.options;
    if options.sources == SourceOptions::default() {
        return Ok(None);
    }
    match options.line.clone().or(opened) {
        Some(name) if is_name(&name) => Ok(Some(name)),
        Some(name) => Err(ServeError::Input(format!(
            "'{name}' cannot be the name of a detector\nhint: take letters, digits, '-', '_' and '.'"
        ))),
        None => Err(ServeError::Input(
            "no detector is named to look at what comes from --watch and --source\nhint: name it with --line, or begin with a file \
             of flawtune fit"
                .into(),
        )),
    }
}

/// Takes images in from a folder or a camera.
fn start_sources(app: &Arc<App>, detector: String, runtime: &Handle) -> Result<(), ServeError> {
    let options = &app.options;
    let written: Vec<&Path> = std::iter::once(options.data.as_path())
        .chain(options.receivers.sorted.as_deref())
        .collect();
    let journal = options.data.join("watched.jsonl");
    let submit = Arc::new(Line::new(app, runtime.clone(), detector));
    let sources = Sources::start(&options.sources, &journal, &written, submit)?;
    *app.sources.lock().unwrap_or_else(PoisonError::into_inner) = Some(sources);
    Ok(())
}

/// The threads that look at images and write verdicts down.
fn start_work(app: &Arc<App>) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let (notices, receivers) = (app.notices.clone(), Arc::clone(&app.receivers));
    let told = Box::new(move |part: &Arc<_>, image: &Arc<[u8]>| {
        receivers.tell(part, image);
        drop(notices.send(Notice::Part(Arc::clone(part))));
    });
    let (recorder, writing) = Recorder::start(
        Arc::clone(&app.store),
        Arc::clone(&app.files),
        (app.options.keep, Arc::clone(&app.keeping)),
        Arc::clone(&app.metrics),
        told,
    )?;
    let looking = compute::start(Arc::clone(&app.queue), recorder, Arc::clone(&app.metrics))?;
    Ok(vec![looking, writing])
}

/// What the token file holds; refuses to listen to others without one.
fn secret(options: &ServeOptions) -> Result<Option<String>, ServeError> {
    let Some(path) = &options.token_file else {
        if options.listen.ip().is_loopback() {
            return Ok(None);
        }
        return Err(ServeError::Input(format!(
            "{} can be reached from other machines, and nobody has to log in\nhint: name a file with a secret with --token-file \
             (openssl rand -hex 16 > token), or listen on 127.0.0.1",
            options.listen
        )));
    };
    let text = fs::read_to_string(path).map_err(|e| {
        ServeError::Input(format!(
            "{}: {e}\nhint: --token-file names a text file with a secret of 16 characters or more",
            path.display()
        ))
    })?;
    Ok(Some(text.trim().to_owned()))
}

/// Opens the file that the server was started with: a detector of its name, which is new or begins anew where the file is another.
fn begin_with(app: &Arc<App>, path: &Path) -> Result<String, ServeError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = stem.chars().map(plain).take(64).collect();
    let name = name.trim_start_matches(['.', '-']).to_owned();
    let name = if name.is_empty() {
        "detector".to_owned()
    } else {
        name
    };
    let weights = app.registry.weights().map(std::path::PathBuf::as_path);
    let detector = flawtune::Detector::open_with(path, weights, None, &mut |_| {})?;
    let row = match app.store.detector(&name)? {
        Some(row) => row,
        None => match app.store.new_detector(&name, None)? {
            Some(row) => row,
            None => return Ok(name),
        },
    };
    let hash = file_hash(path)?;
    let file = format!("opened-{hash}.flaw");
    let known = app.store.versions(row.id)?;
    if known.iter().any(|version| version.is.file == file) {
        return Ok(name);
    }
    let folder = app.files.detector(&row.name);
    fs::create_dir_all(&folder)?;
    fs::copy(path, folder.join(&file))?;
    fs::File::open(folder.join(&file))?.sync_all()?;
    let header = detector.header();
    let new = NewVersion {
        kind: VersionKind::Opened,
        note: format!("opened {}", path.display()),
        file,
        base: None,
        lessons: Vec::new(),
        threshold: header.threshold.value,
        given: false,
        good: header.support.len(),
        defects: detector.defects(),
        before: None,
        after: None,
        oddest: None,
    };
    app.store.add_version(&row, &new, None)?;
    Ok(name)
}

/// The first digits of the hash of a file.
fn file_hash(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

async fn health(State(app): State<Arc<App>>) -> impl IntoResponse {
    if app.stopping.load(Ordering::SeqCst) {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::OK, "ready")
    }
}

async fn figures(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = app.metrics.text(app.queue.len(), &app.ways());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text)
}

fn routes(app: &Arc<App>) -> Router {
    Router::new()
        .merge(page::routes())
        .merge(api::routes(app))
        .merge(oip::routes(app))
        .route("/health/live", get(|| async { "live" }))
        .route("/health/ready", get(health))
        .route("/metrics", get(figures))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard))
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(Arc::clone(app))
}

async fn listen(
    app: &Arc<App>,
    stop: &'static AtomicBool,
    on_start: impl FnOnce(&Listening),
) -> Result<(), ServeError> {
    let handle: ServerHandle<SocketAddr> = ServerHandle::new();
    let listener =
        std::net::TcpListener::bind(app.options.listen).map_err(|source| ServeError::Listen {
            address: app.options.listen,
            source,
        })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let service = routes(app).into_make_service_with_connect_info::<SocketAddr>();
    let tls = match (&app.options.tls_cert, &app.options.tls_key) {
        (Some(cert), Some(key)) => {
            let config = RustlsConfig::from_pem_file(cert, key).await;
            Some(config.map_err(|e| {
                ServeError::Input(format!(
                    "{}: {e}\nhint: --tls-cert and --tls-key name PEM files",
                    cert.display()
                ))
            })?)
        }
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    on_start(&Listening {
        address,
        url: format!("{scheme}://{address}/"),
        locked: app.gate.locked(),
        plain: tls.is_none() && !address.ip().is_loopback(),
    });
    tokio::spawn(stopping(Arc::clone(app), stop, handle.clone()));
    match tls {
        Some(config) => {
            bounded(axum_server::from_tcp_rustls(listener, config)?)
                .handle(handle)
                .serve(service)
                .await?;
        }
        None => {
            bounded(axum_server::from_tcp(listener)?)
                .handle(handle)
                .serve(service)
                .await?;
        }
    }
    Ok(())
}

/// With bounds on what a client may have us wait for.
fn bounded<A>(
    mut server: axum_server::Server<SocketAddr, A>,
) -> axum_server::Server<SocketAddr, A> {
    server
        .http_builder()
        .http1()
        .header_read_timeout(Duration::from_secs(10));
    server
}

/// Waits until the server is to stop; then no more is taken, and what is under way may end.
async fn stopping(app: Arc<App>, stop: &'static AtomicBool, handle: ServerHandle<SocketAddr>) {
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    app.stopping.store(true, Ordering::SeqCst);
    handle.graceful_shutdown(Some(PATIENCE));
}
