//! Functions that ask the catalog: OBJECT_ID, COL_LENGTH, TYPE_NAME and their kin.

use std::sync::{Arc, PoisonError};

use super::catalog::{Object, ObjectType, Snapshot};
use super::datum::Datum;
use super::functions::Context;
use super::functions::signature::Signature;
use super::message_text::SqlError;
use super::types::{SqlType, parse_type};

const NAME: Option<SqlType> = Some(SqlType::nvarchar(4000));
const INT: Option<SqlType> = Some(SqlType::INT);

/// The signature of a metadata function.
pub(super) fn signature(name: &str, args: &[SqlType]) -> Option<Signature> {
    let (result, wanted): (SqlType, Vec<Option<SqlType>>) = match name {
        "OBJECT_ID" => (SqlType::INT, vec![NAME, NAME]),
        "OBJECT_NAME" | "OBJECT_SCHEMA_NAME" => (SqlType::SYSNAME, vec![INT, INT]),
        "OBJECTPROPERTY" | "OBJECTPROPERTYEX" => (SqlType::INT, vec![INT, NAME]),
        "COL_LENGTH" => (SqlType::SMALLINT, vec![NAME, NAME]),
        "COL_NAME" => (SqlType::SYSNAME, vec![INT, INT]),
        "COLUMNPROPERTY" => (SqlType::INT, vec![INT, NAME, NAME]),
        "INDEXPROPERTY" => (SqlType::INT, vec![INT, NAME, NAME]),
        "INDEX_COL" => (SqlType::SYSNAME, vec![NAME, INT, INT]),
        "TYPE_NAME" => (SqlType::SYSNAME, vec![INT]),
        "TYPE_ID" => (SqlType::INT, vec![NAME]),
        "TYPEPROPERTY" => (SqlType::INT, vec![NAME, NAME]),
        "SCHEMA_NAME" => (SqlType::SYSNAME, vec![INT]),
        "SCHEMA_ID" => (SqlType::INT, vec![NAME]),
        "DB_NAME" => (SqlType::SYSNAME, vec![INT]),
        "DB_ID" => (SqlType::SMALLINT, vec![NAME]),
        "IDENT_CURRENT" | "IDENT_SEED" | "IDENT_INCR" => (SqlType::numeric(38, 0), vec![NAME]),
        "PARSENAME" => (SqlType::SYSNAME, vec![NAME, INT]),
        _ => return None,
    };
    let mut wanted = wanted;
    wanted.truncate(args.len());
    Some(Signature { result, args: wanted, volatile: true, strict: !args.is_empty() })
}

/// Whether a function needs [`Snapshot`].
pub(super) fn needs_snapshot(name: &str) -> bool {
    signature(name, &[]).is_some() && name != "PARSENAME"
}

/// `[a].[b].c` into its parts, last first.
pub(super) fn name_parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut current = String::new();
    let mut close = None;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match (close, c) {
            (Some(end), c) if c == end => {
                if chars.peek() == Some(&end) {
                    current.push(c);
                    chars.next();
                } else {
                    close = None;
                }
            }
            (Some(_), c) => current.push(c),
            (None, '[') => close = Some(']'),
            (None, '"') => close = Some('"'),
            (None, '.') => parts.push(std::mem::take(&mut current)),
            (None, c) => current.push(c),
        }
    }
    parts.push(current);
    parts.reverse();
    parts
}

fn object<'a>(snapshot: &'a Snapshot, text: &str) -> Option<&'a Arc<Object>> {
    let parts = name_parts(text);
    let name = &parts[0];
    let schema = parts.get(1).filter(|s| !s.is_empty()).map_or("dbo", String::as_str);
    let temporary = name.starts_with('#');
    let database = match parts.get(2).filter(|d| !d.is_empty()) {
        Some(database) => database.as_str(),
        None if temporary => "tempdb",
        None => &snapshot.database,
    };
    snapshot.objects.iter().rev().find(|o| {
        o.name.eq_ignore_ascii_case(name)
            && (temporary || o.schema.eq_ignore_ascii_case(schema))
            && (o.database.eq_ignore_ascii_case(database)
                || temporary && database.eq_ignore_ascii_case("tempdb"))
    })
}

/// Type ids as `sys.types.user_type_id` has them.
pub(super) const TYPES: &[(i64, &str)] = &[
    (34, "image"),
    (35, "text"),
    (36, "uniqueidentifier"),
    (40, "date"),
    (41, "time"),
    (42, "datetime2"),
    (43, "datetimeoffset"),
    (48, "tinyint"),
    (52, "smallint"),
    (56, "int"),
    (58, "smalldatetime"),
    (59, "real"),
    (60, "money"),
    (61, "datetime"),
    (62, "float"),
    (98, "sql_variant"),
    (99, "ntext"),
    (104, "bit"),
    (106, "decimal"),
    (108, "numeric"),
    (122, "smallmoney"),
    (127, "bigint"),
    (165, "varbinary"),
    (167, "varchar"),
    (173, "binary"),
    (175, "char"),
    (189, "timestamp"),
    (231, "nvarchar"),
    (239, "nchar"),
    (241, "xml"),
    (256, "sysname"),
];

/// Runs a metadata function; `None` if `name` is not one.
pub(super) fn call(
    name: &str,
    args: &[(SqlType, Datum)],
    context: &Context,
) -> Result<Option<Datum>, SqlError> {
    if signature(name, &[]).is_none() {
        return Ok(None);
    }
    let snapshot = Arc::clone(&context.snapshot.lock().unwrap_or_else(PoisonError::into_inner));
    let text = |n: usize| args.get(n).and_then(|a| a.1.as_str()).unwrap_or("");
    let int = |n: usize| args.get(n).and_then(|a| a.1.as_i64()).unwrap_or(0);
    let by_id = |id: i64| snapshot.objects.iter().find(|o| o.id == id);
    let str_or_null = |s: Option<String>| s.map_or(Datum::Null, Datum::Str);
    let int_or_null = |n: Option<i64>| n.map_or(Datum::Null, Datum::Int);
    let flag = |b: bool| Some(i64::from(b));
    Ok(Some(match name {
        "OBJECT_ID" => {
            let wanted = text(1).trim().to_ascii_uppercase();
            let found = object(&snapshot, text(0)).filter(|o| match wanted.as_str() {
                "" => true,
                "U" => o.kind == ObjectType::Table,
                "V" => o.kind == ObjectType::View,
                "P" => o.kind == ObjectType::Procedure,
                _ => false,
            });
            int_or_null(found.map(|o| o.id))
        }
        "OBJECT_NAME" => str_or_null(by_id(int(0)).map(|o| o.name.clone())),
        "OBJECT_SCHEMA_NAME" => str_or_null(by_id(int(0)).map(|o| o.schema.clone())),
        "OBJECTPROPERTY" | "OBJECTPROPERTYEX" => {
            let Some(o) = by_id(int(0)) else { return Ok(Some(Datum::Null)) };
            int_or_null(match text(1).to_ascii_lowercase().as_str() {
                "istable" | "isusertable" => flag(o.kind == ObjectType::Table),
                "isview" => flag(o.kind == ObjectType::View),
                "isprocedure" => flag(o.kind == ObjectType::Procedure),
                "ismsshipped" => Some(0),
                "tablehasidentity" => flag(o.identity_column().is_some()),
                "tablehasprimarykey" => flag(o.primary_key().is_some()),
                _ => None,
            })
        }
        "COL_LENGTH" => int_or_null(
            object(&snapshot, text(0))
                .and_then(|o| o.column(text(1)).map(|c| o.columns[c].ty().max_length())),
        ),
        "COL_NAME" => {
            let column = by_id(int(0)).and_then(|o| o.columns.iter().find(|c| i64::from(c.id) == int(1)));
            str_or_null(column.map(|c| c.name.clone()))
        }
        "COLUMNPROPERTY" => {
            let Some(o) = by_id(int(0)) else { return Ok(Some(Datum::Null)) };
            let Some(at) = o.column(text(1)) else { return Ok(Some(Datum::Null)) };
            let column = &o.columns[at];
            int_or_null(match text(2).to_ascii_lowercase().as_str() {
                "isidentity" => flag(column.identity.is_some()),
                "allowsnull" => flag(column.nullable),
                "iscomputed" => flag(column.computed.is_some()),
                "columnid" => Some(i64::from(column.id)),
                "precision" => Some(i64::from(column.ty().precision_scale().0)),
                "scale" => Some(i64::from(column.ty().precision_scale().1)),
                "charmaxlen" => {
                    Some(if column.ty().len == super::types::MAX { -1 } else { i64::from(column.ty().len) })
                }
                _ => Some(0),
            })
        }
        "INDEXPROPERTY" => {
            let key =
                by_id(int(0)).and_then(|o| o.keys.iter().find(|k| k.name.eq_ignore_ascii_case(text(1))));
            int_or_null(key.and_then(|k| match text(2).to_ascii_lowercase().as_str() {
                "isunique" => flag(k.unique),
                "isclustered" => flag(k.primary),
                _ => Some(0),
            }))
        }
        "INDEX_COL" => {
            let column = object(&snapshot, text(0))
                .and_then(|o| o.keys.get((int(1) - 1).max(0) as usize))
                .and_then(|k| k.columns.get((int(2) - 1).max(0) as usize));
            str_or_null(column.cloned())
        }
        "TYPE_NAME" => str_or_null(TYPES.iter().find(|t| t.0 == int(0)).map(|t| t.1.to_string())),
        "TYPE_ID" => {
            let wanted = name_parts(text(0))[0].to_ascii_lowercase();
            int_or_null(TYPES.iter().find(|t| t.1 == wanted).map(|t| t.0))
        }
        "TYPEPROPERTY" => {
            let ty = parse_type(&name_parts(text(0))[0], &[]).ok();
            int_or_null(ty.map(|t| {
                i64::from(if text(1).eq_ignore_ascii_case("scale") {
                    t.precision_scale().1
                } else {
                    t.precision_scale().0
                })
            }))
        }
        "SCHEMA_NAME" if args.is_empty() => Datum::str("dbo"),
        "SCHEMA_NAME" => str_or_null(snapshot.schemas.iter().find(|s| s.0 == int(0)).map(|s| s.1.clone())),
        "SCHEMA_ID" if args.is_empty() => Datum::Int(1),
        "SCHEMA_ID" => {
            int_or_null(snapshot.schemas.iter().find(|s| s.1.eq_ignore_ascii_case(text(0))).map(|s| s.0))
        }
        "DB_NAME" if args.is_empty() => Datum::str(snapshot.database.as_str()),
        "DB_NAME" => str_or_null(snapshot.databases.iter().find(|d| d.0 == int(0)).map(|d| d.1.clone())),
        "DB_ID" => {
            let wanted = if args.is_empty() { snapshot.database.as_str() } else { text(0) };
            int_or_null(snapshot.databases.iter().find(|d| d.1.eq_ignore_ascii_case(wanted)).map(|d| d.0))
        }
        "IDENT_CURRENT" | "IDENT_SEED" | "IDENT_INCR" => {
            let Some(o) = object(&snapshot, text(0)) else { return Ok(Some(Datum::Null)) };
            let Some((seed, step)) = o.identity_column().and_then(|c| o.columns[c].identity) else {
                return Ok(Some(Datum::Null));
            };
            let value = match name {
                "IDENT_SEED" => seed,
                "IDENT_INCR" => step,
                _ => snapshot.identities.iter().find(|i| i.0 == o.id).map_or(seed, |i| i.1),
            };
            Datum::Dec(i128::from(value))
        }
        _ => {
            let parts = name_parts(text(0));
            str_or_null(parts.get((int(1) - 1).max(0) as usize).filter(|p| !p.is_empty()).cloned())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_with_their_brackets() {
        assert_eq!(name_parts("[my db]..[t]]x]"), ["t]x", "", "my db"]);
        assert_eq!(name_parts("dbo.t"), ["t", "dbo"]);
    }
}
