//! Members: a row a node, whose lease ends by the server's clock.
//!
//! They have a connection of their own, so that a lease is renewed however busy the pool is. A row whose lease has ended
//! says nothing any more; it goes some time later.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::replay::InPlace;
use dacapo_model::{CodeId, Member, MemberCode, MemberId, ProjectionName, Timestamp};
use dacapo_store::{Members, StoreError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::sync::Mutex;

use crate::database::Database;
use crate::fault::fault;
use crate::limits;
use crate::servers::Servers;
use crate::settings::shown;

const RENEW: &str = "
    WITH lease AS (SELECT clock_timestamp() AS now, $7::bigint * interval '1 microsecond' AS long),
    renewed AS (
        INSERT INTO members SELECT $1, $2, $3, $4, $5, $6, now + long, $8 FROM lease
        ON CONFLICT (id) DO UPDATE
        SET name = excluded.name, address = excluded.address, projections = excluded.projections,
            codes = excluded.codes, ready = excluded.ready, lease_ends = excluded.lease_ends,
            in_place = excluded.in_place
        RETURNING *
    ), gone AS (
        DELETE FROM members USING lease WHERE id <> $1 AND lease_ends < now - interval '1 hour'
    )
    SELECT members.* FROM members, lease WHERE id <> $1 AND lease_ends > now
    UNION ALL SELECT * FROM renewed ORDER BY id";

/// The members that share a schema.
pub struct PostgresMembers {
    servers: Servers,
    connection: Mutex<Option<PgConnection>>,
}

impl PostgresMembers {
    /// Returns the members of `database`.
    pub fn new(database: Arc<Database>) -> Self {
        let lock = shown(limits::LEASE_LOCK_TIME_MAX);
        Self { servers: database.servers().with("lock_timeout", &lock), connection: Mutex::default() }
    }

    /// Does something on the connection. One that failed, or was given up in the middle, is not used again.
    async fn done<T>(
        &self,
        tried: &str,
        act: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.servers.history().holds()?;
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.servers.connect().await?,
        };
        let done = tokio::time::timeout(limits::LEASE_CALL_TIME_MAX, act(&mut connection)).await;
        let done = done.map_err(|_| {
            let found = format!("no answer within {} ms", limits::LEASE_CALL_TIME_MAX.as_millis());
            StoreError::unavailable(tried, found)
        })?;
        let done = done.map_err(|error| fault(tried, &error))?;
        *kept = Some(connection);
        Ok(done)
    }
}

#[async_trait]
impl Members for PostgresMembers {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        let projections: Vec<&str> = member.carries.iter().map(|code| code.id.projection.as_str()).collect();
        let codes: Vec<i64> = member.carries.iter().map(|code| code.id.code.into()).collect();
        let in_place = |code: &MemberCode| code.in_place.map(InPlace::as_str);
        let in_place: Vec<Option<&str>> = member.carries.iter().map(in_place).collect();
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let rows = self.done("renew the lease of this node", async |connection| {
            let renew = sqlx::query(RENEW).bind(member.id.bytes()).bind(&member.name).bind(&member.address);
            renew
                .bind(projections)
                .bind(codes)
                .bind(member.ready)
                .bind(lease)
                .bind(in_place)
                .fetch_all(connection)
                .await
        });
        rows.await?.iter().map(of_row).collect()
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        let leave = self.done("give back the lease of this node", async |connection| {
            sqlx::query("DELETE FROM members WHERE id = $1").bind(id.bytes()).execute(connection).await
        });
        leave.await.map(drop)
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        let rows = self.done("look which nodes are alive", async |connection| {
            let live = "SELECT * FROM members WHERE lease_ends > clock_timestamp() ORDER BY id";
            sqlx::query(live).fetch_all(connection).await
        });
        rows.await?.iter().map(of_row).collect()
    }

    async fn now(&self) -> Result<Option<Timestamp>, StoreError> {
        let now = self.done("ask the server for the time", async |connection| {
            let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
            sqlx::query_scalar(now).fetch_one(connection).await
        });
        Ok(Some(Timestamp::from_micros(now.await?)))
    }
}

fn of_row(row: &PgRow) -> Result<Member, StoreError> {
    let damaged = |found: String| StoreError::corrupt("the table members", found);
    let failed = |error: sqlx::Error| damaged(error.to_string());
    let (id, name, address): (Vec<u8>, _, _) = (
        row.try_get("id").map_err(failed)?,
        row.try_get("name").map_err(failed)?,
        row.try_get("address").map_err(failed)?,
    );
    let id = id.try_into().map_err(|_| damaged("an id that has not 16 bytes".to_owned()))?;
    let projections: Vec<String> = row.try_get("projections").map_err(failed)?;
    let codes: Vec<i64> = row.try_get("codes").map_err(failed)?;
    // A node of an earlier release does not say.
    let in_place: Vec<Option<String>> = row.try_get("in_place").map_err(failed)?;
    let in_place = in_place.into_iter().map(|name| InPlace::named(&name?)).chain(std::iter::repeat(None));
    let code = |((projection, code), in_place): ((String, i64), _)| {
        let projection = ProjectionName::new(projection).map_err(|invalid| damaged(invalid.to_string()))?;
        let code = u32::try_from(code).map_err(|_| damaged(format!("{code} is no version of code")))?;
        Ok(MemberCode { id: CodeId { projection, code }, in_place })
    };
    let carries = projections.into_iter().zip(codes).zip(in_place).map(code).collect::<Result<_, StoreError>>()?;
    let ready = row.try_get("ready").map_err(failed)?;
    Ok(Member { id: MemberId::from_bytes(id), name, address, carries, ready })
}
