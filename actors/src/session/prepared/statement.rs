//! A statement that a client prepared, as far as it takes to prepare it again on another connection.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use bytes::{BufMut, Bytes};

use super::super::pooled::asked::Called;

/// What was prepared, in the words of the client.
#[derive(Debug)]
pub(crate) struct Statement {
    kind: Kind,
    /// `@params` as the wire has it, without a name: flags, type, value. Of a procedure its name in UTF-16LE.
    params: Bytes,
    /// `@stmt`, or the procedure's name, as a parameter too.
    text: Bytes,
    hash: u64,
    /// What it does when it runs, if its text was read.
    called: OnceLock<Called>,
}

/// How it was prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// sp_prepare, sp_prepexec: a text.
    Text,
    /// sp_prepexecrpc: a call of a procedure.
    Procedure,
}

/// What a statement costs beside its bytes, roughly: maps, counters, allocations.
const OVERHEAD: usize = 200;

impl Statement {
    pub(crate) fn new(kind: Kind, params: Bytes, text: Bytes) -> Self {
        let mut hasher = DefaultHasher::new();
        (kind, &params, &text).hash(&mut hasher);
        Self { kind, params, text, hash: hasher.finish(), called: OnceLock::new() }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its text was read.
    pub(crate) fn does(&self, called: Called) {
        // A text says the same each time.
        let _known = self.called.set(called);
    }

    /// What it does when it runs; none if nobody read its text.
    pub(crate) fn called(&self) -> Option<&Called> {
        self.called.get()
    }

    /// Bytes of memory.
    pub(crate) fn size(&self) -> usize {
        self.params.len() + self.text.len() + OVERHEAD
    }

    /// `@params, @stmt` as parameters by position; of a procedure its name.
    pub(crate) fn put_params_and_text(&self, out: &mut impl BufMut) {
        if self.kind == Kind::Text {
            put(&self.params, out);
        }
        put(&self.text, out);
    }

    /// `@stmt, @params`, as sp_executesql wants them.
    pub(crate) fn put_text_and_params(&self, out: &mut impl BufMut) {
        debug_assert_eq!(self.kind, Kind::Text);
        put(&self.text, out);
        put(&self.params, out);
    }

    /// The procedure's name in UTF-16LE.
    pub(crate) fn procedure_name(&self) -> &[u8] {
        debug_assert_eq!(self.kind, Kind::Procedure);
        &self.params
    }
}

/// A parameter without a name.
fn put(unnamed: &[u8], out: &mut impl BufMut) {
    out.put_u8(0);
    out.put_slice(unnamed);
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, self.kind, &self.params, &self.text)
            == (other.hash, other.kind, &other.params, &other.text)
    }
}

impl Eq for Statement {}

impl Hash for Statement {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
