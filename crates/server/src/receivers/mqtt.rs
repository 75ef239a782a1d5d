//! Verdicts over MQTT 3.1.1.
//!
//! They go to `<topic>/verdicts`, each at least once; `<topic>/status` says `online` or `offline`, retained, the latter also
//! where the server dies: it is the last will. A verdict is forgotten only when the broker has confirmed it, so that what was
//! under way when a connection is lost is sent again on the next.

use std::collections::VecDeque;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::tokio_rustls::rustls::pki_types::CertificateDer;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject as _;
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use rumqttc::{
    AsyncClient, ClientError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    Transport,
};
use tokio::time::sleep_until;

use super::address::{Parts, decoded};
use super::queue::{Backoff, Outcome, Queue, Told};
use super::{Address, ReceiverError};

const OPTION: &str = "mqtt";
const CA_OPTION: &str = "mqtt_ca";
const HINT: &str = "name a broker and a topic such as mqtt://host/line1 with `mqtt`; what is special in a password is written as %40";
const CA_HINT: &str = "name a file of PEM certificates with `mqtt_ca`";
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Verdicts that the broker has not confirmed yet.
const WINDOW: usize = 32;
/// The most that a packet of MQTT can hold.
const LARGEST: usize = 268_435_455;

/// A broker that is told.
pub(super) struct Mqtt {
    options: MqttOptions,
    verdicts: String,
    status: String,
}

/// What was sent and is not confirmed.
enum Sent {
    Status,
    Verdict(Told),
}

/// How a connection ended.
enum End {
    /// All is told, or the time is over.
    Over,
    /// It may be made again; whether it stood.
    Lost(String, bool),
}

impl Mqtt {
    /// The broker and topic of `address`, and a name for them that a log may hold.
    pub(super) fn new(
        address: &Address,
        ca: Option<&Path>,
    ) -> Result<(Self, String), ReceiverError> {
        let wrong = |found: &str| ReceiverError::Address {
            option: OPTION,
            address: address.clone(),
            found: found.to_owned(),
            hint: HINT,
        };
        let parts = address.parts().map_err(wrong)?;
        let tls = match parts.scheme.as_str() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(wrong("only mqtt and mqtts are served")),
        };
        if ca.is_some() && !tls {
            return Err(ReceiverError::Alone {
                option: CA_OPTION,
                wanted: "mqtt mqtts://…",
                hint: "certificates are for connections by mqtts",
            });
        }
        let topic = topic(&parts).map_err(wrong)?;
        let port = parts.port.unwrap_or(if tls { 8883 } else { 1883 });
        let name = format!("{}://{}:{port}/{topic}", parts.scheme, parts.host);
        // the same after a restart: the broker then ends what is left of the connection before, whose last will would
        // otherwise come late
        let id = blake3::hash(format!("{:?} {topic}", parts.user).as_bytes()).to_hex();
        let mut options = MqttOptions::new(format!("flawtune{}", &id[..14]), parts.host, port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_max_packet_size(1 << 20, LARGEST);
        let status = format!("{topic}/status");
        options.set_last_will(LastWill::new(&status, "offline", QoS::AtLeastOnce, true));
        if let Some(user) = parts.user {
            options.set_credentials(user, parts.password.unwrap_or_default());
        }
        if tls {
            options.set_transport(Transport::tls_with_config(encryption(ca)?.into()));
        }
        let mqtt = Self {
            options,
            verdicts: format!("{topic}/verdicts"),
            status,
        };
        Ok((mqtt, name))
    }

    /// Sends until no more comes.
    pub(super) fn work(&self, queue: &Queue) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve(queue)),
            Err(error) => {
                tracing::warn!(receiver = queue.name, %error, "the receiver cannot work");
            }
        }
    }

    async fn serve(&self, queue: &Queue) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut again = VecDeque::new();
        loop {
            let (reason, stood) = match self.connected(queue, &mut again).await {
                End::Over => break,
                End::Lost(reason, stood) => (reason, stood),
            };
            if stood {
                backoff.reset();
            }
            if backoff.is_fresh() {
                tracing::warn!(receiver = queue.name, reason, "no connection: trying again");
            }
            let until = Instant::now() + backoff.pause();
            loop {
                if queue.ends().is_some_and(|ends| ends <= Instant::now()) {
                    return;
                }
                let wake = queue.ends().map_or(until, |ends| ends.min(until));
                tokio::select! {
                    () = sleep_until(wake.into()) => if wake == until { break },
                    () = queue.told.notified() => {}
                }
            }
        }
    }

    /// One connection, until it is lost or all is told. What is not confirmed is put into `again`.
    async fn connected(&self, queue: &Queue, again: &mut VecDeque<Told>) -> End {
        // a new one each time: nothing of the old connection is left in it
        let (client, mut events) = AsyncClient::new(self.options.clone(), WINDOW + 4);
        let mut line = Line {
            mqtt: self,
            queue,
            client,
            sent: VecDeque::new(),
            online: false,
            leaving: false,
        };
        let end = line.run(&mut events, again).await;
        // the order in which they were sent
        for (_, sent) in line.sent.into_iter().rev() {
            if let Sent::Verdict(told) = sent {
                again.push_front(told);
            }
        }
        end
    }
}

/// A connection and what is under way on it.
struct Line<'a> {
    mqtt: &'a Mqtt,
    queue: &'a Queue,
    client: AsyncClient,
    /// With the number that the packet got, in the order of sending.
    sent: VecDeque<(Option<u16>, Sent)>,
    online: bool,
    leaving: bool,
}

impl Line<'_> {
    async fn run(&mut self, events: &mut EventLoop, again: &mut VecDeque<Told>) -> End {
        loop {
            let event = {
                // not to be given up half way: a packet may be written in part
                let mut poll = pin!(events.poll());
                loop {
                    if self.online && self.feed(again).is_err() {
                        return End::Lost("the connection takes no more".into(), true);
                    }
                    let ends = self.queue.ends();
                    if ends.is_some_and(|ends| ends <= Instant::now()) {
                        return End::Over;
                    }
                    let ends = async {
                        match ends {
                            Some(ends) => sleep_until(ends.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        event = &mut poll => break event,
                        () = self.queue.told.notified() => {}
                        () = ends => {}
                    }
                }
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    tracing::info!(receiver = self.queue.name, "connected");
                    self.online = true;
                    if self.say("online").is_err() {
                        return End::Lost("the connection takes no more".into(), true);
                    }
                }
                Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                    let sent = self.sent.iter_mut().find(|(known, _)| known.is_none());
                    if let Some((known, _)) = sent {
                        *known = Some(id);
                    }
                }
                Ok(Event::Incoming(Packet::PubAck(confirmed))) => self.confirmed(confirmed.pkid),
                Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                    // so that it is on its way before the connection is closed
                    drop(tokio::time::timeout(Duration::from_millis(100), events.poll()).await);
                    return End::Over;
                }
                Ok(_) => {}
                Err(_) if self.leaving && self.sent.is_empty() => return End::Over,
                Err(e) => return End::Lost(e.to_string(), self.online),
            }
        }
    }

    fn say(&mut self, status: &str) -> Result<(), ClientError> {
        let topic = self.mqtt.status.as_str();
        self.client
            .try_publish(topic, QoS::AtLeastOnce, true, status)?;
        self.sent.push_back((None, Sent::Status));
        Ok(())
    }

    /// Sends what there is room for; when all is told, says good-bye.
    fn feed(&mut self, again: &mut VecDeque<Told>) -> Result<(), ClientError> {
        while self.sent.len() < WINDOW {
            let Some(told) = again.pop_front().or_else(|| self.queue.try_take()) else {
                break;
            };
            match serde_json::to_vec(&*told.part) {
                Ok(json) if json.len() < LARGEST / 2 => {
                    let topic = self.mqtt.verdicts.as_str();
                    // first in the list: a verdict that is not sent is sent again
                    self.sent.push_back((None, Sent::Verdict(told)));
                    self.client
                        .try_publish(topic, QoS::AtLeastOnce, false, json)?;
                }
                _ => self.queue.settle(Outcome::Failed),
            }
        }
        if self.sent.is_empty() && self.queue.ends().is_some() {
            if self.leaving {
                self.client.try_disconnect()?;
            } else {
                self.leaving = true;
                self.say("offline")?;
            }
        }
        Ok(())
    }

    fn confirmed(&mut self, id: u16) {
        let place = self.sent.iter().position(|(known, _)| *known == Some(id));
        if let Some((_, Sent::Verdict(_))) = place.and_then(|place| self.sent.remove(place)) {
            self.queue.settle(Outcome::Sent);
        }
    }
}

/// The topic that an address names.
fn topic(parts: &Parts) -> Result<String, &'static str> {
    if parts.query.is_some() {
        return Err("there is a ? in it, which is no part of a topic here");
    }
    let path = parts.path.trim_matches('/');
    let topic = decoded(path).ok_or("a % in it is not followed by two hexadecimal digits")?;
    if topic.is_empty() {
        return Err("there is no topic in it");
    }
    if topic.contains(['#', '+', '\0']) || topic.len() > 60_000 {
        return Err("its topic is none that can be written to");
    }
    Ok(topic)
}

/// Encryption that trusts the certificates of a file, or those that the system trusts.
fn encryption(ca: Option<&Path>) -> Result<ClientConfig, ReceiverError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|source| ReceiverError::Io {
            option: CA_OPTION,
            path: path.to_owned(),
            source,
            hint: CA_HINT,
        })?;
        let found = CertificateDer::pem_slice_iter(&pem).flatten();
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(ReceiverError::File {
                option: CA_OPTION,
                path: path.to_owned(),
                found: "there is no certificate in it".into(),
                hint: CA_HINT,
            });
        }
    } else {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| ReceiverError::File {
            option: CA_OPTION,
            path: ca.map(Path::to_owned).unwrap_or_default(),
            found: e.to_string(),
            hint: CA_HINT,
        })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_broker_and_topic() {
        let (mqtt, name) = Mqtt::new(&"mqtt://me:pw@[::1]/a%20b/c/".into(), None).unwrap();
        assert_eq!(name, "mqtt://[::1]:1883/a b/c");
        assert_eq!(mqtt.verdicts, "a b/c/verdicts");
        assert_eq!(mqtt.options.credentials().unwrap().password, "pw");
        assert_eq!(
            mqtt.options.client_id().len(),
            22,
            "23 are the most that each broker takes"
        );
        let (mqtt, _) = Mqtt::new(&"mqtts://host/a".into(), None).unwrap();
        assert_eq!(mqtt.options.broker_address(), ("host".into(), 8883));
        for wrong in [
            "mqtt://me:s3cret@host",
            "mqtt://me:s3cret@host/a/%23",
            "mqtt://me:s3cret@host/a?b",
            "http://me:s3cret@host/a",
            "mqtt://me:s3cret@:1/a",
        ] {
            let text = Mqtt::new(&wrong.into(), None).err().unwrap().to_string();
            assert!(
                text.contains("\nhint: ") && !text.contains("s3cret"),
                "{text}"
            );
        }
    }

    #[test]
    fn certificates_are_read_before_all() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let open = |url: &str| Mqtt::new(&url.into(), Some(&ca)).err().unwrap().to_string();
        assert!(open("mqtts://host/a").contains("`mqtt_ca`"));
        std::fs::write(&ca, "none").unwrap();
        assert!(open("mqtts://host/a").contains("no certificate"));
        assert!(open("mqtt://host/a").contains("without"));
    }
}
