//! A journal that goes wrong.

use std::sync::{Arc, PoisonError};

use dacapo::journal::{Append, Appended};
use dacapo::store::Journal;
use dacapo_store::{AppendError, Health};

use super::{Call, Faults};

pub(super) struct FaultyJournal {
    pub(super) inner: Arc<dyn Journal>,
    pub(super) faults: Faults,
}

impl FaultyJournal {
    async fn append_batch(&self, append: Append) -> Result<Appended, AppendError> {
        self.faults.meet(Call::Append(&append), self.inner.append(append.clone())).await
    }

    fn told(&self) -> Health {
        let planned = self.faults.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        planned.unwrap_or_else(|| self.inner.health())
    }
}

/// A call that may go wrong.
macro_rules! meet {
    ($self:ident, $call:expr, $which:expr) => {
        $self.faults.meet($which, $call).await
    };
}

dacapo_store::delegate! {
    impl Journal for FaultyJournal {
        id;
        mark by meet(Call::Mark);
        append => append_batch;
        read by meet(Call::Read);
        read_places by meet(Call::Read);
        read_stream by meet(Call::ReadStream);
        stream_revision by meet(Call::StreamRevision);
        position_of by meet(Call::FindPosition);
        position_before by meet(Call::FindPosition);
        streams by meet(Call::Streams);
        blocks;
        { fn health(&self) -> Health { self.told() } }
        warnings;
        head;
        close;
    }
}
