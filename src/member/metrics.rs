//! What a member counts, for Prometheus: gathered when somebody asks, and served over HTTP.
//!
//! A metric is read where it is counted anyway, so counting costs a running member nothing more. Whoever offers a
//! service in a member adds a [`Collector`] of its own to [`Metrics`].

use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
pub use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use prometheus_client::{
    encoding::{EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

use super::core::Core;
use crate::kind::Kind;

/// The media type of the exposition format (OpenMetrics 1.0 §3.1).
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Scrapers served at a time; others wait.
const MAX_SCRAPERS: usize = 8;
/// How long a scraper may take to send its request, and its connection to be of use.
const PATIENCE: Duration = Duration::from_secs(10);

/// The metrics of one member. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {why}; choose another address with --metrics")]
pub struct MetricsError {
    /// Where they were to be served.
    pub address: SocketAddr,
    /// What the operating system says.
    pub why: std::io::Error,
}

impl MetricsError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        Kind::Local
    }
}

impl Metrics {
    /// The metrics of a member, to begin with those of its overlay.
    pub(super) fn of(core: &Arc<Core>) -> Self {
        let metrics = Self { registry: Arc::new(Mutex::new(Registry::with_prefix("p2psip"))) };
        metrics.add(Box::new(OverlayMetrics(Arc::downgrade(core))));
        metrics
    }

    /// Adds what a service counts. Names begin with `p2psip_` by themselves.
    pub fn add(&self, collector: Box<dyn Collector>) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(collector);
    }

    /// All of them in the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail; a collector that did would only cut the text short.
        let _ = text::encode(&mut out, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        out
    }

    /// Serves `GET /metrics` on `address` until the server is dropped.
    ///
    /// # Errors
    /// [`MetricsError`], if the address cannot be bound.
    pub async fn serve(&self, address: SocketAddr) -> Result<MetricsServer, MetricsError> {
        let failed = |why| MetricsError { address, why };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(MetricsServer { address, task: tokio::spawn(accept(listener, self.clone())) })
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Serves metrics until it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl MetricsServer {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, metrics: Metrics) {
    let free = Arc::new(Semaphore::new(MAX_SCRAPERS));
    // Dropped with this task, which ends the connections too.
    let mut scrapers = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("metrics: a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while scrapers.try_join_next().is_some() {}
        let metrics = metrics.clone();
        scrapers.spawn(async move {
            let answer = service_fn(move |request| std::future::ready(answer(&request, &metrics)));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A scraper that went away has no further need of us.
            let _ = tokio::time::timeout(2 * PATIENCE, connection).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, header, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, (CONTENT_TYPE, OPENMETRICS), metrics.text()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, (ALLOW, "GET, HEAD"), String::new()),
        _ => (StatusCode::NOT_FOUND, (CONTENT_TYPE, "text/plain"), "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header.0, hyper::header::HeaderValue::from_static(header.1));
    Ok(response)
}

/// Writes one counter.
///
/// # Errors
/// Those of the encoder.
pub fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Writes one gauge.
///
/// # Errors
/// Those of the encoder.
pub fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// What a member counts of the overlay.
struct OverlayMetrics(Weak<Core>);

impl fmt::Debug for OverlayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OverlayMetrics")
    }
}

impl Collector for OverlayMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // A member that is being dropped has nothing to tell.
        let Some(core) = self.0.upgrade() else { return Ok(()) };
        let status = core.status();
        let e = &mut encoder;
        let started = std::time::Duration::from_millis(status.started_ms.0).as_secs_f64();
        gauge(e, "start_time_seconds", "When the member started, in seconds since the epoch", started)?;
        gauge(e, "overlay_peers", "Peers in the routing table", status.peers.into())?;
        gauge(e, "overlay_connections", "Connections that are open", status.connections.into())?;
        gauge(e, "overlay_names", "Names of which records are held", status.names.into())?;
        gauge(e, "overlay_records", "Records held, tombstones included", status.records.into())?;
        gauge(e, "overlay_kept_records", "Records kept alive for clients", status.kept.into())?;
        counter(e, "overlay_requests_served", "Requests of the client protocol answered", status.served)?;
        counter(e, "overlay_requests_throttled", "Requests turned away for their sender's limits", status.throttled)
    }
}
