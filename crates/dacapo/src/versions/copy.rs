//! The check whether a new version may begin as a copy of the serving one.

use dacapo_model::ViewId;

use super::Versions;
use crate::code::{VersionCode, check, lacks};

impl Versions {
    /// Checks that a new build of this code may begin as a copy of the serving version.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn may_copy(&self, carried: &VersionCode) -> Result<(), String> {
        let (catalog, projection) = (self.catalog.current(), carried.code.projection.clone());
        let serving = catalog.serving(&projection).ok_or("no version serves")?;
        let source = ViewId { projection, version: serving };
        let state = catalog.version(&source).ok_or("no version serves")?;
        let letters = self.open_version(&source).map_or(0, |open| open.progress.borrow().letters.unwrap_or_default());
        check(carried, carried.code.segments, serving, state.segments, self.code_of(&source).as_ref())?;
        // The transaction that copies checks this again.
        if letters > 0 { Err(lacks(letters)) } else { Ok(()) }
    }
}
