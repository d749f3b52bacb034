//! What a server says to a login: read, kept, and given to later clients as their own ([MS-TDS] 2.2.2.2).

mod ack;

use std::ops::Range;

use bytes::{Bytes, BytesMut};

pub use self::ack::{LOGIN_ACK_TOKEN, LoginAck};
use crate::done::{Done, DoneKind, DoneStatus};
use crate::env_change::{ENV_CHANGE_TOKEN, EnvChange, Routing};
use crate::feature::{FEATURE_EXT_ACK_TOKEN, Feature, FeatureId, read_features, write_feature_ext_ack};
use crate::message::write_message;
use crate::packet::{DEFAULT_PACKET_SIZE, MAX_PACKET_SIZE, MIN_PACKET_SIZE, PacketType, Status};
use crate::read::Reader;
use crate::server_message::{ERROR_TOKEN, INFO_TOKEN, ServerMessage};
use crate::{Malformed, TdsVersion};

const RETURN_STATUS_TOKEN: u8 = 0x79;
const SESSION_STATE_TOKEN: u8 = 0xE4;
const SSPI_TOKEN: u8 = 0xED;
const FED_AUTH_INFO_TOKEN: u8 = 0xEE;

/// More messages than any server sends at a login.
const MAX_MESSAGES: usize = 256;

/// How a login went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// Logged in, unless the response says to log in elsewhere.
    Accepted(Box<LoginResponse>),
    /// Not logged in; what the server says about it.
    Refused(Vec<ServerMessage>),
    /// The server wants to hear more first.
    Continue(Continuation),
}

/// What the server wants to hear before it decides. `Debug` shows no token.
#[derive(Clone, PartialEq, Eq)]
pub enum Continuation {
    /// The next step of integrated authentication ([MS-TDS] 2.2.7.22): answer with [`PacketType::SSPI`].
    Sspi(Bytes),
    /// Where to get a token ([MS-TDS] 2.2.7.12): answer with [`PacketType::FED_AUTH_TOKEN`].
    FedAuthInfo(Bytes),
}

impl std::fmt::Debug for Continuation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sspi(token) => write!(f, "Sspi({} bytes)", token.len()),
            Self::FedAuthInfo(info) => write!(f, "FedAuthInfo({} bytes)", info.len()),
        }
    }
}

/// A successful login's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginResponse {
    /// The server's version and name.
    pub ack: LoginAck,
    /// The initial database.
    pub database: String,
    /// The initial language.
    pub language: String,
    /// The initial collation ([MS-TDS] 2.2.5.1.2).
    pub collation: Option<[u8; 5]>,
    /// The packet size from the next message on, in bytes; unchanged if the server does not say.
    pub packet_size: Option<usize>,
    /// Where to log in instead.
    pub routing: Option<Routing>,
    /// The features that the server takes up.
    pub features: Vec<Feature>,
    /// What the server says in words.
    pub messages: Vec<ServerMessage>,
    /// The whole response without packet headers.
    pub raw: Bytes,
    /// Where in `raw` the tokens are that depend on features: FEATUREEXTACK and SESSIONSTATE.
    feature_tokens: Vec<(u8, Range<usize>)>,
}

impl LoginResponse {
    /// A response with nothing else in it: set the fields, then [`Self::build`].
    pub fn new(ack: LoginAck, database: impl Into<String>, language: impl Into<String>) -> Self {
        Self {
            ack,
            database: database.into(),
            language: language.into(),
            collation: None,
            packet_size: None,
            routing: None,
            features: Vec::new(),
            messages: Vec::new(),
            raw: Bytes::new(),
            feature_tokens: Vec::new(),
        }
    }

    /// Writes [`Self::raw`] anew from the fields. A packet size is always in it, 4,096 if there is none: a driver's
    /// bulk copy breaks without.
    #[must_use]
    pub fn build(mut self) -> Self {
        let version = self.ack.tds_version;
        let packet_size = *self.packet_size.get_or_insert(DEFAULT_PACKET_SIZE);
        let mut out = BytesMut::new();
        EnvChange::Database { new: self.database.clone(), old: String::new() }.write(&mut out);
        if self.collation.is_some() {
            EnvChange::Collation { new: self.collation, old: None }.write(&mut out);
        }
        EnvChange::Language { new: self.language.clone(), old: String::new() }.write(&mut out);
        for message in &self.messages {
            message.write(&mut out, version);
        }
        self.ack.write(&mut out);
        EnvChange::PacketSize { new: packet_size, old: DEFAULT_PACKET_SIZE }.write(&mut out);
        if let Some(routing) = &self.routing {
            EnvChange::Routing(routing.clone()).write(&mut out);
        }
        self.feature_tokens.clear();
        if !self.features.is_empty() {
            let start = out.len();
            write_feature_ext_ack(&mut out, &self.features);
            self.feature_tokens.push((FEATURE_EXT_ACK_TOKEN, start..out.len()));
        }
        let done = Done { kind: DoneKind::Done, status: DoneStatus::FINAL, current_command: 0, rows: 0 };
        done.write(&mut out, version);
        self.raw = out.freeze();
        self
    }

    /// Gives the response to another client, as packets. What belongs to the features in `strip` is left out: the
    /// client did not offer them and some drivers fail on them. `packet_size` is capped at 4,096 bytes, because an
    /// agreed size holds from the next message on ([MS-TDS] 2.2.7.9).
    pub fn replay(&self, out: &mut BytesMut, spid: u16, packet_size: usize, strip: &[FeatureId]) {
        let size = packet_size.min(DEFAULT_PACKET_SIZE);
        if strip.is_empty() {
            return write_message(out, PacketType::RESPONSE, Status::NORMAL, spid, size, &self.raw);
        }
        let mut payload = BytesMut::with_capacity(self.raw.len());
        let mut at = 0;
        for (token, range) in &self.feature_tokens {
            payload.extend_from_slice(&self.raw[at..range.start]);
            at = range.end;
            let kept: Vec<Feature> =
                self.features.iter().filter(|feature| !strip.contains(&feature.id)).cloned().collect();
            if *token == FEATURE_EXT_ACK_TOKEN && !kept.is_empty() {
                write_feature_ext_ack(&mut payload, &kept);
            } else if *token == SESSION_STATE_TOKEN && !strip.contains(&FeatureId::SESSION_RECOVERY) {
                payload.extend_from_slice(&self.raw[range.clone()]);
            }
        }
        payload.extend_from_slice(&self.raw[at..]);
        write_message(out, PacketType::RESPONSE, Status::NORMAL, spid, size, &payload);
    }

    /// The same response without what belongs to this feature: the client did not offer it.
    #[must_use]
    pub fn without(mut self, feature: FeatureId) -> Self {
        let mut raw = BytesMut::with_capacity(self.raw.len());
        let mut kept_tokens = Vec::new();
        self.features.retain(|kept| kept.id != feature);
        let mut at = 0;
        for (token, range) in &self.feature_tokens {
            raw.extend_from_slice(&self.raw[at..range.start]);
            at = range.end;
            let start = raw.len();
            if *token == FEATURE_EXT_ACK_TOKEN && !self.features.is_empty() {
                write_feature_ext_ack(&mut raw, &self.features);
            } else if *token == SESSION_STATE_TOKEN && feature != FeatureId::SESSION_RECOVERY {
                raw.extend_from_slice(&self.raw[range.clone()]);
            }
            if raw.len() > start {
                kept_tokens.push((*token, start..raw.len()));
            }
        }
        raw.extend_from_slice(&self.raw[at..]);
        self.raw = raw.freeze();
        self.feature_tokens = kept_tokens;
        self
    }

    /// The acknowledgement of a feature, if there is one.
    pub fn feature(&self, id: FeatureId) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.id == id)
    }
}

/// Reads a response to a login at `version`, the one that the client asked for; the server's acknowledgement may
/// lower it.
pub fn read(payload: &[u8], version: TdsVersion) -> Result<LoginOutcome, Malformed> {
    let mut body = Reader::new(payload, "login response");
    let mut version = version;
    let mut ack = None;
    let mut continuation = None;
    let mut found = LoginResponse::new(
        LoginAck { interface: 0, tds_version: version, program_name: String::new(), program_version: [0; 4] },
        "",
        "",
    );
    while !body.is_empty() {
        let start = body.position();
        let token = body.u8()?;
        match token {
            ENV_CHANGE_TOKEN => found.take(EnvChange::read(&mut body)?)?,
            ERROR_TOKEN | INFO_TOKEN => {
                let message = ServerMessage::read(token == ERROR_TOKEN, &mut body)?;
                if found.messages.len() == MAX_MESSAGES {
                    return Err(Malformed::TooLong { what: "login response messages", limit: MAX_MESSAGES });
                }
                found.messages.push(message);
            }
            LOGIN_ACK_TOKEN => {
                let read = LoginAck::read(&mut body)?;
                version = read.tds_version;
                ack = Some(read);
            }
            FEATURE_EXT_ACK_TOKEN => {
                if !found.features.is_empty() {
                    return Err(Malformed::Unexpected { what: "second FEATUREEXTACK", state: "logging in" });
                }
                found.features = read_features(&mut body)?;
                found.feature_tokens.push((token, start..body.position()));
            }
            SESSION_STATE_TOKEN => {
                body.l_varbyte()?;
                found.feature_tokens.push((token, start..body.position()));
            }
            SSPI_TOKEN => {
                continuation = Some(Continuation::Sspi(Bytes::copy_from_slice(body.us_varbyte()?)));
            }
            FED_AUTH_INFO_TOKEN => {
                continuation = Some(Continuation::FedAuthInfo(Bytes::copy_from_slice(body.l_varbyte()?)));
            }
            RETURN_STATUS_TOKEN => {
                body.u32()?;
            }
            _ => match DoneKind::from_token(token) {
                Some(kind) => {
                    let version = done_version(version, body.remaining());
                    Done::read(kind, &mut body, version)?;
                }
                None => {
                    return Err(Malformed::Value { what: "login response token", value: u64::from(token) });
                }
            },
        }
    }
    match (ack, continuation) {
        (Some(ack), _) => {
            found.ack = ack;
            found.raw = Bytes::copy_from_slice(payload);
            Ok(LoginOutcome::Accepted(Box::new(found)))
        }
        _ if found.messages.iter().any(|message| message.is_error) => {
            Ok(LoginOutcome::Refused(found.messages))
        }
        (None, Some(continuation)) => Ok(LoginOutcome::Continue(continuation)),
        // Neither yes nor no: nobody could be told why there is no login.
        _ => Err(Malformed::Unexpected { what: "end of the login response", state: "logging in" }),
    }
}

impl LoginResponse {
    fn take(&mut self, change: EnvChange) -> Result<(), Malformed> {
        match change {
            EnvChange::Database { new, .. } => self.database = new,
            EnvChange::Language { new, .. } => self.language = new,
            EnvChange::Collation { new, .. } => self.collation = new,
            EnvChange::PacketSize { new, .. } => {
                if !(MIN_PACKET_SIZE..=MAX_PACKET_SIZE).contains(&new) {
                    let value = u64::try_from(new).unwrap_or(u64::MAX);
                    return Err(Malformed::Value { what: "ENVCHANGE packet size", value });
                }
                self.packet_size = Some(new);
            }
            EnvChange::Routing(routing) => self.routing = Some(routing),
            _ => {}
        }
        Ok(())
    }
}

/// A server older than the client expects ends a refusal with the shorter DONE (note 47).
fn done_version(version: TdsVersion, remaining: usize) -> TdsVersion {
    if remaining < Done::body_len(version) { TdsVersion::V7_1 } else { version }
}

#[cfg(test)]
mod tests;
