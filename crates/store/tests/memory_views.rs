//! The memory store's views and members: the contract.
#![cfg(feature = "contract")]

mod contract {
    dacapo_store::views_contract!((dacapo_store::memory::MemoryViews::new(), ()));
}

mod members {
    use std::sync::Arc;

    use dacapo_store::SystemClock;
    use dacapo_store::memory::MemoryMembers;

    dacapo_store::members_contract!((MemoryMembers::new(Arc::new(SystemClock)), ()));
}
