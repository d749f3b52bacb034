//! What is settled before the first request: versions, encryption, features.

use bytes::BytesMut;
use tds::TdsVersion;
use tds::encryption::Encryption;
use tds::handshake::TlsFraming;
use tds::message::{MessageReader, write_message};
use tds::packet::{DEFAULT_PACKET_SIZE, MAX_PACKET_SIZE, PacketType, Status};
use tds::prelogin::{Prelogin, PreloginOption};
use tdsbouncer_config::{ServerTls, ServerTlsMode};

use super::client::{Client, Target, Tls, Trouble, Wish, connect, role, within};
use super::report::Said;

/// No PRELOGIN is longer, in bytes.
const MAX_PRELOGIN: usize = 4096;

/// What the server calls itself, and how this connection was agreed on.
pub(super) fn describe(client: &Client) -> String {
    let ack = &client.login.ack;
    let [major, minor, build_high, build_low] = ack.program_version;
    let build = u16::from_be_bytes([build_high, build_low]);
    let name = ack.program_name.trim_end_matches('\0');
    format!("{name} {major}.{minor}.{build}, packets of {} bytes", client.packet_size)
}

/// Which versions of the protocol the server speaks; clients of each come through the proxy.
pub(super) async fn versions(target: &Target, tls: &Tls) -> Result<Said, Trouble> {
    let versions = [
        ("7.4", TdsVersion::V7_4),
        ("7.3", TdsVersion::V7_3B),
        ("7.2", TdsVersion::V7_2),
        ("7.1", TdsVersion::V7_1_SP1),
    ];
    let (mut spoken, mut refused) = (Vec::new(), Vec::new());
    for (name, version) in versions {
        match Client::log_in(target, tls, Wish { version, ..Wish::default() }).await {
            Ok(client) if client.dialect.version.generation() == version.generation() => spoken.push(name),
            Ok(_) | Err(_) => refused.push(name),
        }
    }
    let found = format!("TDS {}", spoken.join(", "));
    Ok(if spoken.first() == Some(&"7.4") && refused.is_empty() {
        Said::good(found)
    } else if spoken.first() == Some(&"7.4") {
        Said::differs(
            format!("{found}; not {}", refused.join(", ")),
            "Drivers that ask for an older version cannot connect, directly or through the proxy.",
        )
    } else {
        Said::differs(
            format!("{found}; not {}", refused.join(", ")),
            "Set listeners.server_version to this server's version, so that drivers ask for what it speaks.",
        )
    })
}

/// What the server answers to each wish about encryption. No password is sent.
pub(super) async fn encryption(target: &Target) -> Result<Said, Trouble> {
    let mut found = Vec::new();
    let mut full = false;
    for (offer, name) in
        [(Encryption::NOT_SUPPORTED, "none"), (Encryption::OFF, "login only"), (Encryption::ON, "full")]
    {
        let mut link = connect(target, &target.host, target.port).await?;
        let answer = within(target.patience, ask(&mut link, offer)).await;
        let words = match answer {
            // A server that takes TDS 8.0 only says nothing before TLS.
            Err(Trouble::Closed | Trouble::Io(_)) => "connection closed".to_owned(),
            Err(trouble) => return Err(trouble),
            Ok(answer) => {
                full |= offer == Encryption::ON && answer.level() != Encryption::NOT_SUPPORTED;
                match answer.level() {
                    Encryption::NOT_SUPPORTED => "none".to_owned(),
                    Encryption::OFF => "login only".to_owned(),
                    Encryption::ON if offer == Encryption::ON => "full".to_owned(),
                    Encryption::ON | Encryption::REQUIRED => "full demanded".to_owned(),
                    other => format!("{other:?}"),
                }
            }
        };
        found.push(format!("{name}: {words}"));
    }
    let found = found.join("; ");
    Ok(if full {
        Said::good(found)
    } else if found.contains("closed") {
        Said::differs(found, "The server takes TDS 8.0 only: set server_tls.mode = \"strict\".")
    } else {
        Said::differs(found, "Passwords and data cross the network readable: give the server a certificate.")
    })
}

/// Sends PRELOGIN and reads what the server says about encryption.
async fn ask(link: &mut crate::wire::Link, offer: Encryption) -> Result<Encryption, Trouble> {
    let prelogin = Prelogin::new([0; 6]).with(PreloginOption::Encryption(offer));
    let (mut payload, mut packet) = (BytesMut::new(), BytesMut::new());
    prelogin.encode(&mut payload);
    write_message(&mut packet, PacketType::PRELOGIN, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, &payload);
    link.queue(&packet);
    link.flush().await?;
    let mut reader = MessageReader::new(MAX_PACKET_SIZE, MAX_PRELOGIN);
    loop {
        if let Some(message) = reader.read(&mut link.input)? {
            return Ok(Prelogin::decode(&message.payload)?.encryption());
        }
        if link.fill(MAX_PRELOGIN).await? == 0 {
            return Err(Trouble::Closed);
        }
    }
}

/// Whether TDS 8.0, TLS before everything else, is there. No password is sent.
pub(super) async fn strict(target: &Target) -> Result<Said, Trouble> {
    let settings = ServerTls { mode: ServerTlsMode::Strict, ..target.tls.clone() };
    let tls = Tls::of(&settings)?;
    let mut link = connect(target, &target.host, target.port).await?;
    let shaking = async {
        link.start_tls(role(target, &tls, &target.host)?, TlsFraming::Raw).await?;
        ask(&mut link, Encryption::NOT_SUPPORTED).await
    };
    Ok(match within(target.patience, shaking).await {
        Ok(_) => Said::good("TDS 8.0 is spoken"),
        Err(trouble) => Said::differs(
            format!("TDS 8.0 is not spoken, or not with this certificate: {trouble}"),
            "server_tls.mode = \"strict\" will not work for this server; \"on\" encrypts as well.",
        ),
    })
}

/// Whether the server reports what a session's state is made of.
pub(super) fn recovery(client: &Client) -> Said {
    match client.login.feature(tds::feature::FeatureId::SESSION_RECOVERY) {
        Some(feature) => Said::good(format!("acknowledged, with {} bytes of state", feature.data.len())),
        None => Said::differs(
            "not acknowledged",
            "The server does not tell what procedures leave behind: list those that create session state.",
        ),
    }
}
