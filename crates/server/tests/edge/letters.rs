use dacapo::catalog::Phase;
use dacapo::{HandlerError, Node, Projection, Recorded, Row, Table, VersionCode, View};
use dacapo_api::{Api, LettersRequest, RebuildRequest};
use dacapo_server::NodeApi;

#[derive(Debug, dacapo::Event)]
pub(super) enum Noted {
    Noted {},
}

#[derive(Clone, Debug, Row)]
#[row(table = "notes")]
struct Note {
    #[row(key)]
    id: String,
}

pub(super) struct Notes<const CODE: u32>;

impl<const CODE: u32> Projection for Notes<CODE> {
    const NAME: &'static str = "notes";
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = &[Note::TABLE];
    type Event = Noted;

    async fn apply(&self, event: &Recorded<'_, Noted>, view: &mut View) -> Result<(), HandlerError> {
        Ok(view.put(Note { id: event.stream.to_owned() })?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nothing_is_set_aside_in_any_of_several_versions_is_no_error() {
    let node = Node::builder().projection(VersionCode::new(Notes::<1>)).start().await.unwrap();
    let mut catalog = node.catalog();
    let serves = |code| {
        move |catalog: &std::sync::Arc<dacapo::catalog::Catalog>| {
            catalog.versions().any(|(view, state)| view.version.code == code && state.phase == Phase::Serving)
        }
    };
    catalog.wait_for(serves(1)).await.unwrap();
    node.add_projection(VersionCode::new(Notes::<2>)).unwrap();
    catalog.wait_for(serves(2)).await.unwrap();
    let api = NodeApi::new(node, "node");
    for effects in [false, true] {
        let found = api.letters("notes", LettersRequest { effects, ..LettersRequest::default() }).await.unwrap();
        assert_eq!((found.version.as_str(), found.letters.len(), found.effects.len()), ("v2.1", 0, 0));
    }
    // Several that are being built, and none that serves, are no reason to ask either.
    let rebuilt = api.rebuild("notes", RebuildRequest::default()).await.unwrap();
    assert_eq!(rebuilt.version, "v2.2");
    assert!(api.letters("notes", LettersRequest::default()).await.unwrap().letters.is_empty());
    api.node().shutdown().await;
}
