//! The ways to fill a new version from the view of another one, as a user declares them.

/// The way to fill a new version from the view of another version of its projection.
///
/// The rows must be those that the new code would have made of the same events. The verification checks this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seed {
    /// No copy: the version reads the past.
    #[default]
    Never,
    /// Copies the tables and columns that both versions have as they are. Columns that the other version lacks stay
    /// without a value. The copy is refused if it would leave out a table or a column that is not optional, or if a key
    /// differs.
    Columns,
    /// Runs these statements, one after the other, in which `{source}.accounts` is the table `accounts` of the other
    /// view:
    /// `INSERT INTO accounts SELECT account, '', balance, 0, entries FROM {source}.accounts`.
    Sql(Vec<String>),
    /// Calls [`Projection::migrate`](crate::Projection::migrate).
    Migrate,
}
