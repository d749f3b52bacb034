//! Calls: parameters, prepared statements and their handles, procedures, cursors.

use tds::rpc::ProcId;

use super::{Author, Writes};
use crate::request::{Arg, Ask, Invocation, Slot};
use crate::script::Step;

impl Author {
    pub(super) fn call(&mut self) {
        match self.random.below(20) {
            0..4 => self.execute_sql(),
            4..6 => self.prepare(),
            6..9 => self.prepare_and_execute(),
            9..12 => self.execute(),
            12..14 => self.unprepare(),
            14..16 => self.call_procedure(),
            16 => self.call_several(),
            17 => self.text_cursor(),
            _ => self.api_cursor(),
        }
    }

    fn ask(&mut self, call: Invocation) {
        self.step(Step::ask(Ask::call(call)));
    }

    /// A statement with a parameter `@n int`, and whether it writes.
    fn statement(&mut self) -> String {
        let id = self.client;
        match self.random.below(8) {
            0..4 => self
                .pick(&[
                    "SELECT @n AS n, @@OPTIONS AS o",
                    "SELECT @n + 1, DB_NAME()",
                    "SELECT n FROM #a WHERE n > @n",
                    "SELECT TOP (@n) n FROM (VALUES (1), (2), (3)) v(n)",
                    "SET ARITHABORT ON; SET DATEFIRST 5; SELECT @@DATEFIRST, @n",
                    "SELECT @n / 0",
                ])
                .to_owned(),
            4 => format!("SELECT n, s FROM t{id} WHERE id = @n"),
            5 => {
                self.may_write(Writes::Permanent);
                format!("INSERT t{id} (n) VALUES (@n); SELECT SCOPE_IDENTITY()")
            }
            6 => {
                self.may_write(Writes::Permanent);
                format!("UPDATE t{id} SET n = @n WHERE id = 1")
            }
            _ => "DECLARE @x int; SET @x = @n * 2; SELECT @x, @@TRANCOUNT".to_owned(),
        }
    }

    fn execute_sql(&mut self) {
        let (statement, n) = (self.statement(), self.number(50));
        let args = vec![Arg::text(statement), Arg::text("@n int"), Arg::Int(n).named("@n")];
        let call = if self.random.chance(80) {
            Invocation::id(ProcId::EXECUTE_SQL, args)
        } else {
            Invocation::name("sp_executesql", args)
        };
        self.ask(call);
    }

    fn prepare(&mut self) {
        let (statement, slot) = (self.statement(), self.slot());
        let args = vec![Arg::Null.out(), Arg::text("@n int"), Arg::text(statement), Arg::Int(1)];
        self.ask(Invocation::id(ProcId::PREPARE, args).yields(slot));
        self.prepared.push(slot);
    }

    fn prepare_and_execute(&mut self) {
        let (statement, slot, n) = (self.statement(), self.slot(), self.number(50));
        // A driver that prepares again gives the old handle back with the same call.
        let old = if self.random.chance(15) { self.prepared.pop() } else { None };
        let handle = old.map_or(Arg::Null, Arg::Handle);
        let args = vec![handle.out(), Arg::text("@n int"), Arg::text(statement), Arg::Int(n)];
        self.ask(Invocation::id(ProcId::PREP_EXEC, args).yields(slot));
        self.prepared.push(slot);
    }

    fn any_handle(&mut self) -> Slot {
        if self.prepared.is_empty() || self.random.chance(5) {
            // Never prepared, or ended long ago.
            return Slot::try_from(self.number(u64::from(self.next_slot) + 1)).unwrap_or(0);
        }
        let prepared = self.prepared.clone();
        self.pick(&prepared)
    }

    fn execute(&mut self) {
        if self.prepared.is_empty() && self.random.chance(80) {
            return self.prepare_and_execute();
        }
        // What it writes is not known here.
        self.may_write(Writes::Permanent);
        let handle = self.any_handle();
        self.execute_handle(handle);
    }

    pub(super) fn execute_handle(&mut self, handle: Slot) {
        let n = self.number(50);
        self.ask(Invocation::id(ProcId::EXECUTE, vec![Arg::Handle(handle), Arg::Int(n)]));
    }

    fn unprepare(&mut self) {
        let handle = self.any_handle();
        self.prepared.retain(|known| *known != handle);
        self.ask(Invocation::id(ProcId::UNPREPARE, vec![Arg::Handle(handle)]));
    }

    fn call_procedure(&mut self) {
        let (id, n) = (self.client, self.number(50));
        let both = vec![Arg::Int(n).named("@a"), Arg::Null.out().named("@b")];
        let which = self.random.below(6);
        if matches!(which, 2 | 5) {
            self.may_write(Writes::Temporary);
        }
        match which {
            0..2 => self.ask(Invocation::name(format!("p{id}"), both)),
            2 => self.ask(Invocation::name(format!("[dbo].[q{id}]"), vec![Arg::Int(n)])),
            3 => self.batch(format!("DECLARE @b int; EXEC p{id} {n}, @b OUTPUT; SELECT @b")),
            4 => {
                let slot = self.slot();
                // One argument, as every handle that is executed later gets.
                let args = vec![Arg::Null.out(), Arg::text(format!("s{id}")), Arg::Int(n)];
                self.ask(Invocation::id(ProcId::PREP_EXEC_RPC, args).yields(slot));
                self.prepared.push(slot);
            }
            _ => self.batch(format!("EXEC q{id} {n}; SELECT @@DATEFIRST")),
        }
    }

    /// Several calls in one message.
    fn call_several(&mut self) {
        let count = 2 + self.random.below(3);
        let mut calls = Vec::new();
        for _ in 0..count {
            let n = self.number(50);
            let text =
                self.pick(&["SELECT @n", "SELECT @n, @@TRANCOUNT", "SELECT 1/@n", "SELECT DB_NAME(), @n"]);
            let args = vec![Arg::text(text), Arg::text("@n int"), Arg::Int(n)];
            calls.push(Invocation::id(ProcId::EXECUTE_SQL, args));
        }
        if let (Some(slot), true) = (self.prepared.last().copied(), self.random.chance(40)) {
            self.may_write(Writes::Permanent);
            calls.push(Invocation::id(ProcId::EXECUTE, vec![Arg::Handle(slot), Arg::Int(3)]));
            if self.random.chance(30) {
                calls.push(Invocation::id(ProcId::UNPREPARE, vec![Arg::Handle(slot)]));
            }
        }
        if self.profile.is_7_2_or_later() && self.random.chance(25) {
            let at = usize::try_from(self.random.below(calls.len() as u64)).unwrap_or(0);
            calls[at].skipped = true;
        }
        let ask = Ask::Rpc(calls);
        let ended = ask.ends();
        self.prepared.retain(|slot| !ended.contains(slot));
        self.step(Step::ask(ask));
    }

    fn text_cursor(&mut self) {
        let id = self.client;
        let text = match self.random.below(7) {
            0..2 => {
                "DECLARE c1 CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (1), (2), (3)) v(n)".to_owned()
            }
            2 => "OPEN c1".to_owned(),
            3 => "FETCH NEXT FROM c1".to_owned(),
            4 => "CLOSE c1".to_owned(),
            5 => "DEALLOCATE c1".to_owned(),
            _ => format!(
                "DECLARE c2 CURSOR LOCAL FOR SELECT TOP (2) n FROM t{id} ORDER BY id; DECLARE @n int; OPEN c2; FETCH NEXT FROM c2 INTO @n; SELECT @n, @@FETCH_STATUS; CLOSE c2; DEALLOCATE c2"
            ),
        };
        self.batch(text);
    }

    fn api_cursor(&mut self) {
        let Some(cursor) = self.cursors.last().copied().filter(|_| self.random.chance(75)) else {
            let slot = self.slot();
            let text = Arg::text("SELECT n FROM (VALUES (1), (2), (3), (4)) v(n)");
            let args = vec![Arg::Null.out(), text, Arg::Int(8).out(), Arg::Int(1).out(), Arg::Int(0).out()];
            self.ask(Invocation::id(ProcId::CURSOR_OPEN, args).yields(slot));
            return self.cursors.push(slot);
        };
        if self.random.chance(60) {
            let args = vec![Arg::Handle(cursor), Arg::Int(2), Arg::Int(0), Arg::Int(2)];
            self.ask(Invocation::id(ProcId::CURSOR_FETCH, args));
        } else {
            self.cursors.pop();
            self.ask(Invocation::id(ProcId::CURSOR_CLOSE, vec![Arg::Handle(cursor)]));
        }
    }
}
