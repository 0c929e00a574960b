//! In which line a field stands.

use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};

/// A text's documents, with the place of every field.
pub struct Lines<'a> {
    documents: Vec<MarkedYaml<'a>>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        // What can't be read has no places; it was read by another parser before, which says what is wrong.
        Self {
            documents: MarkedYaml::load_from_str(text).unwrap_or_default(),
        }
    }

    /// The line of a field (`spec.steps[2].http.url`) in a document; of what is around it, if it isn't there.
    pub fn of(&self, document: usize, field: &str) -> usize {
        let Some(mut node) = self.documents.get(document) else {
            return 1;
        };
        let mut line = node.span.start.line();
        let mut rest = field;
        loop {
            let next = match &node.data {
                YamlData::Mapping(mapping) => {
                    let rest = rest.strip_prefix('.').unwrap_or(rest);
                    // A key may have dots in it: the longest one that fits.
                    let fits = mapping.iter().filter_map(|(key, value)| {
                        let name = key.data.as_str()?;
                        let after = rest.strip_prefix(name).filter(|_| !name.is_empty())?;
                        let ends = after.is_empty() || after.starts_with(['.', '[']);
                        ends.then_some((key.span.start.line(), value, after))
                    });
                    fits.min_by_key(|(_, _, after)| after.len())
                }
                YamlData::Sequence(items) => rest.strip_prefix('[').and_then(|rest| {
                    let (index, after) = rest.split_once(']')?;
                    let item = items.get(index.parse::<usize>().ok()?)?;
                    Some((item.span.start.line(), item, after))
                }),
                _ => None,
            };
            match next {
                Some((at, value, after)) => (line, node, rest) = (at, value, after),
                None => return line,
            }
        }
    }
}
