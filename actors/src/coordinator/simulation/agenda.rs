//! What happens when, in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events to come, the earliest first; of one moment, in the order in which they were put in.
pub(super) struct Agenda<E> {
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    /// By slot, so that the queue moves numbers only.
    events: Vec<Option<E>>,
    free: Vec<usize>,
    last: u64,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { queue: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), last: 0 }
    }

    /// A number greater than all before it.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn put(&mut self, time: u64, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        let number = self.number();
        self.queue.push(Reverse((time << 20 | (number & 0xF_FFFF), slot as u64)));
    }

    /// What happens next, and when.
    pub(super) fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((key, slot)) = self.queue.pop()?;
        let event = self.events[slot as usize].take().expect("a queued slot has its event");
        self.free.push(slot as usize);
        Some((key >> 20, event))
    }
}
