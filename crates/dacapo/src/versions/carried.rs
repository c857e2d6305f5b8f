//! The code that this node carries, and what it has reported about it to the log and to the other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, RwLock};

use dacapo_model::rebuild::Code;
use dacapo_model::{Catalog, CodeMismatch, ProjectionName, ViewId};

use crate::cluster::Cluster;
use crate::code::VersionCode;

/// The code that this node carries.
pub(crate) struct CarriedHere {
    all: RwLock<Vec<VersionCode>>,
    /// The last reports to the log.
    told: Mutex<Told>,
}

/// The last reports to the log about the carried code.
#[derive(Default)]
struct Told {
    /// The code that is not what was recorded for its number.
    unlike: BTreeMap<(ProjectionName, u32), CodeMismatch>,
    /// The serving versions whose code is not here.
    lacking: BTreeSet<ViewId>,
}

impl CarriedHere {
    pub(crate) fn new(all: Vec<VersionCode>) -> Self {
        Self { all: RwLock::new(all), told: Mutex::default() }
    }

    pub(crate) fn all(&self) -> Vec<VersionCode> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the code of this version, if it is here.
    pub(crate) fn of(&self, id: &ViewId) -> Option<VersionCode> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|carried| carried.is_of(&id.projection, id.version)).cloned()
    }

    /// Adds this code, replacing earlier code of the same number.
    pub(super) fn add(&self, carried: VersionCode) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| (&known.code.projection, known.code.code) != (&carried.code.projection, carried.code.code));
        all.push(carried);
    }

    /// Reports to the other nodes which code may get work. Reports to the log which code may not, with the reason, and
    /// the serving versions whose code is not here.
    pub(super) fn tell(&self, catalog: &Catalog, cluster: &Cluster) {
        let carried = self.all();
        let barred = |code: &Code| Some(((code.projection.clone(), code.code), catalog.barred(code)?));
        let unlike: BTreeMap<_, _> = carried.iter().filter_map(|carried| barred(&carried.code)).collect();
        let may_run =
            |carried: &&VersionCode| !unlike.contains_key(&(carried.code.projection.clone(), carried.code.code));
        cluster.carries(carried.iter().filter(may_run).map(VersionCode::of_member).collect());
        let serving = catalog
            .projections
            .iter()
            .filter_map(|(projection, state)| Some(ViewId { projection: projection.clone(), version: state.serving? }));
        let lacking = serving.filter(|id| self.of(id).is_none()).collect();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for ((projection, code), unlike) in unlike.iter().filter(|(of, unlike)| told.unlike.get(*of) != Some(unlike)) {
            let advice = unlike.advice();
            tracing::error!(%projection, code, %unlike, advice, "this node gets no segments of a version it carries");
        }
        for (projection, code) in told.unlike.keys().filter(|of| !unlike.contains_key(*of)) {
            tracing::info!(%projection, code, "this node may be given segments of the version again");
        }
        for view in (&lacking as &BTreeSet<ViewId>).difference(&told.lacking) {
            tracing::warn!(%view, "this node does not carry the code of the serving version and cannot answer for it");
        }
        for view in told.lacking.difference(&lacking) {
            tracing::info!(%view, "this node carries the code of the serving version now");
        }
        *told = Told { unlike, lacking };
    }
}
