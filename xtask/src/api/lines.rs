//! The lines of a list: one for each thing that a user can name.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Type};

use super::tree::{Crate, Found, is_hidden, is_public};

/// Returns the lines of the public API of a crate, in order.
pub(super) fn of(krate: &Crate) -> Vec<String> {
    let mut list = List { krate, lines: BTreeSet::new() };
    list.module(&[], &krate.name);
    list.lines.into_iter().collect()
}

struct List<'a> {
    krate: &'a Crate,
    lines: BTreeSet<String>,
}

impl List<'_> {
    fn add(&mut self, line: String) {
        self.lines.insert(line);
    }

    /// Adds what is public in a module that can be reached as `path`.
    fn module(&mut self, module: &[String], path: &str) {
        let krate = self.krate;
        let Some(found) = krate.modules.get(module) else { return };
        for item in &found.items {
            match item {
                Item::Mod(it) if is_public(&it.vis) => {
                    let inside: Vec<String> = module.iter().cloned().chain([it.ident.to_string()]).collect();
                    let path = format!("{path}::{}", it.ident);
                    self.add(format!("mod {path}"));
                    self.module(&inside, &path);
                }
                Item::Macro(it) => match &it.ident {
                    Some(name) if it.attrs.iter().any(|it| it.path().is_ident("macro_export")) => {
                        self.add(format!("macro {}::{name}!", krate.name));
                    }
                    Some(_) => {}
                    None => self.made(module),
                },
                item => self.item(module, item, path, None),
            }
        }
        for used in found.uses.iter().filter(|used| used.public) {
            if used.name == "*" {
                if let Found::Module(inside) = krate.find(module, &used.path[..used.path.len() - 1]) {
                    self.module(inside, path);
                    continue;
                }
                self.add(format!("use {path}::* = {}", used.path.join("::")));
                continue;
            }
            let path = format!("{path}::{}", used.name);
            match krate.find(module, &used.path) {
                Found::Item { module, item } => {
                    let (parent, name) = path.rsplit_once("::").unwrap_or_default();
                    self.item(module, item, parent, Some(name));
                }
                Found::Module(inside) => {
                    self.add(format!("mod {path}"));
                    self.module(inside, &path);
                }
                Found::Made { module, name } => {
                    let home: Vec<&str> = [&krate.name].into_iter().chain(module).map(String::as_str).collect();
                    self.add(format!("use {path} = {}::{name}", home.join("::")));
                    self.made(module);
                }
                Found::Outside(outside) => self.add(format!("use {path} = {}", outside.join("::"))),
            }
        }
    }

    /// Adds the calls of macros in a module, part by part: what they make is not seen otherwise.
    fn made(&mut self, module: &[String]) {
        let krate = self.krate;
        let home: Vec<&str> = [&krate.name].into_iter().chain(module).map(String::as_str).collect();
        let items = krate.modules.get(module).into_iter().flat_map(|found| &found.items);
        for it in items.filter_map(|item| if let Item::Macro(it) = item { Some(it) } else { None }) {
            if it.ident.is_some() || it.mac.path.is_ident("const_assert") {
                continue;
            }
            for part in parts(it.mac.tokens.clone()) {
                self.add(format!("macro {} {}!: {part}", home.join("::"), tidy(it.mac.path.to_token_stream())));
            }
        }
    }

    /// Adds an item that is public where it stands, under `name` in `parent`.
    fn item(&mut self, module: &[String], item: &Item, parent: &str, name: Option<&str>) {
        let own = |ident: &syn::Ident| format!("{parent}::{}", name.map_or_else(|| ident.to_string(), str::to_owned));
        match item {
            Item::Fn(it) if is_public(&it.vis) => {
                let mut signature = it.sig.clone();
                signature.ident = syn::Ident::new("__name", it.sig.ident.span());
                self.add(tidy(signature.to_token_stream()).replace("__name", &own(&it.sig.ident)));
            }
            Item::Const(it) if is_public(&it.vis) => {
                self.add(format!("const {}: {}", own(&it.ident), tidy(it.ty.to_token_stream())));
            }
            Item::Static(it) if is_public(&it.vis) => {
                self.add(format!("static {}: {}", own(&it.ident), tidy(it.ty.to_token_stream())));
            }
            Item::Type(it) if is_public(&it.vis) => {
                let (generics, of) = (tidy(it.generics.to_token_stream()), tidy(it.ty.to_token_stream()));
                self.add(format!("type {}{generics} = {of}", own(&it.ident)));
            }
            Item::Struct(it) if is_public(&it.vis) => {
                let path = own(&it.ident);
                self.header("struct", &path, &it.generics, &it.attrs);
                self.fields(&path, &it.fields);
                self.impls(module, &it.ident, &path);
            }
            Item::Enum(it) if is_public(&it.vis) => {
                let path = own(&it.ident);
                self.header("enum", &path, &it.generics, &it.attrs);
                for variant in it.variants.iter().filter(|variant| !is_hidden(&variant.attrs)) {
                    let mut bare = variant.clone();
                    strip(&mut bare.attrs);
                    bare.fields.iter_mut().for_each(|field| strip(&mut field.attrs));
                    self.add(format!("variant {path}::{}", tidy(bare.to_token_stream())));
                }
                self.impls(module, &it.ident, &path);
            }
            Item::Trait(it) if is_public(&it.vis) => {
                let path = own(&it.ident);
                let bounds = tidy(it.supertraits.to_token_stream());
                let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
                self.add(format!("trait {path}{}{bounds}", tidy(it.generics.to_token_stream())));
                it.items.iter().for_each(|item| self.of_trait(&path, item));
            }
            _ => {}
        }
    }

    fn header(&mut self, kind: &str, path: &str, generics: &syn::Generics, attributes: &[Attribute]) {
        let derives = attributes.iter().filter(|it| it.path().is_ident("derive"));
        let mut derived: Vec<String> =
            derives.filter_map(|it| it.parse_args::<TokenStream>().ok()).flat_map(parts).collect();
        derived.sort();
        let derived = if derived.is_empty() { String::new() } else { format!(" (derives {})", derived.join(", ")) };
        let open =
            if attributes.iter().any(|it| it.path().is_ident("non_exhaustive")) { " (non_exhaustive)" } else { "" };
        self.add(format!("{kind} {path}{}{derived}{open}", tidy(generics.to_token_stream())));
    }

    fn fields(&mut self, path: &str, fields: &Fields) {
        for (at, field) in fields.iter().enumerate().filter(|(_, field)| is_public(&field.vis)) {
            let name = field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string);
            self.add(format!("field {path}::{name}: {}", tidy(field.ty.to_token_stream())));
        }
    }

    fn of_trait(&mut self, path: &str, item: &TraitItem) {
        match item {
            TraitItem::Fn(it) if !is_hidden(&it.attrs) => {
                let provided = if it.default.is_some() { " (provided)" } else { "" };
                self.add(format!("{}{provided}", signature(path, &it.sig)));
            }
            TraitItem::Const(it) => {
                let provided = if it.default.is_some() { " (provided)" } else { "" };
                self.add(format!("const {path}::{}: {}{provided}", it.ident, tidy(it.ty.to_token_stream())));
            }
            TraitItem::Type(it) => {
                let bounds = tidy(it.bounds.to_token_stream());
                let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
                self.add(format!("type {path}::{}{bounds}", it.ident));
            }
            _ => {}
        }
    }

    /// Adds what is implemented for the type `ident`, which `module` defines.
    fn impls(&mut self, module: &[String], ident: &syn::Ident, path: &str) {
        let krate = self.krate;
        for (at, it) in krate.impls() {
            let Type::Path(this) = &*it.self_ty else { continue };
            let names: Vec<String> = this.path.segments.iter().map(|part| part.ident.to_string()).collect();
            let is_this = match krate.find(at, &names) {
                Found::Item { module: of, item } => {
                    of == module
                        && matches!(item, Item::Struct(_) | Item::Enum(_))
                        && names.last().is_some_and(|name| ident == name)
                }
                _ => false,
            };
            if !is_this {
                continue;
            }
            let generics = tidy(it.generics.to_token_stream());
            let this = tidy(this.to_token_stream());
            let arguments = this.split_once('<').map_or_else(String::new, |(_, arguments)| format!("<{arguments}"));
            if let Some((of, _)) = &it.trait_ {
                self.add(format!("impl{generics} {} for {path}{arguments}", tidy(of.to_token_stream())));
                continue;
            }
            let path = format!("{path}{}", if generics.is_empty() { &arguments } else { "" });
            for item in &it.items {
                match item {
                    ImplItem::Fn(it) if is_public(&it.vis) && !is_hidden(&it.attrs) => {
                        self.add(signature(&path, &it.sig))
                    }
                    ImplItem::Const(it) if is_public(&it.vis) && !is_hidden(&it.attrs) => {
                        self.add(format!("const {path}::{}: {}", it.ident, tidy(it.ty.to_token_stream())));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn signature(path: &str, signature: &syn::Signature) -> String {
    let mut named = signature.clone();
    named.ident = syn::Ident::new("__name", signature.ident.span());
    tidy(named.to_token_stream()).replace("__name", &format!("{path}::{}", signature.ident))
}

fn strip(attributes: &mut Vec<Attribute>) {
    attributes.clear();
}

/// Returns tokens without attributes, cut at the commas and semicolons between them.
fn parts(tokens: TokenStream) -> Vec<String> {
    let (mut found, mut part, mut hash) = (Vec::new(), TokenStream::new(), false);
    for token in tokens {
        match token {
            TokenTree::Punct(it) if it.as_char() == '#' => hash = true,
            TokenTree::Group(it) if hash && it.delimiter() == proc_macro2::Delimiter::Bracket => hash = false,
            TokenTree::Punct(it) if matches!(it.as_char(), ',' | ';') => {
                found.push(tidy(std::mem::take(&mut part)));
            }
            TokenTree::Group(it) => {
                let inside: TokenStream = parts(it.stream()).join(", ").parse().unwrap_or_else(|_| it.stream());
                part.extend([TokenTree::Group(proc_macro2::Group::new(it.delimiter(), inside))]);
            }
            token => part.extend([token]),
        }
    }
    found.push(tidy(part));
    found.retain(|part| !part.is_empty());
    found
}

/// Returns tokens as they are written by hand, as far as that goes.
fn tidy(tokens: TokenStream) -> String {
    let text = tokens.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let pairs = [
        (" :: ", "::"),
        (":: ", "::"),
        (" ::", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" <", "<"),
        (" >", ">"),
        (" , ", ", "),
        (" ,", ","),
        (" : ", ": "),
        (" ;", ";"),
        ("& ", "&"),
        ("( ", "("),
        (" )", ")"),
        (" (", "("),
        ("[ ", "["),
        (" ]", "]"),
        ("' ", "'"),
        (" ..", ".."),
        (",)", ")"),
        ("- >", "->"),
        (") ->", ") ->"),
        ("# [", "#["),
        ("fn(", "fn("),
        ("* ", "*"),
    ];
    let tidied = pairs.into_iter().fold(text, |text, (from, to)| text.replace(from, to));
    tidied
        .replace("->", " -> ")
        .replace("  ", " ")
        .replace("=>", " => ")
        .replace("  ", " ")
        .replace(", >", ">")
        .replace(", )", ")")
        .trim_end_matches(',')
        .to_owned()
}
