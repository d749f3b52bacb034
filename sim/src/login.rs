//! From the first byte to LOGINACK: encryption, who may come in, and what was agreed on.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::encryption::{ClientTlsPolicy, Negotiated};
use tds::env_change::{EnvChange, Routing};
use tds::feature::{Feature, FeatureId, write_feature_ext_ack};
use tds::handshake::{Accept, AcceptPolicy, AcceptStep, HandshakeError, LoginRequest, TlsFraming};
use tds::login_response::LoginAck;
use tds::login7::{AuthKind, Login7, MAX_LOGIN7, OptionFlags2};
use tds::message::{Message, MessageReader, write_message};
use tds::packet::{MAX_PACKET_SIZE, MIN_PACKET_SIZE, PacketType, Status};
use tds::read::Reader;
use tds::server_message::ServerMessage;
use tds::session_state::State;
use tds::token::TokenKind;
use tds::type_info::Collation;
use tds::{Dialect, Malformed, TdsVersion, write};

use crate::connection::End;
use crate::engine::Session;
use crate::engine::SessionOptions;
use crate::fault::Fault;
use crate::options::{Encryption, Federated, Integrated, SimOptions};
use crate::refusal;
use crate::registry::{LoginFacts, Seat, count};
use crate::response::Format;
use crate::server::{Shared, speaks_strict};
use crate::wire::{SharedWire, fill, flush, lock, start_tls};

/// The largest packet of an encrypted connection: a packet must fit one TLS record.
const MAX_ENCRYPTED_PACKET: usize = 16_383;

/// LOGINACK's program name; drivers look at it.
const PROGRAM: &str = "Microsoft SQL Server";

/// A login that succeeded; its answer is still to be flushed.
pub(crate) struct LoggedIn {
    pub(crate) session: Session,
    pub(crate) format: Format,
}

/// Why a login did not lead to a session.
pub(crate) enum LoginEnd {
    /// The connection closes.
    End(End),
    /// A fault: it is never answered.
    Silence,
}

impl<E: Into<End>> From<E> for LoginEnd {
    fn from(error: E) -> Self {
        Self::End(error.into())
    }
}

/// Takes a connection from its first byte to its session.
pub(crate) async fn log_in(
    wire: &SharedWire,
    shared: &Arc<Shared>,
    seat: &mut Seat,
) -> Result<LoggedIn, LoginEnd> {
    let request = shake_hands(wire, shared).await?;
    let options = &shared.options;
    let door = Door { wire, shared, version: options.kind.negotiate(request.login.tds_version) };
    tokio::time::sleep(options.login_delay).await;
    door.faults().await?;
    match door.admit(&request, seat).await {
        Ok(logged_in) => {
            flush(wire).await.map_err(End::from)?;
            Ok(logged_in)
        }
        Err(refused) => {
            if let LoginEnd::End(End::Ended) = refused {
                count(&seat.counters().failed_logins);
                flush(wire).await.map_err(End::from)?;
            }
            Err(refused)
        }
    }
}

/// Everything up to LOGIN7.
async fn shake_hands(wire: &SharedWire, shared: &Shared) -> Result<LoginRequest, LoginEnd> {
    let options = &shared.options;
    let [major, minor, build1, build0] = options.kind.version();
    let mut accept = Accept::new(AcceptPolicy {
        tls: policy(options.encryption),
        strict: speaks_strict(options),
        server_version: [major, minor, build1, build0, 0, 0],
        mars: false,
        max_login: MAX_LOGIN7,
    });
    loop {
        let step = {
            let mut wire = lock(wire);
            let wire = &mut *wire;
            accept.step(&mut wire.input, &mut wire.output)
        };
        let (next, step) = match step {
            Ok(stepped) => stepped,
            Err(error) => {
                // A refusal's reason stands in the PRELOGIN answer.
                flush(wire).await.map_err(End::from)?;
                return Err(handshake_end(error).into());
            }
        };
        accept = next;
        flush(wire).await.map_err(End::from)?;
        match step {
            AcceptStep::NeedBytes => {
                if !fill(wire).await.map_err(End::from)? {
                    return Err(End::Closed.into());
                }
            }
            AcceptStep::StartTls(framing) => {
                let config = match framing {
                    TlsFraming::Wrapped => &shared.tls.wrapped,
                    TlsFraming::Raw => &shared.tls.strict,
                };
                start_tls(wire, config.clone(), framing).await.map_err(End::from)?;
                accept = accept.tls_established().map_err(handshake_end)?;
            }
            AcceptStep::EndTls => lock(wire).end_tls(),
            AcceptStep::Login(request) => return Ok(*request),
        }
    }
}

fn handshake_end(error: HandshakeError) -> End {
    match error {
        HandshakeError::Peer(malformed) => End::Malformed(malformed),
        HandshakeError::Encryption(_) | HandshakeError::OutOfOrder { .. } => End::Ended,
    }
}

fn policy(encryption: Encryption) -> ClientTlsPolicy {
    match encryption {
        Encryption::NotSupported => ClientTlsPolicy::Off,
        Encryption::Off => ClientTlsPolicy::LoginOnly,
        Encryption::On => ClientTlsPolicy::Require,
        Encryption::Strict => ClientTlsPolicy::Strict,
    }
}

/// Who comes in.
struct Principal {
    user: String,
    database: String,
    /// FEDAUTH must be acknowledged.
    federated: bool,
    /// The last token of an integrated login.
    sspi: Option<Vec<u8>>,
}

/// One login being decided.
struct Door<'a> {
    wire: &'a SharedWire,
    shared: &'a Arc<Shared>,
    version: TdsVersion,
}

impl Door<'_> {
    fn options(&self) -> &SimOptions {
        &self.shared.options
    }

    async fn faults(&self) -> Result<(), LoginEnd> {
        let faults = &self.shared.faults;
        if faults.strikes(&Fault::HangAtLogin) {
            return Err(LoginEnd::Silence);
        }
        if faults.strikes(&Fault::DropAtLogin) {
            return Err(End::Dropped.into());
        }
        let error = faults.strike(|fault| match fault {
            Fault::ErrorAtLogin { number, class } => Some((*number, *class)),
            _ => None,
        });
        match error {
            None => Ok(()),
            Some((number, class)) => {
                let refused = self.refuse(&[refusal::on_demand(self.options(), number, class)]);
                flush(self.wire).await.map_err(End::from)?;
                Err(refused)
            }
        }
    }

    async fn admit(&self, request: &LoginRequest, seat: &mut Seat) -> Result<LoggedIn, LoginEnd> {
        let options = self.options();
        let login = &request.login;
        if seat.over_limit {
            return Err(self.refuse(&[refusal::too_many_connections(options)]));
        }
        let principal = self.authenticate(login).await?;
        if !seat.take_memory() {
            return Err(self.refuse(&[refusal::out_of_memory(options)]));
        }
        let wanted = if login.database.is_empty() { &principal.database } else { &login.database };
        let wanted = wanted.trim_start_matches('[').trim_end_matches(']');
        let Some(database) = self.shared.engine.database(wanted) else {
            return Err(self.refuse(&[
                refusal::no_such_database(options, wanted),
                refusal::login_failed(options, &principal.user),
            ]));
        };
        if let Some(recovery) = login.feature(FeatureId::SESSION_RECOVERY)
            && !recovery.data.is_empty()
        {
            return Err(self.refuse(&[refusal::recovery_failed(options)]));
        }
        let encrypted = request.strict || request.encryption == Negotiated::Full;
        let entry = seat.entry.clone();
        let peer = entry.peer();
        let session = self.shared.engine.open_session(SessionOptions {
            login_name: principal.user.clone(),
            sysadmin: true,
            host_name: login.host_name.clone(),
            program_name: login.app_name.clone(),
            client_interface_name: login.interface_name.clone(),
            host_process_id: login.client_pid,
            database: database.clone(),
            language: login.language.clone(),
            ansi_defaults: login.option_flags2.contains(OptionFlags2::ODBC),
            transaction_env_changes: self.version.is_7_2_or_later(),
            client_net_address: peer.ip().to_string(),
            on_kill: Some(Arc::new(move || entry.end())),
        });
        let features = self.acknowledged(login, &principal, &session);
        let acknowledged = |id| features.iter().any(|feature: &Feature| feature.id == id);
        let format = Format {
            dialect: Dialect {
                version: self.version,
                column_encryption: 0,
                data_classification: features
                    .iter()
                    .find(|feature| feature.id == FeatureId::DATA_CLASSIFICATION)
                    .and_then(|feature| feature.data.first().copied())
                    .unwrap_or(0),
            },
            packet_size: self.packet_size(login, encrypted),
            spid: session.spid(),
            session_recovery: acknowledged(FeatureId::SESSION_RECOVERY),
        };
        seat.logged_in(LoginFacts {
            spid: session.spid(),
            user: &principal.user,
            database: &database,
            application: &login.app_name,
            tds_version: self.version.0,
            encrypted,
        });
        let tokens = self.welcome(login, &principal, &session, &features, format);
        self.send(format.spid, &tokens);
        Ok(LoggedIn { session, format })
    }

    fn packet_size(&self, login: &Login7, encrypted: bool) -> usize {
        let options = self.options();
        let largest = if encrypted { MAX_ENCRYPTED_PACKET } else { MAX_PACKET_SIZE };
        let largest = options.max_packet_size.clamp(MIN_PACKET_SIZE, largest);
        match usize::try_from(login.packet_size).unwrap_or(usize::MAX) {
            0 => options.default_packet_size.clamp(MIN_PACKET_SIZE, largest),
            asked => asked.clamp(MIN_PACKET_SIZE, largest),
        }
    }

    async fn authenticate(&self, login: &Login7) -> Result<Principal, LoginEnd> {
        match login.auth_kind() {
            AuthKind::Sql => self.by_password(login),
            AuthKind::Integrated => self.integrated(login).await,
            AuthKind::Federated => self.federated(login).await,
        }
    }

    fn by_password(&self, login: &Login7) -> Result<Principal, LoginEnd> {
        let failed = || self.refuse(&[refusal::login_failed(self.options(), &login.user_name)]);
        let user = self.shared.user(&login.user_name).ok_or_else(failed)?;
        if *login.password.reveal() != user.password {
            return Err(failed());
        }
        if login.changes_password() {
            self.shared.change_password(&user.name, &login.new_password.reveal());
        }
        Ok(Principal { user: user.name, database: user.database, federated: false, sspi: None })
    }

    /// Two tokens each way, of which only the last one proves anything.
    async fn integrated(&self, login: &Login7) -> Result<Principal, LoginEnd> {
        let untrusted = || self.refuse(&[refusal::untrusted_domain(self.options())]);
        let Integrated::Challenge { challenge, response, user } = &self.options().integrated else {
            return Err(untrusted());
        };
        if login.sspi.is_empty() {
            return Err(untrusted());
        }
        let mut tokens = BytesMut::new();
        put_sspi(&mut tokens, challenge);
        let answer = self.ask(&tokens, PacketType::SSPI).await?;
        if answer.payload[..] != response[..] {
            return Err(untrusted());
        }
        Ok(Principal {
            user: user.clone(),
            database: "master".into(),
            federated: false,
            sspi: Some(Vec::new()),
        })
    }

    async fn federated(&self, login: &Login7) -> Result<Principal, LoginEnd> {
        let failed = || self.refuse(&[refusal::federated_login_failed(self.options())]);
        let Federated::Accept { sts_url, spn, token, user } = &self.options().federated else {
            return Err(failed());
        };
        let data = login.feature(FeatureId::FED_AUTH).map(|feature| feature.data.clone()).unwrap_or_default();
        let mut data = Reader::new(&data, "FEDAUTH");
        let found = match data.u8()? >> 1 {
            // A security token in the login itself.
            1 => data.l_varbyte()?.to_vec(),
            // ADAL: the client fetches a token where FEDAUTHINFO says.
            2 => {
                let mut tokens = BytesMut::new();
                put_fed_auth_info(&mut tokens, sts_url, spn);
                let answer = self.ask(&tokens, PacketType::FED_AUTH_TOKEN).await?;
                let mut answer = Reader::new(&answer.payload, "federated authentication token");
                answer.u32()?;
                answer.l_varbyte()?.to_vec()
            }
            _ => return Err(failed()),
        };
        if found != *token {
            return Err(failed());
        }
        Ok(Principal { user: user.clone(), database: "master".into(), federated: true, sspi: None })
    }

    /// Sends tokens in the middle of a login and reads the client's next message, which must be of that kind.
    async fn ask(&self, tokens: &[u8], kind: PacketType) -> Result<Message, LoginEnd> {
        self.send(0, tokens);
        flush(self.wire).await?;
        let mut reader = MessageReader::new(MAX_PACKET_SIZE, MAX_LOGIN7);
        loop {
            let message = reader.read(&mut lock(self.wire).input)?;
            match message {
                Some(message) if message.kind == kind => return Ok(message),
                Some(message) => {
                    let what = message.kind.name();
                    return Err(Malformed::Unexpected { what, state: "logging in" }.into());
                }
                None if fill(self.wire).await? => {}
                None => return Err(End::Closed.into()),
            }
        }
    }

    fn send(&self, spid: u16, tokens: &[u8]) {
        // The negotiated packet size begins with the message after the login response.
        let output = &mut lock(self.wire).output;
        write_message(
            output,
            PacketType::RESPONSE,
            Status::NORMAL,
            spid,
            tds::packet::DEFAULT_PACKET_SIZE,
            tokens,
        );
    }

    fn refuse(&self, messages: &[ServerMessage]) -> LoginEnd {
        let mut tokens = BytesMut::new();
        for message in messages {
            message.write(&mut tokens, self.version);
        }
        done(&mut tokens, DoneStatus::ERROR, self.version);
        self.send(0, &tokens);
        End::Ended.into()
    }

    fn acknowledged(&self, login: &Login7, principal: &Principal, session: &Session) -> Vec<Feature> {
        let options = self.options();
        if self.version.generation() < 4 || !options.kind.acknowledges_features() {
            return Vec::new();
        }
        let new = options.kind.knows_new_features();
        let answer = |asked: &Feature| -> Option<Bytes> {
            match asked.id {
                FeatureId::SESSION_RECOVERY if options.features.session_recovery => {
                    // The states that later SESSIONSTATE tokens are changes of ([MS-TDS] 2.2.7.11).
                    let mut data = Vec::new();
                    for (id, value) in session.state_summary().states {
                        State { id, value: &value }.write(&mut data);
                    }
                    Some(Bytes::from(data))
                }
                FeatureId::FED_AUTH if principal.federated => Some(Bytes::new()),
                FeatureId::UTF8_SUPPORT if new && options.features.utf8 => Some(Bytes::from_static(&[1])),
                FeatureId::DATA_CLASSIFICATION if new && options.features.data_classification => {
                    let version = asked.data.first().copied().unwrap_or(1).clamp(1, 2);
                    Some(Bytes::copy_from_slice(&[version, 1]))
                }
                _ => None,
            }
        };
        let acknowledge = |asked: &Feature| Some(Feature { id: asked.id, data: answer(asked)? });
        login.features.iter().filter_map(acknowledge).collect()
    }

    /// The answer to a login, in SQL Server's order.
    fn welcome(
        &self,
        login: &Login7,
        principal: &Principal,
        session: &Session,
        features: &[Feature],
        format: Format,
    ) -> BytesMut {
        let options = self.options();
        let name = options.name.as_str();
        let version = self.version;
        let mut tokens = BytesMut::new();
        let database = session.database().to_owned();
        let language = session.language().to_owned();
        let changed_database = format!("Changed database context to '{database}'.");
        EnvChange::Database { new: database, old: "master".to_owned() }.write(&mut tokens);
        ServerMessage { state: 2, ..ServerMessage::info(5701, changed_database, name) }
            .write(&mut tokens, version);
        if version.generation() >= 1 {
            EnvChange::Collation { new: Some(Collation::LATIN1.0), old: None }.write(&mut tokens);
        }
        let changed_language = format!("Changed language setting to {language}.");
        EnvChange::Language { new: language, old: String::new() }.write(&mut tokens);
        ServerMessage::info(5703, changed_language, name).write(&mut tokens, version);
        let stand_in = "tdsbouncer-sim: this is a stand-in for tests and demonstrations, not SQL Server.";
        ServerMessage::info(50000, stand_in, name).write(&mut tokens, version);
        if let Some(sspi) = principal.sspi.as_ref().filter(|token| !token.is_empty()) {
            put_sspi(&mut tokens, sspi);
        }
        let program_version = options.kind.version();
        LoginAck { interface: 1, tds_version: version, program_name: PROGRAM.to_owned(), program_version }
            .write(&mut tokens);
        let before = match login.packet_size {
            0 => format.packet_size,
            asked => usize::try_from(asked).unwrap_or(format.packet_size),
        };
        EnvChange::PacketSize { new: format.packet_size, old: before }.write(&mut tokens);
        if !features.is_empty() {
            write_feature_ext_ack(&mut tokens, features);
        }
        if let Some(route) = self.routing(login) {
            EnvChange::Routing(route).write(&mut tokens);
        }
        done(&mut tokens, DoneStatus::FINAL, version);
        tokens
    }

    /// A client at 7.4 can be routed, an older one only if it only reads ([MS-TDS] 2.2.7.9).
    fn routing(&self, login: &Login7) -> Option<Routing> {
        let route = self.options().routing.as_ref()?;
        let routable = match self.version.generation() {
            0 => false,
            1..=3 => login.read_only_intent(),
            _ => true,
        };
        routable.then(|| Routing { host: route.host.clone(), port: route.port, database: None })
    }
}

fn done(tokens: &mut BytesMut, status: DoneStatus, version: TdsVersion) {
    Done { kind: DoneKind::Done, status, current_command: 0, rows: 0 }.write(tokens, version);
}

fn put_sspi(tokens: &mut BytesMut, token: &[u8]) {
    tokens.put_u8(TokenKind::SSPI.0);
    tokens.put_u16_le(u16::try_from(token.len()).unwrap_or(u16::MAX));
    tokens.put_slice(token);
}

/// FEDAUTHINFO with its two entries ([MS-TDS] 2.2.7.12).
fn put_fed_auth_info(tokens: &mut BytesMut, sts_url: &str, spn: &str) {
    const HEAD: usize = 4 + 2 * 9;
    let mut data = BytesMut::new();
    let mut options = BytesMut::new();
    for (id, text) in [(1u8, sts_url), (2, spn)] {
        let start = data.len();
        write::utf16(&mut data, text);
        options.put_u8(id);
        options.put_u32_le(u32::try_from(data.len() - start).unwrap_or(u32::MAX));
        options.put_u32_le(u32::try_from(HEAD + start).unwrap_or(u32::MAX));
    }
    tokens.put_u8(TokenKind::FED_AUTH_INFO.0);
    tokens.put_u32_le(u32::try_from(HEAD + data.len()).unwrap_or(u32::MAX));
    tokens.put_u32_le(2);
    tokens.put_slice(&options);
    tokens.put_slice(&data);
}
