//! From received bytes to events.

use super::header::HEADER_BYTES_MAX;
use super::{CloseFrame, Header, Opcode, ProtocolError, parse_header, unmask};

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Receives masked frames.
    Server,
    /// Receives unmasked frames.
    Client,
}

/// What a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload in one data frame.
    pub frame_bytes_max: u32,
    /// Bytes of payload in one message.
    pub message_bytes_max: u32,
}

impl Default for Limits {
    /// 64 KiB for both.
    fn default() -> Self {
        Self { frame_bytes_max: 64 * 1024, message_bytes_max: 64 * 1024 }
    }
}

/// What the peer sent. Borrowed from the bytes that were fed, or, if it came in pieces, from the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping, or unasked for.
    Pong(&'a [u8]),
    /// The last event: whatever follows is discarded. To be answered, unless it answers a close frame of ours.
    Close(Option<CloseFrame<'a>>),
}

/// A frame whose header has been read and whose payload has not come whole.
#[derive(Debug, Clone, Copy)]
struct Partial {
    header: Header,
    received: usize,
}

/// Where the bytes of the event that is ready are.
enum Ready {
    /// In what was fed.
    Input(std::ops::Range<usize>),
    /// In [`Reader::message`].
    Message,
    /// In [`Reader::control`].
    Control,
}

/// What one step of parsing came to.
enum Step {
    More,
    Done,
    Ready(Opcode, Ready),
}

/// Whether a connection still yields events.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Open,
    Closed,
    Failed(ProtocolError),
}

/// The receiving half of one connection. Holds heap memory only while a frame or a message is incomplete.
#[derive(Debug)]
pub struct Reader {
    /// The message in progress, unmasked.
    message: Vec<u8>,
    /// The control frame in progress, unmasked.
    control: Vec<u8>,
    frame: Option<Partial>,
    limits: Limits,
    /// How much of `message` is known to be UTF-8; the rest is the start of a character.
    utf8_checked: usize,
    /// An incomplete header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    role: Role,
    /// Opcode of the message in progress.
    kind: Option<Opcode>,
    phase: Phase,
    /// Data frames that were not the last of their message.
    fragments: u32,
    message_taken: bool,
    control_taken: bool,
}

impl Reader {
    /// For the given end of a connection, after the handshake.
    pub const fn new(role: Role, limits: Limits) -> Self {
        Self {
            message: Vec::new(),
            control: Vec::new(),
            frame: None,
            limits,
            utf8_checked: 0,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            role,
            kind: None,
            phase: Phase::Open,
            fragments: 0,
            message_taken: false,
            control_taken: false,
        }
    }

    /// For a server.
    pub const fn server(limits: Limits) -> Self {
        Self::new(Role::Server, limits)
    }

    /// For a client.
    pub const fn client(limits: Limits) -> Self {
        Self::new(Role::Client, limits)
    }

    /// Takes received bytes, which it unmasks in place. Draw events from the result until it yields `None`: bytes left
    /// in it when it is dropped are lost.
    pub fn feed<'r, 'b>(&'r mut self, bytes: &'b mut [u8]) -> Input<'r, 'b> {
        Input { reader: self, bytes, at: 0 }
    }

    /// Bytes held back because their frame or message is incomplete.
    pub fn pending_bytes(&self) -> usize {
        self.message.len() + self.control.len() + usize::from(self.header_len)
    }

    /// How many data frames came since the last call that were not the last of their message. They yield no event of their
    /// own: whoever limits the peer's rate counts them with this.
    pub fn take_fragments(&mut self) -> u32 {
        std::mem::take(&mut self.fragments)
    }

    /// Whether the peer's close frame has come.
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Checks a header against the role, the limits and the message in progress.
    fn admit(&self, header: &Header) -> Result<(), ProtocolError> {
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(ProtocolError::Unmasked),
            (Role::Client, Some(_)) => return Err(ProtocolError::Masked),
            _ => {}
        }
        match (header.opcode, self.kind) {
            (opcode, _) if opcode.is_control() => return Ok(()),
            (Opcode::Continuation, None) => return Err(ProtocolError::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(ProtocolError::ContinuationExpected),
            _ => {}
        }
        if header.payload_len > u64::from(self.limits.frame_bytes_max) {
            return Err(ProtocolError::FrameTooBig);
        }
        if self.message.len() as u64 + header.payload_len > u64::from(self.limits.message_bytes_max) {
            return Err(ProtocolError::MessageTooBig);
        }
        Ok(())
    }

    /// Checks the part of a text message that has come since the last call.
    fn check_utf8(&mut self, complete: bool) -> Result<(), ProtocolError> {
        match std::str::from_utf8(&self.message[self.utf8_checked..]) {
            Ok(text) => self.utf8_checked += text.len(),
            Err(error) if error.error_len().is_none() && !complete => {
                self.utf8_checked += error.valid_up_to()
            }
            Err(_) => return Err(ProtocolError::InvalidUtf8),
        }
        Ok(())
    }

    /// Forgets what the event before was borrowed from.
    fn release(&mut self) {
        if std::mem::take(&mut self.message_taken) {
            self.message.clear();
            self.utf8_checked = 0;
        }
        if std::mem::take(&mut self.control_taken) {
            self.control.clear();
        }
    }

    /// Gives memory back where nothing is in progress, so that an idle connection holds none.
    fn shrink(&mut self) {
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        if self.control.is_empty() {
            self.control = Vec::new();
        }
    }
}

/// Received bytes on their way through a [`Reader`].
#[derive(Debug)]
#[must_use = "bytes that are not drawn out are lost"]
pub struct Input<'r, 'b> {
    reader: &'r mut Reader,
    bytes: &'b mut [u8],
    at: usize,
}

impl Input<'_, '_> {
    /// The next event; `None` when the rest is incomplete and has been kept, or after a close frame.
    ///
    /// # Errors
    /// The peer's first violation, again at each later call.
    #[expect(
        clippy::should_implement_trait,
        reason = "events borrow from this input, which an Iterator cannot say"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, ProtocolError> {
        self.reader.release();
        let ready = loop {
            match self.step() {
                Ok(Step::More) => {}
                Ok(Step::Done) => {
                    self.reader.shrink();
                    return Ok(None);
                }
                Ok(Step::Ready(opcode, ready)) => break (opcode, ready),
                Err(error) => return Err(fail(&mut self.reader.phase, error)),
            }
        };
        let Reader { message, control, message_taken, control_taken, phase, .. } = &mut *self.reader;
        let (opcode, payload): (_, &[u8]) = match ready {
            (opcode, Ready::Input(range)) => (opcode, &self.bytes[range]),
            (opcode, Ready::Message) => {
                *message_taken = true;
                (opcode, message)
            }
            (opcode, Ready::Control) => {
                *control_taken = true;
                (opcode, control)
            }
        };
        let event = match opcode {
            Opcode::Text => match std::str::from_utf8(payload) {
                Ok(text) => Event::Text(text),
                Err(_) => return Err(fail(phase, ProtocolError::InvalidUtf8)),
            },
            // A continuation never reaches this point by itself: its message has the opcode of its first frame.
            Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            Opcode::Close => match CloseFrame::parse(payload) {
                Ok(frame) => {
                    *phase = Phase::Closed;
                    Event::Close(frame)
                }
                Err(error) => return Err(fail(phase, error)),
            },
        };
        Ok(Some(event))
    }

    #[inline]
    fn step(&mut self) -> Result<Step, ProtocolError> {
        match self.reader.phase {
            Phase::Open => {}
            Phase::Closed => return Ok(Step::Done),
            Phase::Failed(error) => return Err(error),
        }
        if self.reader.frame.is_some() {
            return self.take_payload();
        }
        let Some(header) = self.take_header()? else { return Ok(Step::Done) };
        self.reader.admit(&header)?;
        // Admitted lengths fit the limits, hence usize.
        let payload_len = header.payload_len as usize;
        let whole = header.opcode.is_control() || (header.fin && self.reader.kind.is_none());
        if !whole || self.bytes.len() - self.at < payload_len {
            self.reader.fragments = self.reader.fragments.saturating_add(u32::from(!header.fin));
            if !header.opcode.is_control() && header.opcode != Opcode::Continuation {
                self.reader.kind = Some(header.opcode);
            }
            self.reader.frame = Some(Partial { header, received: 0 });
            return Ok(Step::More);
        }
        let range = self.at..self.at + payload_len;
        self.at = range.end;
        if let Some(key) = header.mask {
            unmask(&mut self.bytes[range.clone()], key, 0);
        }
        Ok(Step::Ready(header.opcode, Ready::Input(range)))
    }

    /// Takes a header out of the input, or keeps the part of it that has come.
    #[inline]
    fn take_header(&mut self) -> Result<Option<Header>, ProtocolError> {
        let reader = &mut *self.reader;
        if reader.header_len == 0 {
            let rest = &self.bytes[self.at..];
            return match parse_header(rest)? {
                Some((header, length)) => {
                    self.at += length;
                    Ok(Some(header))
                }
                None => {
                    // An incomplete header is shorter than the longest one.
                    reader.header[..rest.len()].copy_from_slice(rest);
                    reader.header_len = rest.len() as u8;
                    self.at = self.bytes.len();
                    Ok(None)
                }
            };
        }
        while self.at < self.bytes.len() {
            let length = usize::from(reader.header_len);
            reader.header[length] = self.bytes[self.at];
            self.at += 1;
            reader.header_len += 1;
            if let Some((header, _)) = parse_header(&reader.header[..=length])? {
                reader.header_len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Moves what has come of an incomplete frame's payload into the reader.
    fn take_payload(&mut self) -> Result<Step, ProtocolError> {
        let reader = &mut *self.reader;
        let Some(Partial { header, received }) = reader.frame else { return Ok(Step::More) };
        let missing = header.payload_len as usize - received;
        let chunk = missing.min(self.bytes.len() - self.at);
        if chunk == 0 && missing > 0 {
            return Ok(Step::Done);
        }
        let bytes = &mut self.bytes[self.at..self.at + chunk];
        self.at += chunk;
        if let Some(key) = header.mask {
            unmask(bytes, key, received);
        }
        let frame_complete = chunk == missing;
        reader.frame = (!frame_complete).then_some(Partial { header, received: received + chunk });
        if header.opcode.is_control() {
            reader.control.extend_from_slice(bytes);
            return Ok(if frame_complete { Step::Ready(header.opcode, Ready::Control) } else { Step::More });
        }
        reader.message.extend_from_slice(bytes);
        let message_complete = frame_complete && header.fin;
        if reader.kind == Some(Opcode::Text) {
            reader.check_utf8(message_complete)?;
        }
        match reader.kind {
            Some(kind) if message_complete => {
                reader.kind = None;
                Ok(Step::Ready(kind, Ready::Message))
            }
            _ => Ok(Step::More),
        }
    }
}

/// Remembers a violation: nothing that follows can be trusted to be a frame.
#[cold]
fn fail(phase: &mut Phase, error: ProtocolError) -> ProtocolError {
    *phase = Phase::Failed(error);
    error
}
