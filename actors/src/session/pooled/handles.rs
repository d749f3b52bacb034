//! Prepared handles in a turn: what a request that deals in them is sent as, and what of its response the client sees.

use bytes::{Buf, BufMut, BytesMut};
use tds::edit::Edit;
use tds::message::write_message;
use tds::packet::{HEADER_LEN, PacketHeader, PacketType, Status};
use tds::rpc::RpcFollower;
use tds::scan::Scanned;

use super::super::prepared::{
    Calls, Connection, Expectation, Means, Plan, RealHandles, Rest, Splice, Statements,
};
use super::asked::Asked;
use super::receive::put_payload;

/// What a turn does about handles.
pub(crate) struct Handles<'a> {
    pub(crate) calls: Option<Calls>,
    pub(crate) statements: &'a mut Statements,
    pub(crate) reals: &'a mut RealHandles,
    /// The fingerprint of what handles depend on.
    pub(crate) context: u64,
    pub(crate) packet_size: usize,
    pub(crate) state: State,
}

/// How far that has come.
#[derive(Default)]
pub(crate) struct State {
    has_prepared: bool,
    /// Of the request of the proxy's own that prepares.
    own: Expectation,
    expects: Expectation,
    rest: Option<Rest>,
    packets: Option<Packets>,
}

/// What goes to the server.
pub(crate) enum Planned {
    /// A message of the proxy's own, and then the question again.
    First(BytesMut),
    /// The request in these packets; as it came if there are none.
    Send(Option<BytesMut>),
    /// It cannot be sent.
    Not(String),
}

/// The request as the client sent it.
pub(crate) struct Sent<'a> {
    /// Its packets, or those of its beginning.
    pub(crate) packets: &'a [u8],
    pub(crate) clear_reset: bool,
    /// Where the transaction's descriptor is in the payload, and what it is on the server.
    pub(crate) descriptor: Option<(usize, [u8; 8])>,
}

impl Handles<'_> {
    /// True if requests or responses need a look.
    pub(crate) fn deals(&self) -> bool {
        self.calls.is_some()
    }

    /// Decides what is sent.
    pub(crate) fn plan(&mut self, sent: &Sent<'_>) -> Planned {
        let Some(calls) = &self.calls else { return Planned::Send(None) };
        let mut payload = Vec::with_capacity(sent.packets.len());
        put_payload(sent.packets, &mut payload);
        let connection =
            Connection { reals: self.reals, context: self.context, has_prepared: self.state.has_prepared };
        match calls.plan(&payload, self.statements, connection) {
            Plan::PrepareFirst { payload, expects } => {
                self.state.own = expects;
                self.state.has_prepared = true;
                let mut payload = payload.to_vec();
                sent.translate(&mut payload);
                let mut bytes = BytesMut::new();
                write_message(&mut bytes, PacketType::RPC, Status::NORMAL, 0, self.packet_size, &payload);
                Planned::First(bytes)
            }
            Plan::Send(sending) => {
                self.state.expects = sending.expects;
                if sending.rest.is_none() && sending.splices.is_empty() {
                    return Planned::Send(None);
                }
                let mut changed = BytesMut::with_capacity(payload.len() + 64);
                let payload = payload.get(..sending.len).unwrap_or_default();
                if sending.splices.iter().all(Splice::is_in_place) {
                    changed.put_slice(payload);
                    Splice::apply_in_place(&sending.splices, &mut changed);
                } else {
                    Splice::apply(&sending.splices, payload, &mut changed);
                }
                sent.translate(&mut changed);
                let mut packets = Packets::new(sent.status(), self.packet_size);
                let mut bytes = BytesMut::new();
                packets.put(&changed, &mut bytes);
                if sending.rest.is_some() {
                    self.state.rest = sending.rest;
                    self.state.packets = Some(packets);
                } else {
                    packets.end(sent.status(), &mut bytes);
                }
                Planned::Send(Some(bytes))
            }
            Plan::Refuse(too_many) => Planned::Not(too_many.to_string()),
            Plan::Unfit => Planned::Not("a prepared statement could not be prepared again".to_owned()),
        }
    }

    /// More of a request whose beginning was sent: its packets, if they change.
    pub(crate) fn more(
        &mut self,
        pieces: &[(std::ops::Range<usize>, Option<Status>)],
        input: &[u8],
        follower: &mut RpcFollower,
    ) -> Option<BytesMut> {
        let State { rest, packets, expects, .. } = &mut self.state;
        let (rest, packets) = (rest.as_mut()?, packets.as_mut()?);
        let mut means = Means {
            follower,
            statements: self.statements,
            connection: Connection { reals: self.reals, context: self.context, has_prepared: true },
            expects,
        };
        let (mut payload, mut bytes) = (BytesMut::new(), BytesMut::new());
        for (range, end) in pieces {
            rest.feed(input.get(range.clone()).unwrap_or_default(), &mut means, &mut payload);
            if end.is_some() {
                rest.finish(&mut means, &mut payload);
            }
            packets.put(&payload, &mut bytes);
            payload.clear();
            if let Some(status) = end {
                packets.end(*status, &mut bytes);
            }
        }
        Some(bytes)
    }

    /// A token of the response to what [`Planned::First`] was.
    pub(crate) fn see_own(&mut self, scanned: &Scanned<'_>) {
        self.state.own.on_event(scanned, self.statements, self.reals);
    }

    /// A token of the response to the client's request.
    pub(crate) fn see(&mut self, scanned: &Scanned<'_>) -> Edit {
        if self.calls.is_none() {
            return Edit::Keep;
        }
        self.state.expects.on_event(scanned, self.statements, self.reals)
    }

    /// The response has ended. False if it did not fit the request.
    pub(crate) fn answered(&mut self) -> bool {
        if self.calls.is_none() {
            return true;
        }
        self.state.expects.broken_off(self.reals);
        !self.state.expects.out_of_step()
    }

    /// What ran late in a long message.
    pub(crate) fn ran(&self, asked: &mut Asked) {
        for statement in self.state.rest.iter().flat_map(Rest::executed) {
            asked.runs(statement);
        }
    }
}

impl Sent<'_> {
    fn status(&self) -> Status {
        let resets = Status::RESET_CONNECTION.with(Status::RESET_CONNECTION_SKIP_TRAN);
        let status = self.packets.get(1).map_or(Status::NORMAL, |status| Status(*status));
        if self.clear_reset { status.without(resets) } else { status }
    }

    fn translate(&self, payload: &mut [u8]) {
        if let Some((at, descriptor)) = self.descriptor
            && let Some(place) = payload.get_mut(at..at + descriptor.len())
        {
            place.copy_from_slice(&descriptor);
        }
    }
}

/// Puts a message's payload into packets of one size, as it comes.
#[derive(Debug)]
struct Packets {
    size: usize,
    /// Of the next packet.
    status: Status,
    id: u8,
    waiting: BytesMut,
}

impl Packets {
    /// `status`: the message's first one.
    fn new(status: Status, size: usize) -> Self {
        let resets = Status::RESET_CONNECTION.with(Status::RESET_CONNECTION_SKIP_TRAN);
        Self { size, status: Status(status.0 & resets.0), id: 1, waiting: BytesMut::new() }
    }

    fn put(&mut self, payload: &[u8], out: &mut BytesMut) {
        self.waiting.put_slice(payload);
        let room = self.size - HEADER_LEN;
        // The last packet is for the end.
        while self.waiting.len() > room {
            self.packet(room, Status::NORMAL, out);
        }
    }

    /// `status`: the message's last one.
    fn end(&mut self, status: Status, out: &mut BytesMut) {
        let resets = Status::RESET_CONNECTION.with(Status::RESET_CONNECTION_SKIP_TRAN);
        let rest = self.waiting.len();
        self.packet(rest, status.without(resets).with(Status::END_OF_MESSAGE), out);
    }

    fn packet(&mut self, len: usize, status: Status, out: &mut BytesMut) {
        let status = std::mem::replace(&mut self.status, Status::NORMAL).with(status);
        // At most the packet size, which is below 2^16.
        let length = u16::try_from(len + HEADER_LEN).unwrap_or(u16::MAX);
        let header = PacketHeader { kind: PacketType::RPC, status, length, spid: 0, id: self.id, window: 0 };
        out.put_slice(&header.encode());
        out.put_slice(&self.waiting[..len]);
        self.waiting.advance(len);
        self.id = self.id.wrapping_add(1);
    }
}
