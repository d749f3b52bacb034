//! CREATE, ALTER and DROP: the catalog and SQLite's tables change together.

use std::sync::Arc;

use super::catalog::{self, Check, ColumnInfo, Foreign, Key, Object, ObjectType, quote};
use super::datetime;
use super::datum::Datum;
use super::emit::{Emit, Stop};
use super::message_text::{SqlError, no_column, no_database, no_object, unsupported};
use super::parse::{self, AlterTable, ColumnDef, Constraint, CreateTable, Name, ObjectKind, Replace};
use super::session::Session;
use super::types::{Kind, SqlType};

/// A name for a constraint that has none, as SQL Server makes them.
fn made_up(prefix: &str, table: &str, id: i64, n: usize) -> String {
    let table: String = table.chars().take(9).collect();
    let mix = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(n as u64 * 0x1F35_BDA1);
    format!("{prefix}__{table}__{:08X}", (mix >> 16) as u32)
}

impl Session {
    fn full_name(&self, name: &Name) -> Result<(String, String), SqlError> {
        if name.name.starts_with('#') || name.name.starts_with('@') {
            return Ok(("tempdb".into(), "dbo".into()));
        }
        let database = if name.database.is_empty() {
            self.database.clone()
        } else {
            self.engine.database(&name.database).ok_or_else(|| no_database(&name.database))?
        };
        let schema = if name.schema.is_empty() { "dbo".to_string() } else { name.schema.clone() };
        let known = catalog::schemas(&self.connection, &database).map_err(|e| self.storage_error(&e))?;
        match known.iter().find(|s| s.1.eq_ignore_ascii_case(&schema)) {
            Some((_, schema)) => Ok((database, schema.clone())),
            None => Err(SqlError::new(
                2760,
                16,
                1,
                format!(
                    "The specified schema name \"{schema}\" either does not exist or you do not have permission to use it."
                ),
            )),
        }
    }

    /// Makes a table; the caller has begun a statement.
    pub(super) fn make_table(
        &mut self,
        name: &Name,
        columns: Vec<ColumnInfo>,
        keys: Vec<Key>,
        checks: Vec<Check>,
        foreign: Vec<Foreign>,
    ) -> Result<Arc<Object>, Stop> {
        let (database, schema) = self.full_name(name)?;
        let exists =
            catalog::find(&self.connection, &database, &schema, &name.name).map_err(|e| self.stop_for(&e))?;
        if exists.is_some() {
            return Err(SqlError::new(
                2714,
                16,
                6,
                format!("There is already an object named '{}' in the database.", name.name),
            )
            .into());
        }
        for (at, column) in columns.iter().enumerate() {
            if columns[..at].iter().any(|c| c.name.eq_ignore_ascii_case(&column.name)) {
                return Err(SqlError::new(2705, 16, 3, format!("Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.", column.name, name.name)).into());
            }
        }
        let id = self.engine.new_object();
        let temporary =
            name.name.starts_with('@') || name.name.starts_with('#') && !name.name.starts_with("##");
        let storage = if temporary {
            format!("temp.{}", quote(&name.name.to_lowercase()))
        } else {
            format!("main.{}", quote(&format!("{database}.{schema}.{}", name.name).to_lowercase()))
        };
        let object = Object {
            id,
            database,
            schema,
            name: name.name.clone(),
            kind: ObjectType::Table,
            created: datetime::utc_now(),
            next_column: columns.len() as i32 + 1,
            columns,
            keys,
            checks,
            foreign,
            text: String::new(),
            storage,
        };
        self.make_storage(&object, &object.storage)?;
        catalog::store(&self.connection, &object).map_err(|e| self.stop_for(&e))?;
        Ok(Arc::new(object))
    }

    fn make_storage(&self, object: &Object, storage: &str) -> Result<(), Stop> {
        let columns: Vec<String> = object
            .columns
            .iter()
            .filter(|c| c.computed.is_none())
            .map(|c| format!("{} COLLATE TSQL", quote(&c.name)))
            .collect();
        if columns.is_empty() {
            return Err(SqlError::new(
                1701,
                16,
                1,
                "A table must have at least one column that is not computed.",
            )
            .into());
        }
        self.connection
            .execute_batch(&format!("CREATE TABLE {storage} ({})", columns.join(", ")))
            .map_err(|e| self.stop_for(&e))?;
        for key in &object.keys {
            self.make_index(object, key, storage)?;
        }
        Ok(())
    }

    fn index_name(object: &Object, key: &Key) -> String {
        quote(&format!("ix.{}.{}", object.id, key.name.to_lowercase()))
    }

    fn make_index(&self, object: &Object, key: &Key, storage: &str) -> Result<(), Stop> {
        let (schema, table) = storage.split_once('.').unwrap_or(("main", storage));
        let columns: Vec<String> = key.columns.iter().map(|c| quote(c)).collect();
        let unique = if key.unique { "UNIQUE " } else { "" };
        let sql = format!(
            "CREATE {unique}INDEX {schema}.{} ON {table} ({})",
            Self::index_name(object, key),
            columns.join(", ")
        );
        self.connection.execute_batch(&sql).map_err(|error| match self.stop_for(&error) {
            Stop::Error(e) if e.number == 2627 => SqlError::new(
                1505,
                16,
                1,
                format!("The CREATE UNIQUE INDEX statement terminated because a duplicate key was found for the object name '{}' and the index name '{}'.", object.two_part(), key.name),
            )
            .into(),
            other => other,
        })
    }

    fn column_info(
        &self,
        id: i32,
        def: &ColumnDef,
        table: &str,
        object_id: i64,
    ) -> Result<ColumnInfo, SqlError> {
        let ty = def.ty.unwrap_or(SqlType::INT);
        let nullable = def.nullable.unwrap_or(def.identity.is_none() && ty.kind != Kind::RowVersion);
        let mut info = ColumnInfo::new(id, &def.name, ty, nullable);
        info.identity = def.identity;
        info.computed.clone_from(&def.computed);
        info.default =
            def.default.as_ref().map(|text| (made_up("DF", table, object_id, id as usize), text.clone()));
        if def.computed.is_some() {
            info.nullable = true;
        }
        Ok(info)
    }

    #[expect(clippy::type_complexity, reason = "the parts of a table")]
    fn table_parts(
        &self,
        table: &CreateTable,
        id: i64,
    ) -> Result<(Vec<ColumnInfo>, Vec<Key>, Vec<Check>, Vec<Foreign>), Stop> {
        let name = &table.name.name;
        let mut columns = Vec::new();
        for (at, def) in table.columns.iter().enumerate() {
            columns.push(self.column_info(at as i32 + 1, def, name, id)?);
        }
        if columns.iter().filter(|c| c.identity.is_some()).count() > 1 {
            return Err(SqlError::new(2744, 16, 2, format!("Multiple identity columns specified for table '{name}'. Only one identity column per table is allowed.")).into());
        }
        let (mut keys, mut checks, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
        for constraint in &table.constraints {
            self.add_constraint(constraint, name, id, &mut columns, &mut keys, &mut checks, &mut foreign)?;
        }
        for (index, index_columns) in &table.indexes {
            keys.push(Key {
                name: index.clone(),
                primary: false,
                unique: false,
                constraint: false,
                columns: index_columns.clone(),
            });
        }
        // The types of computed columns are known once the table is.
        Ok((columns, keys, checks, foreign))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a table")]
    fn add_constraint(
        &self,
        constraint: &Constraint,
        table: &str,
        id: i64,
        columns: &mut [ColumnInfo],
        keys: &mut Vec<Key>,
        checks: &mut Vec<Check>,
        foreign: &mut Vec<Foreign>,
    ) -> Result<(), Stop> {
        let n = keys.len() + checks.len() + foreign.len() + 1;
        match constraint {
            Constraint::Key { name, primary, columns: own } => {
                let mut proper = Vec::new();
                for wanted in own {
                    let Some(column) = columns.iter_mut().find(|c| c.name.eq_ignore_ascii_case(wanted))
                    else {
                        return Err(SqlError::new(
                            1911,
                            16,
                            1,
                            format!("Column name '{wanted}' does not exist in the target table or view."),
                        )
                        .into());
                    };
                    if *primary {
                        column.nullable = false;
                    }
                    proper.push(column.name.clone());
                }
                if *primary && keys.iter().any(|k| k.primary) {
                    return Err(SqlError::new(
                        8110,
                        16,
                        0,
                        format!("Cannot add multiple PRIMARY KEY constraints to table '{table}'."),
                    )
                    .into());
                }
                let name =
                    name.clone().unwrap_or_else(|| made_up(if *primary { "PK" } else { "UQ" }, table, id, n));
                keys.push(Key { name, primary: *primary, unique: true, constraint: true, columns: proper });
            }
            Constraint::Check { name, text } => {
                parse::expression(text)?;
                let name = name.clone().unwrap_or_else(|| made_up("CK", table, id, n));
                let lower = text.to_lowercase();
                let mut mentioned = columns.iter().filter(|c| lower.contains(&c.name.to_lowercase()));
                let column = mentioned.next().map(|c| c.name.clone()).filter(|_| mentioned.next().is_none());
                checks.push(Check { name, text: text.clone(), column });
            }
            Constraint::Foreign { name, columns: own, table: parent, referenced, cascade } => {
                let object = self.find_table(parent)?.ok_or_else(|| {
                    SqlError::new(
                        1767,
                        16,
                        0,
                        format!(
                            "Foreign key '{}' references invalid table '{parent}'.",
                            name.clone().unwrap_or_default()
                        ),
                    )
                })?;
                let referenced = if referenced.is_empty() {
                    object.primary_key().map(|k| k.columns.clone()).unwrap_or_default()
                } else {
                    referenced.clone()
                };
                let name = name.clone().unwrap_or_else(|| made_up("FK", table, id, n));
                foreign.push(Foreign {
                    name,
                    columns: own.clone(),
                    table: [object.database.clone(), object.schema.clone(), object.name.clone()],
                    referenced,
                    cascade: *cascade,
                });
            }
            Constraint::Default { name, column, text } => {
                let Some(found) = columns.iter_mut().find(|c| c.name.eq_ignore_ascii_case(column)) else {
                    return Err(no_column(column).into());
                };
                found.default =
                    Some((name.clone().unwrap_or_else(|| made_up("DF", table, id, n)), text.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn create_table(&mut self, table: &CreateTable, emit: &mut Emit<'_>) -> Result<(), Stop> {
        self.begin_implicitly(emit)?;
        let temporary = table.name.name.starts_with('#') && !table.name.name.starts_with("##");
        let id = self.engine.next_object.load(std::sync::atomic::Ordering::Relaxed);
        let (columns, keys, checks, foreign) = self.table_parts(table, id)?;
        self.atomically(!temporary, |session| {
            session.make_table(&table.name, columns, keys, checks, foreign)
        })?;
        self.remember_temporary(&table.name.name);
        self.fix_computed(&table.name)?;
        self.done(emit, 0xC6, None)
    }

    /// A temporary table made in a procedure ends with it.
    pub(super) fn remember_temporary(&mut self, name: &str) {
        if name.starts_with("##") {
            self.global_temps.push(Name { name: name.to_string(), ..Name::default() });
        } else if name.starts_with('#') && (self.frames.len() > 1 || self.frame().is_called) {
            self.frame().temporary.push(name.to_string());
        }
    }

    fn fix_computed(&mut self, name: &Name) -> Result<(), Stop> {
        let Some(object) = self.find_table(name)? else { return Ok(()) };
        if object.columns.iter().all(|c| c.computed.is_none()) {
            return Ok(());
        }
        let mut changed = (*object).clone();
        let source = super::bind::Binder::new(self).table_source(&object, object.name.clone(), None);
        for (column, bound) in changed.columns.iter_mut().zip(&source.columns) {
            column.set_type(bound.ty);
        }
        catalog::store(&self.connection, &changed).map_err(|e| self.stop_for(&e))
    }

    pub(super) fn declare_table(&mut self, name: &str, table: &CreateTable) -> Result<(), Stop> {
        let frame = self.frame().id;
        let stored = Name { name: format!("{name}${frame}"), ..Name::default() };
        if self.frame().table_variables.iter().any(|t| super::session::table_variable_matches(t, name)) {
            // A loop passes its DECLARE again: the variable stays.
            return Ok(());
        }
        let (columns, keys, checks, foreign) = self.table_parts(table, 0)?;
        self.atomically(false, |session| session.make_table(&stored, columns, keys, checks, foreign))?;
        self.frame().table_variables.push(stored.name);
        Ok(())
    }

    pub(super) fn alter_table(
        &mut self,
        name: &Name,
        change: &AlterTable,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        let missing = || {
            SqlError::new(
                4902,
                16,
                1,
                format!(
                    "Cannot find the object \"{name}\" because it does not exist or you do not have permissions."
                ),
            )
        };
        let object = self.find_table(name)?.ok_or_else(missing)?;
        let mut new = (*object).clone();
        self.atomically(!object.is_temporary(), |session| {
            match change {
                AlterTable::Nothing => return Ok(()),
                AlterTable::Add { columns, constraints } => {
                    for def in columns {
                        if new.column(&def.name).is_some() {
                            return Err(SqlError::new(2705, 16, 4, format!("Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.", def.name, new.name)).into());
                        }
                        let info = session.column_info(new.next_column, def, &new.name, new.id)?;
                        new.next_column += 1;
                        new.columns.push(info);
                    }
                    let (mut keys, mut checks, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
                    let (table, id) = (new.name.clone(), new.id);
                    for constraint in constraints {
                        session.add_constraint(constraint, &table, id, &mut new.columns, &mut keys, &mut checks, &mut foreign)?;
                    }
                    new.keys.extend(keys);
                    new.checks.extend(checks);
                    new.foreign.extend(foreign);
                }
                AlterTable::DropColumns { names, if_exists } => {
                    for wanted in names {
                        match new.column(wanted) {
                            Some(at) => drop(new.columns.remove(at)),
                            None if *if_exists => {}
                            None => return Err(SqlError::new(4924, 16, 1, format!("ALTER TABLE DROP COLUMN failed because column '{wanted}' does not exist in table '{}'.", new.name)).into()),
                        }
                    }
                }
                AlterTable::DropConstraints { names, if_exists } => {
                    for wanted in names {
                        let before = new.keys.len() + new.checks.len() + new.foreign.len();
                        new.keys.retain(|k| !k.name.eq_ignore_ascii_case(wanted));
                        new.checks.retain(|k| !k.name.eq_ignore_ascii_case(wanted));
                        new.foreign.retain(|k| !k.name.eq_ignore_ascii_case(wanted));
                        let mut found = before != new.keys.len() + new.checks.len() + new.foreign.len();
                        for column in &mut new.columns {
                            if column.default.as_ref().is_some_and(|d| d.0.eq_ignore_ascii_case(wanted)) {
                                column.default = None;
                                found = true;
                            }
                        }
                        if !found && !*if_exists {
                            return Err(SqlError::new(3728, 16, 1, format!("'{wanted}' is not a constraint.")).into());
                        }
                    }
                }
                AlterTable::AlterColumn(def) => {
                    let at = new.column(&def.name).ok_or_else(|| no_column(&def.name))?;
                    if let Some(ty) = def.ty {
                        new.columns[at].set_type(ty);
                    }
                    new.columns[at].nullable = def.nullable.unwrap_or(true);
                }
            }
            session.rebuild(&object, &new)
        })?;
        self.done(emit, 0xD8, None)
    }

    /// Moves a table's rows into its new shape.
    fn rebuild(&mut self, old: &Arc<Object>, new: &Object) -> Result<(), Stop> {
        let source = super::bind::Binder::new(self).table_source(old, old.name.clone(), None);
        let columns: Vec<_> =
            source.columns.iter().map(|c| super::wire_types::OutColumn::new(&c.name, c.ty)).collect();
        let list: Vec<String> = source.columns.iter().map(|c| c.sql.clone()).collect();
        let sql = format!("SELECT {} FROM {} AS {}", list.join(", "), old.storage, source.sql_alias);
        let rows = self.collect(&super::bind::Bound { sql, columns, ..Default::default() })?;
        self.connection
            .execute_batch(&format!("DROP TABLE {}", old.storage))
            .map_err(|e| self.stop_for(&e))?;
        self.make_storage(new, &new.storage)?;
        catalog::store(&self.connection, new).map_err(|e| self.stop_for(&e))?;
        let object = Arc::new(new.clone());
        let (identity, scope) = (self.last_identity, self.frame().scope_identity);
        for row in rows {
            let mut targets = Vec::new();
            let mut cells = Vec::new();
            for (at, column) in object.columns.iter().enumerate() {
                if column.computed.is_some() || column.ty().kind == Kind::RowVersion {
                    continue;
                }
                if let Some(from) = old.columns.iter().position(|c| c.id == column.id) {
                    let value = self.store_as(row[from].clone(), old.columns[from].ty(), &object, at)?;
                    targets.push(at);
                    cells.push(Some(value));
                } else if column.nullable && column.identity.is_none() {
                    // An added nullable column takes its default only WITH VALUES.
                    targets.push(at);
                    cells.push(Some(Datum::Null));
                } else if column.default.is_none() && column.identity.is_none() {
                    return Err(SqlError::new(4901, 16, 1, format!("ALTER TABLE only allows columns to be added that can contain nulls, or have a DEFAULT definition specified, or the column being added is an identity or timestamp column, or alternatively if none of the previous conditions are satisfied the table must be empty to allow addition of this column. Column '{}' cannot be added to non-empty table '{}' because it does not satisfy these conditions.", column.name, object.name)).into());
                }
            }
            self.insert_row(&object, &targets, cells)?;
        }
        self.last_identity = identity;
        self.frame().scope_identity = scope;
        Ok(())
    }

    pub(super) fn drop_objects(
        &mut self,
        kind: ObjectKind,
        if_exists: bool,
        names: &[Name],
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        for name in names {
            let (word, wanted) = match kind {
                ObjectKind::Table => ("table", ObjectType::Table),
                ObjectKind::View => ("view", ObjectType::View),
                ObjectKind::Procedure => ("procedure", ObjectType::Procedure),
                ObjectKind::Database => {
                    self.drop_database(&name.name, if_exists)?;
                    continue;
                }
                ObjectKind::Schema => {
                    let database = self.database.clone();
                    self.atomically(true, |session| {
                        session
                            .connection
                            .execute(
                                "DELETE FROM main.sys_schemas WHERE db = ?1 AND name = ?2",
                                [&database, &name.name],
                            )
                            .map_err(|e| session.stop_for(&e))
                    })?;
                    continue;
                }
                ObjectKind::Other => return Err(unsupported("this DROP").into()),
            };
            self.begin_implicitly(emit)?;
            let Some(object) = self.find_object(name)?.filter(|o| o.kind == wanted) else {
                if if_exists {
                    continue;
                }
                return Err(SqlError::new(3701, 11, 5, format!("Cannot drop the {word} '{name}', because it does not exist or you do not have permission.")).into());
            };
            let children =
                catalog::list(&self.connection, &object.database).map_err(|e| self.stop_for(&e))?;
            if children.iter().any(|o| {
                o.id != object.id
                    && o.foreign.iter().any(|f| {
                        f.table[2].eq_ignore_ascii_case(&object.name)
                            && f.table[1].eq_ignore_ascii_case(&object.schema)
                    })
            }) {
                return Err(SqlError::new(
                    3726,
                    16,
                    1,
                    format!(
                        "Could not drop object '{name}' because it is referenced by a FOREIGN KEY constraint."
                    ),
                )
                .into());
            }
            self.atomically(!object.is_temporary(), |session| {
                if object.kind == ObjectType::Table {
                    session
                        .connection
                        .execute_batch(&format!("DROP TABLE {}", object.storage))
                        .map_err(|e| session.stop_for(&e))?;
                }
                catalog::remove(&session.connection, &object).map_err(|e| session.stop_for(&e))
            })?;
            self.global_temps.retain(|g| !g.name.eq_ignore_ascii_case(&object.name));
        }
        self.done(emit, 0xC7, None)
    }

    fn drop_database(&mut self, name: &str, if_exists: bool) -> Result<(), Stop> {
        let Some(found) = self.engine.database(name) else {
            return if if_exists {
                Ok(())
            } else {
                Err(SqlError::new(3701, 11, 1, format!("Cannot drop the database '{name}', because it does not exist or you do not have permission.")).into())
            };
        };
        if found.eq_ignore_ascii_case(&self.database) {
            return Err(SqlError::new(
                3702,
                16,
                3,
                format!("Cannot drop database \"{found}\" because it is currently in use."),
            )
            .into());
        }
        self.atomically(true, |session| {
            for object in catalog::list(&session.connection, &found).map_err(|e| session.stop_for(&e))? {
                if object.kind == ObjectType::Table && !object.is_temporary() {
                    session
                        .connection
                        .execute_batch(&format!("DROP TABLE {}", object.storage))
                        .map_err(|e| session.stop_for(&e))?;
                }
                catalog::remove(&session.connection, &object).map_err(|e| session.stop_for(&e))?;
            }
            Ok(())
        })?;
        super::server::lock(&self.engine.databases).retain(|d| *d != found);
        Ok(())
    }

    pub(super) fn create_database(&mut self, name: &str) -> Result<(), Stop> {
        if self.transaction.count > 0 {
            return Err(SqlError::new(
                226,
                16,
                6,
                "CREATE DATABASE statement not allowed within multi-statement transaction.",
            )
            .into());
        }
        if self.engine.database(name).is_some() {
            return Err(SqlError::new(
                1801,
                16,
                3,
                format!("Database '{name}' already exists. Choose a different database name."),
            )
            .into());
        }
        super::server::lock(&self.engine.databases).push(name.to_string());
        Ok(())
    }

    pub(super) fn create_schema(&mut self, name: &str) -> Result<(), Stop> {
        let database = self.database.clone();
        let known = catalog::schemas(&self.connection, &database).map_err(|e| self.stop_for(&e))?;
        if known.iter().any(|s| s.1.eq_ignore_ascii_case(name)) {
            return Err(SqlError::new(
                2714,
                16,
                6,
                format!("There is already an object named '{name}' in the database."),
            )
            .into());
        }
        self.atomically(true, |session| {
            session
                .connection
                .execute("INSERT INTO main.sys_schemas(db, name) VALUES (?1, ?2)", [&database, name])
                .map_err(|e| session.stop_for(&e))?;
            Ok(())
        })
    }

    pub(super) fn create_index(
        &mut self,
        name: &str,
        table: &Name,
        columns: &[String],
        unique: bool,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        let object = self.find_table(table)?.ok_or_else(|| SqlError::new(1088, 16, 12, format!("Cannot find the object \"{table}\" because it does not exist or you do not have permissions.")))?;
        if object.keys.iter().any(|k| k.name.eq_ignore_ascii_case(name)) {
            return Err(SqlError::new(1913, 16, 1, format!("The operation failed because an index or statistics with name '{name}' already exists on table '{table}'.")).into());
        }
        let mut new = (*object).clone();
        let mut proper = Vec::new();
        for column in columns {
            let at = object.column(column).ok_or_else(|| {
                SqlError::new(
                    1911,
                    16,
                    1,
                    format!("Column name '{column}' does not exist in the target table or view."),
                )
            })?;
            proper.push(object.columns[at].name.clone());
        }
        let key = Key { name: name.to_string(), primary: false, unique, constraint: false, columns: proper };
        self.atomically(!object.is_temporary(), |session| {
            session.make_index(&object, &key, &object.storage)?;
            new.keys.push(key);
            catalog::store(&session.connection, &new).map_err(|e| session.stop_for(&e))
        })?;
        self.done(emit, 0xFD, None)
    }

    pub(super) fn drop_index(
        &mut self,
        name: &str,
        table: &Name,
        if_exists: bool,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        let object = self.find_table(table)?.ok_or_else(|| no_object(&table.to_string()))?;
        let Some(key) = object.keys.iter().find(|k| k.name.eq_ignore_ascii_case(name)).cloned() else {
            return if if_exists {
                Ok(())
            } else {
                Err(SqlError::new(3701, 11, 7, format!("Cannot drop the index '{table}.{name}', because it does not exist or you do not have permission.")).into())
            };
        };
        let mut new = (*object).clone();
        new.keys.retain(|k| k.name != key.name);
        let schema = if object.is_temporary() { "temp" } else { "main" };
        self.atomically(!object.is_temporary(), |session| {
            session
                .connection
                .execute_batch(&format!("DROP INDEX {schema}.{}", Self::index_name(&object, &key)))
                .map_err(|e| session.stop_for(&e))?;
            catalog::store(&session.connection, &new).map_err(|e| session.stop_for(&e))
        })?;
        self.done(emit, 0xFD, None)
    }

    fn store_text(
        &mut self,
        name: &Name,
        kind: ObjectType,
        columns: Vec<ColumnInfo>,
        text: &str,
        replace: Replace,
    ) -> Result<(), Stop> {
        let (database, schema) = self.full_name(name)?;
        let existing =
            catalog::find(&self.connection, &database, &schema, &name.name).map_err(|e| self.stop_for(&e))?;
        let id = match (&existing, replace) {
            (Some(_), Replace::Create) => {
                return Err(SqlError::new(
                    2714,
                    16,
                    3,
                    format!("There is already an object named '{}' in the database.", name.name),
                )
                .into());
            }
            (None, Replace::Alter) => {
                return Err(SqlError::new(208, 16, 6, format!("Invalid object name '{name}'.")).into());
            }
            (Some(existing), _) if existing.kind != kind => {
                return Err(SqlError::new(
                    2010,
                    16,
                    1,
                    format!("Cannot perform alter on '{name}' because it is an incompatible object type."),
                )
                .into());
            }
            (Some(existing), _) => existing.id,
            (None, _) => self.engine.new_object(),
        };
        let object = Object {
            id,
            database,
            schema,
            name: name.name.clone(),
            kind,
            created: datetime::utc_now(),
            next_column: columns.len() as i32 + 1,
            columns,
            keys: Vec::new(),
            checks: Vec::new(),
            foreign: Vec::new(),
            text: text.to_string(),
            storage: String::new(),
        };
        let temporary = object.is_temporary();
        self.atomically(!temporary, |session| {
            catalog::store(&session.connection, &object).map_err(|e| session.stop_for(&e))
        })
    }

    pub(super) fn create_view(
        &mut self,
        name: &Name,
        columns: &[String],
        text: &str,
        replace: Replace,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        let query = parse::query(text)?;
        let bound = super::bind::Binder::new(self).select(&query)?;
        let infos: Vec<ColumnInfo> = bound
            .columns
            .iter()
            .enumerate()
            .map(|(at, c)| {
                ColumnInfo::new(at as i32 + 1, columns.get(at).unwrap_or(&c.name), c.ty, c.nullable)
            })
            .collect();
        self.store_text(name, ObjectType::View, infos, text, replace)?;
        self.done(emit, 0xFD, None)
    }

    pub(super) fn create_procedure(
        &mut self,
        name: &Name,
        text: &str,
        replace: Replace,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        self.store_text(name, ObjectType::Procedure, Vec::new(), text, replace)?;
        self.done(emit, 0xFD, None)
    }
}
