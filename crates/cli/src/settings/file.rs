//! `flawtune.toml`: defaults of a project.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::failure::Failure;

/// Name of the file that is looked for.
pub(crate) const NAME: &str = "flawtune.toml";

/// A file of defaults.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// What stands at its top: options of every command that has them.
    pub(super) top: Vec<Entry>,
    /// Tables by the command they are for, with the line of each.
    pub(super) tables: Vec<(String, usize, Vec<Entry>)>,
}

/// `key = value`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Given,
}

/// A value, as far as options tell kinds of values apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    Flag(bool),
    One(String),
    List(Vec<String>),
}

impl File {
    /// The file that is named, or else the one in this folder or its nearest parent that has one.
    pub(super) fn find(named: Option<&Path>) -> Result<Option<Self>, Failure> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => match nearest() {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Failure::Input(format!(
                "{}: {e}\nhint: name a file of defaults with --config, or use none with --no-config",
                path.display()
            ))
        })?;
        Self::parse(path, &text).map(Some)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, Failure> {
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let root = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(1, |s| line(s.start));
            Failure::Input(format!(
                "{}:{at}: {}",
                path.display(),
                e.message().replace('\n', " ")
            ))
        })?;
        let mut file = Self {
            path,
            top: Vec::new(),
            tables: Vec::new(),
        };
        for (key, value) in root.get_ref() {
            let (name, at) = (key.get_ref().to_string(), line(key.span().start));
            match value.get_ref() {
                DeValue::Table(table) => {
                    let entries = table.iter().map(|(key, value)| {
                        let at = line(key.span().start);
                        file.entry(
                            &format!("{name}.{}", key.get_ref()),
                            key.get_ref(),
                            at,
                            value,
                        )
                    });
                    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
                    file.tables.push((name, at, entries));
                }
                _ => file.top.push(file.entry(&name, &name, at, value)?),
            }
        }
        Ok(file)
    }

    fn entry(
        &self,
        full: &str,
        key: &str,
        line: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Entry, Failure> {
        let one = |value: &DeValue<'_>| match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(n) if n.radix() == 10 => Some(n.as_str().to_owned()),
            DeValue::Float(n) => Some(n.as_str().to_owned()),
            _ => None,
        };
        let given = match value.get_ref() {
            DeValue::Boolean(on) => Some(Given::Flag(*on)),
            DeValue::Array(list) => list
                .iter()
                .map(|v| one(v.get_ref()))
                .collect::<Option<_>>()
                .map(Given::List),
            value => one(value).map(Given::One),
        };
        let value = given.ok_or_else(|| {
            Failure::Input(format!(
                "{}: {full}: takes a text, a decimal number, true or false, or a list of texts or numbers",
                self.at(line)
            ))
        })?;
        Ok(Entry {
            key: key.to_owned(),
            line,
            value,
        })
    }

    /// A line of it, for people.
    pub(super) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// The folder that its relative paths start from.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

fn nearest() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|folder| folder.join(NAME))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse("p/flawtune.toml".into(), text).map_err(|e| e.to_string())
    }

    #[test]
    fn values_keep_their_lines() {
        let file = parse("a = 'x'\n\n[train]\nb = [1, -2]\nc = true\n\"d\" = 1_0.5e-3\n").unwrap();
        assert_eq!((file.top[0].key.as_str(), file.top[0].line), ("a", 1));
        assert_eq!(file.top[0].value, Given::One("x".into()));
        let (name, line, entries) = &file.tables[0];
        assert_eq!((name.as_str(), *line, entries.len()), ("train", 3, 3));
        assert_eq!(entries[0].value, Given::List(vec!["1".into(), "-2".into()]));
        assert_eq!(
            (entries[1].line, &entries[1].value),
            (5, &Given::Flag(true))
        );
        assert_eq!(entries[2].value, Given::One("10.5e-3".into()));
        assert_eq!(
            (file.at(4), file.folder()),
            ("p/flawtune.toml:4".to_owned(), Path::new("p"))
        );
    }

    #[test]
    fn what_is_no_option_is_refused_with_its_line() {
        for (text, part) in [
            ("a = 1\nb = ", "error: p/flawtune.toml:2: "),
            (
                "a = 1979-05-27",
                "error: p/flawtune.toml:1: a: takes a text, ",
            ),
            (
                "[t]\na = [[1]]",
                "error: p/flawtune.toml:2: t.a: takes a text, ",
            ),
            (
                "a = 0xff",
                "error: p/flawtune.toml:1: a: takes a text, a decimal number",
            ),
            ("a = 1\na = 2", "error: p/flawtune.toml:2: duplicate key"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.starts_with(part), "{message}");
        }
    }
}
