//! The modules of a crate, as its sources have them, and where a `use` leads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, ItemImpl, UseTree, Visibility};

use crate::docs::read;

/// A crate: its modules by their path inside it.
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) modules: BTreeMap<Vec<String>, Module>,
}

/// One module.
#[derive(Default)]
pub(super) struct Module {
    pub(super) items: Vec<Item>,
    pub(super) uses: Vec<Use>,
}

/// One name that a module brings in.
pub(super) struct Use {
    pub(super) public: bool,
    /// Where from, as it is written; the last part is a name, or `*`.
    pub(super) path: Vec<String>,
    pub(super) name: String,
}

/// Where a name leads.
pub(super) enum Found<'a> {
    Item {
        module: &'a [String],
        item: &'a Item,
    },
    Module(&'a [String]),
    /// What a macro of a module makes.
    Made {
        module: &'a [String],
        name: String,
    },
    Outside(Vec<String>),
}

impl Crate {
    pub(super) fn read(name: &str, sources: &Path) -> Result<Self, String> {
        let mut modules = BTreeMap::new();
        file(&mut modules, vec![], &sources.join("lib.rs"), sources)?;
        Ok(Self { name: name.to_owned(), modules })
    }

    /// Returns every `impl` of the crate, with its module.
    pub(super) fn impls(&self) -> impl Iterator<Item = (&[String], &ItemImpl)> {
        self.modules.iter().flat_map(|(path, module)| {
            let items = module.items.iter().filter_map(|item| if let Item::Impl(it) = item { Some(it) } else { None });
            items.map(move |item| (&path[..], item))
        })
    }

    /// Returns what a path that is written in `module` leads to.
    pub(super) fn find(&self, module: &[String], path: &[String]) -> Found<'_> {
        self.found(module, path, 0).unwrap_or_else(|| Found::Outside(path.to_vec()))
    }

    fn found(&self, module: &[String], path: &[String], depth: usize) -> Option<Found<'_>> {
        // Two modules may bring in each other.
        if depth > 20 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let start: Vec<String> = match first.as_str() {
            "crate" => vec![],
            "self" => module.to_vec(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            _ => return self.named(module, first, rest, depth),
        };
        match rest {
            [] => self.modules.get_key_value(&start).map(|(path, _)| Found::Module(path)),
            [next, _, ..] if next == "super" => self.found(&start, rest, depth),
            [next, rest @ ..] => self.named(&start, next, rest, depth),
        }
    }

    /// Returns what `name` in `module`, followed by `rest`, leads to.
    fn named(&self, module: &[String], name: &String, rest: &[String], depth: usize) -> Option<Found<'_>> {
        let (at, found) = self.modules.get_key_value(module)?;
        let child: Vec<String> = module.iter().chain([name]).cloned().collect();
        if let Some((child, _)) = self.modules.get_key_value(&child) {
            let Some((next, rest)) = rest.split_first() else { return Some(Found::Module(child)) };
            return self.named(child, next, rest, depth);
        }
        let used = found.uses.iter().find(|used| used.name == *name);
        if let Some(used) = used {
            let path: Vec<String> = used.path.iter().chain(rest).cloned().collect();
            return Some(self.found(at, &path, depth + 1).unwrap_or(Found::Outside(path)));
        }
        if !rest.is_empty() {
            return None;
        }
        if let Some(item) = found.items.iter().find(|item| name_of(item).is_some_and(|found| *found == **name)) {
            return Some(Found::Item { module: at, item });
        }
        found
            .items
            .iter()
            .any(|item| matches!(item, Item::Macro(it) if it.ident.is_none()))
            .then(|| Found::Made { module: at, name: name.clone() })
    }
}

/// Reads a file and the files of its modules, which are in `folder`.
fn file(
    modules: &mut BTreeMap<Vec<String>, Module>,
    path: Vec<String>,
    source: &Path,
    folder: &Path,
) -> Result<(), String> {
    let parsed = syn::parse_file(&read(source)?).map_err(|error| format!("{}: {error}", source.display()))?;
    module(modules, path, parsed.items, folder)
}

fn module(
    modules: &mut BTreeMap<Vec<String>, Module>,
    path: Vec<String>,
    items: Vec<Item>,
    folder: &Path,
) -> Result<(), String> {
    let mut own = Module::default();
    for item in items {
        if attributes(&item).is_some_and(|attributes| is_hidden(attributes) || is_test(attributes)) {
            continue;
        }
        match item {
            Item::Use(it) => names(&it.tree, vec![], is_public(&it.vis), &mut own.uses),
            Item::Mod(it) => {
                let name = it.ident.to_string();
                let inside: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
                let folder = folder.join(&name);
                match it.content.clone() {
                    Some((_, items)) => module(modules, inside, items, &folder)?,
                    None => file(modules, inside, &source_of(&folder), &folder)?,
                }
                own.items.push(Item::Mod(it));
            }
            item => own.items.push(item),
        }
    }
    modules.insert(path, own);
    Ok(())
}

fn source_of(folder: &Path) -> PathBuf {
    let alone = folder.with_extension("rs");
    if alone.exists() { alone } else { folder.join("mod.rs") }
}

fn names(tree: &UseTree, mut path: Vec<String>, public: bool, uses: &mut Vec<Use>) {
    match tree {
        UseTree::Path(it) => {
            path.push(it.ident.to_string());
            names(&it.tree, path, public, uses);
        }
        UseTree::Name(it) if it.ident == "self" => {
            let name = path.last().cloned().unwrap_or_default();
            uses.push(Use { public, path, name });
        }
        UseTree::Name(it) => {
            path.push(it.ident.to_string());
            uses.push(Use { public, path, name: it.ident.to_string() });
        }
        UseTree::Rename(it) => {
            path.push(it.ident.to_string());
            uses.push(Use { public, path, name: it.rename.to_string() });
        }
        UseTree::Glob(_) => {
            path.push("*".to_owned());
            uses.push(Use { public, path, name: "*".to_owned() });
        }
        UseTree::Group(it) => it.items.iter().for_each(|tree| names(tree, path.clone(), public, uses)),
    }
}

pub(super) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Returns true if the attributes have this one; of `doc` and `cfg` the word in the brackets is compared.
fn has(attributes: &[Attribute], name: &str, word: &str) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident(name))
        .any(|attribute| attribute.parse_args::<syn::Ident>().is_ok_and(|found| found == word))
}

pub(super) fn is_hidden(attributes: &[Attribute]) -> bool {
    has(attributes, "doc", "hidden")
}

fn is_test(attributes: &[Attribute]) -> bool {
    has(attributes, "cfg", "test") || has(attributes, "cfg", "doctest")
}

fn name_of(item: &Item) -> Option<&syn::Ident> {
    Some(match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        Item::Union(it) => &it.ident,
        _ => return None,
    })
}

fn attributes(item: &Item) -> Option<&[Attribute]> {
    Some(match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => return None,
    })
}
