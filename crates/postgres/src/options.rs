//! Where the database is and how to speak to it.

use dacapo_store::StoreError;
use sqlx::postgres::PgConnectOptions;

use crate::limits;

/// The name of connections. This is the default if the URL has none.
pub(crate) const APPLICATION_NAME: &str = "dacapo";

/// The options of a node for its database.
#[derive(Clone, Debug)]
pub struct Options {
    /// The schema that has the journal; it is made if it is not there. 1 to [`limits::SCHEMA_NAME_BYTES_MAX`] bytes of
    /// `a-z`, `0-9` and `_`, not beginning with a digit or `pg_`.
    pub schema: String,
    /// Most connections for views at once, at least 2. On top come those of the journal: up to
    /// [`limits::READERS_MAX`] that read, one that appends, one that listens and one that keeps the lease, so 7 as it is.
    pub connections_max: u32,
    /// Where the jitter of pauses comes from. Nodes should differ in it, so that they do not all come back at the
    /// same moment.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { schema: "dacapo".into(), connections_max: limits::CONNECTIONS_MAX, seed: 0 }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let name = self.schema.as_bytes();
        let ok = (1..=limits::SCHEMA_NAME_BYTES_MAX).contains(&name.len())
            && first(name[0])
            && name.iter().all(|byte| first(*byte) || byte.is_ascii_digit())
            && !self.schema.starts_with("pg_")
            && self.schema != "information_schema";
        if !ok {
            return Err(StoreError::Invalid(format!(
                "{:?} cannot be the schema's name: take 1 to {} of a-z, 0-9 and _, not beginning with a digit or pg_, \
                 and not information_schema",
                self.schema,
                limits::SCHEMA_NAME_BYTES_MAX
            )));
        }
        if self.connections_max < 2 {
            return Err(StoreError::Invalid("at least 2 connections are needed, one writes and one reads".into()));
        }
        Ok(())
    }
}

/// Returns the servers that a URL names.
///
/// The driver knows one host in a URL; several, as libpq writes them (`postgres://user@one:5432,two:5433/name`), are
/// taken apart here. `target_session_attrs` is accepted with the values that mean a server that can be written to,
/// since that is always demanded.
pub(crate) fn servers(url: &str, options: &Options) -> Result<Vec<PgConnectOptions>, StoreError> {
    options.check()?;
    let invalid = |why: String| StoreError::Invalid(format!("the URL of the database cannot be used: {why}"));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("it must begin with postgres://".into()))?;
    if !matches!(scheme, "postgres" | "postgresql") {
        // What is no word may be anything, a password too.
        let is_word = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let found = if is_word {
            format!("it begins with {scheme}://, not with postgres://")
        } else {
            "it must begin with postgres://".into()
        };
        return Err(invalid(found));
    }
    // What comes before the @ is taken apart at these, and a part of a password would be shown as a host or a name.
    if rest.split_once(['/', '?', '#']).is_some_and(|(_, behind)| behind.contains('@')) {
        return Err(invalid(
            "an @ comes after a /, ? or #: within a user, a password or the name of a database write / as %2F, ? as %3F, \
             # as %23 and @ as %40"
                .into(),
        ));
    }
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let query = understood(query).map_err(invalid)?;
    let of_host = |host: &str| {
        let one: PgConnectOptions =
            format!("postgres://{user}{host}/{path}?{query}").parse().map_err(|error: sqlx::Error| {
                // The error of the driver names a part, never the password.
                invalid(error.to_string())
            })?;
        // What a pooler may not know is set once the connection is there, as everything else is (settings.rs).
        let one = one.extra_float_digits(None);
        Ok(if one.get_application_name().is_some() { one } else { one.application_name(APPLICATION_NAME) })
    };
    hosts.split(',').map(of_host).collect()
}

/// The parameters of a URL that the driver knows.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Returns the query of a URL without what the driver does not know. One that it would ignore is refused: it would
/// write the value to the log, which may be a password under a mistyped name.
fn understood(query: &str) -> Result<String, String> {
    let mut kept: Vec<&str> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("target_session_attrs", "any" | "read-write" | "primary")) => {}
            Some(("target_session_attrs", other)) => {
                return Err(format!("target_session_attrs is {other}, but a server that can be written to is needed"));
            }
            found => {
                let key = found.map_or(pair, |(key, _)| key);
                if found.is_none() || !(PARAMETERS.contains(&key) || key.starts_with("options[")) {
                    // A password with an & in it has a parameter made of its rest.
                    let name = match kept.last().is_some_and(|last| last.starts_with("password=")) {
                        true => "of the name that follows the password (write & within it as %26)".to_owned(),
                        false => format!("{key:?}"),
                    };
                    return Err(format!("it has no parameter {name}; there are {}", PARAMETERS.join(", ")));
                }
                let is_same =
                    |before: &&&str| before.split_once('=').is_some_and(|(before, _)| meant(before) == meant(key));
                if let Some(before) = kept.iter().find(is_same) {
                    let before = before.split_once('=').map_or(*before, |(before, _)| before);
                    return Err(format!(
                        "it has the parameter {key} beside {before}, and only one of them would count"
                    ));
                }
                kept.push(pair);
            }
        }
    }
    Ok(kept.join("&"))
}

/// Returns the meaning of a parameter. Some parameters have several names.
fn meant(name: &str) -> &str {
    match name {
        "ssl-mode" => "sslmode",
        "ssl-root-cert" | "ssl-ca" => "sslrootcert",
        "ssl-cert" => "sslcert",
        "ssl-key" => "sslkey",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::servers::{Pool, Servers};

    fn hosts(url: &str) -> Vec<(String, u16)> {
        let servers = servers(url, &Options::default()).unwrap();
        servers.iter().map(|server| (server.get_host().to_owned(), server.get_port())).collect()
    }

    #[test]
    fn every_host_of_a_url_is_a_server() {
        assert_eq!(hosts("postgres://me@one/db"), [("one".into(), 5432)]);
        let url = "postgresql://me:p%40ss@one:1,two:2,[::1]:3/db?target_session_attrs=read-write&sslmode=require";
        assert_eq!(hosts(url), [("one".into(), 1), ("two".into(), 2), ("[::1]".into(), 3)]);
        let server = &servers(url, &Options::default()).unwrap()[1];
        assert_eq!((server.get_username(), server.get_database()), ("me", Some("db")));
        assert_eq!((server.get_application_name(), server.get_options()), (Some("dacapo"), None));
    }

    #[tokio::test]
    async fn nothing_that_is_printed_has_the_password() {
        let url = "postgres://me:s3cret@one:1,two:2/db?application_name=x";
        let servers = Arc::new(Servers::new(servers(url, &Options::default()).unwrap(), "dacapo"));
        let printed = format!("{servers:?} {:?} {}", Pool::new(Arc::clone(&servers), 2), servers.description());
        assert!(!printed.contains("s3cret") && printed.contains("one:1"), "{printed}");
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let why = |url: &str, options: &Options| servers(url, options).unwrap_err().to_string();
        assert!(why("mysql://one/db", &Options::default()).contains("begins with mysql://"));
        assert!(why("one/db", &Options::default()).contains("must begin with postgres://"));
        assert!(why("postgres://one/db?target_session_attrs=standby", &Options::default()).contains("is standby"));
        let mistyped = why("postgres://one/db?sslmode=require&pasword=s3cret", &Options::default());
        for twice in ["sslmode=verify-full&sslmode=disable", "sslmode=verify-full&ssl-mode=disable"] {
            let twice = why(&format!("postgres://one/db?{twice}"), &Options::default());
            assert!(twice.contains("beside sslmode"), "{twice}");
        }
        assert!(mistyped.contains(r#"no parameter "pasword""#) && !mistyped.contains("s3cret"), "{mistyped}");
        for url in [
            "postgres://me:12/s3cret@one/db",
            "postgres://me:12?s3cret@one/db",
            "postgres://me:12#s3cret@one/db",
            "postgres://me:12/34#s3@cret@one/db",
            "postgres://one/db?user=me&password=12&s3cret",
            "postgres://one/db?user=me&password=12&s3cret=1",
            "postgres://me:s3cret@one:99999/db",
            "postgres://me:s3cret@one:x/db",
            "postgres://me:s3cret@[::1/db",
            "postgres://me:s3cret@one/db?port=x",
            "postgres://me:s3cret%ff@one/db",
            "me:s3cret@one://db",
            "me:s3cret@one/db",
        ] {
            let found = why(url, &Options::default());
            assert!(!found.contains("s3") && !found.contains("cret"), "{url}: {found}");
        }
        let text = why("postgres://me:12/34@one/db", &Options::default());
        assert!(text.contains("write / as %2F"), "{text}");
        for query in ["sslmode", "options[search_path]=a&Password=x", "%70assword=x"] {
            assert!(
                why(&format!("postgres://one/db?{query}"), &Options::default()).contains("no parameter"),
                "{query}"
            );
        }
        for schema in ["", "Da", "pg_x", "1a", "a-b", "a;b", "information_schema", &"a".repeat(25)] {
            let options = Options { schema: schema.into(), ..Options::default() };
            assert!(why("postgres://one/db", &options).contains("cannot be the schema's name"), "{schema}");
        }
    }
}
