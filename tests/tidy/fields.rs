//! Which fields of structs other files may touch.

use syn::spanned::Spanned;
use syn::{Fields, File, Item, Visibility};

/// A field that code outside of its file sees, of a struct that is no part of the public API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenField {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) field: String,
}

/// The fields in this source that are `pub(super)`, `pub(crate)` or `pub(in ..)`, in the order in which they stand.
/// Those that are `pub` are the API's.
pub(crate) fn open_fields(text: &str) -> Vec<OpenField> {
    let File { items, .. } = syn::parse_file(text).expect("a source that compiles");
    let mut found = Vec::new();
    in_items(&items, &mut found);
    found
}

fn in_items(items: &[Item], found: &mut Vec<OpenField>) {
    for item in items {
        match item {
            Item::Struct(item) => {
                let fields = match &item.fields {
                    Fields::Named(fields) => &fields.named,
                    Fields::Unnamed(fields) => &fields.unnamed,
                    Fields::Unit => continue,
                };
                for (n, field) in fields.iter().enumerate() {
                    if matches!(field.vis, Visibility::Restricted(_)) {
                        let name = item.ident.to_string();
                        let of = field.ident.as_ref().map_or_else(|| n.to_string(), ToString::to_string);
                        found.push(OpenField { line: field.span().start().line, name, field: of });
                    }
                }
            }
            Item::Mod(item) => in_items(item.content.as_ref().map_or(&[], |(_, items)| items), found),
            _ => {}
        }
    }
}
