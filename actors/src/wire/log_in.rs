//! A server's client up to the answer to its login: the handshake's steps over a link, TLS where both agree on it.

use std::io;

use bytes::BytesMut;
use tds::encryption::ServerTls as Offer;
use tds::handshake::{Connect, ConnectPolicy, ConnectStep, HandshakeError};
use tds::login7::Login7;
use tds::message::Message;
use tdsbouncer_config::ServerTlsMode;

use super::{Link, TlsError, TlsRole};

/// Bytes read at once while logging in.
const CHUNK: usize = 4096;

/// The server's answer to LOGIN7, whatever it is.
pub(crate) struct LoginAnswer {
    pub(crate) message: Message,
    /// Whether MARS was agreed on.
    pub(crate) mars: bool,
}

/// What a mode means in PRELOGIN.
pub(crate) fn offer(mode: ServerTlsMode) -> Offer {
    match mode {
        ServerTlsMode::Off => Offer::Off,
        ServerTlsMode::On => Offer::On,
        ServerTlsMode::Strict => Offer::Strict,
    }
}

/// Logs in over a fresh link. None: the server closed it. Dropped, it leaves a link that is of no use.
pub(crate) async fn log_in<E>(
    link: &mut Link,
    policy: ConnectPolicy,
    login: &Login7,
    tls: impl Fn() -> Result<TlsRole, E>,
) -> Result<Option<LoginAnswer>, E>
where
    E: From<io::Error> + From<HandshakeError> + From<TlsError>,
{
    let mut out = BytesMut::new();
    let mut connect = Connect::new(policy, login);
    loop {
        let (next, step) = connect.step(&mut link.input, &mut out)?;
        connect = next;
        link.queue(&out);
        out.clear();
        link.flush().await?;
        match step {
            ConnectStep::NeedBytes => {
                if link.fill(CHUNK).await? == 0 {
                    return Ok(None);
                }
            }
            ConnectStep::StartTls(framing) => {
                link.start_tls(tls()?, framing).await?;
                connect = connect.tls_established()?;
            }
            ConnectStep::EndTls => link.end_tls(),
            ConnectStep::Response { message, mars, .. } => return Ok(Some(LoginAnswer { message, mars })),
        }
    }
}
