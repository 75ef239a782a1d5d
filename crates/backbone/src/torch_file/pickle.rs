//! A pickle machine that can only build data.
//!
//! It knows the opcodes that `torch.save` writes (protocols 2 to 5) and a short list of globals. Nothing is
//! imported or called: a global is a tag, and `REDUCE` turns a known tag with its arguments into a node. Objects
//! live in an arena and refer to each other by index, as a pickle may fill a list after having shared it.

use std::collections::HashMap;

use super::error::Problem;
use super::globals::Global;
use super::numpy;
use super::value::DType;

/// Longest pickle that is read. A state dict of a 7-billion-parameter model has about 100 kB.
pub(super) const MAX_PICKLE: usize = 32 << 20;
/// Most objects a pickle may create; keeps the arena below about 300 MB.
const MAX_NODES: usize = 4 << 20;

/// Most tensors a pickle may describe.
const MAX_VIEWS: usize = 1 << 16;
/// Most arguments of a call; `torch` and `numpy` need seven.
const MAX_ARGUMENTS: usize = 16;

/// Index of a node in the arena.
pub(super) type Id = u32;

/// A tensor as the pickle describes it: a strided view of a storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Element type of the storage.
    pub(super) dtype: DType,
    /// Node of the storage's key.
    pub(super) key: Id,
    /// Elements the storage has according to the pickle.
    pub(super) storage_len: u64,
    /// First element.
    pub(super) offset: u64,
    /// Shape.
    pub(super) shape: Vec<u64>,
    /// Strides in elements.
    pub(super) strides: Vec<u64>,
}

/// An object of the pickle.
#[derive(Debug, Clone)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits.
    BigInt,
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage {
        dtype: DType,
        key: Id,
        len: u64,
    },
    View(Box<View>),
    NumpyDtype {
        kind: u8,
        size: usize,
        big_endian: bool,
    },
}

/// All objects of a pickle and the one it stands for.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    /// Bytes of the input up to and including `STOP`.
    pub(super) used: usize,
}

impl Objects {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }
}

/// An entry of the stack.
#[derive(Clone, Copy)]
enum Slot {
    Mark,
    Object(Id),
}

/// Runs the pickle at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Objects, Problem> {
    let mut m = Machine {
        bytes,
        at: 0,
        op: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        memo: HashMap::new(),
        views: 0,
        encoded: 0,
    };
    let root = m.run()?;
    Ok(Objects {
        root,
        used: m.at,
        nodes: m.nodes,
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Position of the opcode in progress, for messages.
    op: usize,
    nodes: Vec<Node>,
    stack: Vec<Slot>,
    memo: HashMap<u32, Id>,
    /// Tensors made so far.
    views: usize,
    /// Bytes made by `_codecs.encode` so far: text may be shared, so their sum has no other bound.
    encoded: usize,
}

impl Machine<'_> {
    #[expect(clippy::too_many_lines, reason = "an arm for each opcode")]
    fn run(&mut self) -> Result<Id, Problem> {
        loop {
            if self.at > MAX_PICKLE {
                return Err(Problem::TooLarge(format!(
                    "a pickle of more than {MAX_PICKLE} bytes"
                )));
            }
            self.op = self.at;
            match self.u8()? {
                b'.' => return self.pop(),
                0x80 => {
                    let version = self.u8()?;
                    if version > 5 {
                        return Err(Problem::Unsupported(format!(
                            "pickle protocol {version}\nhint: save it with pickle_protocol=2"
                        )));
                    }
                }
                0x95 => {
                    self.take(8)?; // FRAME: only a hint for buffered readers
                }
                b'(' => self.stack.push(Slot::Mark),
                b'0' => {
                    self.stack
                        .pop()
                        .ok_or_else(|| self.bad("the stack is empty"))?;
                }
                b'1' => {
                    self.pop_mark()?;
                }
                b'2' => {
                    let id = self.top()?;
                    self.stack.push(Slot::Object(id));
                }
                b'N' => self.push(Node::None)?,
                0x88 => self.push(Node::Bool(true))?,
                0x89 => self.push(Node::Bool(false))?,
                b'K' => {
                    let n = self.u8()?;
                    self.push(Node::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Node::Int(n.into()))?;
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Node::Int(n.into()))?;
                }
                0x8a => {
                    let n = self.u8()?;
                    self.long(n.into())?;
                }
                0x8b => {
                    let n = self.len4()?;
                    self.long(n)?;
                }
                b'G' => {
                    let x = f64::from_be_bytes(self.array()?);
                    self.push(Node::Float(x))?;
                }
                b'X' => {
                    let n = self.len4()?;
                    self.text(n)?;
                }
                0x8c => {
                    let n = self.u8()?;
                    self.text(n.into())?;
                }
                0x8d => {
                    let n = self.len8()?;
                    self.text(n)?;
                }
                b'C' => {
                    let n = self.u8()?;
                    self.blob(n.into())?;
                }
                b'B' => {
                    let n = self.len4()?;
                    self.blob(n)?;
                }
                0x8e => {
                    let n = self.len8()?;
                    self.blob(n)?;
                }
                b']' => self.push(Node::List(Vec::new()))?,
                b'}' => self.push(Node::Dict(Vec::new()))?,
                b')' => self.push(Node::Tuple(Vec::new()))?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Node::Tuple(items))?;
                }
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Node::List(items))?;
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    let pairs = self.pairs(&items)?;
                    self.push(Node::Dict(pairs))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set(&items)?;
                }
                b'q' => {
                    let n = self.u8()?;
                    self.remember(n.into())?;
                }
                b'r' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.remember(n)?;
                }
                0x94 => {
                    let n = self.memo.len() as u32; // at most one entry an opcode, so below MAX_PICKLE
                    self.remember(n)?;
                }
                b'h' => {
                    let n = self.u8()?;
                    self.recall(n.into())?;
                }
                b'j' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.recall(n)?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Node::Str(module), Node::Str(name)) =
                        (self.node(module).clone(), self.node(name).clone())
                    else {
                        return Err(self.bad("STACK_GLOBAL without two texts"));
                    };
                    self.global(&module, &name)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b'Q' => self.persistent()?,
                other => {
                    return Err(Problem::Unsupported(format!(
                        "its pickle uses opcode {other:#04x} at byte {}, which plain data and tensors saved by torch.save do not need",
                        self.op
                    )));
                }
            }
        }
    }

    fn bad(&self, what: impl Into<String>) -> Problem {
        Problem::Pickle {
            position: self.op,
            what: what.into(),
        }
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    // ---- input

    fn take(&mut self, n: usize) -> Result<&[u8], Problem> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.bad("it ends in the middle of an object"));
        };
        let start = std::mem::replace(&mut self.at, end);
        Ok(&self.bytes[start..end])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, Problem> {
        Ok(self.take(1)?[0])
    }

    fn len4(&mut self) -> Result<usize, Problem> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn len8(&mut self) -> Result<usize, Problem> {
        let n = u64::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| self.bad("an absurd length"))
    }

    fn line(&mut self) -> Result<String, Problem> {
        // no name of a class is longer than this
        let window = &self.bytes[self.at..self.bytes.len().min(self.at + 512)];
        let Some(n) = window.iter().position(|&b| b == b'\n') else {
            return Err(self.bad("a name without an end"));
        };
        let text = str::from_utf8(&window[..n])
            .map_err(|_| self.bad("a name that is not text"))?
            .to_owned();
        self.at += n + 1;
        Ok(text)
    }

    fn long(&mut self, n: usize) -> Result<(), Problem> {
        let bytes = self.take(n)?;
        let node = if n <= 8 {
            let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) {
                0xff
            } else {
                0
            };
            let mut wide = [sign; 8];
            wide[..n].copy_from_slice(bytes);
            Node::Int(i64::from_le_bytes(wide))
        } else {
            Node::BigInt
        };
        self.push(node)
    }

    fn text(&mut self, n: usize) -> Result<(), Problem> {
        // Python writes lone surrogates of file names with "surrogatepass"; they become the replacement character
        let text = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.push(Node::Str(text))
    }

    fn blob(&mut self, n: usize) -> Result<(), Problem> {
        let bytes = self.take(n)?.to_vec();
        self.push(Node::Bytes(bytes))
    }

    // ---- stack and memo

    fn push(&mut self, node: Node) -> Result<(), Problem> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Problem::TooLarge(format!(
                "a pickle of more than {MAX_NODES} objects"
            )));
        }
        self.stack.push(Slot::Object(self.nodes.len() as Id));
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, Problem> {
        match self.stack.pop() {
            Some(Slot::Object(id)) => Ok(id),
            Some(Slot::Mark) => Err(self.bad("a mark where an object should be")),
            None => Err(self.bad("the stack is empty")),
        }
    }

    fn top(&mut self) -> Result<Id, Problem> {
        let id = self.pop()?;
        self.stack.push(Slot::Object(id));
        Ok(id)
    }

    /// The objects above the last mark, which goes too.
    fn pop_mark(&mut self) -> Result<Vec<Id>, Problem> {
        let Some(mark) = self.stack.iter().rposition(|s| matches!(s, Slot::Mark)) else {
            return Err(self.bad("no mark on the stack"));
        };
        let items = self.stack.drain(mark..).filter_map(|s| {
            if let Slot::Object(id) = s {
                Some(id)
            } else {
                None
            }
        });
        Ok(items.collect())
    }

    fn remember(&mut self, n: u32) -> Result<(), Problem> {
        let id = self.top()?;
        self.memo.insert(n, id);
        Ok(())
    }

    fn recall(&mut self, n: u32) -> Result<(), Problem> {
        let id = *self
            .memo
            .get(&n)
            .ok_or_else(|| self.bad(format!("memo entry {n} does not exist")))?;
        self.stack.push(Slot::Object(id));
        Ok(())
    }

    // ---- containers

    fn tuple(&mut self, n: usize) -> Result<(), Problem> {
        let mut items = vec![0; n];
        for slot in items.iter_mut().rev() {
            *slot = self.pop()?;
        }
        self.push(Node::Tuple(items))
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, Problem> {
        if !items.len().is_multiple_of(2) {
            return Err(self.bad("a key without a value"));
        }
        Ok(items.chunks_exact(2).map(|p| (p[0], p[1])).collect())
    }

    fn append(&mut self, items: &[Id]) -> Result<(), Problem> {
        let id = self.top()?;
        match &mut self.nodes[id as usize] {
            Node::List(list) => list.extend_from_slice(items),
            _ => return Err(self.bad("an append to something that is not a list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), Problem> {
        let pairs = self.pairs(items)?;
        let id = self.top()?;
        match &mut self.nodes[id as usize] {
            Node::Dict(dict) => dict.extend(pairs),
            _ => return Err(self.bad("an item set on something that is not a dictionary")),
        }
        Ok(())
    }

    // ---- globals

    fn global(&mut self, module: &str, name: &str) -> Result<(), Problem> {
        let known = Global::find(module, name)
            .ok_or_else(|| Problem::ForeignGlobal(format!("{module}.{name}")))?;
        self.push(Node::Global(known))
    }

    fn reduce(&mut self) -> Result<(), Problem> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let (Node::Global(callee), Node::Tuple(args)) = (self.node(callee), self.node(args)) else {
            return Err(self.bad("a call of something that is not a class"));
        };
        if args.len() > MAX_ARGUMENTS {
            return Err(self.bad(format!("a call with {} arguments", args.len())));
        }
        let (callee, args) = (*callee, args.clone());
        let node = match (callee, args.as_slice()) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                self.view(*storage, *offset, *shape, *strides)?
            }
            (Global::RebuildParameter, [tensor, ..])
                if matches!(self.node(*tensor), Node::View(_)) =>
            {
                self.stack.push(Slot::Object(*tensor));
                return Ok(());
            }
            (Global::Size, [items]) if matches!(self.node(*items), Node::Tuple(_)) => {
                self.stack.push(Slot::Object(*items));
                return Ok(());
            }
            (Global::NumpyDtype, [name, ..]) => self.numpy_dtype(*name)?,
            (Global::NumpyScalar, [dtype, bytes]) => self.numpy_scalar(*dtype, *bytes)?,
            (Global::Encode, [text, ..]) => {
                let Node::Str(text) = self.node(*text) else {
                    return Err(self.bad("an encoding of no text"));
                };
                let encoded = self.encoded + text.len();
                if encoded > MAX_PICKLE {
                    return Err(Problem::TooLarge(format!(
                        "more than {MAX_PICKLE} bytes made of text"
                    )));
                }
                // protocol 2 has no bytes: they travel as text with one character a byte
                let bytes: Result<Vec<u8>, _> =
                    text.chars().map(|c| u8::try_from(u32::from(c))).collect();
                let bytes = bytes.map_err(|_| self.bad("bytes written as text beyond latin-1"))?;
                self.encoded = encoded;
                Node::Bytes(bytes)
            }
            (Global::Bytes, []) => Node::Bytes(Vec::new()),
            _ => return Err(self.bad(format!("{callee:?} with {} arguments", args.len()))),
        };
        self.push(node)
    }

    fn view(&mut self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<Node, Problem> {
        let &Node::Storage { dtype, key, len } = self.node(storage) else {
            return Err(self.bad("a tensor without a storage"));
        };
        let offset = self.count(offset)?;
        let (shape, strides) = (self.counts(shape)?, self.counts(strides)?);
        if shape.len() != strides.len() {
            return Err(self.bad(format!(
                "a tensor with {} sizes and {} strides",
                shape.len(),
                strides.len()
            )));
        }
        self.views += 1;
        if self.views > MAX_VIEWS {
            return Err(Problem::TooLarge(format!("more than {MAX_VIEWS} tensors")));
        }
        Ok(Node::View(Box::new(View {
            dtype,
            key,
            storage_len: len,
            offset,
            shape,
            strides,
        })))
    }

    fn count(&self, id: Id) -> Result<u64, Problem> {
        match self.node(id) {
            Node::Int(n) => u64::try_from(*n).map_err(|_| self.bad("a negative size")),
            _ => Err(self.bad("a size that is not an integer")),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<u64>, Problem> {
        match self.node(id) {
            // no tensor of a model has more axes; the bound keeps shared shapes from multiplying
            Node::Tuple(items) | Node::List(items) if items.len() <= 16 => {
                items.iter().map(|&i| self.count(i)).collect()
            }
            _ => Err(self.bad("a shape that is not a short tuple")),
        }
    }

    fn numpy_dtype(&self, name: Id) -> Result<Node, Problem> {
        let Node::Str(name) = self.node(name) else {
            return Err(self.bad("a numpy dtype without a name"));
        };
        numpy::dtype(name).ok_or_else(|| {
            Problem::Unsupported(format!(
                "a numpy number of type '{name}'\nhint: save it as a plain number"
            ))
        })
    }

    fn numpy_scalar(&self, dtype: Id, bytes: Id) -> Result<Node, Problem> {
        let (
            &Node::NumpyDtype {
                kind,
                size,
                big_endian,
            },
            Node::Bytes(bytes),
        ) = (self.node(dtype), self.node(bytes))
        else {
            return Err(self.bad("a numpy number without type and bytes"));
        };
        numpy::scalar(kind, size, big_endian, bytes).ok_or_else(|| {
            self.bad(format!(
                "a numpy number of {size} bytes with {}",
                bytes.len()
            ))
        })
    }

    fn build(&mut self) -> Result<(), Problem> {
        let state = self.pop()?;
        let target = self.top()?;
        match (self.node(target), self.node(state)) {
            // attributes of an OrderedDict (`_metadata` of a state dict): nothing that we use
            (Node::Dict(_), _) => Ok(()),
            (&Node::NumpyDtype { kind, size, .. }, Node::Tuple(items)) => {
                let order = items.get(1).map(|&i| self.node(i));
                let big_endian = matches!(order, Some(Node::Str(s)) if s == ">");
                self.nodes[target as usize] = Node::NumpyDtype {
                    kind,
                    size,
                    big_endian,
                };
                Ok(())
            }
            _ => Err(self.bad("a state for something that has none")),
        }
    }

    fn persistent(&mut self) -> Result<(), Problem> {
        let id = self.pop()?;
        let Node::Tuple(items) = self.node(id) else {
            return Err(self.bad("a storage that is not a tuple"));
        };
        // ('storage', class, key, device, number of elements), old files with a sixth item: a view of another storage
        let [tag, class, key, _device, len, rest @ ..] = items.as_slice() else {
            return Err(self.bad("a storage with too few fields"));
        };
        if !matches!(self.node(*tag), Node::Str(s) if s == "storage") {
            return Err(self.bad("a persistent object that is not a storage"));
        }
        if rest.iter().any(|&r| !matches!(self.node(r), Node::None)) {
            return Err(Problem::Unsupported(
                "its storages are views of each other, as PyTorch before 0.4 wrote them\nhint: save it again"
                    .into(),
            ));
        }
        let (&Node::Global(Global::Storage(dtype)), Node::Str(_)) =
            (self.node(*class), self.node(*key))
        else {
            return Err(self.bad("a storage without type and key"));
        };
        let (key, len) = (*key, self.count(*len)?);
        self.push(Node::Storage { dtype, key, len })
    }
}
