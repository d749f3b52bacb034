//! Bulk load: INSERT BULK names the table, the rows come in a message of their own.

use tds::col_metadata::Column;
use tds::value::Value;

use super::datum::Datum;
use super::emit::Stop;
use super::message_text::{SqlError, no_column};
use super::parse::Name;
use super::session::Session;
use super::types::SqlType;
use super::wire_types::{OutColumn, sql_type};
use super::{BulkTarget, Cancel, Outcome, Output};

impl Session {
    pub(super) fn insert_bulk(&mut self, table: &Name, columns: &[(String, SqlType)]) -> Result<(), Stop> {
        let object = self.writable(table)?;
        let mut wire = Vec::new();
        for (name, ty) in columns {
            let at = object.column(name).ok_or_else(|| no_column(name))?;
            let column = &object.columns[at];
            let out = OutColumn {
                nullable: column.nullable,
                identity: column.identity.is_some(),
                ..OutColumn::new(&column.name, *ty)
            };
            wire.push(out.wire());
        }
        self.bulk = Some(BulkTarget {
            table: [object.database.clone(), object.schema.clone(), object.name.clone()],
            columns: wire,
        });
        Ok(())
    }

    /// Takes the rows of a BulkLoad message. Writes messages and the final DONE with the count; a cancel rolls the load
    /// back.
    pub fn bulk_insert(
        &mut self,
        columns: &[Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        let target = self.bulk.take();
        self.request(out, cancel, false, true, |session, emit| {
            let Some(target) = target else {
                return Err(SqlError::new(
                    4004,
                    16,
                    1,
                    "A bulk load message came without an INSERT BULK statement.",
                )
                .into());
            };
            let [database, schema, name] = target.table;
            let object = session.writable(&Name { database, schema, name })?;
            let mut places = Vec::new();
            for (at, column) in columns.iter().enumerate() {
                // The message's columns are those of the statement, in its order; names may be left out.
                let wanted = target.columns.get(at).map_or(column.name.as_str(), |c| c.name.as_str());
                let place = object.column(wanted).ok_or_else(|| no_column(wanted))?;
                places.push((place, sql_type(&column.type_info).0));
            }
            let count = session.atomically(!object.is_temporary(), |session| {
                let mut count = 0;
                for row in &mut *rows {
                    if session.cancel.is_cancelled() {
                        return Err(Stop::Cancelled);
                    }
                    let mut targets = Vec::new();
                    let mut cells = Vec::new();
                    for (value, (place, ty)) in row.iter().zip(&places) {
                        let column = &object.columns[*place];
                        if column.computed.is_some() || column.ty().kind == super::types::Kind::RowVersion {
                            continue;
                        }
                        let value = session.store_as(Datum::from_value(value, *ty), *ty, &object, *place)?;
                        // Without KEEP_NULLS a NULL takes the column's default; an identity makes its own value.
                        let keep = !value.is_null() || column.default.is_none() && column.identity.is_none();
                        targets.push(*place);
                        cells.push(keep.then_some(value));
                    }
                    session.insert_row(&object, &targets, cells)?;
                    count += 1;
                }
                if session.cancel.is_cancelled() {
                    return Err(Stop::Cancelled);
                }
                Ok(count)
            })?;
            session.row_count = count;
            emit.done(0xFD, Some(count), false)
        })
    }
}
