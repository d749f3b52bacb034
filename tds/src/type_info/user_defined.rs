//! Types that a database defines: CLR types, and XML bound to a schema collection ([MS-TDS] 2.2.5.5.2, 2.2.5.5.3).

use bytes::BufMut;

use super::Place;
use crate::read::Reader;
use crate::{Malformed, write};

/// XML_INFO's schema collection ([MS-TDS] 2.2.5.5.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct XmlSchema {
    /// The database that defines it.
    pub database: String,
    /// The relational schema that owns it.
    pub owner: String,
    /// The collection's name.
    pub collection: String,
}

/// UDT_INFO ([MS-TDS] 2.2.5.5.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdtInfo {
    /// The type's database.
    pub database: String,
    /// The type's schema.
    pub schema: String,
    /// The type's name.
    pub name: String,
    /// What only the server says; RPC requests leave it out.
    pub assembly: Option<UdtAssembly>,
}

/// The part of UDT_INFO that stands in COLMETADATA and RETURNVALUE only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdtAssembly {
    /// The longest instance, in bytes, or [`super::MAX`].
    pub max_len: u16,
    /// The CLR assembly's qualified name.
    pub name: String,
}

impl XmlSchema {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            database: reader.b_varchar()?,
            owner: reader.b_varchar()?,
            collection: reader.us_varchar()?,
        })
    }

    pub(super) fn write(&self, out: &mut impl BufMut) {
        write::b_varchar(out, &self.database);
        write::b_varchar(out, &self.owner);
        write::us_varchar(out, &self.collection);
    }
}

impl UdtInfo {
    pub(super) fn read(reader: &mut Reader<'_>, place: Place) -> Result<Self, Malformed> {
        let max_len = match place {
            Place::Column => Some(reader.u16()?),
            Place::Parameter => None,
        };
        let (database, schema, name) = (reader.b_varchar()?, reader.b_varchar()?, reader.b_varchar()?);
        let assembly = match max_len {
            Some(max_len) => Some(UdtAssembly { max_len, name: reader.us_varchar()? }),
            None => None,
        };
        Ok(Self { database, schema, name, assembly })
    }

    pub(super) fn write(&self, out: &mut impl BufMut) {
        if let Some(assembly) = &self.assembly {
            out.put_u16_le(assembly.max_len);
        }
        write::b_varchar(out, &self.database);
        write::b_varchar(out, &self.schema);
        write::b_varchar(out, &self.name);
        if let Some(assembly) = &self.assembly {
            write::us_varchar(out, &assembly.name);
        }
    }
}
