//! The code of a version, in the form in which a node carries it, with any event and row types.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use dacapo_model::rebuild::Code;
use dacapo_model::{CodeId, InvalidName, MemberCode, ProjectionName, Reads, VersionId};
use dacapo_store::{Filter, Index, Streams, Table};
use futures::future::BoxFuture;

use super::acts::{Actor, AnyAct};
use super::answers::{Answerer, AnyAnswer};
use super::shadow::ShadowOf;
use super::{Acts, Answers, AnyQuery, HandlerError, Handlers, Options, Projection, Query, Shadow};
use crate::effect::Effect;
use crate::event::Event;
use crate::view::ReadView;

/// The code of one version of a projection, with the queries that it answers and the effects that it makes. Every
/// [`Projection`] converts into it, and so does `BalancesV1.answering::<BalanceOf>()`.
#[derive(Clone)]
pub struct VersionCode {
    pub(crate) code: Code,
    pub(crate) options: Options,
    pub(crate) tables: &'static [Table],
    pub(crate) filter: Filter,
    pub(crate) handlers: Arc<dyn Handlers>,
    answers: HashMap<TypeId, Arc<dyn AnyAnswer>>,
    query_names: Vec<&'static str>,
    /// The type of a query that it answers although the query names another projection, and that projection.
    pub(super) foreign_query: Option<(&'static str, &'static str)>,
    acts: HashMap<&'static str, Arc<dyn AnyAct>>,
    /// The types of queries whose answers are compared with those of another version.
    pub(crate) shadows: HashMap<TypeId, Arc<dyn Shadow>>,
    /// Queries of those types that are put to both versions during the verification of this one.
    pub(crate) samples: Vec<AnyQuery>,
}

impl<P: Projection> From<P> for VersionCode {
    fn from(projection: P) -> Self {
        Self::new(projection)
    }
}

/// A [`VersionCode`] whose projection type is still known, so that queries and effects can be added.
#[must_use = "a node runs the code that its builder is given"]
pub struct CodeOf<P> {
    projection: Arc<P>,
    carried: VersionCode,
}

impl VersionCode {
    /// Returns the code of `projection`, without queries.
    ///
    /// # Panics
    /// If [`Projection::NAME`] is not a valid name or [`Projection::VERSION`] is 0.
    pub fn new<P: Projection>(projection: P) -> Self {
        Self::of(projection).carried
    }

    pub(super) fn of<P: Projection>(projection: P) -> CodeOf<P> {
        let name = ProjectionName::new(P::NAME).unwrap_or_else(|invalid: InvalidName| panic!("{invalid}"));
        assert!(P::VERSION > 0, "versions of {name} are counted from 1");
        let options = projection.options();
        let projection = Arc::new(projection);
        let code = Code {
            projection: name,
            code: P::VERSION,
            segments: options.segments,
            flip: options.flip,
            stand_by: options.stand_by,
            fingerprint: fingerprint(P::TABLES),
            reads: Reads {
                types: Some(P::Event::TYPES.iter().map(|name| (*name).to_owned()).collect()),
                categories: options.categories.clone().map(|categories| categories.into_iter().collect()),
                rows: options.rows,
            },
            // The driver checks later whether it may.
            seeded: false,
        };
        let filter = Filter {
            streams: options.categories.clone().map_or(Streams::User, Streams::Categories),
            types: Some(P::Event::TYPES.iter().map(|name| (*name).to_owned()).collect()),
        };
        let carried = Self {
            code,
            options,
            tables: P::TABLES,
            filter,
            handlers: Arc::clone(&projection) as Arc<dyn Handlers>,
            answers: HashMap::new(),
            query_names: Vec::new(),
            foreign_query: None,
            acts: HashMap::new(),
            shadows: HashMap::new(),
            samples: Vec::new(),
        };
        CodeOf { projection, carried }
    }

    /// Returns the facts about it that the other nodes get.
    pub(crate) fn of_member(&self) -> MemberCode {
        let id = CodeId { projection: self.code.projection.clone(), code: self.code.code };
        MemberCode { id, in_place: Some(self.options.in_place) }
    }

    /// Returns true if this is the code of `version` of `projection`.
    pub(crate) fn is_of(&self, projection: &ProjectionName, version: VersionId) -> bool {
        self.code.projection == *projection && self.code.code == version.code
    }

    /// Returns the answer of this version, from `view`; `None` if it does not answer such queries.
    #[expect(clippy::expect_used, reason = "answers are registered under their query's type")]
    pub(crate) fn answer<'a, Q: Query>(
        &'a self,
        query: &'a Q,
        view: &'a mut ReadView,
    ) -> Option<BoxFuture<'a, Result<Q::Answer, HandlerError>>> {
        let answers = self.answers.get(&TypeId::of::<Q>())?;
        let answer = answers.answer(query, view);
        Some(Box::pin(async move {
            let answer = answer.await?;
            Ok(*answer.downcast::<Q::Answer>().expect("answers are registered under their query's type"))
        }))
    }

    /// Returns the names of the effects that it makes.
    pub(crate) fn effect_names(&self) -> Vec<&'static str> {
        self.acts.keys().copied().collect()
    }

    /// Returns the code that makes effects of this name.
    pub(crate) fn act_on(&self, name: &str) -> Option<Arc<dyn AnyAct>> {
        self.acts.get(name).cloned()
    }

    /// Returns the answer of this version to a query of any type.
    pub(crate) fn answer_any<'a>(
        &'a self,
        query: &'a (dyn Any + Send + Sync),
        view: &'a mut ReadView,
    ) -> Option<BoxFuture<'a, Result<Box<dyn Any + Send>, HandlerError>>> {
        Some(self.answers.get(&query.type_id())?.answer(query, view))
    }

    /// Returns the names of the types of queries that it answers.
    pub(crate) fn query_names(&self) -> &[&'static str] {
        &self.query_names
    }
}

impl<P: Projection> CodeOf<P> {
    /// Lets the version answer queries of type `Q`. [`Query::PROJECTION`] must be [`Projection::NAME`] of this
    /// projection; otherwise no node carries the version
    /// ([`CarryRefused::Query`](crate::options::CarryRefused::Query)).
    pub fn answering<Q: Query>(mut self) -> Self
    where
        P: Answers<Q>,
    {
        if Q::PROJECTION != P::NAME {
            self.carried.foreign_query.get_or_insert((std::any::type_name::<Q>(), Q::PROJECTION));
        }
        let answerer = Answerer { projection: Arc::clone(&self.projection), query: PhantomData::<fn(Q)> };
        self.carried.answers.insert(TypeId::of::<Q>(), Arc::new(answerer));
        self.carried.query_names.push(std::any::type_name::<Q>());
        self
    }

    /// Lets the version answer queries of type `Q`, and compares its answers with those of the serving version before
    /// readers move to it. Compared are the answers to a share of the live queries
    /// ([`Verify::shadow_share`](crate::verify::Verify::shadow_share)), and to every [`sample`](Self::sample).
    pub fn shadowing<Q: Query + Clone + fmt::Debug>(self) -> Self
    where
        P: Answers<Q>,
        Q::Answer: PartialEq + fmt::Debug,
    {
        let mut version = self.answering::<Q>();
        let shadow = ShadowOf { query: PhantomData::<fn(Q)> };
        version.carried.shadows.insert(TypeId::of::<Q>(), Arc::new(shadow));
        version
    }

    /// Puts this query to both versions when this one is verified. Otherwise it does the same as
    /// [`shadowing`](Self::shadowing).
    pub fn sample<Q: Query + Clone + fmt::Debug>(self, query: Q) -> Self
    where
        P: Answers<Q>,
        Q::Answer: PartialEq + fmt::Debug,
    {
        let known = self.carried.shadows.contains_key(&TypeId::of::<Q>());
        let mut version = if known { self } else { self.shadowing::<Q>() };
        version.carried.samples.push(Arc::new(query));
        version
    }
}

impl<P: Projection> CodeOf<P> {
    /// Lets the version make effects of type `E` that its handler emits. Without it, emitting one is an error.
    ///
    /// # Panics
    /// If another effect has the same name.
    pub fn acting<E: Effect>(mut self) -> Self
    where
        P: Acts<E>,
    {
        let actor = Actor { projection: Arc::clone(&self.projection), effect: PhantomData::<fn(E)> };
        let before = self.carried.acts.insert(E::NAME, Arc::new(actor));
        assert!(before.is_none(), "two kinds of effects of {} are called {:?}", P::NAME, E::NAME);
        self
    }
}

impl<P: Projection> From<CodeOf<P>> for VersionCode {
    fn from(version: CodeOf<P>) -> Self {
        version.carried
    }
}

/// Returns the shape of the tables as text. It shows a change of the tables under an unchanged version number.
fn fingerprint(tables: &[Table]) -> String {
    let column = |table: &Table, at: usize| {
        let column = &table.columns[at];
        format!("{}:{:?}{}", column.name, column.kind, if column.optional { "?" } else { "" })
    };
    let table = |table: &Table| {
        let columns: Vec<_> = (0..table.columns.len()).map(|at| column(table, at)).collect();
        let names = |places: &[usize]| places.iter().map(|at| table.columns[*at].name).collect::<Vec<_>>().join(", ");
        let index = |index: &Index| {
            let unique = if index.unique { "unique " } else { "" };
            format!("; {unique}index {} on {}", index.name, names(index.columns))
        };
        let indexes: String = table.indexes.iter().map(index).collect();
        format!("{}({}; key {}{indexes})", table.name, columns.join(", "), names(table.key))
    };
    tables.iter().map(table).collect::<Vec<_>>().join(" ")
}
