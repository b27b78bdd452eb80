//! `cargo xtask check shape`: files stay under 500 lines and functions under 70.
//!
//! A function is measured from its signature to its closing brace, so documentation is free.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::workspace;

/// Files have fewer lines than this.
const FILE_LINES: usize = 500;

/// Functions have fewer lines than this.
const FUNCTION_LINES: usize = 70;

/// Something long that is better left in one piece.
struct Exception {
    /// Path of the file from the root.
    path: &'static str,
    /// The function as `name` or `Type::name`; `None` for the file as a whole.
    function: Option<&'static str>,
    /// Why it reads better long.
    reason: &'static str,
}

/// INVARIANT: each is needed; one that became superfluous is itself a violation.
const EXCEPTIONS: &[Exception] = &[];

/// Returns every file and function that is too long, and every exception that is not needed.
pub(crate) fn violations() -> Result<Vec<String>> {
    let folders = ["crates", "xtask"].map(|folder| workspace::root().join(folder));
    let mut measures = Vec::new();
    for file in workspace::rust_files(&folders)? {
        let path = workspace::relative(&file);
        let source = workspace::read(&path)?;
        let unparsed = || format!("failed to parse {path}: run `cargo check` to see why");
        measures.extend(measure(&path, &source).with_context(unparsed)?);
    }
    Ok(judge(&measures, EXCEPTIONS))
}

/// The length of a file or of one function in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Measure {
    path: String,
    /// Name and first line; `None` for the file as a whole.
    function: Option<(String, usize)>,
    lines: usize,
}

impl Measure {
    fn limit(&self) -> usize {
        if self.function.is_some() { FUNCTION_LINES } else { FILE_LINES }
    }

    fn is_meant_by(&self, exception: &Exception) -> bool {
        let function = self.function.as_ref().map(|(name, _)| name.as_str());
        self.path == exception.path && function == exception.function
    }

    fn place(&self) -> String {
        match &self.function {
            Some((name, line)) => format!("{}:{line}: `{name}`", self.path),
            None => self.path.clone(),
        }
    }
}

/// Returns the lengths of the file and of every function in it that has a body.
fn measure(path: &str, source: &str) -> syn::Result<Vec<Measure>> {
    let file = syn::parse_file(source)?;
    let whole = Measure { path: path.into(), function: None, lines: source.lines().count() };
    let mut functions = Functions { path, scope: None, measures: vec![whole] };
    functions.visit_file(&file);
    Ok(functions.measures)
}

/// Compares lengths with the limits, and exceptions with the need for them.
fn judge(measures: &[Measure], exceptions: &[Exception]) -> Vec<String> {
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    for long in measures.iter().filter(|measure| measure.lines >= measure.limit()) {
        if let Some(index) = exceptions.iter().position(|exception| long.is_meant_by(exception)) {
            needed.insert(index);
        } else {
            let (place, lines, limit) = (long.place(), long.lines, long.limit());
            found.push(format!(
                "{place} has {lines} lines, and the limit is under {limit}: split it"
            ));
        }
    }
    let superfluous = exceptions.iter().enumerate().filter(|(index, _)| !needed.contains(index));
    found.extend(superfluous.map(|(_, Exception { path, function, reason })| {
        let name = function.map_or(String::new(), |name| format!(": `{name}`"));
        format!("{path}{name} needs no exception ({reason}): remove it from {}", file!())
    }));
    found
}

/// Collects the functions of a file, nested ones too.
struct Functions<'a> {
    path: &'a str,
    /// The type or trait whose methods are being visited.
    scope: Option<String>,
    measures: Vec<Measure>,
}

impl Functions<'_> {
    fn record(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let last = body.brace_token.span.close().end().line;
        let name = match &self.scope {
            Some(scope) => format!("{scope}::{}", signature.ident),
            None => signature.ident.to_string(),
        };
        let lines = last - first + 1;
        self.measures.push(Measure {
            path: self.path.into(),
            function: Some((name, first)),
            lines,
        });
    }

    fn within(&mut self, scope: Option<String>, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.scope, scope);
        visit(self);
        self.scope = outer;
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        // A function inside a method belongs to no type.
        self.within(None, |this| {
            this.record(&item.sig, &item.block);
            visit::visit_item_fn(this, item);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let scope = type_name(&item.self_ty);
        self.within(scope, |this| visit::visit_item_impl(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.record(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let scope = Some(item.ident.to_string());
        self.within(scope, |this| visit::visit_item_trait(this, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.record(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Returns the last word of a type's path, without its parameters.
fn type_name(ty: &syn::Type) -> Option<String> {
    match ty {
        syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        syn::Type::Reference(reference) => type_name(&reference.elem),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_is_free_and_the_closing_brace_counts() {
        let source =
            "/// Says.\n/// More.\n#[inline]\npub fn one(\n    a: u8,\n) -> u8 {\n    a\n}\n";
        assert_eq!(lengths(source), [("one".into(), 4, 5)]);
    }

    #[test]
    fn methods_defaults_and_nested_functions_are_measured() {
        let source = "
            impl<T> fmt::Display for Wrapped<T> {
                fn fmt(&self) {
                    fn inner() {}
                }
            }
            trait Port {
                fn asked(&self);
                fn told(&self) {}
            }
            mod tests { fn test() { let _ = || 1; } }
        ";
        let expected =
            [("Wrapped::fmt", 3, 3), ("inner", 4, 1), ("Port::told", 9, 1), ("test", 11, 1)];
        assert_eq!(
            lengths(source),
            expected.map(|(name, first, lines)| (name.into(), first, lines))
        );
    }

    #[test]
    fn the_limit_itself_is_too_long() {
        assert_eq!(judge(&[function(69), file(499)], &[]), Vec::<String>::new());
        let expected = [
            "a.rs:7: `long` has 70 lines, and the limit is under 70: split it",
            "a.rs has 500 lines, and the limit is under 500: split it",
        ];
        assert_eq!(judge(&[function(70), file(500)], &[]), expected);
    }

    #[test]
    fn an_exception_holds_for_what_it_names_and_only_while_it_is_needed() {
        let exception = || [Exception { path: "a.rs", function: Some("long"), reason: "a table" }];
        assert_eq!(judge(&[function(90)], &exception()), Vec::<String>::new());
        assert_eq!(judge(&[file(600)], &exception()).len(), 2);
        let found = judge(&[function(60)], &exception());
        assert!(found[0].starts_with("a.rs: `long` needs no exception (a table)"), "{found:?}");
    }

    fn lengths(source: &str) -> Vec<(String, usize, usize)> {
        let measures = measure("a.rs", source).unwrap();
        let functions = measures.into_iter().filter_map(|measure| {
            measure.function.map(|(name, first)| (name, first, measure.lines))
        });
        functions.collect()
    }

    fn function(lines: usize) -> Measure {
        Measure { path: "a.rs".into(), function: Some(("long".into(), 7)), lines }
    }

    fn file(lines: usize) -> Measure {
        Measure { path: "a.rs".into(), function: None, lines }
    }
}
