//! Opening the store of a database that nodes share. A program without the feature `postgres` has none.

#[cfg(feature = "postgres")]
use dacapo::StartError;
use dacapo::store::Store;
#[cfg(feature = "postgres")]
use dacapo::store::StoreError;
use dacapo_api::Problem;

use crate::error::CliError;
#[cfg(feature = "postgres")]
use crate::local::not_started;
use crate::serve::Shared;

/// Opens the store in the database at `url`.
#[cfg(feature = "postgres")]
pub(crate) async fn open(url: &str, shared: &Shared) -> Result<Store, CliError> {
    // Nodes that lost the database at the same moment should not all return at the same moment.
    let seed = fastrand::u64(..);
    let (schema, connections_max) = (shared.schema.clone(), shared.connections);
    let options = dacapo_postgres::Options { schema, connections_max, seed };
    dacapo_postgres::connect(url, options).await.map_err(|error| match error {
        StoreError::Unavailable { tried, found } => {
            let help = "check that the server runs and accepts connections from here";
            Problem::new("cannot_start", format!("cannot {tried}")).found(found).help(help).unavailable().into()
        }
        // The store checks its options before it does anything.
        StoreError::Invalid(found) => CliError::from(Problem::new("usage", found)),
        error => not_started(&StartError::Store(error)).into(),
    })
}

/// Returns an error that says what to install instead.
#[cfg(not(feature = "postgres"))]
pub(crate) async fn open(_: &str, _: &Shared) -> Result<Store, CliError> {
    let help = "install it with all features: cargo install --path crates/cli";
    Err(Problem::new("usage", "this program was built without PostgreSQL").help(help).into())
}
