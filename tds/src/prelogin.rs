//! What both ends say before a login: PRELOGIN, a list of options ([MS-TDS] 2.2.6.5).

use bytes::{BufMut, Bytes};

use crate::Malformed;
use crate::encryption::Encryption;
use crate::read::Reader;

/// More options than any peer sends.
const MAX_OPTIONS: usize = 32;

const TERMINATOR: u8 = 0xFF;

/// A sender's version: major, minor, build (big endian), sub-build (big endian).
pub type Version = [u8; 6];

/// One option. The numbers are the option tokens of 2.2.6.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreloginOption {
    /// 0: the sender's version; always first.
    Version(Version),
    /// 1: what the sender can and wants to encrypt.
    Encryption(Encryption),
    /// 2: from the client the instance's name with a 0 behind it; from the server 0 (right) or 1 (wrong).
    Instance(Bytes),
    /// 3: from the client its thread's number; from the server nothing.
    ThreadId(Bytes),
    /// 4: whether several requests may run on the connection.
    Mars(bool),
    /// 5: the client's connection id (16), activity id (16) and activity number (4).
    TraceId(Bytes),
    /// 6: whether federated authentication is required.
    FedAuthRequired(u8),
    /// 7: random bytes for federated authentication.
    Nonce([u8; 32]),
    /// Any other option.
    Other {
        /// Its number.
        token: u8,
        /// Its contents.
        data: Bytes,
    },
}

impl PreloginOption {
    fn decode(token: u8, data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data, "PRELOGIN option");
        let option = match token {
            0 => Self::Version(reader.array()?),
            1 => Self::Encryption(Encryption(reader.u8()?)),
            2 => Self::Instance(Bytes::copy_from_slice(reader.rest())),
            3 => Self::ThreadId(Bytes::copy_from_slice(reader.rest())),
            4 => Self::Mars(reader.u8()? != 0),
            5 => Self::TraceId(Bytes::copy_from_slice(reader.rest())),
            6 => Self::FedAuthRequired(reader.u8()?),
            7 => Self::Nonce(reader.array()?),
            token => Self::Other { token, data: Bytes::copy_from_slice(reader.rest()) },
        };
        match reader.remaining() {
            0 => Ok(option),
            _ => Err(Malformed::TooLong { what: "PRELOGIN option", limit: reader.position() }),
        }
    }

    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Version(version) => (0, version),
            Self::Encryption(encryption) => (1, std::slice::from_ref(&encryption.0)),
            Self::Instance(data) => (2, data),
            Self::ThreadId(data) => (3, data),
            Self::Mars(on) => (4, if *on { &[1] } else { &[0] }),
            Self::TraceId(data) => (5, data),
            Self::FedAuthRequired(value) => (6, std::slice::from_ref(value)),
            Self::Nonce(nonce) => (7, nonce),
            Self::Other { token, data } => (*token, data),
        }
    }
}

/// A PRELOGIN message: its options in the sender's order, the version first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prelogin {
    options: Vec<PreloginOption>,
}

impl Prelogin {
    /// A message with the version alone.
    pub fn new(version: Version) -> Self {
        Self { options: vec![PreloginOption::Version(version)] }
    }

    /// With one more option at the end.
    #[must_use]
    pub fn with(mut self, option: PreloginOption) -> Self {
        self.options.push(option);
        self
    }

    /// The options in their order.
    pub fn options(&self) -> &[PreloginOption] {
        &self.options
    }

    /// The sender's version.
    pub fn version(&self) -> Version {
        self.find(|option| match option {
            PreloginOption::Version(version) => Some(*version),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// What the sender can and wants to encrypt; a sender that does not say cannot.
    pub fn encryption(&self) -> Encryption {
        self.find(|option| match option {
            PreloginOption::Encryption(encryption) => Some(*encryption),
            _ => None,
        })
        .unwrap_or(Encryption::NOT_SUPPORTED)
    }

    /// The instance's name, without the 0 behind it; `None` if there is no such option or no name in it.
    pub fn instance(&self) -> Option<&[u8]> {
        self.find(|option| match option {
            PreloginOption::Instance(data) => data.split(|byte| *byte == 0).next(),
            _ => None,
        })
        .filter(|name| !name.is_empty())
    }

    /// Whether several requests may run on the connection; `None` if the sender does not know the question.
    pub fn mars(&self) -> Option<bool> {
        self.find(|option| match option {
            PreloginOption::Mars(on) => Some(*on),
            _ => None,
        })
    }

    /// The client's connection and activity, for correlation: the raw 36 bytes.
    pub fn trace_id(&self) -> Option<&[u8]> {
        self.find(|option| match option {
            PreloginOption::TraceId(data) => Some(&data[..]),
            _ => None,
        })
    }

    /// Whether federated authentication is required; clients that know the option send 1.
    pub fn fed_auth_required(&self) -> Option<u8> {
        self.find(|option| match option {
            PreloginOption::FedAuthRequired(value) => Some(*value),
            _ => None,
        })
    }

    /// Random bytes for federated authentication.
    pub fn nonce(&self) -> Option<[u8; 32]> {
        self.find(|option| match option {
            PreloginOption::Nonce(nonce) => Some(*nonce),
            _ => None,
        })
    }

    fn find<'a, T>(&'a self, pick: impl Fn(&'a PreloginOption) -> Option<T>) -> Option<T> {
        self.options.iter().find_map(pick)
    }

    /// Reads a whole message. Offsets and lengths are a stranger's: each is checked. The version must come first.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut table = Reader::new(payload, "PRELOGIN");
        let mut options = Vec::new();
        loop {
            let token = table.u8()?;
            if token == TERMINATOR {
                break;
            }
            if options.is_empty() && token != 0 {
                return Err(Malformed::Value { what: "first PRELOGIN option", value: u64::from(token) });
            }
            if options.len() == MAX_OPTIONS {
                return Err(Malformed::TooLong { what: "PRELOGIN option list", limit: MAX_OPTIONS });
            }
            let (offset, length) = (usize::from(table.u16_be()?), usize::from(table.u16_be()?));
            // Some peers give an empty option any offset.
            let start = if length == 0 { 0 } else { offset };
            let data = payload.get(start..start + length).ok_or(Malformed::Truncated {
                what: "PRELOGIN",
                missing: (start + length).saturating_sub(payload.len()),
            })?;
            options.push(PreloginOption::decode(token, data)?);
        }
        if options.is_empty() {
            return Err(Malformed::Value { what: "first PRELOGIN option", value: u64::from(TERMINATOR) });
        }
        Ok(Self { options })
    }

    /// Writes the message without packet headers.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut offset = self.options.len() * 5 + 1;
        for option in &self.options {
            let (token, data) = option.parts();
            out.put_u8(token);
            out.put_u16(u16::try_from(offset).unwrap_or(u16::MAX));
            out.put_u16(u16::try_from(data.len()).unwrap_or(u16::MAX));
            offset += data.len();
        }
        out.put_u8(TERMINATOR);
        for option in &self.options {
            out.put_slice(option.parts().1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// [MS-TDS] 4.1, without the packet header.
    const EXAMPLE: [u8; 39] = [
        0x00, 0x00, 0x1A, 0x00, 0x06, 0x01, 0x00, 0x20, 0x00, 0x01, 0x02, 0x00, 0x21, 0x00, 0x01, 0x03, 0x00,
        0x22, 0x00, 0x04, 0x04, 0x00, 0x26, 0x00, 0x01, 0xFF, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
        0xB8, 0x0D, 0x00, 0x00, 0x01,
    ];

    #[test]
    fn the_specifications_example_is_read_and_written_byte_for_byte() {
        let prelogin = Prelogin::decode(&EXAMPLE).unwrap();
        assert_eq!(prelogin.version(), [9, 0, 0, 0, 0, 0]);
        assert_eq!(prelogin.encryption(), Encryption::ON);
        assert_eq!((prelogin.instance(), prelogin.mars()), (None, Some(true)));
        assert_eq!((prelogin.nonce(), prelogin.fed_auth_required(), prelogin.trace_id()), (None, None, None));
        let mut out = vec![];
        prelogin.encode(&mut out);
        assert_eq!(out, EXAMPLE);
    }

    #[test]
    fn a_message_cut_anywhere_is_refused() {
        for end in 0..EXAMPLE.len() {
            assert!(Prelogin::decode(&EXAMPLE[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn the_version_must_come_first() {
        let swapped = [1, 0, 11, 0, 1, 0, 0, 12, 0, 6, 0xFF, 0, 1, 2, 3, 4, 5, 6];
        let refused = Prelogin::decode(&swapped);
        assert_eq!(refused, Err(Malformed::Value { what: "first PRELOGIN option", value: 1 }));
        assert!(Prelogin::decode(&[0xFF]).is_err());
    }

    #[test]
    fn an_option_of_a_wrong_length_is_refused() {
        for (token, length) in [(0, 5), (0, 7), (1, 0), (1, 2), (4, 0), (4, 2), (6, 0), (7, 31), (7, 33)] {
            let mut bytes = vec![0, 0, 11, 0, 6, token, 0, 17, 0, length, 0xFF];
            bytes.extend([0; 6]);
            bytes.extend(vec![0; usize::from(length)]);
            assert!(Prelogin::decode(&bytes).is_err(), "option {token} of {length} bytes");
        }
    }

    #[test]
    fn an_empty_option_may_have_any_offset() {
        let bytes = [0, 0, 11, 0, 6, 3, 0xFF, 0xFF, 0, 0, 0xFF, 1, 2, 3, 4, 5, 6];
        let prelogin = Prelogin::decode(&bytes).unwrap();
        assert_eq!(prelogin.options()[1], PreloginOption::ThreadId(Bytes::new()));
    }

    #[test]
    fn an_endless_list_is_refused() {
        let bytes = [0, 0, 0, 0, 6].repeat(40);
        assert!(matches!(Prelogin::decode(&bytes), Err(Malformed::TooLong { .. })));
    }

    #[test]
    fn the_instance_is_named_up_to_its_zero() {
        let named = Prelogin::new([0; 6]).with(PreloginOption::Instance(Bytes::from_static(b"SQLEXPRESS\0")));
        assert_eq!(named.instance(), Some(&b"SQLEXPRESS"[..]));
    }

    fn option() -> impl Strategy<Value = PreloginOption> {
        let data = || prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
        prop_oneof![
            any::<u8>().prop_map(|value| PreloginOption::Encryption(Encryption(value))),
            data().prop_map(PreloginOption::Instance),
            data().prop_map(PreloginOption::ThreadId),
            any::<bool>().prop_map(PreloginOption::Mars),
            data().prop_map(PreloginOption::TraceId),
            any::<u8>().prop_map(PreloginOption::FedAuthRequired),
            any::<[u8; 32]>().prop_map(PreloginOption::Nonce),
            (8u8..0xFF, data()).prop_map(|(token, data)| PreloginOption::Other { token, data }),
        ]
    }

    proptest! {
        #[test]
        fn options_survive_a_round_trip_in_their_order(
            version: [u8; 6],
            options in prop::collection::vec(option(), 0..MAX_OPTIONS - 1),
        ) {
            let prelogin = options.into_iter().fold(Prelogin::new(version), Prelogin::with);
            let mut out = vec![];
            prelogin.encode(&mut out);
            prop_assert_eq!(Prelogin::decode(&out), Ok(prelogin));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Prelogin::decode(&bytes);
        }
    }
}
