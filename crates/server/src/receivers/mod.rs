//! Where verdicts go: servers, brokers, files, folders.
//!
//! Each receiver has a thread and a queue of its own, so that one that is slow or away holds up neither the others nor who
//! looks at parts. Queues are bounded: where one is full its oldest verdict is dropped, counted and said.

mod address;
mod error;
mod mqtt;
mod options;
mod queue;
mod sorted;
mod table;
mod webhook;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

pub use self::address::Address;
pub use self::error::ReceiverError;
pub use self::options::ReceiverOptions;
pub(crate) use self::queue::Backoff;

use self::mqtt::Mqtt;
use self::queue::{MOST, Queue, Told};
use self::sorted::Sorted;
use self::table::Table;
use self::webhook::Webhook;
use crate::verdict::Part;

/// What became of the things that went one way: verdicts to a receiver, or images from a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counted {
    /// Which way, without what is secret in its address.
    pub name: String,
    /// Arrived.
    pub sent: u64,
    /// Under way.
    pub waiting: u64,
    /// Given up because there was no room or no time.
    pub dropped: u64,
    /// Refused, or impossible.
    pub failed: u64,
}

/// A receiver at work.
#[derive(Debug)]
struct Running {
    queue: Arc<Queue>,
    images: bool,
    /// Closed when its thread ends.
    ended: Mutex<Receiver<()>>,
}

impl Running {
    fn start(
        name: String,
        images: bool,
        work: impl FnOnce(&Queue) + Send + 'static,
    ) -> Result<Self, ReceiverError> {
        let queue = Arc::new(Queue::new(name, MOST));
        let (end, ended) = channel();
        let theirs = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("receiver".into())
            .spawn(move || {
                work(&theirs);
                drop(end);
            })
            .map_err(|source| ReceiverError::Thread {
                name: queue.name.clone(),
                source,
            })?;
        Ok(Self {
            queue,
            images,
            ended: Mutex::new(ended),
        })
    }
}

/// All receivers at work.
#[derive(Debug, Default)]
pub struct Receivers {
    running: Vec<Running>,
}

impl Receivers {
    /// Checks all that can be checked, then starts every receiver. A server or broker need not be there yet.
    ///
    /// # Errors
    /// An address that is none, a file or folder that cannot be written.
    pub fn start(options: &ReceiverOptions) -> Result<Self, ReceiverError> {
        if options.webhook_secret_file.is_some() && options.webhook.is_empty() {
            return Err(ReceiverError::Alone {
                option: "webhook_secret_file",
                wanted: "webhook",
                hint: "the secret signs what goes to a webhook: name its address with `webhook`",
            });
        }
        if options.mqtt_ca.is_some() && options.mqtt.is_none() {
            return Err(ReceiverError::Alone {
                option: "mqtt_ca",
                wanted: "mqtt",
                hint: "name the broker with `mqtt`",
            });
        }
        let secret = options.webhook_secret_file.as_deref().map(webhook::secret);
        let secret = secret.transpose()?;
        // all are checked before one starts
        let mut webhooks: Vec<(Webhook, String)> = Vec::new();
        for address in &options.webhook {
            let (hook, mut name) = Webhook::new(address, secret.clone(), options.webhook_patience)?;
            let same = |(_, other): &&(Webhook, String)| {
                *other == name || other.starts_with(&format!("{name} #"))
            };
            match webhooks.iter().filter(same).count() {
                0 => {}
                before => name = format!("{name} #{}", before + 1),
            }
            webhooks.push((hook, name));
        }
        let mqtt = options.mqtt.as_ref();
        let mqtt = mqtt
            .map(|address| Mqtt::new(address, options.mqtt_ca.as_deref()))
            .transpose()?;
        let table = options.verdicts.as_deref().map(Table::open).transpose()?;
        let sorted = options.sorted.as_deref().map(Sorted::open).transpose()?;

        let mut running = Vec::new();
        for (webhook, name) in webhooks {
            running.push(Running::start(name, false, move |q| webhook.work(q))?);
        }
        if let Some((mqtt, name)) = mqtt {
            running.push(Running::start(name, false, move |q| mqtt.work(q))?);
        }
        if let Some(mut table) = table {
            running.push(Running::start("verdicts".into(), false, move |q| {
                table.work(q);
            })?);
        }
        if let Some(mut sorted) = sorted {
            running.push(Running::start("sorted".into(), true, move |q| {
                sorted.work(q);
            })?);
        }
        Ok(Self { running })
    }

    /// Tells all receivers of a part and the bytes of its image file. This waits for none of them and cannot fail.
    pub fn tell(&self, part: &Arc<Part>, image: &Arc<[u8]>) {
        for receiver in &self.running {
            receiver.queue.push(Told {
                part: Arc::clone(part),
                image: receiver.images.then(|| Arc::clone(image)),
                at: Instant::now(),
            });
        }
    }

    /// What became of the verdicts so far, a row a receiver.
    pub fn counts(&self) -> Vec<Counted> {
        let queues = self.running.iter().map(|r| r.queue.counted());
        queues.collect()
    }

    /// Takes no more and waits until all is told, but no longer than `patience`; what is left then is counted as dropped,
    /// which is said. Returns the last counts.
    pub fn stop(self, patience: Duration) -> Vec<Counted> {
        let ends = Instant::now() + patience;
        for receiver in &self.running {
            receiver.queue.close(ends);
        }
        for receiver in &self.running {
            // a moment more, for who only has to see that the time is over
            let left = ends.saturating_duration_since(Instant::now()) + Duration::from_millis(200);
            let ended = receiver.ended.lock();
            let _ = ended
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(left);
            let dropped = receiver.queue.abandon();
            if dropped > 0 {
                tracing::warn!(
                    receiver = receiver.queue.name,
                    dropped,
                    "the server ends before all is told"
                );
            }
        }
        self.counts()
    }
}

impl Drop for Receivers {
    /// Gives up what was not waited for.
    fn drop(&mut self) {
        for receiver in &self.running {
            receiver.queue.close(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Label, Source};

    /// A good part.
    pub(super) fn part(id: i64, name: &str) -> Part {
        Part {
            part: id,
            detector: "lids".into(),
            version: 3,
            content: "00".into(),
            name: name.into(),
            source: Source::Post,
            at: 1_700_000_000_000,
            size: (4, 6),
            score: 0.5,
            probability: 0.25,
            flaw: false,
            verdict: Label::Good,
            kind: None,
            drift: 0.0,
            doubt: 0.0,
            threshold: 0.75,
            regions: Vec::new(),
            judgement: None,
            kept: true,
        }
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let text = |options: ReceiverOptions| Receivers::start(&options).unwrap_err().to_string();
        let wrong = [
            ReceiverOptions {
                webhook: vec!["http://a/".into(), "gopher://a/".into()],
                ..ReceiverOptions::default()
            },
            ReceiverOptions {
                webhook_secret_file: Some(folder.path().join("none")),
                ..ReceiverOptions::default()
            },
            ReceiverOptions {
                mqtt_ca: Some(folder.path().join("none")),
                ..ReceiverOptions::default()
            },
            ReceiverOptions {
                verdicts: Some(folder.path().join("a.txt")),
                ..ReceiverOptions::default()
            },
            ReceiverOptions {
                verdicts: Some(folder.path().join("none/a.csv")),
                ..ReceiverOptions::default()
            },
        ];
        for options in wrong {
            let text = text(options);
            let (said, hint) = text.split_once('\n').unwrap();
            assert!(said.contains('`') && hint.starts_with("hint: "), "{text}");
        }
        let options = ReceiverOptions {
            webhook: vec!["http://a/1".into(), "http://a/2".into(), "http://b/".into()],
            ..ReceiverOptions::default()
        };
        let receivers = Receivers::start(&options).unwrap();
        let names: Vec<String> = receivers.counts().into_iter().map(|c| c.name).collect();
        assert_eq!(
            names,
            [
                "webhook http://a",
                "webhook http://a #2",
                "webhook http://b"
            ]
        );
        receivers.stop(Duration::ZERO);
    }
}
