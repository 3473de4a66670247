//! What a client sends, and what becomes of it.

use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use manifold_protocol::websocket::{Event, Opcode};
use manifold_protocol::{
    ClientInfo, Command, ConnectRequest, ConnectResult, DisconnectCode, Error, ErrorCode, Json, Reply,
    ReplyBody, Request, json,
};

use super::Disconnect;
use super::pending::PendingSet;
use super::presence::Question;
use super::rate::{RateLimit, Verdict};
use super::subscribe::{Joining, Subscription};
use crate::frame;
use crate::hub::Cork;
use crate::node::{Admission, Node};
use crate::session::Session;

/// One client's state, owned by its task.
pub(super) struct Client {
    pub(super) node: Arc<Node>,
    /// Gives the place among the connections back.
    _admission: Admission,
    pub(super) session: Arc<Session>,
    pub(super) subscriptions: Vec<Subscription>,
    /// Subscribe commands whose room is being joined, each with the commands for this room that came after it.
    pub(super) joining: Vec<Joining>,
    /// Commands that wait for the backplane; absent until the first, and again from the first pong after the last publish.
    pub(super) pending: Option<Box<PendingSet>>,
    rate: RateLimit,
    connected: bool,
    single: bool,
    /// How others see this client in its messages, encoded at its first one.
    info: Option<Bytes>,
}

impl Client {
    pub(super) fn new(admission: Admission, session: Arc<Session>) -> Self {
        let node = Arc::clone(admission.node());
        let rate = RateLimit::new(node.config().inbound_rate_max, node.config().inbound_burst_max);
        Self {
            node,
            _admission: admission,
            session,
            subscriptions: Vec::new(),
            joining: Vec::new(),
            pending: None,
            rate,
            connected: false,
            single: false,
            info: None,
        }
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Says whether what was read is a single frame: if that holds a single command, nothing follows it.
    pub(super) fn expect_single_frame(&mut self, single: bool) {
        self.single = single;
    }

    /// # Errors
    /// The client broke the protocol, or a limit that costs the connection.
    pub(super) fn take_event(&mut self, event: Event<'_>, cx: &mut Context<'_>) -> Result<(), Disconnect> {
        match event {
            Event::Text(text) => {
                let single = self.single && !text.contains('\n');
                Cork::expect_last(single);
                for command in json::commands(text) {
                    self.run(command.map_err(|_| DisconnectCode::BAD_REQUEST)?, cx)?;
                    // A long turn must not make its own client look slow.
                    if !single {
                        self.session.relieve();
                    }
                }
                Ok(())
            }
            Event::Binary(_) => Err(DisconnectCode::INAPPROPRIATE_PROTOCOL.into()),
            Event::Ping(payload) => {
                if self.charge()? {
                    self.append(&frame::control(Opcode::Pong, payload));
                }
                Ok(())
            }
            // Unasked-for pongs mean nothing.
            Event::Pong(_) => self.charge().map(drop),
            // The connection itself handles close frames.
            Event::Close(_) => Ok(()),
        }
    }

    /// Charges frames that carry no command: they count as one each. False: too many, to be ignored.
    fn charge(&mut self) -> Result<bool, Disconnect> {
        match self.rate.judge() {
            Verdict::Pass => Ok(true),
            Verdict::Refuse => Ok(false),
            Verdict::Disconnect => Err(DisconnectCode::TOO_MANY_REQUESTS.into()),
        }
    }

    /// Charges the fragments of a message but its last, whose commands are charged themselves.
    ///
    /// # Errors
    /// They came too fast.
    pub(super) fn charge_fragments(&mut self, count: u32) -> Result<(), Disconnect> {
        for _ in 0..count {
            self.charge()?;
        }
        Ok(())
    }

    fn run(&mut self, command: Command<'_>, cx: &mut Context<'_>) -> Result<(), Disconnect> {
        let Command { id, request } = command;
        if matches!(request, Request::Pong) {
            let expected = self.connected && self.session.take_pong();
            // Once in a ping's interval is often enough for an idle connection to be a small one.
            self.drop_empty_set();
            return if expected { Ok(()) } else { Err(DisconnectCode::BAD_REQUEST.into()) };
        }
        let answered = !matches!(request, Request::Send { .. });
        if (answered && id == 0) || self.connected == matches!(request, Request::Connect(_)) {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        match self.rate.judge() {
            Verdict::Pass => {}
            Verdict::Refuse if answered => {
                self.refuse(id, ErrorCode::TOO_MANY_REQUESTS);
                return Ok(());
            }
            Verdict::Refuse => return Ok(()),
            Verdict::Disconnect => return Err(DisconnectCode::TOO_MANY_REQUESTS.into()),
        }
        match request {
            Request::Connect(request) => self.connect(id, &request),
            Request::Subscribe(request) => self.subscribe(id, &request),
            Request::Unsubscribe { channel } => self.unsubscribe(id, &channel),
            Request::Publish(request) => self.publish(id, &request, cx),
            Request::Presence { channel } => self.presence(id, &channel, Question::Clients),
            Request::PresenceStats { channel } => self.presence(id, &channel, Question::Stats),
            Request::History(request) => self.history(id, &request),
            Request::SubRefresh(request) => self.unavailable(id, &request.channel),
            Request::Rpc(_) | Request::Refresh { .. } => {
                self.refuse(id, ErrorCode::NOT_AVAILABLE);
                Ok(())
            }
            Request::Send { .. } => Err(DisconnectCode::NOT_AVAILABLE.into()),
            Request::Ping | Request::Pong => Err(DisconnectCode::BAD_REQUEST.into()),
        }
    }

    fn connect(&mut self, id: u32, request: &ConnectRequest<'_>) -> Result<(), Disconnect> {
        if !request.token.is_empty() {
            // No key is configured that it could be verified with.
            return Err(DisconnectCode::INVALID_TOKEN.into());
        }
        if !self.node.config().allow_anonymous {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        self.connected = true;
        let client = self.session.client_id();
        let config = self.node.config();
        let result = ConnectResult {
            client: client.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            data: Some(Json::trusted(self.node.connect_data())),
            ping: u32::try_from(config.ping_interval_ms.div_ceil(1000)).unwrap_or(u32::MAX),
            pong: true,
            ..ConnectResult::default()
        };
        self.reply(id, ReplyBody::Connect(result));
        self.node.sweep().begin_pings(&self.session, self.session.random());
        Ok(())
    }

    /// A command about a channel that this server does not offer yet.
    fn unavailable(&mut self, id: u32, channel: &str) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        self.refuse(id, ErrorCode::NOT_AVAILABLE);
        Ok(())
    }

    /// How others see this client, encoded.
    pub(super) fn info(&mut self) -> Bytes {
        let session = &self.session;
        let info = self.info.get_or_insert_with(|| {
            let mut bytes = Vec::new();
            let info = ClientInfo { client: session.client_id().into(), ..ClientInfo::default() };
            json::append_client_info(&mut bytes, &info);
            bytes.into()
        });
        info.clone()
    }

    pub(super) fn reply(&self, id: u32, body: ReplyBody<'_>) {
        let reply = Reply { id, body };
        frame::with_text(|out| json::append_reply(out, &reply), |frame| self.append(frame));
    }

    pub(super) fn refuse(&self, id: u32, code: ErrorCode) {
        self.node.metrics().count_reply_error(code);
        self.reply(id, ReplyBody::Error(Error::from(code)));
    }

    /// Adds to this turn's write. The task holds its session's outbox, so nobody owes a flush but itself.
    pub(super) fn append(&self, frame: &[u8]) {
        if self.session.append(frame) {
            self.session.flush();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave_all();
        // Other threads may hold the session a moment longer; the peer need not wait for them.
        let _ = rustix::net::shutdown(self.session.stream().get_ref(), rustix::net::Shutdown::Both);
    }
}
