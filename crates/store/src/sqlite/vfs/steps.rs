//! The actions of a test while pages are moved on its thread.

use std::path::Path;

#[cfg(test)]
pub(crate) use told::{TOLD, UNLOCKS_THAT_FAIL};

/// Tells a test what is about to be done to the file of a view, or was just done.
pub(super) fn step(view: &Path, what: &'static str) {
    #[cfg(test)]
    TOLD.with_borrow_mut(|told| told.as_mut().map(|told| told(view, what)));
    #[cfg(not(test))]
    let _ = (view, what);
}

#[cfg(test)]
mod told {
    use std::cell::{Cell, RefCell};
    use std::path::Path;

    type Told = Box<dyn FnMut(&Path, &'static str)>;

    thread_local! {
        /// The number of attempts to release the write lock that fail, as if the system failed them.
        pub(crate) static UNLOCKS_THAT_FAIL: Cell<usize> = const { Cell::new(0) };
        pub(crate) static TOLD: RefCell<Option<Told>> = const { RefCell::new(None) };
    }
}
