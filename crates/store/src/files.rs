//! The error that no more files can be opened, for every store and everything that it opens: a file, a connection.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Returns the advice for an error that says that no more files can be opened; `None` for any other error. Neither
/// the disk nor the other end has caused it.
pub fn no_more_files(error: &io::Error) -> Option<String> {
    let code = error.raw_os_error()?;
    if code == Errno::MFILE.raw_os_error() {
        let all = match getrlimit(Resource::Nofile).current {
            Some(max) => format!("all {max} files that this process may have open are in use"),
            None => "this process has as many files open as it may".to_owned(),
        };
        return Some(format!(
            "{all}: let it have more (ulimit -n, or LimitNOFILE of its service), or let fewer callers connect"
        ));
    }
    if code == Errno::NFILE.raw_os_error() {
        let found = "all files that this system may have open are in use: let it have more (sysctl fs.file-max), or see which \
                     process has so many (/proc/PID/fd)";
        return Some(found.to_owned());
    }
    None
}

/// Returns the text of an error of the operating system, with advice if there is any.
#[cfg(feature = "embedded")]
pub(crate) fn with_advice(error: &io::Error) -> String {
    no_more_files(error).map_or_else(|| error.to_string(), |advice| format!("{error}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_told_where_no_more_files_can_be_opened_and_nowhere_else() {
        let max = getrlimit(Resource::Nofile).current.map(|max| max.to_string()).unwrap_or_default();
        let of_process = no_more_files(&Errno::MFILE.into()).unwrap();
        assert!(of_process.contains("ulimit -n") && of_process.contains(&max), "{of_process}");
        assert!(no_more_files(&Errno::NFILE.into()).unwrap().contains("fs.file-max"));
        for other in [Errno::NOENT.into(), Errno::NOSPC.into(), io::Error::other("too many open files")] {
            assert_eq!(no_more_files(&other), None, "{other}");
        }
    }
}
