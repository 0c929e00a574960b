//! What an expression reads of its scope: what makes a step depend on another.

use std::collections::BTreeSet;

use super::node::Node;
use super::value::Value;

/// What an expression reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// The variables of the scope.
    pub roots: BTreeSet<String>,
    /// The steps that are named: `x` in `steps.x`, `steps.?x`, `steps["x"]`, `steps[?"x"]` and `has(steps.x)`.
    pub steps: BTreeSet<String>,
    /// `steps` is used in another way, such as `steps[name]` or `size(steps)`: which steps it reads can't be told.
    pub dynamic_steps: bool,
}

impl References {
    /// Adds what another expression reads.
    pub fn extend(&mut self, other: References) {
        self.roots.extend(other.roots);
        self.steps.extend(other.steps);
        self.dynamic_steps |= other.dynamic_steps;
    }

    pub(super) fn visit(&mut self, node: &Node) {
        match node {
            Node::Literal(_) | Node::Local(_) => {}
            Node::Variable(name) => {
                self.dynamic_steps |= name == "steps";
                self.roots.insert(name.clone());
            }
            Node::Select(operand, field) | Node::OptionalSelect(operand, field) | Node::Has(operand, field) => {
                if !self.step(operand, field) {
                    self.visit(operand);
                }
            }
            Node::Index(operand, index) | Node::OptionalIndex(operand, index) => {
                match &**index {
                    Node::Literal(Value::String(name)) if self.step(operand, name) => return,
                    _ => {}
                }
                self.visit(operand);
                self.visit(index);
            }
            Node::Not(operand) | Node::Negate(operand) => self.visit(operand),
            Node::And(left, right)
            | Node::Or(left, right)
            | Node::Binary(_, left, right)
            | Node::OrElse { left, right, .. } => {
                self.visit(left);
                self.visit(right);
            }
            Node::Conditional(parts) => parts.iter().for_each(|part| self.visit(part)),
            Node::List(elements) => elements.iter().for_each(|(element, _)| self.visit(element)),
            Node::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                self.visit(key);
                self.visit(value);
            }),
            Node::Call(_, arguments) => arguments.iter().for_each(|argument| self.visit(argument)),
            Node::Loop(each) => {
                self.visit(&each.range);
                each.filter.iter().for_each(|filter| self.visit(filter));
                self.visit(&each.body);
            }
            Node::OptionalMap { operand, body, .. } => {
                self.visit(operand);
                self.visit(body);
            }
        }
    }

    /// Notes `steps.name`, if that is what it is.
    fn step(&mut self, operand: &Node, name: &str) -> bool {
        let is_step = matches!(operand, Node::Variable(root) if root == "steps");
        if is_step {
            self.roots.insert("steps".to_owned());
            self.steps.insert(name.to_owned());
        }
        is_step
    }
}
