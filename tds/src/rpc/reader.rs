//! Walks through an RPC request without copying its values, as far as its bytes go.

use super::{CallOptions, CipherInfo, ParamFlags, Parameter, Procedure, Separator};
use crate::read::Reader;
use crate::request::{AllHeaders, EnclavePackage};
use crate::type_info::{Place, TypeId, TypeInfo};
use crate::value::{self, Value};
use crate::{Dialect, Malformed};

/// Reads calls and their parameters one after the other.
///
/// It may be given the beginning of a message only: what is whole is read, then [`Malformed::Truncated`] says that
/// there is more to come.
#[derive(Debug)]
pub struct RpcReader<'a> {
    reader: Reader<'a>,
    dialect: Dialect,
    headers: Option<AllHeaders>,
    in_call: bool,
    separator: Option<Separator>,
}

/// The beginning of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallHead {
    /// What is called.
    pub procedure: Procedure,
    /// How.
    pub options: CallOptions,
    /// For the server's enclave.
    pub enclave: EnclavePackage,
    /// Where the call begins in the payload, in bytes: everything before it are headers and other calls.
    pub offset: usize,
    /// Where its parameters begin in the payload, in bytes.
    pub parameters_offset: usize,
}

/// A parameter whose value is still bytes of the message.
#[derive(Clone, Debug, PartialEq)]
pub struct RawParameter<'a> {
    /// With its `@`; empty for a parameter by position.
    pub name: String,
    /// Output, default, encrypted.
    pub flags: ParamFlags,
    /// The type.
    pub type_info: TypeInfo,
    /// The value as the wire has it, with its lengths.
    pub value: &'a [u8],
    /// How the value was encrypted, if the flags say so.
    pub cipher: Option<Box<CipherInfo>>,
    /// The whole parameter as the wire has it, from its name on: it can be put into another request as it is.
    pub bytes: &'a [u8],
    /// What of `bytes` comes after the name: flags, type, value.
    pub unnamed: &'a [u8],
}

impl<'a> RpcReader<'a> {
    /// Reads ALL_HEADERS, if the version has them.
    pub fn new(payload: &'a [u8], dialect: Dialect) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload, "an RPC request");
        let headers = if dialect.is_7_2_or_later() { Some(AllHeaders::read(&mut reader)?) } else { None };
        Ok(Self { reader, dialect, headers, in_call: false, separator: None })
    }

    /// ALL_HEADERS; none before TDS 7.2.
    pub fn headers(&self) -> Option<&AllHeaders> {
        self.headers.as_ref()
    }

    /// The next call; none at the end. Passes over what is left of the current one.
    pub fn next_call(&mut self) -> Result<Option<CallHead>, Malformed> {
        while self.in_call {
            self.next_parameter()?;
        }
        if self.reader.is_empty() {
            return Ok(None);
        }
        let offset = self.reader.position();
        let procedure = Procedure::read(&mut self.reader)?;
        let options = CallOptions(self.reader.u16()?);
        let enclave = EnclavePackage::read(&mut self.reader, self.dialect)?;
        self.in_call = true;
        self.separator = None;
        let parameters_offset = self.reader.position();
        Ok(Some(CallHead { procedure, options, enclave, offset, parameters_offset }))
    }

    /// The next parameter of the current call; none at its end.
    pub fn next_parameter(&mut self) -> Result<Option<RawParameter<'a>>, Malformed> {
        if !self.in_call || self.reader.is_empty() {
            self.in_call = false;
            return Ok(None);
        }
        let start = self.reader.position();
        let mut ahead = self.reader;
        if let Some(separator) = Separator::from_byte(ahead.u8()?, self.dialect) {
            self.reader = ahead;
            self.separator = Some(separator);
            self.in_call = false;
            return Ok(None);
        }
        let mut reader = self.reader;
        let name = reader.b_varchar()?;
        let unnamed = reader.position();
        let flags = ParamFlags(reader.u8()?);
        let type_info = read_type(&mut reader, self.dialect)?;
        let value = value::skip(&mut reader, &type_info)?;
        let cipher = if flags.contains(ParamFlags::ENCRYPTED) && self.dialect.column_encryption > 0 {
            Some(Box::new(CipherInfo::read(&mut reader, self.dialect)?))
        } else {
            None
        };
        self.reader = reader;
        let (bytes, unnamed) = (reader.since(start), reader.since(unnamed));
        Ok(Some(RawParameter { name, flags, type_info, value, cipher, bytes, unnamed }))
    }

    /// What ended the current call: known when [`RpcReader::next_parameter`] has said that there are no more.
    pub fn separator(&self) -> Option<Separator> {
        self.separator
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.reader.position()
    }
}

impl RawParameter<'_> {
    /// Reads the value.
    pub fn read(&self) -> Result<Value, Malformed> {
        Value::read(&mut Reader::new(self.value, "a parameter"), &self.type_info)
    }

    /// The parameter with its value read.
    pub fn parameter(self) -> Result<Parameter, Malformed> {
        let value = self.read()?;
        let Self { name, flags, type_info, cipher, .. } = self;
        Ok(Parameter { name, flags, type_info, value, cipher })
    }
}

/// TYPE_INFO or TVP_TYPE_INFO.
fn read_type(reader: &mut Reader<'_>, dialect: Dialect) -> Result<TypeInfo, Malformed> {
    match TypeId(reader.u8()?) {
        TypeId::TVP => Ok(TypeInfo::Table(Box::new(super::TableType::read(reader, dialect)?))),
        id => TypeInfo::read_after_id(id, reader, dialect, Place::Parameter),
    }
}
