//! Values on the command line, checked where they are given: a value that can never work is reported as a wrong
//! command line, before anything is opened or called.

use std::fmt::Display;
use std::num::ParseIntError;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use dacapo_api::{
    ClientLimits, HttpClient, Json, check_category, parse_event_id, parse_number, parse_projection, parse_time,
    parse_version, without_secrets,
};
use dacapo_model::{AskedText, EventType, StreamName};
use dacapo_server::Hosts;
use http::Uri;

use crate::shown::shown;

fn text<T, E: Display>(given: &str, found: Result<T, E>) -> Result<String, String> {
    let told = |error: E| match may_have_a_password(given) {
        true => error.to_string().replace(given, &without_secrets(given)),
        false => error.to_string(),
    };
    found.map(|_| given.to_owned()).map_err(told)
}

/// Returns the address of a node to talk to.
pub(crate) fn node(given: &str) -> Result<String, String> {
    text(given, HttpClient::new(given, ClientLimits::default()))
}

/// Returns the address at which others reach a node, a proxy before it perhaps.
pub(crate) fn address(given: &str) -> Result<String, String> {
    let uri = given.parse::<Uri>().ok();
    let is_whole = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && host_of(uri).is_some();
    let found = match uri.as_ref() {
        _ if given.contains('@') => "it has a user or a password, which every node and every caller would see",
        _ if given.contains(['?', '#']) => "it has a query or a fragment, which does not belong in an address",
        Some(uri) if is_whole(uri) => return Ok(given.to_owned()),
        _ => "it does not begin with http:// and a host",
    };
    Err(format!("{found}: write it like http://10.0.0.7:7373"))
}

/// Returns the host that an address names, which [`address`] has looked at.
pub(crate) fn host_of_address(address: &str) -> Option<String> {
    host_of(&address.parse().ok()?)
}

/// Returns true if the URL of a database has a password in it.
pub(crate) fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || query.split('&').any(|pair| pair.starts_with("password="))
}

fn host_of(uri: &Uri) -> Option<String> {
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some(authority.host().to_owned()).filter(|host| !host.is_empty())
}

/// Returns a whole number of the type, in the one way in which one is written.
pub(crate) fn number<T: FromStr<Err = ParseIntError>>(given: &str) -> Result<T, String> {
    parse_number(given)
}

/// The same within bounds.
pub(crate) fn within<T>(bounds: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr<Err = ParseIntError> + PartialOrd + Display + Clone,
{
    move |given| {
        let found = number(given)?;
        match bounds.contains(&found) {
            true => Ok(found),
            false => Err(format!("{found} is not between {} and {}", bounds.start(), bounds.end())),
        }
    }
}

pub(crate) fn host(given: &str) -> Result<String, String> {
    text(given, Hosts::named([given]))
}

pub(crate) fn projection(given: &str) -> Result<String, String> {
    text(given, parse_projection(given))
}

pub(crate) fn version(given: &str) -> Result<String, String> {
    text(given, parse_version(given))
}

pub(crate) fn stream(given: &str) -> Result<String, String> {
    text(given, StreamName::new(given))
}

pub(crate) fn event_type(given: &str) -> Result<String, String> {
    text(given, EventType::new(given))
}

pub(crate) fn category(given: &str) -> Result<String, String> {
    text(given, check_category(given))
}

pub(crate) fn event_id(given: &str) -> Result<String, String> {
    text(given, parse_event_id(given))
}

pub(crate) fn time(given: &str) -> Result<String, String> {
    text(given, parse_time(given))
}

pub(crate) fn actor(given: &str) -> Result<String, String> {
    text(given, AskedText::Actor.check(given))
}

pub(crate) fn reason(given: &str) -> Result<String, String> {
    text(given, AskedText::Reason.check(given))
}

pub(crate) fn key(given: &str) -> Result<String, String> {
    if given.is_empty() {
        return Err("it is empty: omit it, or make one for each request, such as a UUID".to_owned());
    }
    text(given, AskedText::Key.check(given))
}

pub(crate) fn json(given: &str) -> Result<String, String> {
    text(given, Json::parse(given)).map_err(|error| format!("it is not JSON: {error}"))
}

/// Also what is given to the wrong option may be an address with a password in it.
fn may_have_a_password(given: &str) -> bool {
    given.contains("://") && given.contains('@')
}

/// Returns true if the error is about the value of an option that is an address.
fn is_of_address(error: &clap::Error) -> bool {
    let option = error.get(ContextKind::InvalidArg);
    matches!(option, Some(ContextValue::String(option)) if option.contains("<URL>"))
}

/// Returns the error of the command line, with what was given escaped as in everything that is shown.
pub(crate) fn escaped(mut error: clap::Error) -> clap::Error {
    let of_address = is_of_address(&error);
    let own = |text: &String| match of_address || may_have_a_password(text) {
        true => shown(&without_secrets(text)).into_owned(),
        false => shown(text).into_owned(),
    };
    let given: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in given {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(own(&text)),
            ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(own).collect()),
            // The other errors are made of the commands' own texts.
            _ => continue,
        };
        error.insert(kind, value);
    }
    error
}

/// The same commands, to which a variable of the environment that is there and empty is one that is not there: who writes
/// `DACAPO_AT=` means none.
pub(crate) fn without_empty_variables(commands: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let commands = commands.mut_args(|arg| if is_empty(&arg) { arg.env(None::<&'static str>) } else { arg });
    commands.mut_subcommands(without_empty_variables)
}

/// Options of which the second is of no use beside the first. A default or a variable of the environment gives way; who
/// writes both on one command line means something that would not be done.
const ONE_OF: [(&str, &str); 2] = [("data", "url"), ("data_dir", "url")];
/// Options that are of no use without another one, and what that is.
const OF: [(&str, &str, &str); 2] = [("schema", "store", "--store"), ("connections", "store", "--store")];

/// Refuses options that are written and would not be used.
///
/// # Errors
/// An error that names both.
pub(crate) fn check_used(commands: &mut Command, found: &ArgMatches) -> Result<(), clap::Error> {
    let Some((name, found)) = found.subcommand() else { return Ok(()) };
    let Some(command) = commands.find_subcommand_mut(name) else { return Ok(()) };
    let source = |id: &str| found.try_contains_id(id).ok().and_then(|_| found.value_source(id));
    let is_written = |id: &str| source(id) == Some(ValueSource::CommandLine);
    let long = |command: &Command, id: &str| {
        let arg = command.get_arguments().find(|arg| arg.get_id() == id);
        format!("--{}", arg.and_then(Arg::get_long).unwrap_or(id))
    };
    if let Some((one, other)) = ONE_OF.into_iter().find(|(one, other)| is_written(one) && is_written(other)) {
        let (one, other) = (long(command, one), long(command, other));
        let text =
            format!("{one} opens a directory in this process, and {other} names a node: only one of them can be used");
        return Err(command.error(ErrorKind::ArgumentConflict, text));
    }
    let is_known = |id: &str| found.try_contains_id(id).is_ok();
    let lacks = |(id, needs, _): &(&str, &str, &str)| is_written(id) && is_known(needs) && source(needs).is_none();
    if let Some((id, _, needed)) = OF.into_iter().find(lacks) {
        let text = format!("{} is an option of a database: it has no effect without {needed}", long(command, id));
        return Err(command.error(ErrorKind::MissingRequiredArgument, text));
    }
    check_used(command, found)
}

/// The same error, with the variable of the environment that one of its options is from, if it is.
pub(crate) fn with_variable(error: clap::Error) -> clap::Error {
    let written = std::env::args_os().any(|arg| arg == "--store" || arg.as_encoded_bytes().starts_with(b"--store="));
    let is_set = std::env::var_os("DACAPO_STORE").is_some_and(|value| !value.is_empty());
    let names = error.to_string().contains("--store <URL>");
    if error.kind() != ErrorKind::ArgumentConflict || written || !is_set || !names {
        return error;
    }
    let text = "--data keeps everything in a directory, and the environment variable DACAPO_STORE names a database: unset \
                one of them";
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{text}\n"))
}
