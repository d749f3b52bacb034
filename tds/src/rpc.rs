//! A call of one or several procedures: the RPC request ([MS-TDS] 2.2.6.6).

mod follow;
mod parameter;
mod procedure;
mod reader;
mod table;

pub use follow::{Callee, Followed, RpcFollower};
pub use parameter::{CipherInfo, ParamFlags, Parameter};
pub use procedure::{ProcId, Procedure};
pub use reader::{CallHead, RawParameter, RpcReader};
pub use table::{ColumnOrder, TableColumn, TableType};

use bytes::BufMut;

use crate::request::{AllHeaders, EnclavePackage};
use crate::value::Unfit;
use crate::{Dialect, Malformed};

/// A whole RPC message. [`RpcReader`] reads the same without copying values.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcRequest {
    /// Present from TDS 7.2 on.
    pub headers: Option<AllHeaders>,
    /// At least one in a valid message.
    pub calls: Vec<Call>,
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What is called.
    pub procedure: Procedure,
    /// How.
    pub options: CallOptions,
    /// For the server's enclave, where column encryption 2 was acknowledged.
    pub enclave: EnclavePackage,
    /// In the order of the message.
    pub parameters: Vec<Parameter>,
    /// What separates the call from the next one. The specification allows one behind the last call too.
    pub separator: Option<Separator>,
}

/// OptionFlags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CallOptions(pub u16);

impl CallOptions {
    /// Compile the procedure again.
    pub const RECOMPILE: Self = Self(1);
    /// The client still has the metadata of the last call: send none.
    pub const NO_METADATA: Self = Self(2);
    /// The metadata has not changed since the last call.
    pub const REUSE_METADATA: Self = Self(4);

    /// True if all of `other`'s bits are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What stands between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Separator {
    /// BatchFlag: 80 until TDS 7.1, FF from 7.2 on.
    Batch,
    /// NoExecFlag, from TDS 7.2 on: the call before it is not to be executed.
    NoExec,
}

impl Separator {
    /// A parameter's name never has 254 or 255 characters, nor 128 before TDS 7.2: so these bytes tell.
    fn from_byte(byte: u8, dialect: Dialect) -> Option<Self> {
        match (byte, dialect.is_7_2_or_later()) {
            (0xFF, true) | (0x80, false) => Some(Self::Batch),
            (0xFE, true) => Some(Self::NoExec),
            _ => None,
        }
    }

    fn byte(self, dialect: Dialect) -> u8 {
        match (self, dialect.is_7_2_or_later()) {
            (Self::Batch, true) => 0xFF,
            (Self::Batch, false) => 0x80,
            (Self::NoExec, _) => 0xFE,
        }
    }
}

impl RpcRequest {
    /// One call in autocommit mode.
    pub fn one(procedure: Procedure, parameters: Vec<Parameter>) -> Self {
        let call = Call {
            procedure,
            options: CallOptions::default(),
            enclave: EnclavePackage::default(),
            parameters,
            separator: None,
        };
        Self { headers: Some(AllHeaders::autocommit()), calls: vec![call] }
    }

    /// Reads the payload of an RPC message.
    pub fn read(payload: &[u8], dialect: Dialect) -> Result<Self, Malformed> {
        let mut reader = RpcReader::new(payload, dialect)?;
        let mut calls = Vec::new();
        while let Some(head) = reader.next_call()? {
            let mut parameters = Vec::new();
            while let Some(raw) = reader.next_parameter()? {
                parameters.push(raw.parameter()?);
            }
            calls.push(Call {
                procedure: head.procedure,
                options: head.options,
                enclave: head.enclave,
                parameters,
                separator: reader.separator(),
            });
        }
        Ok(Self { headers: reader.headers().cloned(), calls })
    }

    /// Writes the payload of an RPC message.
    pub fn write(&self, out: &mut impl BufMut, dialect: Dialect) -> Result<(), Unfit> {
        if dialect.is_7_2_or_later() {
            self.headers.as_ref().unwrap_or(&AllHeaders::autocommit()).write(out);
        }
        let last = self.calls.len().saturating_sub(1);
        for (at, call) in self.calls.iter().enumerate() {
            call.write(out, dialect)?;
            let separator = call.separator.or((at < last).then_some(Separator::Batch));
            if let Some(separator) = separator {
                out.put_u8(separator.byte(dialect));
            }
        }
        Ok(())
    }
}

impl Call {
    fn write(&self, out: &mut impl BufMut, dialect: Dialect) -> Result<(), Unfit> {
        self.procedure.write(out);
        out.put_u16_le(self.options.0);
        self.enclave.write(out, dialect);
        self.parameters.iter().try_for_each(|parameter| parameter.write(out, dialect))
    }
}
