//! Figures for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::receivers::Counted;
use crate::verdict::Part;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPart {
    detector: String,
    verdict: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWay {
    way: String,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    parts: Family<OfPart, Counter>,
    requests: Family<OfRequest, Counter>,
    seconds: Histogram,
    batch: Histogram,
    pass: Histogram,
    decode: Histogram,
    waiting: Gauge,
    sent: Family<OfWay, Gauge>,
    dropped: Family<OfWay, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("flawtune");
        let (parts, requests) = (Family::default(), Family::default());
        let seconds = Histogram::new(exponential_buckets(0.005, 2.0, 14));
        let batch = Histogram::new(exponential_buckets(1.0, 2.0, 5));
        let times = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let (pass, decode) = (times(), times());
        let waiting = Gauge::default();
        let (sent, dropped) = (Family::default(), Family::default());
        registry.register("parts", "Parts that were looked at", Clone::clone(&parts));
        registry.register("requests", "Requests, by status", Clone::clone(&requests));
        registry.register_with_unit(
            "verdict",
            "From an image's arrival to its verdict",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("batch_images", "Images a forward pass", batch.clone());
        registry.register_with_unit(
            "pass",
            "Looking at a batch: forward pass, comparison, verdicts",
            Unit::Seconds,
            pass.clone(),
        );
        registry.register_with_unit(
            "decode",
            "From an image's file to its pixels",
            Unit::Seconds,
            decode.clone(),
        );
        registry.register("waiting", "Images that wait", waiting.clone());
        registry.register(
            "way_sent",
            "Images that came from a source, verdicts that a receiver took",
            Clone::clone(&sent),
        );
        registry.register(
            "way_lost",
            "Images of a source or verdicts to a receiver that were dropped or refused",
            Clone::clone(&dropped),
        );
        Self {
            registry,
            parts,
            requests,
            seconds,
            batch,
            pass,
            decode,
            waiting,
            sent,
            dropped,
        }
    }
}

impl Metrics {
    /// A part was looked at, in so much time since it came.
    pub(crate) fn part(&self, part: &Part, time: Duration) {
        let of = OfPart {
            detector: part.detector.clone(),
            verdict: if part.flaw { "flaw" } else { "good" },
            source: part.source.name(),
        };
        self.parts.get_or_create(&of).inc();
        self.seconds.observe(time.as_secs_f64());
    }

    /// So many images were looked at together, in so much time.
    pub(crate) fn batch(&self, images: usize, time: Duration) {
        self.batch.observe(images as f64);
        self.pass.observe(time.as_secs_f64());
    }

    /// An image was decoded in so much time.
    pub(crate) fn decoded(&self, time: Duration) {
        self.decode.observe(time.as_secs_f64());
    }

    /// A request was answered.
    pub(crate) fn request(&self, status: u16) {
        self.requests.get_or_create(&OfRequest { status }).inc();
    }

    /// As text, with so many images waiting, and with what became of images of sources and of verdicts to receivers.
    pub(crate) fn text(&self, waiting: usize, ways: &[Counted]) -> String {
        self.waiting.set(waiting as i64);
        for way in ways {
            let of = OfWay {
                way: way.name.clone(),
            };
            self.sent.get_or_create(&of).set(way.sent as i64);
            let lost = way.dropped + way.failed;
            self.dropped.get_or_create(&of).set(lost as i64);
        }
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}
