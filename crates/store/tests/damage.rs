//! What the embedded journal does about files that are damaged, missing or torn: it never reads them as
//! truth, and it says which place is wrong.

#[path = "damage/chunks.rs"]
mod chunks;
#[path = "damage/copies.rs"]
mod copies;
#[path = "damage/directory.rs"]
mod directory;
#[path = "damage/notes.rs"]
mod notes;
#[path = "damage/repairs.rs"]
mod repairs;
#[path = "damage/setup.rs"]
mod setup;
#[path = "damage/written.rs"]
mod written;
