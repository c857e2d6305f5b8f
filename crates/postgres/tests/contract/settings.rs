//! The contract where nothing is as it comes: through a pooler, and with settings that somebody made otherwise.

use std::sync::{Arc, Weak};

use dacapo_model::{ExpectedRevision, StreamName};
use dacapo_postgres::testbed::{Pooler, name_of};
use dacapo_postgres::{Database, PostgresViews};
use dacapo_store::contract::journal::{appended, event, everything};
use dacapo_store::{Append, StoreError};
use tokio::sync::Mutex;

use super::*;

/// A superuser, so that every setting may be made otherwise for it.
const STRANGE: &str = "strange";
/// What a server, a database or a user may preset, as badly as it can be.
const HOSTILE: &[(&str, &str)] = &[
    ("search_path", "elsewhere, public"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("quote_all_identifiers", "on"),
    ("xmloption", "document"),
    ("xmlbinary", "hex"),
    ("client_encoding", "LATIN1"),
    ("bytea_output", "escape"),
    ("DateStyle", "German, DMY"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "Asia/Kathmandu"),
    ("timezone_abbreviations", "India"),
    ("extra_float_digits", "-15"),
    ("lc_monetary", "POSIX"),
    ("lc_numeric", "POSIX"),
    ("lc_time", "POSIX"),
    ("row_security", "on"),
    ("synchronous_commit", "off"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_deferrable", "on"),
    ("session_replication_role", "replica"),
    ("zero_damaged_pages", "on"),
    ("ignore_checksum_failure", "on"),
    ("gin_fuzzy_search_limit", "1"),
    ("exit_on_error", "on"),
    // Long enough for what comes before they are set, and for a connection to wait in the pooler, on a slow machine.
    ("statement_timeout", "20s"),
    ("lock_timeout", "9s"),
    ("idle_in_transaction_session_timeout", "20min"),
    ("idle_session_timeout", "20min"),
    ("jit", "on"),
];
/// What may be made otherwise and stays so: it must change nothing but how long something takes.
const ODD: &[(&str, &str)] = &[
    ("lc_messages", "POSIX"),
    ("default_text_search_config", "pg_catalog.simple"),
    // A list, of what may not be read: the names for SQL from outside are views, and nothing of dacapo's own reads them.
    ("restrict_nonsystem_relation_kind", "view, foreign-table"),
    ("plpgsql.variable_conflict", "use_column"),
    ("plpgsql.extra_errors", "all"),
    ("plpgsql.check_asserts", "off"),
    ("force_parallel_mode", "regress"),
    ("debug_parallel_query", "regress"),
    ("plan_cache_mode", "force_generic_plan"),
    ("temp_file_limit", "64MB"),
];
/// What is left as it is, though it could be made otherwise: what a transaction has and not a session, what only makes
/// everything slower or longer in the log, and what a server of this machine may not have.
const LEFT: &[&str] = &[
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "commit_delay",
    "jit_dump_bitcode",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    // With too little of it the server refuses to plan anything.
    "max_stack_depth",
];

/// A server with a user for whom everything is otherwise, and a pooler before it that pools sessions.
struct Elsewhere {
    server: Arc<Server>,
    pooler: Pooler,
}

impl Elsewhere {
    /// The one that the checks of a test share.
    async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Elsewhere>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(there) = shared.upgrade() {
            return there;
        }
        let server = Server::shared();
        let role = format!(
            "DO $$ BEGIN CREATE ROLE {STRANGE} LOGIN SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$; {}",
            presets(&format!("ROLE {STRANGE}"))
        );
        server.run("postgres", &role).await;
        let pooler = Pooler::start(&server, "session", &[STRANGE]);
        let there = Arc::new(Self { server, pooler });
        *shared = Arc::downgrade(&there);
        there
    }

    /// A database where everything is otherwise, in which another application's table is found first.
    async fn database(&self) -> String {
        let name = name_of(&self.server.database().await).to_owned();
        self.server.run(&name, "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.events (position bigint)").await;
        self.server.run("postgres", &presets(&format!("DATABASE {name}"))).await;
        self.pooler.url_of(STRANGE, &name)
    }
}

/// Makes everything otherwise, for a database or a user: what is named above, and all else that this server lets a
/// session have, whatever it is: yes for no, the last word for another, the lowest number or the highest.
fn presets(what: &str) -> String {
    let hostile = HOSTILE.iter().map(|(name, value)| match *name {
        // A list, which quotes would make one name.
        "search_path" => format!("ALTER {what} SET {name} = {value};"),
        _ => format!("ALTER {what} SET {name} = '{value}';"),
    });
    // Not every server knows each of these.
    let odd: Vec<_> = ODD.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
    let named: Vec<_> = HOSTILE.iter().chain(ODD).map(|(name, _)| *name).chain(LEFT.iter().copied()).collect();
    let (odd, named) = (odd.join(", "), named.join("', '"));
    let others = format!(
        "DO $presets$ DECLARE one record; BEGIN
            LOAD 'plpgsql';
            FOR one IN
                SELECT name, value FROM (VALUES {odd}) odd (name, value) JOIN pg_settings USING (name)
                UNION ALL
                SELECT name, CASE vartype
                    WHEN 'bool' THEN CASE setting WHEN 'on' THEN 'off' ELSE 'on' END
                    WHEN 'enum' THEN (SELECT word FROM unnest(enumvals) WITH ORDINALITY AS words (word, place)
                        WHERE word <> setting ORDER BY place DESC LIMIT 1)
                    ELSE CASE WHEN setting <> min_val THEN min_val ELSE max_val END END
                FROM pg_settings
                WHERE context IN ('user', 'superuser') AND vartype <> 'string' AND name NOT IN ('{named}')
                    AND (min_val IS NULL OR min_val <> max_val)
                    AND category NOT LIKE 'Reporting and Logging%' AND category NOT LIKE 'Statistics / Monitoring'
                    AND category NOT LIKE '%Vacuum%' AND name NOT LIKE 'vacuum%'
            LOOP
                EXECUTE format('ALTER {what} SET %s = %L', one.name, one.value);
            END LOOP;
        END $presets$;"
    );
    hostile.chain([others]).collect()
}

/// A journal there.
struct Strange {
    there: Option<Arc<Elsewhere>>,
    url: Option<String>,
}

/// Fewer connections than one has for itself: all checks share what the server has.
fn options() -> Options {
    Options { connections_max: 12, ..Options::default() }
}

#[async_trait]
impl JournalHome for Strange {
    fn lasts(&self) -> bool {
        true
    }

    async fn open(&mut self, clock: Arc<dyn Clock>) -> Arc<dyn Journal> {
        let there = match self.there.take() {
            Some(there) => there,
            None => Elsewhere::shared().await,
        };
        let url = match self.url.take() {
            Some(url) => url,
            None => there.database().await,
        };
        self.there = Some(there);
        let database = Database::connect(&url, options()).await.unwrap();
        self.url = Some(url);
        Arc::new(PostgresJournal::open(&database, Some(clock)).await.unwrap())
    }
}

dacapo_store::journal_contract!(@together
    a_journal_through_a_pooler_and_with_strange_settings Strange { there: None, url: None });

dacapo_store::views_contract!(@together views_through_a_pooler_and_with_strange_settings {
    let there = Elsewhere::shared().await;
    let database = Database::connect(&there.database().await, options()).await.unwrap();
    (PostgresViews::new(Arc::new(database)), there)
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_setting_is_as_it_must_be_on_every_connection() {
    let there = Elsewhere::shared().await;
    let url = there.database().await;
    for url in [url.clone(), there.server.url_of(STRANGE, name_of(&url))] {
        let database = Database::connect(&url, Options::default()).await.unwrap();
        // How it is encrypted is told of what goes over a network.
        let told = database.description().contains("schema dacapo, TLS disable, not encrypted");
        assert_eq!(told, url.contains("127.0.0.1"), "{}", database.description());
        let mut connection = database.acquire("test").await.unwrap();
        for (setting, hostile) in HOSTILE {
            let found: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            assert_ne!(found, *hostile, "{setting}");
        }
        // What makes no difference was made otherwise, or nothing would be shown by these tests.
        for (setting, odd) in
            [("enable_indexscan", "off"), ("plan_cache_mode", "force_generic_plan"), ("work_mem", "64kB")]
        {
            let found: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            assert_eq!(found, odd, "{setting}");
        }
    }
}

/// Somebody presets it all for a database that is in use, and every connection is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_preset_while_a_journal_is_open_changes_nothing() {
    let server = Server::shared();
    let url = server.database().await;
    let database = Database::connect(&url, Options::default()).await.unwrap();
    let journal = PostgresJournal::open(&database, None).await.unwrap();
    let name = |number: u64| StreamName::new(format!("a-{number}")).unwrap();
    let put = |number: u64| Append::to_stream(name(number), ExpectedRevision::NoStream, vec![event(number)]);
    appended(&journal, put(1)).await;
    server.run(name_of(&url), "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.events (position bigint)").await;
    server.run("postgres", &presets(&format!("DATABASE {}", name_of(&url)))).await;
    server.cut_off(&url).await;
    for number in 2..10 {
        assert_eq!(appended(&journal, put(number)).await.position.get(), number);
    }
    let all = everything(&journal).await;
    let payloads: Vec<_> = all.into_iter().map(|found| found.event.payload).collect();
    assert_eq!(payloads, (1..10).map(|number| event(number).payload).collect::<Vec<_>>());
    let mut connection = database.acquire("test").await.unwrap();
    let found: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(found, "dacapo, pg_temp");
}

/// What is preset ends every statement and every wait at once. A session must set its own limits before it feels them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_limits_that_are_preset_end_nothing() {
    let server = Server::shared();
    let role = "DO $$ BEGIN CREATE ROLE hasty LOGIN SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
                ALTER ROLE hasty SET statement_timeout = '1ms'; ALTER ROLE hasty SET lock_timeout = '1ms';
                ALTER ROLE hasty SET idle_in_transaction_session_timeout = '1ms';
                -- A query then takes longer than that: it starts a process. A server has one of these names.
                DO $$ DECLARE one text; BEGIN
                    FOR one IN SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')
                    LOOP EXECUTE format('ALTER ROLE hasty SET %I = on', one); END LOOP;
                END $$";
    server.run("postgres", role).await;
    let pooler = Pooler::start(&server, "session", &["hasty"]);
    for pooled in [false, true] {
        let name = name_of(&server.database().await).to_owned();
        let url = if pooled { pooler.url_of("hasty", &name) } else { server.url_of("hasty", &name) };
        let database = Arc::new(Database::connect(&url, options()).await.unwrap());
        let mut connection = database.acquire("test").await.unwrap();
        for (setting, value) in
            [("statement_timeout", "30s"), ("lock_timeout", "1s"), ("idle_in_transaction_session_timeout", "2s")]
        {
            let found: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            assert_eq!(found, value, "{setting}");
        }
        drop(connection);
        let journal = PostgresJournal::open(&database, None).await.unwrap();
        let stream = StreamName::new("a-1").unwrap();
        // So many are read by COPY.
        let events = (1..=3_000).map(event).collect();
        appended(&journal, Append::to_stream(stream, ExpectedRevision::NoStream, events)).await;
        assert_eq!(everything(&journal).await.len(), 3_000);
        let mut connection = database.acquire("test").await.unwrap();
        sqlx::raw_sql("SELECT pg_sleep(0.05)").execute(&mut *connection).await.unwrap();
    }
}

/// What only a superuser may set is refused by name, where one has set it for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_cannot_be_had_is_refused_by_name() {
    let server = Server::shared();
    server.run("postgres", "CREATE ROLE plain LOGIN").await;
    for (setting, value) in
        [("session_replication_role", "replica"), ("zero_damaged_pages", "on"), ("ignore_checksum_failure", "on")]
    {
        let url = server.database().await;
        let name = name_of(&url);
        server.run("postgres", &format!("GRANT CREATE ON DATABASE {name} TO plain")).await;
        server.run("postgres", &format!("ALTER DATABASE {name} SET {setting} = {value}")).await;
        let error = Database::connect(&server.url_of("plain", name), Options::default()).await.unwrap_err();
        assert!(error.to_string().contains(setting), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_does_not_pool_sessions_is_refused() {
    let server = Server::shared();
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&server, mode, &["owner"]);
        let url = pooler.url_of("owner", name_of(&server.database().await));
        let error = Database::connect(&url, Options::default()).await.unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, StoreError::Invalid(_)), "{mode}: {told}");
        assert!(told.contains("it pool sessions") || told.contains("it must pool sessions"), "{mode}: {told}");
    }
}
