//! How a new version is filled from the view of another one, as a user declares it.

/// How a new version is filled from the view of another one of its projection.
///
/// Whatever it is, the rows must be those that the new code would have made of the same events: verification tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seed {
    /// Not at all: it reads the past.
    #[default]
    Never,
    /// Tables and columns that both versions have are copied as they are; columns that the other one lacks stay without
    /// a value. Refused where that leaves out a table, a column that is not optional, or another key.
    Columns,
    /// These statements, one after the other, in which `{source}.accounts` is the table `accounts` of the other view:
    /// `INSERT INTO accounts SELECT account, '', balance, 0, entries FROM {source}.accounts`.
    Sql(Vec<String>),
    /// [`Projection::migrate`](crate::Projection::migrate).
    Migrate,
}
