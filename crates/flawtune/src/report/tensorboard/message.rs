//! The messages of an event file in protocol buffers' wire format.

/// A message being written: fields in the order of their numbers, those with a default value left out, as the reference
/// implementation serialises them.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    /// An integer or an enumeration.
    fn int(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.key(field, 0);
            self.varint(value);
        }
        self
    }

    fn double(mut self, field: u32, value: f64) -> Self {
        if value.to_bits() != 0 {
            self.key(field, 1);
            self.0.extend(value.to_le_bytes());
        }
        self
    }

    /// A number of a `oneof`, which is written whatever it is.
    fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Text or a message.
    fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn message(self, field: u32, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }
}

/// `DT_STRING` of `DataType`.
const STRING: u64 = 7;
/// `DATA_CLASS_TENSOR` of `DataClass`.
const TENSOR: u64 = 2;
/// `START` of `SessionLog.SessionStatus`.
const START: u64 = 1;

/// One `Event`.
#[derive(Debug)]
pub(super) struct Event(Message);

impl Event {
    fn at(wall_time: f64, step: usize) -> Message {
        Message::default().double(1, wall_time).int(2, step as u64)
    }

    fn summary(wall_time: f64, step: usize, summary: &Message) -> Self {
        Self(Self::at(wall_time, step).message(5, summary))
    }

    pub(super) fn file_version(wall_time: f64, version: &str) -> Self {
        Self(Self::at(wall_time, 0).bytes(3, version.as_bytes()))
    }

    /// A session begins at `step`: what earlier sessions said of this step and later ones counts no more.
    pub(super) fn start(wall_time: f64, step: usize) -> Self {
        Self(Self::at(wall_time, step).message(7, &Message::default().int(1, START)))
    }

    pub(super) fn scalars(wall_time: f64, step: usize, values: &[(&str, f64)]) -> Self {
        let summary = values
            .iter()
            .fold(Message::default(), |summary, (tag, value)| {
                summary.message(
                    1,
                    &Message::default()
                        .bytes(1, tag.as_bytes())
                        .float(2, *value as f32),
                )
            });
        Self::summary(wall_time, step, &summary)
    }

    /// A tensor of one string, with the metadata that makes the text plugin show it.
    pub(super) fn text(wall_time: f64, step: usize, tag: &str, text: &str) -> Self {
        let shape = Message::default().message(2, &Message::default().int(1, 1));
        let tensor = Message::default()
            .int(1, STRING)
            .message(2, &shape)
            .bytes(8, text.as_bytes());
        let plugin = Message::default().bytes(1, b"text");
        let metadata = Message::default().message(1, &plugin).int(4, TENSOR);
        let value = Message::default()
            .bytes(1, tag.as_bytes())
            .message(8, &tensor)
            .message(9, &metadata);
        Self::summary(wall_time, step, &Message::default().message(1, &value))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.0
    }
}
