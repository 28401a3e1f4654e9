//! `ProjectionExpression`: which parts of an item a read returns.
//!
//! A path into a map or list keeps the way to what it names; elements of a list come in the order of their indexes and close
//! up. What the item does not have is left out, and so is a map or list of which nothing is left.

use cairn_item::{Item, ItemView};

use crate::bind::{Bound, Checker};
use crate::condition::check_key_scalar;
use crate::error::{ExpressionError, Parameter};
use crate::parser::Parser;
use crate::paths::Paths;
use crate::placeholder::Names;
use crate::token::TokenKind;
use crate::tree::{PathId, Tree};

/// A parsed projection. It depends on the text alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    tree: Tree,
    paths: Vec<PathId>,
}

impl Projection {
    /// Reads the text.
    ///
    /// # Errors
    /// The text is no list of paths.
    pub fn parse(text: &str) -> Result<Projection, ExpressionError> {
        let mut parser = Parser::new(Parameter::Projection, text)?;
        let mut paths = vec![parser.path()?];
        while parser.kind() == TokenKind::Comma {
            parser.advance()?;
            paths.push(parser.path()?);
        }
        Ok(Projection {
            tree: parser.finish()?,
            paths,
        })
    }

    /// A projection on these paths, each of one attribute.
    pub(crate) fn from_legacy(tree: Tree, paths: Vec<PathId>) -> Projection {
        Projection { tree, paths }
    }

    /// Fills in names and checks them.
    ///
    /// # Errors
    /// A placeholder is undefined, a path is too deep, or two paths name the same part.
    pub fn bind<'a>(&'a self, names: &'a Names) -> Result<BoundProjection<'a>, ExpressionError> {
        let bound = Bound::new(&self.tree, names, None);
        let mut checker = Checker::new(Parameter::Projection, &bound);
        let paths = Paths::new(Parameter::Projection, &mut checker, &self.paths)?;
        checker.finish()?;
        Ok(BoundProjection {
            bound,
            paths,
            ids: &self.paths,
        })
    }
}

impl std::fmt::Display for Projection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, path) in self.paths.iter().enumerate() {
            if index > 0 {
                formatter.write_str(", ")?;
            }
            self.tree.write_path(formatter, *path)?;
        }
        Ok(())
    }
}

/// A projection with the names of one request, to be applied to any number of items.
#[derive(Debug, Clone)]
pub struct BoundProjection<'a> {
    bound: Bound<'a>,
    paths: Paths<'a>,
    ids: &'a [PathId],
}

impl<'a> BoundProjection<'a> {
    /// The parts of the item that it names.
    #[must_use]
    pub fn project(&self, item: ItemView<'_>) -> Item {
        self.paths.project(item)
    }

    /// Appends the parts of the item that it names, as DynamoDB's JSON of an item.
    pub fn write_json(&self, out: &mut Vec<u8>, item: ItemView<'_>) {
        self.paths.write_json(out, item);
    }

    /// The attributes that its paths begin with, in the order of the text.
    pub fn attributes(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.ids.iter().map(|path| self.bound.head(*path))
    }

    /// Checks that no path goes into an attribute of the key; `role` is `Key` or `IndexKey`.
    ///
    /// # Errors
    /// The first attribute that one goes into.
    pub fn check_key_scalar(&self, role: &'static str, key: &[&str]) -> Result<(), ExpressionError> {
        check_key_scalar(&self.bound, self.ids.iter().copied(), role, key)
    }
}
