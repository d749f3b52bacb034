//! Tables, views and procedures: what is known of them, kept in SQLite beside the data so that it rolls back with it.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::types::SqlType;

/// What kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ObjectType {
    Table,
    View,
    Procedure,
}

/// A table, view or procedure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) id: i64,
    pub(super) database: String,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: ObjectType,
    /// Creation, in 100 ns since 0001-01-01 UTC.
    pub(super) created: i64,
    pub(super) columns: Vec<ColumnInfo>,
    pub(super) keys: Vec<Key>,
    pub(super) checks: Vec<Check>,
    pub(super) foreign: Vec<Foreign>,
    /// A view's query, a procedure's CREATE text.
    pub(super) text: String,
    /// The table's name in SQLite, with its schema there.
    pub(super) storage: String,
    /// The number of columns ever made, for column ids.
    pub(super) next_column: i32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ColumnInfo {
    pub(super) id: i32,
    pub(super) name: String,
    ty: i64,
    pub(super) nullable: bool,
    pub(super) identity: Option<(i64, i64)>,
    /// The default's constraint name and T-SQL text.
    pub(super) default: Option<(String, String)>,
    pub(super) computed: Option<String>,
}

impl ColumnInfo {
    pub(super) fn new(id: i32, name: &str, ty: SqlType, nullable: bool) -> ColumnInfo {
        ColumnInfo {
            id,
            name: name.to_string(),
            ty: ty.pack(),
            nullable,
            identity: None,
            default: None,
            computed: None,
        }
    }
    pub(super) fn ty(&self) -> SqlType {
        SqlType::unpack(self.ty)
    }
    pub(super) fn set_type(&mut self, ty: SqlType) {
        self.ty = ty.pack();
    }
}

/// A primary key, a unique constraint or an index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) primary: bool,
    pub(super) unique: bool,
    /// Declared as a constraint (error 2627) or as an index (error 2601).
    pub(super) constraint: bool,
    pub(super) columns: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) text: String,
    /// The column it was written at, for the message.
    pub(super) column: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Foreign {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    /// Database, schema, name of the referenced table.
    pub(super) table: [String; 3],
    pub(super) referenced: Vec<String>,
    pub(super) cascade: bool,
}

impl Object {
    pub(super) fn is_temporary(&self) -> bool {
        self.name.starts_with('@') || self.name.starts_with('#') && !self.name.starts_with("##")
    }
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }
    pub(super) fn identity_column(&self) -> Option<usize> {
        self.columns.iter().position(|c| c.identity.is_some())
    }
    pub(super) fn primary_key(&self) -> Option<&Key> {
        self.keys.iter().find(|k| k.primary)
    }
    /// `dbo.t` as messages name it.
    pub(super) fn two_part(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// The objects that metadata functions see, with what else they need.
#[derive(Debug, Default, Clone)]
pub(super) struct Snapshot {
    pub(super) database: String,
    pub(super) databases: Vec<(i64, String)>,
    pub(super) schemas: Vec<(i64, String)>,
    pub(super) objects: Vec<Arc<Object>>,
    /// Last identity value per object id.
    pub(super) identities: Vec<(i64, i64)>,
}

/// An identifier quoted for SQLite.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const COLUMNS: &str = "(id INTEGER PRIMARY KEY, db TEXT COLLATE NOCASE, schema_name TEXT COLLATE NOCASE, name TEXT COLLATE NOCASE, def TEXT)";

/// Makes the catalog of the shared database.
pub(super) fn create_shared(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS main.sys_objects {COLUMNS}; CREATE UNIQUE INDEX IF NOT EXISTS main.sys_objects_name ON sys_objects(db, schema_name, name);
         CREATE TABLE IF NOT EXISTS main.sys_schemas (id INTEGER PRIMARY KEY, db TEXT COLLATE NOCASE, name TEXT COLLATE NOCASE);"
    ))
}

/// Makes the catalog of a session's temporary tables.
pub(super) fn create_temporary(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("CREATE TABLE IF NOT EXISTS temp.sys_temp {COLUMNS}"))
}

fn place(name: &str) -> &'static str {
    if name.starts_with('@') || name.starts_with('#') && !name.starts_with("##") {
        "temp.sys_temp"
    } else {
        "main.sys_objects"
    }
}

fn read(def: &str) -> Option<Arc<Object>> {
    serde_json::from_str(def).ok().map(Arc::new)
}

/// Finds an object by its full name.
pub(super) fn find(
    connection: &Connection,
    database: &str,
    schema: &str,
    name: &str,
) -> rusqlite::Result<Option<Arc<Object>>> {
    let place = place(name);
    let def: Option<String> = if place == "temp.sys_temp" {
        connection
            .prepare_cached("SELECT def FROM temp.sys_temp WHERE name = ?1 ORDER BY id DESC LIMIT 1")?
            .query_row([name], |row| row.get(0))
            .optional()?
    } else {
        connection
            .prepare_cached(
                "SELECT def FROM main.sys_objects WHERE db = ?1 AND schema_name = ?2 AND name = ?3",
            )?
            .query_row([database, schema, name], |row| row.get(0))
            .optional()?
    };
    Ok(def.as_deref().and_then(read))
}

/// Every object of a database; a session's own temporary tables for tempdb.
pub(super) fn list(connection: &Connection, database: &str) -> rusqlite::Result<Vec<Arc<Object>>> {
    let mut objects = Vec::new();
    let mut statement =
        connection.prepare_cached("SELECT def FROM main.sys_objects WHERE db = ?1 ORDER BY id")?;
    let mut rows = statement.query([database])?;
    while let Some(row) = rows.next()? {
        objects.extend(read(&row.get::<_, String>(0)?));
    }
    if database.eq_ignore_ascii_case("tempdb") {
        let mut statement = connection.prepare_cached("SELECT def FROM temp.sys_temp ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            objects.extend(read(&row.get::<_, String>(0)?));
        }
    }
    Ok(objects)
}

/// Whether the session has temporary tables.
pub(super) fn has_temporary(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM temp.sys_temp)")?.query_row([], |row| row.get(0))
}

/// Writes an object, new or changed.
pub(super) fn store(connection: &Connection, object: &Object) -> rusqlite::Result<()> {
    let def =
        serde_json::to_string(object).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    let place = place(&object.name);
    connection.execute(
        &format!(
            "INSERT OR REPLACE INTO {place}(id, db, schema_name, name, def) VALUES (?1, ?2, ?3, ?4, ?5)"
        ),
        params![object.id, object.database, object.schema, object.name, def],
    )?;
    Ok(())
}

/// Forgets an object.
pub(super) fn remove(connection: &Connection, object: &Object) -> rusqlite::Result<()> {
    connection.execute(&format!("DELETE FROM {} WHERE id = ?1", place(&object.name)), [object.id])?;
    Ok(())
}

/// The schemas of a database beside the built-in ones.
pub(super) fn schemas(connection: &Connection, database: &str) -> rusqlite::Result<Vec<(i64, String)>> {
    let mut schemas = vec![
        (1, "dbo".to_string()),
        (2, "guest".into()),
        (3, "INFORMATION_SCHEMA".into()),
        (4, "sys".into()),
    ];
    let mut statement = connection.prepare_cached("SELECT id, name FROM main.sys_schemas WHERE db = ?1")?;
    let mut rows = statement.query([database])?;
    while let Some(row) = rows.next()? {
        schemas.push((row.get::<_, i64>(0)? + 4, row.get(1)?));
    }
    Ok(schemas)
}
