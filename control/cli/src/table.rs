//! Tables laid out as Go's `tabwriter` does for Docker: columns at least 10 wide, 3 blanks between
//! them, no padding after the last. Pure.
use std::fmt::Write;

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// A table with a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Table {
        Table { rows: vec![heading.iter().map(|h| (*h).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    pub(crate) fn print(&self) {
        print!("{}", self.render());
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let widest = self.rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
            MIN_WIDTH.max(widest + PADDING)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            for (i, cell) in row.iter().enumerate() {
                let width = if i + 1 == columns { 0 } else { widths[i] };
                // Writing to a String cannot fail.
                let _ = write!(out, "{cell:<width$}");
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_go_makes_them() {
        let mut table = Table::new(&["ID", "NAME", "PORTS"]);
        table.row(vec!["abcdefghijkl".into(), "web".into(), "".into()]);
        table.row(vec!["x".into(), "a-longer-name".into(), "*:80->80/tcp".into()]);
        assert_eq!(
            table.render(),
            "ID             NAME            PORTS\n\
             abcdefghijkl   web             \n\
             x              a-longer-name   *:80->80/tcp\n"
        );
    }
}
