//! Versions of projections.

use std::fmt;

use crate::name::ProjectionName;

/// A version of a projection: `v2.1` is code version 2, first build of it. A rebuild makes another build of the same
/// code. Versions are ordered by code, then by build. A number is never used again (I-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The version of the code. Its author raises it.
    pub code: u32,
    /// The build of that code, from 1.
    pub build: u32,
}

/// A text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidVersion(pub String);

impl fmt::Display for InvalidVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a version: write it like v2.1 (code version 2, build 1)", self.0)
    }
}

impl std::error::Error for InvalidVersion {}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("v{}.{}", self.code, self.build))
    }
}

impl std::str::FromStr for VersionId {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion(text.to_owned());
        let (code, build) = text.strip_prefix('v').and_then(|rest| rest.split_once('.')).ok_or_else(invalid)?;
        let version = Self { code: code.parse().map_err(|_| invalid())?, build: build.parse().map_err(|_| invalid())? };
        // There is one text for each version, so equal texts mean equal versions.
        if version.to_string() == text { Ok(version) } else { Err(invalid()) }
    }
}

/// The view of one version: the namespace that holds its rows and tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId {
    /// The projection.
    pub projection: ProjectionName,
    /// The version.
    pub version: VersionId,
}

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.projection, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_back_what_it_shows() {
        let version = VersionId { code: 2, build: 11 };
        assert_eq!(version.to_string(), "v2.11");
        assert_eq!("v2.11".parse(), Ok(version));
        assert!("v2".parse::<VersionId>().unwrap_err().to_string().contains("v2.1"));
        for other in
            ["2.11", "v02.11", "v2.011", "v+2.11", "V2.11", "v2.11 ", "v2.11.0", "v2.", "v-2.1", "v4294967296.1"]
        {
            assert_eq!(other.parse::<VersionId>(), Err(InvalidVersion(other.to_owned())), "{other}");
        }
    }
}
