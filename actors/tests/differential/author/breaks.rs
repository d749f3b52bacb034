//! Requests that are broken off: by an attention, by the ignore bit, by a client that leaves.

use std::time::Duration;

use super::Author;
use crate::request::Ask;
use crate::script::{Check, Deed, Step};

impl Author {
    fn moment(&mut self) -> Duration {
        let micros = self.pick(&[0, 0, 100, 500, 2_000, 8_000]);
        Duration::from_micros(micros)
    }

    pub(super) fn break_off(&mut self) {
        let wait = self.moment();
        let batch = |text: &str| Ask::Batch(text.to_owned());
        match self.random.below(6) {
            0 => self.step(Step { deed: Deed::StopNothing, check: Check::Equal }),
            1..3 => {
                // It always hits: nothing ends by itself that soon.
                let ask = batch("WAITFOR DELAY '00:10:00'");
                self.step(Step { deed: Deed::Stop(ask, wait), check: Check::UntilStopped });
            }
            3 => {
                // With these it could end, or begin a transaction, before it is stopped.
                self.batch("SET IMPLICIT_TRANSACTIONS OFF; SET ROWCOUNT 0");
                let ask = batch("SELECT id, payload FROM dbo.generate_rows(3000000, 50)");
                self.step(Step { deed: Deed::Stop(ask, wait), check: Check::UntilStopped });
            }
            _ => {
                // Longer than a packet, so that the last one takes it back.
                let padding = " ".repeat(4096);
                let ask = Ask::Batch(format!("SELECT 1 /*{padding}*/ CREATE TABLE #withdrawn (n int)"));
                self.step(Step { deed: Deed::Withdraw(ask), check: Check::Equal });
            }
        }
        self.probe();
    }

    pub(super) fn leave(&mut self) {
        if self.random.chance(10) {
            // It cannot be reset, so nobody else may ever get this connection.
            self.batch("EXEC sp_setapprole 'role', 'password'");
            self.batch("SELECT USER_NAME()");
        }
        let wait = self.moment();
        let during = match self.random.below(4) {
            _ if self.leaves.breaks => None,
            0 => Some(Ask::Batch("WAITFOR DELAY '00:10:00'".to_owned())),
            1 => Some(Ask::Batch("SELECT payload FROM dbo.generate_rows(1000000, 100)".to_owned())),
            _ => None,
        };
        self.step(Step { deed: Deed::Leave(during.map(|ask| (ask, wait))), check: Check::Equal });
        self.forget();
        self.writes = None;
        self.session += 1;
        self.greet();
        self.probe();
    }
}
