//! Writes scripts: seeded random requests that change, read and end every kind of state a session has. Tables and names
//! are each client's own, so that its answers do not depend on what others do at the same time.

mod breaks;
mod calls;
mod settings;
mod tables;
mod transactions;

use super::profile::Profile;
use super::random::Random;
use super::request::Slot;
use super::script::{Reset, Script, Step};

/// Procedures of each client that leave something to their caller.
pub const LEAVING: [&str; 4] = ["takes", "remembers", "marks", "opens"];

/// Whether a transaction writes temporary tables or others. The stand-in cannot go from the one to the other while
/// other sessions write: a limit of its storage, not of SQL Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    Temporary,
    Permanent,
}

/// What scripts leave out, because the server that they run at does it too oddly to be compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leaves {
    /// Resets of the clients' own: what they leave, and how they are told of, shows directly; the proxy knows better.
    pub resets: bool,
    /// Requests that are broken off: they would go on for as long as they like.
    pub breaks: bool,
}

pub struct Author {
    random: Random,
    leaves: Leaves,
    client: usize,
    profile: Profile,
    steps: Vec<Step>,
    /// What the transaction writes that may be open.
    writes: Option<Writes>,
    /// Counts logins: names that others can see must not meet those of the session before.
    session: u32,
    next_slot: Slot,
    prepared: Vec<Slot>,
    cursors: Vec<Slot>,
}

impl Author {
    /// A script of about `length` steps.
    pub fn write(
        client: usize,
        profile: Profile,
        length: usize,
        leaves: Leaves,
        random: &mut Random,
    ) -> Script {
        let application = format!("differential {client}");
        let mut author = Self {
            random: random.fork(),
            leaves,
            client,
            profile,
            steps: Vec::new(),
            writes: None,
            session: 0,
            next_slot: 0,
            prepared: Vec::new(),
            cursors: Vec::new(),
        };
        author.greet();
        author.found();
        while author.steps.len() < length {
            author.scene();
        }
        Script { client, profile, application, seed: random.next(), steps: author.steps }
    }

    fn scene(&mut self) {
        match self.random.below(100) {
            0..12 => self.change_setting(),
            12..27 => self.probe(),
            27..45 => self.use_table(),
            45..60 => self.transact(),
            60..77 => self.call(),
            77..82 => self.change_context(),
            82..87 => self.read_previous(),
            87..90 => self.fail(),
            90..94 if !self.leaves.breaks => self.break_off(),
            94..97 if !self.leaves.resets => self.reset(),
            97..98 => self.leave(),
            _ => self.settle(),
        }
    }

    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn batch(&mut self, text: impl Into<String>) {
        self.step(Step::batch(text));
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *self.random.pick(from)
    }

    fn number(&mut self, end: u64) -> i32 {
        i32::try_from(self.random.below(end)).unwrap_or(0)
    }

    fn slot(&mut self) -> Slot {
        self.next_slot += 1;
        self.next_slot
    }

    /// What the driver says right after a login.
    fn greet(&mut self) {
        if let Some(text) = self.profile.greeting {
            self.batch(text);
        }
        if self.profile.name == "msodbcsql18" {
            self.odbc_greeting();
        }
    }

    /// Makes sure that what is written next may be written.
    fn may_write(&mut self, what: Writes) {
        if self.writes.is_some_and(|writes| writes != what) {
            self.settle();
        }
        self.writes = Some(what);
    }

    /// No transaction is open behind this.
    fn settle(&mut self) {
        let text = self.pick(&[
            "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION",
            "WHILE @@TRANCOUNT > 0 COMMIT",
            "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT > 0 ROLLBACK",
        ]);
        self.batch(text);
        self.writes = None;
    }

    /// The next request resets the session.
    fn reset(&mut self) {
        let keep = self.random.chance(25) && self.profile.is_7_2_or_later();
        let reset = if keep { Reset::KeepTransaction } else { Reset::Yes };
        if keep {
            // Temporary tables that such a reset drops come back with a rollback at the stand-in; nobody knows what
            // SQL Server does.
            self.batch("SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT > 0 ROLLBACK");
            self.batch("DROP TABLE IF EXISTS #a; DROP TABLE IF EXISTS #b; DROP TABLE IF EXISTS #bulk");
            self.writes = None;
            if self.random.chance(60) {
                self.batch("BEGIN TRANSACTION");
                self.may_write(Writes::Permanent);
                self.use_permanent();
            }
        }
        let probe = self.probe_step();
        self.step(probe.with_reset(reset));
        let ended = self.prepared.last().copied();
        self.forget();
        if !keep {
            self.writes = None;
        }
        self.session += 1;
        if let Some(ended) = ended {
            self.may_write(Writes::Permanent);
            self.execute_handle(ended);
        }
        self.probe();
    }

    /// Handles end with a reset and with the connection.
    fn forget(&mut self) {
        self.prepared.clear();
        self.cursors.clear();
    }
}
