//! How tables look on a terminal: plain columns that also `awk` can read.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table of texts; the named columns hold numbers and are aligned to the right.
pub(crate) fn render(heads: &[&str], rows: &[Vec<String>], numbers: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|head| head.to_uppercase()));
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        // The first column stands at the left edge, two spaces between the others.
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn numbers_stand_at_the_right_and_texts_at_the_left() {
        let rows = [vec!["orders".to_owned(), "7".to_owned()], vec!["a".to_owned(), "1234".to_owned()]];
        assert_eq!(render(&["bucket", "open"], &rows, &[1]), "BUCKET  OPEN\norders     7\na       1234");
    }
}
