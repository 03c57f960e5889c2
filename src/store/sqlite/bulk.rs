//! Statements over many rows at once: sqlx pays a thread hop per statement (STACK §4).
//!
//! The number of rows is rounded up to a power of two and the rest is filled with nulls, which no statement here
//! matches or inserts: a table has eight prepared statements instead of one for each number of rows.

use std::sync::{Arc, OnceLock};

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::super::Result;
use super::error::explain;

/// Rows per statement, at most.
const ROWS: usize = 128;
/// Numbers of rows that a statement is made for: 1, 2, 4 … [`ROWS`].
pub(super) const SIZES: usize = ROWS.ilog2() as usize + 1;

/// A query that is being filled.
pub(super) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// A statement with a place for rows.
pub(super) struct Bulk {
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    texts: [OnceLock<Arc<String>>; SIZES],
}

impl Bulk {
    /// `head`, then `row` as often as there are rows, then `tail`.
    pub(super) const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Self {
        Self { head, row, tail, texts: [const { OnceLock::new() }; SIZES] }
    }

    /// Carries it out for all rows; says how many it changed.
    pub(super) async fn execute<T>(
        &self,
        conn: &mut SqliteConnection,
        doing: &'static str,
        rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Result<u64> {
        let mut changed = 0;
        for rows in rows.chunks(ROWS) {
            let done = self.fill(rows, &bind).execute(&mut *conn).await.map_err(explain(doing))?;
            changed += done.rows_affected();
        }
        Ok(changed)
    }

    /// Asks it about all rows.
    pub(super) async fn fetch<T>(
        &self,
        conn: &mut SqliteConnection,
        doing: &'static str,
        rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Result<Vec<SqliteRow>> {
        let mut found = Vec::new();
        for rows in rows.chunks(ROWS) {
            found.extend(self.fill(rows, &bind).fetch_all(&mut *conn).await.map_err(explain(doing))?);
        }
        Ok(found)
    }

    fn fill<T>(&self, rows: &[T], bind: &impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>) -> Bound<'_> {
        let size = rows.len().next_power_of_two();
        let nulls = (size - rows.len()) * self.row.matches('?').count();
        let filled = rows.iter().fold(sqlx::query(AssertSqlSafe(self.text(size))), bind);
        (0..nulls).fold(filled, |query, _| query.bind(None::<i64>))
    }

    /// The statement for this many rows, a power of two.
    pub(super) fn text(&self, size: usize) -> Arc<String> {
        let make = || {
            let rows = vec![self.row; size].join(",");
            Arc::new(format!("{}{rows}{}", self.head, self.tail))
        };
        match self.texts.get(size.ilog2() as usize) {
            Some(text) => Arc::clone(text.get_or_init(make)),
            None => make(),
        }
    }
}
