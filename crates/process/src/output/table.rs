//! Words in columns, without lines around them, as other container tools print theirs.

use std::fmt;

use super::printable::printable;

/// Between two columns.
const GAP: &str = "  ";

/// Words in columns under a heading each. Displayed, each row is a line without trailing blanks.
#[derive(Clone, Debug)]
pub struct Table<const COLUMNS: usize> {
    head: [&'static str; COLUMNS],
    right: [bool; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with these headings and no rows. A heading that ends in `>` loses it, and its column
    /// is aligned to the right, as numbers are.
    #[must_use]
    pub fn new(head: [&'static str; COLUMNS]) -> Self {
        Self {
            head: head.map(|word| word.trim_end_matches('>')),
            right: head.map(|word| word.ends_with('>')),
            rows: Vec::new(),
        }
    }

    /// Adds a row at the end.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| printable(&cell)));
    }

    /// True without rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn line(&self, cells: &[impl AsRef<str>; COLUMNS], widths: &[usize; COLUMNS]) -> String {
        let cells = cells.iter().zip(widths).zip(self.right).map(|((cell, &width), right)| {
            let cell = cell.as_ref();
            if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = self.head.map(|word| word.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        writeln!(f, "{}", self.line(&self.head, &widths))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", self.line(row, &widths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_word() {
        let mut table = Table::new(["IMAGE", "SIZE>", "PROVEN"]);
        assert!(table.is_empty());
        table.row(["postgres:16".into(), "5.0 MiB".into(), "yes".into()]);
        table.row(["é\n".into(), "0 B".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "IMAGE           SIZE  PROVEN\n\
             postgres:16  5.0 MiB  yes\n\
             é\\n              0 B\n"
        );
    }
}
