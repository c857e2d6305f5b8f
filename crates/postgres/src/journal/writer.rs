//! The connection that appends.

use std::sync::Arc;

use dacapo_model::{EventId, Mark, Position, Revision, StreamName};
use dacapo_store::{Clock, StoreError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::group::{Facts, Found, Group, Waiting};
use super::known::Known;
use super::read;
use crate::fault::fault;
use crate::servers::Servers;

/// The rows that a probe writes, and the UUIDs of 16 bytes in each: each row fills most of a page, and all together are
/// 64 KiB, more than most groups of events.
const PROBE_ROWS: i32 = 8;
const PROBE_ROW_UUIDS: i32 = 500;

/// What came of a group.
pub(super) enum Outcome {
    /// It is written after this position and these revisions of its streams.
    Written { head: Position, revisions: Vec<Revision>, mark: Mark },
    /// Something is not as it was thought to be, so nothing of it was written.
    OtherThanThought,
    /// The journal ends before events that were seen, so nothing was written.
    WentBack,
}

/// The reason why nothing is known of a group, or that it was not written.
pub(super) struct Failed {
    pub error: StoreError,
    /// True if it may be written nevertheless.
    pub unknown: bool,
    /// True if there was no answer.
    pub silent: bool,
}

impl Failed {
    /// Returns the failure of a group that was not written.
    fn unwritten(error: StoreError) -> Self {
        Self { error, unknown: false, silent: false }
    }
}

pub(super) struct Writer {
    servers: Arc<Servers>,
    clock: Option<Arc<dyn Clock>>,
    connected: Option<Connected>,
}

/// A connection, and what is known through it. Both go together: another connection may lead to a server that took
/// over without the last events, where other ones may be at their places.
struct Connected {
    connection: PgConnection,
    known: Known,
}

impl Writer {
    pub fn new(servers: Arc<Servers>, clock: Option<Arc<dyn Clock>>) -> Self {
        Self { servers, clock, connected: None }
    }

    /// Writes a group, if the journal reaches `seen` and everything is as the group demands.
    pub async fn append(&mut self, group: &Group, seen: Position, until: Instant) -> Result<Outcome, Failed> {
        let tried = "append";
        let mut connected = match tokio::time::timeout_at(until, self.take()).await {
            Ok(taken) => taken.map_err(Failed::unwritten)?,
            Err(_) => return Err(Failed { error: no_connection(), unknown: false, silent: true }),
        };
        let now = self.clock.as_ref().map(|clock| clock.now().micros());
        let answered = tokio::time::timeout_at(until, call(&mut connected, group, seen, now)).await;
        match answered {
            Ok(Ok(outcome)) => {
                match &outcome {
                    Outcome::Written { head, revisions, mark } => {
                        connected.known.wrote(*head, group, revisions);
                        self.servers.history().learn(*mark);
                    }
                    Outcome::OtherThanThought => {}
                    Outcome::WentBack => {
                        let history = self.servers.history();
                        let looked = history.check(&mut connected.connection, seen);
                        let looked = tokio::time::timeout_at(until, looked).await.unwrap_or(Ok(()));
                        looked.map_err(|error| Failed::unwritten(fault(tried, &error)))?;
                        history.holds().map_err(Failed::unwritten)?;
                    }
                }
                self.connected = Some(connected);
                Ok(outcome)
            }
            Ok(Err(error)) => {
                // A server that ends a connection may have committed before; any other error undoes the statement.
                let unknown = !matches!(&error, sqlx::Error::Database(error) if is_plain(error.downcast_ref()));
                if !unknown {
                    self.connected = Some(connected);
                }
                Err(Failed { error: fault(tried, &error), unknown, silent: false })
            }
            Err(_) => {
                let error = StoreError::unavailable(tried, "the database does not answer");
                Err(Failed { error, unknown: true, silent: true })
            }
        }
    }

    /// Checks whether an append would do: as far as one without events tells, and whether the disk takes anything.
    pub async fn probe(&mut self, until: Instant) -> Result<(), StoreError> {
        let tried = "append";
        let mut connected = self.take_until(until).await?;
        let probed = async {
            call(&mut connected, &Group::default(), Position::START, None).await?;
            // The lock of the sequencer is given back by now.
            write_and_undo(&mut connected.connection).await
        };
        match tokio::time::timeout_at(until, probed).await {
            Ok(probed) => probed.map_err(|error| fault(tried, &error)),
            Err(_) => Err(StoreError::unavailable(tried, "the database does not answer")),
        }
    }

    /// What is in the journal about `waiting`.
    pub async fn facts(&mut self, waiting: &[Waiting], until: Instant) -> Result<Facts, StoreError> {
        let tried = "look up what an append is about";
        let mut connected = self.take_until(until).await?;
        match tokio::time::timeout_at(until, facts(&mut connected.connection, waiting)).await {
            Ok(Ok(facts)) => {
                self.connected = Some(connected);
                Ok(facts)
            }
            Ok(Err(error)) => Err(fault(tried, &error)),
            Err(_) => Err(StoreError::unavailable(tried, "the database does not answer")),
        }
    }

    /// Returns the connection, out of its place: it comes back there only after an answer.
    async fn take(&mut self) -> Result<Connected, StoreError> {
        self.servers.history().holds()?;
        if let Some(connected) = self.connected.take() {
            return Ok(connected);
        }
        Ok(Connected { connection: self.servers.connect().await?, known: Known::default() })
    }

    async fn take_until(&mut self, until: Instant) -> Result<Connected, StoreError> {
        tokio::time::timeout_at(until, self.take()).await.unwrap_or_else(|_| Err(no_connection()))
    }
}

fn no_connection() -> StoreError {
    StoreError::unavailable("connect to the database", "it does not answer")
}

fn is_plain(error: &PgDatabaseError) -> bool {
    !matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
}

#[expect(clippy::expect_used, reason = "a group is small")]
async fn call(
    Connected { connection, known }: &mut Connected,
    group: &Group,
    seen: Position,
    now: Option<i64>,
) -> Result<Outcome, sqlx::Error> {
    let rows = || group.rows.iter();
    let events = || rows().map(|row| (row, group.event(row)));
    let asked: Vec<&str> = group.asked.iter().map(|(stream, _)| stream.as_str()).collect();
    let demanded: Vec<Option<i64>> = group.asked.iter().map(|(_, demand)| *demand).collect();
    let revisions = group.asked.iter().map(|(stream, _)| known.revision(stream).map(|known| known.get().cast_signed()));
    let totals = rows().scan(0, |total, row| {
        *total += i64::try_from(row.size).expect("a group is small");
        Some(*total)
    });
    let int4 = |number: usize| i32::try_from(number).expect("a group is small");
    // All answers are read, because the last one is that to the commit: before it nothing is durable (I-2).
    let answers = sqlx::query(
        "SELECT written, head, revisions, digest \
         FROM append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(seen.get().cast_signed())
    .bind(asked)
    .bind(demanded)
    .bind(revisions.collect::<Vec<_>>())
    .bind(known.at().get().cast_signed())
    .bind(events().map(|(_, event)| Uuid::from_bytes(event.event.id.bytes())).collect::<Vec<_>>())
    .bind(rows().map(|row| int4(row.stream + 1)).collect::<Vec<_>>())
    .bind(rows().map(|row| int4(usize::try_from(row.step).expect("a group is small"))).collect::<Vec<_>>())
    .bind(events().map(|(_, event)| event.stream.as_str()).collect::<Vec<_>>())
    .bind(events().map(|(_, event)| event.event.event_type.as_str()).collect::<Vec<_>>())
    .bind(rows().map(|row| int4(row.size)).collect::<Vec<_>>())
    .bind(totals.collect::<Vec<_>>())
    .bind(rows().map(|row| i16::from(row.flags)).collect::<Vec<_>>())
    .bind(rows().map(|row| row.extra.as_slice()).collect::<Vec<_>>())
    .bind(events().map(|(_, event)| event.event.payload.as_slice()).collect::<Vec<_>>())
    .bind(group.hash().to_be_bytes().as_slice())
    .bind(now)
    .fetch_all(connection)
    .await?;
    let answer = answers.first().ok_or(sqlx::Error::RowNotFound)?;
    let head = Position::new(answer.try_get::<i64, _>(1)?.cast_unsigned());
    if answer.try_get(0)? && !group.rows.is_empty() {
        let revisions: Vec<i64> = answer.try_get(2)?;
        let revisions = revisions.into_iter().map(|revision| Revision::new(revision.cast_unsigned())).collect();
        let mark = read::mark(head.plus(group.rows.len() as u64), answer.try_get(3)?)?;
        return Ok(Outcome::Written { head, revisions, mark });
    }
    Ok(if head < seen { Outcome::WentBack } else { Outcome::OtherThanThought })
}

/// Writes some bytes that no file system can make smaller, and rolls that back. They go into a new file, so what earlier
/// tries left free is of no use to them, and the file goes with the transaction.
async fn write_and_undo(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("TRUNCATE probe").execute(&mut *transaction).await?;
    sqlx::query(
        "INSERT INTO probe SELECT (SELECT decode(string_agg(replace(gen_random_uuid()::text, '-', ''), ''), 'hex') \
                                   FROM generate_series(1, $2) WHERE n > 0) \
         FROM generate_series(1, $1) AS n",
    )
    .bind(PROBE_ROWS)
    .bind(PROBE_ROW_UUIDS)
    .execute(&mut *transaction)
    .await?;
    transaction.rollback().await
}

async fn facts(connection: &mut PgConnection, waiting: &[Waiting]) -> Result<Facts, sqlx::Error> {
    let mut facts = Facts::default();
    let streams: Vec<&StreamName> = waiting.iter().flat_map(|one| one.asked()).map(|(stream, _)| stream).collect();
    let names: Vec<&str> = streams.iter().map(|stream| stream.as_str()).collect();
    let revisions: Vec<i64> = sqlx::query_scalar(
        "SELECT coalesce((SELECT revision FROM events e WHERE e.stream = a.stream ORDER BY revision DESC LIMIT 1), 0) \
         FROM unnest($1::text[]) WITH ORDINALITY AS a (stream, place) ORDER BY place",
    )
    .bind(names)
    .fetch_all(&mut *connection)
    .await?;
    for (stream, revision) in streams.into_iter().zip(revisions) {
        facts.revisions.insert(stream.clone(), Revision::new(revision.cast_unsigned()));
    }
    let ids = waiting.iter().flat_map(|one| &one.append.events).map(|event| Uuid::from_bytes(event.event.id.bytes()));
    let rows =
        sqlx::query("SELECT id, position, revision, stream, type, payload FROM events WHERE id = ANY ($1::uuid[])")
            .bind(ids.collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
    for row in rows {
        let found = Found {
            position: Position::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
            revision: Revision::new(row.try_get::<i64, _>(2)?.cast_unsigned()),
            stream: row.try_get(3)?,
            event_type: row.try_get(4)?,
            payload: row.try_get(5)?,
        };
        facts.events.insert(EventId::from_bytes(row.try_get::<Uuid, _>(0)?.into_bytes()), found);
    }
    Ok(facts)
}
