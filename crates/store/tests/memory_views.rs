//! The memory store's views: the contract.
#![cfg(feature = "contract")]

mod contract {
    dacapo_store::views_contract!((dacapo_store::memory::MemoryViews::new(), ()));
}
