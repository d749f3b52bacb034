//! A session's connection to the data: opened when it is first needed, and left to a later session when its own ends.

use std::cell::OnceCell;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::server::{Shared, lock};
use super::{Cancel, catalog, functions};

/// Open connections that wait for a session. Each costs about 100 KiB, and opening one costs more than a login without it.
const MAX_SPARE: usize = 64;

/// A session's connection. Most sessions of a proxy's tests log in and ask for little.
pub(super) struct Storage {
    engine: Arc<Shared>,
    /// What the functions of this connection depend on.
    pub(super) functions: Arc<functions::Context>,
    /// What SQLite asks while it works.
    pub(super) running: Arc<Mutex<Cancel>>,
    open: OnceCell<Connection>,
}

/// An open connection without a session.
#[derive(Debug)]
pub(super) struct Spare {
    functions: Arc<functions::Context>,
    running: Arc<Mutex<Cancel>>,
    connection: Connection,
}

impl Storage {
    pub(super) fn new(engine: &Arc<Shared>) -> Storage {
        let spare = lock(&engine.spare).pop();
        let engine = Arc::clone(engine);
        match spare {
            Some(Spare { functions, running, connection }) => {
                Storage { engine, functions, running, open: OnceCell::from(connection) }
            }
            None => Storage {
                engine,
                functions: Arc::default(),
                running: Arc::new(Mutex::new(Cancel::new())),
                open: OnceCell::new(),
            },
        }
    }

    /// Whether the session has asked for anything yet.
    pub(super) fn is_open(&self) -> bool {
        self.open.get().is_some()
    }

    fn connect(&self) -> Connection {
        let ready = self.engine.connect().and_then(|connection| {
            functions::register(&connection, &self.functions)?;
            let running = Arc::clone(&self.running);
            connection.progress_handler(2000, Some(move || lock(&running).is_cancelled()))?;
            Ok(connection)
        });
        match ready {
            Ok(connection) => connection,
            // Without its file the session still answers, with errors for every table.
            Err(_) => Connection::open_in_memory().expect("an empty in-memory database can always be opened"),
        }
    }

    /// Leaves the connection to a later session. Its transaction and temporary tables are gone by now.
    pub(super) fn give_back(&mut self) {
        let Some(connection) = self.open.take() else { return };
        *lock(&self.running) = Cancel::new();
        let clean = connection.is_autocommit() && !catalog::has_temporary(&connection).unwrap_or(true);
        if !clean {
            return;
        }
        self.functions.forget();
        let mut spare = lock(&self.engine.spare);
        if spare.len() < MAX_SPARE {
            spare.push(Spare {
                functions: Arc::clone(&self.functions),
                running: Arc::clone(&self.running),
                connection,
            });
        }
    }
}

impl Deref for Storage {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.open.get_or_init(|| self.connect())
    }
}
