//! The contract suite, run by the journal and the members in PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_postgres::testbed::Server;
use dacapo_postgres::{Database, Options, PostgresJournal, PostgresMembers};
use dacapo_store::contract::journal::JournalHome;
use dacapo_store::{Clock, Journal};

struct InDatabase {
    server: Arc<Server>,
    url: Option<String>,
}

#[async_trait]
impl JournalHome for InDatabase {
    fn lasts(&self) -> bool {
        true
    }

    async fn open(&mut self, clock: Arc<dyn Clock>) -> Arc<dyn Journal> {
        let url = match self.url.take() {
            Some(url) => url,
            None => self.server.database().await,
        };
        let database = Database::connect(&url, Options::default()).await.unwrap();
        self.url = Some(url);
        Arc::new(PostgresJournal::open(&database, Some(clock)).await.unwrap())
    }
}

dacapo_store::journal_contract!(InDatabase { server: Server::shared(), url: None });

dacapo_store::journal_contract!(@history InDatabase { server: Server::shared(), url: None });

#[path = "contract/settings.rs"]
mod settings;

mod members {
    use super::*;

    async fn members() -> (PostgresMembers, Arc<Server>) {
        let server = Server::shared();
        let url = server.database().await;
        (PostgresMembers::new(Arc::new(Database::connect(&url, Options::default()).await.unwrap())), server)
    }

    dacapo_store::members_contract!(members().await);
}
