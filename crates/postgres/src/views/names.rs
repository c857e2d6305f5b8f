//! Names in the database, within the 63 bytes that PostgreSQL keeps of one.

use dacapo_model::{ProjectionName, ViewId, stream_hash};
use dacapo_store::{Index, StoreError, Table};

/// Longest name, in bytes. PostgreSQL cuts off what is longer, so that two names could become one.
const NAME_BYTES_MAX: usize = 63;
/// What stands for the rest of a name that is too long: `_` and a hash in 16 digits.
const HASH_BYTES: usize = 17;

/// Returns the schema of a view, beside the schema `home` of the journal: `dacapo_balances_v2_1`. A form: views are
/// found by it.
pub(super) fn schema_name(home: &str, id: &ViewId) -> String {
    bounded(format!("{home}_{}_v{}_{}", id.projection, id.version.code, id.version.build))
}

/// Returns the schema in which SQL from outside finds what serves of a projection: `dacapo_balances`. A form:
/// people's queries have it.
pub(super) fn outside_name(home: &str, projection: &ProjectionName) -> String {
    bounded(format!("{home}_{projection}"))
}

/// Returns true if the names of a projection are in a schema with the name of a version of another one.
pub(super) fn is_of_version(one: &ProjectionName, other: &ProjectionName) -> bool {
    let rest = one.as_str().strip_prefix(other.as_str()).and_then(|rest| rest.strip_prefix("_v"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    rest.and_then(|rest| rest.split_once('_')).is_some_and(|(code, build)| is_number(code) && is_number(build))
}

/// Returns the name of an index, of which a schema has one with each name.
pub(super) fn index_name(table: &Table, index: &Index) -> String {
    bounded(format!("{}.{}", table.name, index.name))
}

/// Returns a name that is too long keeps its beginning, and a hash of all of it.
fn bounded(name: String) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let mut kept = NAME_BYTES_MAX - HASH_BYTES;
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}_{:016x}", &name[..kept], stream_hash(&name))
}

/// Refuses names of tables and columns that PostgreSQL would not keep as they are.
pub(super) fn check(tables: &[Table]) -> Result<(), StoreError> {
    for table in tables {
        let names = [table.name].into_iter().chain(table.columns.iter().map(|column| column.name));
        for name in names.chain(table.indexes.iter().map(|index| index.name)) {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
                return Err(StoreError::Invalid(format!(
                    "table {}: the name {name:?} has {} bytes: choose one of 1 to {NAME_BYTES_MAX} bytes without U+0000",
                    table.name,
                    name.len()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dacapo_model::{ProjectionName, VersionId};

    use super::*;

    fn id(projection: &str, code: u32) -> ViewId {
        ViewId { projection: ProjectionName::new(projection).unwrap(), version: VersionId { code, build: 1 } }
    }

    // Written once: a view is not found under another name.
    #[test]
    fn the_names_of_schemas_are_fixed_for_good() {
        assert_eq!(schema_name("dacapo", &id("balances", 2)), "dacapo_balances_v2_1");
        assert_eq!(outside_name("dacapo", &id("balances", 2).projection), "dacapo_balances");
        let long = "a-projection-with-a-name-as-long-as-one-may-be_0";
        let name = schema_name("a_schema_of_24_bytes_too", &id(long, u32::MAX));
        assert_eq!(name, "a_schema_of_24_bytes_too_a-projection-with-a-n_303118c313b19def");
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert_ne!(name, schema_name("a_schema_of_24_bytes_too", &id(long, 1)));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        const LONG: &str = "ääääääääääääääääääääääääää";
        const TABLE: Table = Table { name: LONG, columns: &[], key: &[], indexes: &[] };
        let name = index_name(&TABLE, &Index { name: "by owner and time", columns: &[], unique: false });
        assert!(name.len() <= NAME_BYTES_MAX && name.starts_with("äää"), "{name}");
    }
}
