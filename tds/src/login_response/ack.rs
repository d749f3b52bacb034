//! What the server says of itself when a login succeeds: LOGINACK ([MS-TDS] 2.2.7.14).

use bytes::{BufMut, BytesMut};

use crate::read::Reader;
use crate::{Malformed, TdsVersion, write};

/// The byte of a LOGINACK token.
pub const LOGIN_ACK_TOKEN: u8 = 0xAD;

/// A LOGINACK token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginAck {
    /// The SQL dialect: 1, T-SQL, as a rule.
    pub interface: u8,
    /// The version that both sides speak from now on.
    pub tds_version: TdsVersion,
    /// The server's product name.
    pub program_name: String,
    /// The server's version: major, minor, build (big endian).
    pub program_version: [u8; 4],
}

impl LoginAck {
    /// Reads what follows the token's byte.
    pub fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut body = Reader::new(body.us_varbyte()?, "LOGINACK");
        Ok(Self {
            interface: body.u8()?,
            tds_version: from_wire(body.u32_be()?),
            program_name: body.b_varchar()?,
            program_version: body.array()?,
        })
    }

    /// Writes the token, its byte included.
    pub fn write(&self, out: &mut impl BufMut) {
        let mut body = BytesMut::new();
        body.put_u8(self.interface);
        body.put_u32(to_wire(self.tds_version));
        write::b_varchar(&mut body, &self.program_name);
        body.put_slice(&self.program_version);
        out.put_u8(LOGIN_ACK_TOKEN);
        // At most 1 + 4 + 1 + 2 * 255 + 4 bytes.
        out.put_u16_le(u16::try_from(body.len()).unwrap_or(u16::MAX));
        out.put_slice(&body);
    }
}

/// Servers write 7.0 and 7.1 in another form than clients do (note 69).
fn from_wire(raw: u32) -> TdsVersion {
    match raw {
        0x0700_0000 => TdsVersion::V7_0,
        0x0701_0000 => TdsVersion::V7_1,
        raw => TdsVersion(raw),
    }
}

fn to_wire(version: TdsVersion) -> u32 {
    match version {
        TdsVersion::V7_0 => 0x0700_0000,
        TdsVersion::V7_1 => 0x0701_0000,
        TdsVersion(raw) => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_write_the_oldest_versions_in_their_own_way() {
        let rows = [
            (TdsVersion::V7_0, [0x07, 0x00, 0x00, 0x00]),
            (TdsVersion::V7_1, [0x07, 0x01, 0x00, 0x00]),
            (TdsVersion::V7_1_SP1, [0x71, 0x00, 0x00, 0x01]),
            (TdsVersion::V7_2, [0x72, 0x09, 0x00, 0x02]),
            (TdsVersion::V7_3A, [0x73, 0x0A, 0x00, 0x03]),
            (TdsVersion::V7_3B, [0x73, 0x0B, 0x00, 0x03]),
            (TdsVersion::V7_4, [0x74, 0x00, 0x00, 0x04]),
        ];
        for (tds_version, wire) in rows {
            let ack = LoginAck {
                interface: 1,
                tds_version,
                program_name: "Microsoft SQL Server".into(),
                program_version: [16, 0, 0x10, 0x27],
            };
            let mut out = vec![];
            ack.write(&mut out);
            assert_eq!(out[4..8], wire);
            assert_eq!(LoginAck::read(&mut Reader::new(&out[1..], "")), Ok(ack));
        }
    }
}
