//! Answers of the API server, cut where they are nested too deeply to be read.
//!
//! The JSON parser refuses what is nested more than 127 levels deep, and with it a whole list: one object that somebody
//! made so would stop every operation of the cluster. Neither a CRD nor an admission policy can see depth. So values
//! below [`MAX_DEPTH`] are replaced by a text as they arrive. An operation whose spec is that deep is invalid anyway
//! (the engine allows less), so what was cut is never executed.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;
use tower::BoxError;

use crate::activities::clients::ANSWER_TIMEOUT;

/// The deepest nesting that is let through, of objects and lists in an answer.
const MAX_DEPTH: usize = 100;
/// What stands in place of a value that was cut.
const CUT: &[u8] = b"\"(nested too deeply)\"";

/// A client whose answers can be read, whatever is in them, and begin in time: a list or a watch that is never answered
/// must not stop everything.
pub fn guarded(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            let answer: Response<Body> = timeout(ANSWER_TIMEOUT, client.send(request))
                .await
                .map_err(BoxError::from)??;
            Ok::<_, BoxError>(guard(answer))
        }
    });
    Client::new(service, namespace)
}

fn guard(response: Response<Body>) -> Response<impl http_body::Body<Data = Bytes, Error = kube::Error> + Send> {
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let mut scanner = json.then(Scanner::default); // a log may have any number of brackets
    response.map(|body| {
        body.map_frame(move |frame| match &mut scanner {
            Some(scanner) => frame.map_data(|data| scanner.pass(data)),
            None => frame,
        })
    })
}

/// Follows JSON as it arrives, in pieces of any size; a watch's answer is one object after another.
#[derive(Default)]
struct Scanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Lets a piece through, without what is too deep.
    fn pass(&mut self, piece: Bytes) -> Bytes {
        let mut kept: Option<Vec<u8>> = (self.depth > MAX_DEPTH).then(Vec::new);
        for (i, byte) in piece.iter().enumerate() {
            let before = self.depth;
            self.step(*byte);
            let cut = self.depth > MAX_DEPTH || before > MAX_DEPTH;
            if cut && kept.is_none() {
                kept = Some(piece[..i].to_vec());
            }
            if let Some(kept) = &mut kept {
                if !cut {
                    kept.push(*byte);
                } else if before == MAX_DEPTH {
                    kept.extend_from_slice(CUT);
                }
            }
        }
        kept.map_or(piece, Bytes::from)
    }

    fn step(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn passed(text: &str, size: usize) -> String {
        let mut scanner = Scanner::default();
        let pieces = text.as_bytes().chunks(size);
        let bytes: Vec<u8> = pieces
            .flat_map(|piece| scanner.pass(Bytes::copy_from_slice(piece)).to_vec())
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_too_deep_is_cut_and_what_stands_beside_it_stays() {
        let deep = format!(
            "{{\"a\": {}1{}, \"b\": \"]}}\\\"[\"}}",
            "[".repeat(5000),
            "]".repeat(5000)
        );
        for size in [1, 7, 4096, 100_000] {
            let value: Value = serde_json::from_str(&passed(&deep, size)).unwrap();
            assert_eq!(value["b"], "]}\"[");
        }
    }

    #[test]
    fn a_watchs_events_are_counted_one_by_one() {
        let event = format!("{}{}\n", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(passed(&event.repeat(3), 64), event.repeat(3));
    }

    proptest! {
        #[test]
        fn what_is_shallow_is_not_touched(text in ".{0,200}", number in any::<i64>(), size in 1usize..50) {
            let text = json!({"items": [{"text": text, "number": number, "list": [[], {}]}]}).to_string();
            prop_assert_eq!(passed(&text, size), text);
        }
    }
}
