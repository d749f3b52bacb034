//! Which statements of a batch surely run, once: IF, WHILE, TRY, blocks, jumps.

/// Blocks within blocks that are followed.
const DEEPEST: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// It may not run.
    pub(super) maybe: bool,
    /// It may run more than once.
    pub(super) again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Case,
    Statements(Runs),
}

/// Where in the batch's blocks the current statement stands.
#[derive(Debug)]
pub(super) struct Blocks {
    stack: [Block; DEEPEST],
    depth: usize,
    /// Set by IF, ELSE and WHILE for the one statement behind them.
    next: Runs,
    /// Behind RETURN, GOTO or a label nothing is sure.
    rest: Runs,
}

impl Blocks {
    pub(super) fn new() -> Self {
        let rest = Runs::default();
        Self { stack: [Block::Case; DEEPEST], depth: 0, next: rest, rest }
    }

    /// A statement begins: how does it run?
    pub(super) fn statement(&mut self) -> Runs {
        let around = match self.top() {
            Some(Block::Statements(runs)) => runs,
            _ => Runs::default(),
        };
        let next = std::mem::take(&mut self.next);
        Runs {
            maybe: around.maybe || next.maybe || self.rest.maybe,
            again: around.again || next.again || self.rest.again,
        }
    }

    /// IF, ELSE, WHILE: the next statement is theirs. `own` is how they run themselves.
    pub(super) fn condition(&mut self, own: Runs, again: bool) {
        self.next = Runs { maybe: true, again: own.again || again };
    }

    pub(super) fn jump(&mut self, again: bool) {
        self.rest = Runs { maybe: true, again: self.rest.again || again };
    }

    /// False: too deep.
    pub(super) fn open(&mut self, runs: Runs) -> bool {
        self.push(Block::Statements(runs))
    }

    pub(super) fn open_case(&mut self) -> bool {
        self.push(Block::Case)
    }

    fn push(&mut self, block: Block) -> bool {
        let Some(slot) = self.stack.get_mut(self.depth) else { return false };
        *slot = block;
        self.depth += 1;
        true
    }

    pub(super) fn in_case(&self) -> bool {
        self.top() == Some(Block::Case)
    }

    /// False: there is nothing to end.
    pub(super) fn close(&mut self) -> bool {
        let open = self.depth > 0;
        self.depth = self.depth.saturating_sub(1);
        open
    }

    pub(super) fn is_open(&self) -> bool {
        self.depth > 0
    }

    fn top(&self) -> Option<Block> {
        self.stack.get(self.depth.checked_sub(1)?).copied()
    }
}
