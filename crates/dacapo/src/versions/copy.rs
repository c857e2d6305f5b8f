//! The facts by which a new version may begin as a copy of the serving one.

use dacapo_model::ViewId;
use dacapo_model::copy::has_no_letters;

use super::Versions;
use crate::code::{VersionCode, check};

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
        check(carried, carried.code.segments, serving, state.segments, self.code_of(&source).as_ref())?;
        // The transaction that copies checks this again.
        has_no_letters(self.open_version(&source).and_then(|open| open.progress.borrow().letters).unwrap_or_default())
    }
}
