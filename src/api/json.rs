//! JSON as strangers send it: bounded depth, duplicate keys noticed, nothing lost silently.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::fields::{Faults, child, push_child};
use super::problem::{Kind, Problem};

/// Deepest nesting of a body; the job body needs 6, metadata is the client's own.
const MAX_DEPTH: usize = 32;

/// Parses a whole body. Duplicate keys are faults beside the caller's own; anything that is not JSON is a problem.
pub(super) fn parse(bytes: &[u8], faults: &Faults) -> Result<Value, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut walk = Walk { at: String::new(), depth: 0, faults };
    Node(&mut walk)
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Problem::new(Kind::MalformedJson, error.to_string()))
}

/// The same bytes for the same content, whatever the order of keys and the white space.
pub(super) fn canonical(value: &Value) -> Vec<u8> {
    // Writing such values to memory cannot fail.
    fn write(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
                out.push(b'{');
                for (key, value) in entries {
                    let _ = serde_json::to_writer(&mut *out, key);
                    out.push(b':');
                    write(value, out);
                    out.push(b',');
                }
                out.push(b'}');
            }
            Value::Array(items) => {
                out.push(b'[');
                for item in items {
                    write(item, out);
                    out.push(b',');
                }
                out.push(b']');
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let _ = serde_json::to_writer(&mut *out, value);
            }
        }
    }
    let mut out = Vec::with_capacity(512);
    write(value, &mut out);
    out
}

struct Walk<'f> {
    at: String,
    depth: usize,
    faults: &'f Faults,
}

impl Walk<'_> {
    /// Runs `read` one level down, at the child `name`.
    fn down<T, E: de::Error>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        let length = self.at.len();
        push_child(&mut self.at, name);
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        self.at.truncate(length);
        result
    }
}

struct Node<'w, 'f>(&'w mut Walk<'f>);

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            let index = array.len().to_string();
            match self.0.down(&index, |walk| items.next_element_seed(Node(walk)))? {
                Some(item) => array.push(item),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = self.0.down(&key, |walk| entries.next_value_seed(Node(walk)))?;
            if map.contains_key(&key) {
                self.0.faults.add(child(&self.0.at, &key), "the key is given twice");
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        let faults = Faults::default();
        let value = parse(text.as_bytes(), &faults).map_err(|p| String::from_utf8(p.body("r")).unwrap())?;
        let found: Vec<_> = faults.into_vec().into_iter().map(|f| f.pointer).collect();
        if found.is_empty() { Ok(value) } else { Err(found.join(" ")) }
    }

    #[test]
    fn hostile_bodies_are_refused() {
        for bad in [
            "",
            "{",
            "{}x",
            "NaN",
            "1e999",
            "-1e999",
            "{\"a\":NaN}",
            "[1,]",
            "\"\\ud800\"",
            "{'a':1}",
            "\u{feff}{}",
        ] {
            assert!(read(bad).is_err_and(|body| body.contains("malformed_json")), "{bad:?}");
        }
        assert!(parse(b"\"\xff\"", &Faults::default()).is_err());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).is_err_and(|body| body.contains("32 levels")));
    }

    #[test]
    fn duplicate_keys_are_named_at_any_depth() {
        assert_eq!(read(r#"{"a":1,"a":2}"#), Err("/a".into()));
        assert_eq!(read(r#"{"o":[{"x":1},{"y/z":1,"y/z":1}]}"#), Err("/o/1/y~1z".into()));
    }

    #[test]
    fn canonical_ignores_order_and_space() {
        let a = read(r#"{"b":[1,2.5,"x"],"a":{"d":null,"c":true}}"#).unwrap();
        let b = read("{ \"a\": {\"c\":true, \"d\":null},\n \"b\":[1,2.5,\"x\"] }").unwrap();
        let c = read(r#"{"b":[1,2.5,"y"],"a":{"d":null,"c":true}}"#).unwrap();
        assert_eq!(canonical(&a), canonical(&b));
        assert_ne!(canonical(&a), canonical(&c));
    }
}
