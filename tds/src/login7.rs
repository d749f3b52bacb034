//! What a client says at login: LOGIN7, all of it, read and written ([MS-TDS] 2.2.6.4).

mod flags;
mod password;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::flags::{OptionFlags1, OptionFlags2, OptionFlags3, TypeFlags};
pub use self::password::Password;
use crate::feature::{Feature, FeatureId, read_features, write_features};
use crate::read::{Reader, decode_utf16};
use crate::{Malformed, TdsVersion, write};

/// The longest LOGIN7, in bytes without packet headers.
pub const MAX_LOGIN7: usize = 128 * 1024 - 1;

/// The longest name, in UTF-16 code units.
const MAX_NAME: usize = 128;

/// The longest name of a file to attach, in UTF-16 code units.
const MAX_FILE: usize = 260;

/// Bytes in front of the variable part from TDS 7.2 on.
const FIXED: usize = 94;

/// The same before: without the new password's place and the long SSPI length.
const FIXED_BEFORE_7_2: usize = 86;

/// A login. Texts are at most 128 UTF-16 code units long, the file's name 260.
#[derive(Clone, PartialEq, Eq)]
pub struct Login7 {
    /// The highest version that the client speaks.
    pub tds_version: TdsVersion,
    /// The packet size that the client asks for, in bytes; 0 leaves it to the server.
    pub packet_size: u32,
    /// The version of the client's library.
    pub client_version: u32,
    /// The client's process id.
    pub client_pid: u32,
    /// The connection's id at the primary server; 0 as a rule.
    pub connection_id: u32,
    /// Option bits.
    pub option_flags1: OptionFlags1,
    /// Option bits.
    pub option_flags2: OptionFlags2,
    /// Type bits.
    pub type_flags: TypeFlags,
    /// Option bits. [`OptionFlags3::EXTENSION`] is set when written with features.
    pub option_flags3: OptionFlags3,
    /// Not used by servers.
    pub time_zone: i32,
    /// The client's collation, or 0.
    pub lcid: u32,
    /// The client machine's name.
    pub host_name: String,
    /// The user.
    pub user_name: String,
    /// The password.
    pub password: Password,
    /// The application's name.
    pub app_name: String,
    /// The server's name as the client knows it.
    pub server_name: String,
    /// The client library's name.
    pub interface_name: String,
    /// The initial language; empty means the user's.
    pub language: String,
    /// The initial database; empty means the user's.
    pub database: String,
    /// The client machine's network address.
    pub client_id: [u8; 6],
    /// The first token of integrated authentication.
    pub sspi: Bytes,
    /// The file of a database to attach.
    pub attach_file: String,
    /// The new password, with [`OptionFlags3::CHANGE_PASSWORD`].
    pub new_password: Password,
    /// What the client offers beyond the core, in its order, with data.
    pub features: Vec<Feature>,
}

impl Default for Login7 {
    /// A login at TDS 7.4 as ODBC drivers send it, with no names in it.
    fn default() -> Self {
        Self {
            tds_version: TdsVersion::V7_4,
            packet_size: 4096,
            client_version: 0,
            client_pid: 0,
            connection_id: 0,
            option_flags1: OptionFlags1::USE_DB
                .with(OptionFlags1::DATABASE_FATAL)
                .with(OptionFlags1::SET_LANGUAGE),
            option_flags2: OptionFlags2::LANGUAGE_FATAL.with(OptionFlags2::ODBC),
            type_flags: TypeFlags::default(),
            option_flags3: OptionFlags3::UNKNOWN_COLLATIONS,
            time_zone: 0,
            lcid: 0,
            host_name: String::new(),
            user_name: String::new(),
            password: Password::default(),
            app_name: String::new(),
            server_name: String::new(),
            interface_name: String::new(),
            language: String::new(),
            database: String::new(),
            client_id: [0; 6],
            sspi: Bytes::new(),
            attach_file: String::new(),
            new_password: Password::default(),
            features: Vec::new(),
        }
    }
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthKind {
    /// User and password.
    Sql,
    /// SSPI: Kerberos or NTLM.
    Integrated,
    /// A token of an identity provider.
    Federated,
}

impl Login7 {
    /// How the client proves who it is.
    pub fn auth_kind(&self) -> AuthKind {
        if self.feature(FeatureId::FED_AUTH).is_some() {
            AuthKind::Federated
        } else if self.option_flags2.contains(OptionFlags2::INTEGRATED_SECURITY) {
            AuthKind::Integrated
        } else {
            AuthKind::Sql
        }
    }

    /// The login changes its password.
    pub fn changes_password(&self) -> bool {
        self.option_flags3.contains(OptionFlags3::CHANGE_PASSWORD)
    }

    /// The login attaches a database's file.
    pub fn attaches_file(&self) -> bool {
        !self.attach_file.is_empty()
    }

    /// The login wants an instance of its own.
    pub fn user_instance(&self) -> bool {
        self.option_flags3.contains(OptionFlags3::USER_INSTANCE)
    }

    /// The application only reads.
    pub fn read_only_intent(&self) -> bool {
        self.type_flags.contains(TypeFlags::READ_ONLY_INTENT)
    }

    /// The feature with this number, if the client offers it.
    pub fn feature(&self, id: FeatureId) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.id == id)
    }

    /// Reads a whole LOGIN7. Offsets may point anywhere inside it, in any order; empty fields may have any offset.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut head = Reader::new(payload, "LOGIN7");
        let length = usize::try_from(head.u32()?).unwrap_or(usize::MAX);
        if length > MAX_LOGIN7 || payload.len() > MAX_LOGIN7 {
            return Err(Malformed::TooLong { what: "LOGIN7", limit: MAX_LOGIN7 });
        }
        if length > payload.len() {
            return Err(Malformed::Truncated { what: "LOGIN7", missing: length - payload.len() });
        }
        let mut login = Self {
            tds_version: TdsVersion(head.u32()?),
            packet_size: head.u32()?,
            client_version: head.u32()?,
            client_pid: head.u32()?,
            connection_id: head.u32()?,
            option_flags1: OptionFlags1(head.u8()?),
            option_flags2: OptionFlags2(head.u8()?),
            type_flags: TypeFlags(head.u8()?),
            option_flags3: OptionFlags3(head.u8()?),
            time_zone: i32::from_le_bytes(head.array()?),
            lcid: head.u32()?,
            ..Self::default()
        };
        // Where the variable part begins tells how long the fixed part is; a few clients leave it at 0.
        let begins =
            usize::from(u16::from_le_bytes([payload.get(36), payload.get(37)].map(|b| *b.unwrap_or(&0))));
        let is_long = match begins {
            FIXED_BEFORE_7_2..FIXED => false,
            FIXED.. => payload.len() >= FIXED,
            _ => login.tds_version.is_7_2_or_later(),
        };
        let mut text = |what, limit| Place::read(&mut head)?.text(payload, what, limit);
        login.host_name = text("LOGIN7 host name", MAX_NAME)?;
        login.user_name = text("LOGIN7 user name", MAX_NAME)?;
        login.password = Place::read(&mut head)?.password(payload, "LOGIN7 password")?;
        let mut text = |what, limit| Place::read(&mut head)?.text(payload, what, limit);
        login.app_name = text("LOGIN7 application name", MAX_NAME)?;
        login.server_name = text("LOGIN7 server name", MAX_NAME)?;
        let extension = Place::read(&mut head)?;
        let mut text = |what, limit| Place::read(&mut head)?.text(payload, what, limit);
        login.interface_name = text("LOGIN7 interface name", MAX_NAME)?;
        login.language = text("LOGIN7 language", MAX_NAME)?;
        login.database = text("LOGIN7 database", MAX_NAME)?;
        login.client_id = head.array()?;
        let mut sspi = Place::read(&mut head)?;
        login.attach_file = Place::read(&mut head)?.text(payload, "LOGIN7 attached file", MAX_FILE)?;
        if is_long {
            let new_password = Place::read(&mut head)?;
            if login.changes_password() {
                login.new_password = new_password.password(payload, "LOGIN7 new password")?;
            }
            let long = usize::try_from(head.u32()?).unwrap_or(usize::MAX);
            if sspi.length == usize::from(u16::MAX) && long > 0 {
                sspi.length = long;
            }
        }
        login.sspi = Bytes::copy_from_slice(sspi.bytes(payload, "LOGIN7 SSPI")?);
        if login.option_flags3.contains(OptionFlags3::EXTENSION) {
            login.features = extension.features(payload)?;
        }
        Ok(login)
    }

    /// Writes the record without packet headers. Texts beyond their limit are cut. A login below TDS 7.2 gets the
    /// shorter fixed part, in which a new password has no place.
    pub fn encode(&self, out: &mut BytesMut) {
        let is_long = self.tds_version.is_7_2_or_later();
        let mut tail = Tail::new(if is_long { FIXED } else { FIXED_BEFORE_7_2 }, self.sspi.len());
        let has_extension = !self.features.is_empty() || self.option_flags3.contains(OptionFlags3::EXTENSION);
        let flags3 =
            if has_extension { self.option_flags3.with(OptionFlags3::EXTENSION) } else { self.option_flags3 };

        // The record's head, its length left open.
        let start = out.len();
        out.put_u32_le(0);
        out.put_u32_le(self.tds_version.0);
        out.put_u32_le(self.packet_size);
        out.put_u32_le(self.client_version);
        out.put_u32_le(self.client_pid);
        out.put_u32_le(self.connection_id);
        out.put_slice(&[self.option_flags1.0, self.option_flags2.0, self.type_flags.0, flags3.0]);
        out.put_i32_le(self.time_zone);
        out.put_u32_le(self.lcid);

        // The places; what they point to gathers in the tail.
        tail.text(out, &self.host_name, MAX_NAME);
        tail.text(out, &self.user_name, MAX_NAME);
        tail.password(out, &self.password);
        tail.text(out, &self.app_name, MAX_NAME);
        tail.text(out, &self.server_name, MAX_NAME);
        let extension_at = has_extension.then(|| tail.bytes(out, &[0; 4], 4));
        if !has_extension {
            tail.bytes(out, &[], 0);
        }
        tail.text(out, &self.interface_name, MAX_NAME);
        tail.text(out, &self.language, MAX_NAME);
        tail.text(out, &self.database, MAX_NAME);
        out.put_slice(&self.client_id);
        // SSPI may be longer than 16 bits can point beyond: its data comes after all the others.
        let sspi_place = out.len();
        out.put_u32_le(0);
        tail.text(out, &self.attach_file, MAX_FILE);
        if is_long {
            tail.password(out, &self.new_password);
            let long = if self.sspi.len() < usize::from(u16::MAX) { 0 } else { self.sspi.len() };
            out.put_u32_le(u32::try_from(long).unwrap_or(u32::MAX));
        }
        let mut place = BytesMut::with_capacity(4);
        let sspi_units = self.sspi.len().min(usize::from(u16::MAX));
        tail.bytes(&mut place, &self.sspi, sspi_units);
        out[sspi_place..sspi_place + 4].copy_from_slice(&place);
        if let Some(at) = extension_at {
            let features_at = u32::try_from(tail.position()).unwrap_or(u32::MAX);
            tail.data[at..at + 4].copy_from_slice(&features_at.to_le_bytes());
            write_features(&mut tail.data, &self.features);
        }
        out.put_slice(&tail.data);
        let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        tail.wipe();
    }
}

/// Who asks for what, without secrets: neither passwords nor tokens.
impl std::fmt::Debug for Login7 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login7")
            .field("tds_version", &self.tds_version)
            .field("packet_size", &self.packet_size)
            .field("option_flags1", &self.option_flags1)
            .field("option_flags2", &self.option_flags2)
            .field("type_flags", &self.type_flags)
            .field("option_flags3", &self.option_flags3)
            .field("lcid", &self.lcid)
            .field("host_name", &self.host_name)
            .field("user_name", &self.user_name)
            .field("app_name", &self.app_name)
            .field("server_name", &self.server_name)
            .field("interface_name", &self.interface_name)
            .field("language", &self.language)
            .field("database", &self.database)
            .field("sspi_bytes", &self.sspi.len())
            .field("attach_file", &self.attach_file)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// Where a field's contents are: an offset from the record's start and a length, in units of the field.
struct Place {
    offset: usize,
    length: usize,
}

impl Place {
    fn read(head: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { offset: usize::from(head.u16()?), length: usize::from(head.u16()?) })
    }

    /// The contents, if the length counts bytes.
    fn bytes<'a>(&self, payload: &'a [u8], what: &'static str) -> Result<&'a [u8], Malformed> {
        if self.length == 0 {
            return Ok(&[]);
        }
        let end = self.offset.saturating_add(self.length);
        payload
            .get(self.offset..end)
            .ok_or(Malformed::Truncated { what, missing: end.saturating_sub(payload.len()) })
    }

    /// The contents, if the length counts UTF-16 code units.
    fn units<'a>(&self, payload: &'a [u8], what: &'static str, limit: usize) -> Result<&'a [u8], Malformed> {
        if self.length > limit {
            return Err(Malformed::TooLong { what, limit: limit * 2 });
        }
        Self { offset: self.offset, length: self.length * 2 }.bytes(payload, what)
    }

    fn text(&self, payload: &[u8], what: &'static str, limit: usize) -> Result<String, Malformed> {
        decode_utf16(self.units(payload, what, limit)?, what)
    }

    fn password(&self, payload: &[u8], what: &'static str) -> Result<Password, Malformed> {
        self.units(payload, what, MAX_NAME).map(Password::from_wire)
    }

    /// The features: this place holds the offset of their list, or 0.
    fn features(&self, payload: &[u8]) -> Result<Vec<Feature>, Malformed> {
        if self.length == 0 {
            return Ok(Vec::new());
        }
        let pointer = Reader::new(self.bytes(payload, "LOGIN7 extension")?, "LOGIN7 extension").u32()?;
        let offset = usize::try_from(pointer).unwrap_or(usize::MAX);
        if offset == 0 {
            return Ok(Vec::new());
        }
        let what = "LOGIN7 features";
        let list = payload
            .get(offset..)
            .ok_or(Malformed::Truncated { what, missing: offset.saturating_sub(payload.len()) })?;
        read_features(&mut Reader::new(list, what))
    }
}

/// The variable part while it is written: fields' contents gather here, their places go into the fixed part.
struct Tail {
    begins: usize,
    data: BytesMut,
}

impl Tail {
    fn new(begins: usize, sspi_len: usize) -> Self {
        // Room for everything but long feature data: growing would leave copies of passwords behind.
        Self { begins, data: BytesMut::with_capacity(4096 + sspi_len) }
    }

    /// The offset of what comes next, from the record's start.
    fn position(&self) -> usize {
        self.begins + self.data.len()
    }

    /// Appends contents and writes their place; returns where in the variable part they are.
    fn bytes(&mut self, head: &mut BytesMut, contents: &[u8], length: usize) -> usize {
        head.put_u16_le(u16::try_from(self.position()).unwrap_or(u16::MAX));
        head.put_u16_le(u16::try_from(length).unwrap_or(u16::MAX));
        let at = self.data.len();
        self.data.put_slice(contents);
        at
    }

    fn text(&mut self, head: &mut BytesMut, text: &str, limit: usize) {
        let mut units = BytesMut::with_capacity(text.len() * 2);
        write::utf16(&mut units, text);
        units.truncate(limit * 2);
        self.bytes(head, &units, units.len() / 2);
    }

    fn password(&mut self, head: &mut BytesMut, password: &Password) {
        let wire = password.clone().cut(MAX_NAME).to_wire();
        self.bytes(head, &wire, wire.len() / 2);
    }

    /// Leaves no copy of the passwords in this buffer.
    fn wipe(mut self) {
        zeroize::Zeroize::zeroize(&mut self.data[..]);
    }
}

#[cfg(test)]
mod tests;
