//! How the macros that go through a list or map are evaluated.

use std::collections::BTreeMap;

use super::budget::Fault;
use super::compare;
use super::evaluate::{Evaluated, Evaluation, insert};
use super::node::{Loop, LoopKind};
use super::operators::no_overload;
use super::value::{Key, List, Value};

impl<'a> Evaluation<'a, '_> {
    pub(super) fn each(&mut self, each: &'a Loop) -> Evaluated<'a> {
        let range = self.node(&each.range)?;
        let range = match &range {
            Value::List(list) => Range::List(list),
            Value::Map(map) => {
                self.budget.look(map.len())?;
                Range::Map(map.entries())
            }
            other => return Err(no_overload("a macro over a list or map", &[other])),
        };
        match each.kind {
            LoopKind::All => self.quantify(each, &range, false),
            LoopKind::Exists => self.quantify(each, &range, true),
            LoopKind::ExistsOne => self.exists_one(each, &range),
            LoopKind::List => self.transform_list(each, &range),
            LoopKind::Map | LoopKind::Entries => self.transform_map(each, &range),
            LoopKind::Sort => self.sort_by(each, &range),
        }
    }

    /// `exists` when `decisive` is true, else `all`. As for `||` and `&&`, an element that decides alone does so even if
    /// another fails.
    fn quantify(&mut self, each: &'a Loop, range: &Range<'a, '_>, decisive: bool) -> Evaluated<'a> {
        let mut failure = None;
        for index in 0..range.len() {
            let result = self.with_locals(each.local, range.variables(index, each.variables), |this| {
                this.condition(&each.body, "the macro's condition")
            });
            match result {
                Ok(b) if b == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(Fault::Failed(message)) => failure = Some(message),
                Err(fault) => return Err(fault),
            }
        }
        match failure {
            Some(message) => Err(Fault::Failed(message)),
            None => Ok(Value::Bool(!decisive)),
        }
    }

    fn exists_one(&mut self, each: &'a Loop, range: &Range<'a, '_>) -> Evaluated<'a> {
        let mut count = 0;
        for index in 0..range.len() {
            let holds = self.with_locals(each.local, range.variables(index, each.variables), |this| {
                this.condition(&each.body, "the macro's condition")
            })?;
            count += u32::from(holds);
        }
        Ok(Value::Bool(count == 1))
    }

    /// The body for each element that the filter lets through.
    fn bodies(
        &mut self,
        each: &'a Loop,
        range: &Range<'a, '_>,
        mut take: impl FnMut(&mut Self, usize, Value<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut taken = 0;
        for index in 0..range.len() {
            let body = self.with_locals(each.local, range.variables(index, each.variables), |this| {
                if let Some(filter) = &each.filter
                    && !this.condition(filter, "the macro's condition")?
                {
                    return Ok(None);
                }
                this.node(&each.body).map(Some)
            })?;
            if let Some(body) = body {
                self.budget.grow(taken)?;
                taken += 1;
                take(self, index, body)?;
            }
        }
        Ok(())
    }

    fn transform_list(&mut self, each: &'a Loop, range: &Range<'a, '_>) -> Evaluated<'a> {
        let mut list = Vec::new();
        self.bodies(each, range, |_, _, body| {
            list.push(body);
            Ok(())
        })?;
        Ok(Value::list(list))
    }

    fn transform_map(&mut self, each: &'a Loop, range: &Range<'a, '_>) -> Evaluated<'a> {
        let mut map = BTreeMap::new();
        self.bodies(each, range, |this, index, body| match (each.kind, body) {
            (LoopKind::Map, body) => insert(&mut map, range.key(index), body, this.budget),
            (_, Value::Map(entries)) => {
                this.budget.make_elements(entries.len())?;
                entries
                    .entries()
                    .into_iter()
                    .try_for_each(|(key, value)| insert(&mut map, key.into_value(), value, this.budget))
            }
            (_, other) => Err(Fault::failed(format!(
                "transformMapEntry() needs a map of entries for each element, not {}",
                super::evaluate::a(other.type_name())
            ))),
        })?;
        Ok(Value::map(map))
    }

    fn sort_by(&mut self, each: &'a Loop, range: &Range<'a, '_>) -> Evaluated<'a> {
        let Range::List(list) = range else {
            return Err(Fault::failed("sortBy() is for lists"));
        };
        let mut keys = Vec::new();
        self.bodies(each, range, |_, _, body| {
            keys.push(body);
            Ok(())
        })?;
        compare::sort(list.iter().collect(), keys, self.budget)
    }
}

/// What a macro goes through.
enum Range<'a, 'r> {
    List(&'r List<'a>),
    Map(Vec<(Key<'a>, Value<'a>)>),
}

impl<'a> Range<'a, '_> {
    fn len(&self) -> usize {
        match self {
            Range::List(list) => list.len(),
            Range::Map(entries) => entries.len(),
        }
    }

    /// The first of two variables: an index or a key.
    fn key(&self, index: usize) -> Value<'a> {
        match self {
            // A list has no more elements than an i64 counts.
            Range::List(_) => Value::Int(index as i64),
            Range::Map(entries) => entries
                .get(index)
                .map_or(Value::Null, |(key, _)| key.clone().into_value()),
        }
    }

    /// The second of two variables.
    fn value(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Range::List(list) => list.get(index),
            Range::Map(entries) => entries.get(index).map(|(_, value)| value.clone()),
        }
    }

    /// The variables for an element, in the order in which they are declared.
    fn variables(&self, index: usize, count: usize) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (first, second) = match (self, count) {
            (Range::List(_), 1) => (None, self.value(index)),
            (Range::Map(_), 1) => (Some(self.key(index)), None),
            _ => (Some(self.key(index)), self.value(index)),
        };
        first.into_iter().chain(second)
    }
}
