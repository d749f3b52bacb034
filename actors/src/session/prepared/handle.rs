//! The parameter that names a handle: what it says, and how it is made to say something else.

use std::ops::Range;

use bytes::{BufMut, Bytes};
use tds::rpc::RawParameter;
use tds::type_info::{TypeId, TypeInfo};
use tds::value::Value;

use super::rewrite::Splice;

/// The first parameter of sp_execute and its like.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Handle {
    /// Where the parameter lies in the payload.
    range: Range<usize>,
    /// Name and flags.
    head: Bytes,
    number: Number,
    /// The value is four bytes at the end: another number takes its place.
    in_place: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Null,
    Is(i32),
    /// Something that the server might take for a number, or a number that no handle has.
    Odd,
}

impl Handle {
    /// `start`: where the parameter begins in the payload.
    pub(super) fn read(parameter: &RawParameter<'_>, start: usize) -> Self {
        let named = parameter.bytes.len() - parameter.unnamed.len();
        let is_int = matches!(parameter.type_info, TypeInfo::Int | TypeInfo::IntN(4));
        let number = match parameter.read() {
            Ok(Value::Null) => Number::Null,
            Ok(value) => match value.as_i64().map(i32::try_from) {
                Some(Ok(number)) => Number::Is(number),
                _ => Number::Odd,
            },
            Err(_) => Number::Odd,
        };
        Self {
            range: start..start + parameter.bytes.len(),
            head: Bytes::copy_from_slice(&parameter.bytes[..=named]),
            number,
            in_place: is_int && number != Number::Null && parameter.cipher.is_none(),
        }
    }

    pub(super) fn number(&self) -> Number {
        self.number
    }

    /// Where the parameter ends in the payload.
    pub(super) fn end(&self) -> usize {
        self.range.end
    }

    /// The parameter with this number.
    pub(super) fn say(&self, number: i32) -> Splice {
        let number = number.to_le_bytes();
        if self.in_place {
            let at = self.range.end - number.len();
            return Splice { range: at..self.range.end, bytes: Bytes::copy_from_slice(&number) };
        }
        let mut bytes = Vec::with_capacity(self.head.len() + 7);
        bytes.put_slice(&self.head);
        bytes.put_slice(&[TypeId::INT_N.0, 4, 4]);
        bytes.put_slice(&number);
        Splice { range: self.range.clone(), bytes: bytes.into() }
    }
}
