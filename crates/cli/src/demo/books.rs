//! What a client knows about its accounts: its own account of what was appended.

/// An account as its owner has it in their books.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// Its stream.
    pub(super) account: String,
    /// In cents.
    pub(super) balance: i64,
    /// The number of events that were acknowledged.
    pub(super) entries: u64,
}

/// The accounts of one client. No two clients share one.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) pages: Vec<Page>,
}

impl Books {
    /// Deals the accounts out to `clients`; every client gets at least one if there are enough.
    pub(super) fn split(self, clients: u16) -> Vec<Self> {
        let mut dealt = vec![Self::default(); usize::from(clients)];
        for (at, page) in self.pages.into_iter().enumerate() {
            dealt[at % usize::from(clients)].pages.push(page);
        }
        dealt.retain(|books| !books.pages.is_empty());
        dealt
    }
}
