//! How much is read at once: little while little comes, more while a long request or result streams.

/// How far it grows, in multiples of what it begins with.
const MOST: usize = 8;

/// The size of the next read in one direction, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    least: usize,
    now: usize,
}

impl Chunk {
    pub(crate) fn new(least: usize) -> Self {
        Self { least, now: least }
    }

    pub(crate) fn size(self) -> usize {
        self.now
    }

    /// So much was read: a full chunk makes the next one larger, a short one makes it small again.
    pub(crate) fn was_read(&mut self, bytes: usize) {
        if bytes >= self.now {
            self.now = (2 * self.now).min(MOST * self.least);
        } else if bytes < self.now / 4 {
            self.now = self.least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_full_reads_up_to_its_bound_and_shrinks_with_short_ones() {
        let mut chunk = Chunk::new(10);
        let sizes: Vec<usize> = [10, 20, 25, 40, 80, 80, 19]
            .into_iter()
            .map(|read| {
                chunk.was_read(read);
                chunk.size()
            })
            .collect();
        assert_eq!(sizes, [20, 40, 40, 80, 80, 80, 10]);
    }
}
