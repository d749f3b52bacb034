//! A placeholder until the engine has its verbs: canned answers, so that the wire can be used already.
#![allow(missing_docs, dead_code, unused_variables, reason = "goes away with the real engine")]
use crate::engine::*;
use std::time::Duration;
use tds::col_metadata::Column;
use tds::done::Done;
use tds::done::{DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::type_info::TypeInfo;
use tds::value::Value;
#[derive(Clone, Debug)]
pub struct Engine {
    name: String,
    dbs: Vec<String>,
}
impl Engine {
    pub fn new(o: EngineOptions) -> Result<Engine, EngineError> {
        let mut dbs = o.databases;
        dbs.push("master".into());
        dbs.push("tempdb".into());
        Ok(Engine { name: o.server_name, dbs })
    }
    pub fn database(&self, n: &str) -> Option<String> {
        self.dbs.iter().find(|d| d.eq_ignore_ascii_case(n)).cloned()
    }
    pub fn open_session(&self, o: SessionOptions) -> Session {
        Session { db: o.database, tx: None, bulk: None }
    }
}
#[derive(Debug)]
pub struct Session {
    db: String,
    tx: Option<u64>,
    bulk: Option<BulkTarget>,
}
fn d(status: DoneStatus, rows: u64) -> Done {
    Done { kind: DoneKind::Done, status, current_command: 0xC1, rows }
}
impl Session {
    pub fn spid(&self) -> u16 {
        51
    }
    pub fn database(&self) -> &str {
        &self.db
    }
    pub fn language(&self) -> &str {
        "us_english"
    }
    pub fn transaction(&self) -> Option<u64> {
        self.tx
    }
    pub fn batch(&mut self, text: &str, out: &mut dyn Output, cancel: &Cancel) -> Outcome {
        if let Some(s) = text.strip_prefix("waitfor ") {
            let until = std::time::Instant::now() + Duration::from_millis(s.trim().parse().unwrap_or(0));
            if {
                let _ = until;
                std::thread::sleep(Duration::from_millis(s.trim().parse().unwrap_or(0)));
                cancel.is_cancelled()
            } {
                return Outcome::Cancelled;
            }
            let _ = out.done(d(DoneStatus::FINAL, 0));
            return Outcome::Finished;
        }
        if let Some(s) = text.strip_prefix("rows ") {
            let n: i64 = s.trim().parse().unwrap_or(0);
            if out
                .columns(&[Column::new("n", TypeInfo::IntN(8)), Column::new("t", TypeInfo::VarBinary(8000))])
                .is_break()
            {
                return Outcome::Stopped;
            }
            let v = vec![7u8; 1000];
            for i in 0..n {
                if cancel.is_cancelled() {
                    return Outcome::Cancelled;
                }
                if out.row(&[Value::BigInt(i), Value::Bytes(v.clone())]).is_break() {
                    return Outcome::Stopped;
                }
            }
            let _ = out.done(d(DoneStatus::COUNT, n as u64));
            return Outcome::Finished;
        }
        let _ = out.columns(&[Column::new("a", TypeInfo::IntN(4))]);
        let _ = out.row(&[Value::Int(1)]);
        let _ = out.done(d(DoneStatus::COUNT, 1));
        Outcome::Finished
    }
    pub fn call(
        &mut self,
        procedure: &Procedure,
        params: Vec<Param>,
        last: bool,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        let _ = out.done(d(DoneStatus::FINAL, 0));
        Outcome::Finished
    }
    pub fn begin(
        &mut self,
        level: IsolationLevel,
        name: &str,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        self.tx = Some(77);
        let _ = out.env_change(&EnvChange::BeginTransaction(77));
        let _ = out.done(d(DoneStatus::FINAL, 0));
        Outcome::Finished
    }
    pub fn commit(
        &mut self,
        name: &str,
        then_begin: Option<(IsolationLevel, String)>,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        self.tx = None;
        let _ = out.env_change(&EnvChange::CommitTransaction(77));
        let _ = out.done(d(DoneStatus::FINAL, 0));
        Outcome::Finished
    }
    pub fn rollback(
        &mut self,
        name: &str,
        then_begin: Option<(IsolationLevel, String)>,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        self.commit(name, then_begin, out, cancel)
    }
    pub fn save(&mut self, name: &str, out: &mut dyn Output, cancel: &Cancel) -> Outcome {
        let _ = out.done(d(DoneStatus::FINAL, 0));
        Outcome::Finished
    }
    pub fn reset(&mut self, keep_transaction: bool) -> ResetReport {
        ResetReport::default()
    }
    pub fn bulk_target(&self) -> Option<&BulkTarget> {
        self.bulk.as_ref()
    }
    pub fn bulk_insert(
        &mut self,
        columns: &[Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        let n = rows.count();
        let _ = out.done(d(DoneStatus::COUNT, n as u64));
        Outcome::Finished
    }
    pub fn state_summary(&self) -> SessionStateChange {
        SessionStateChange::default()
    }
}
