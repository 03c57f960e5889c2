//! Reading an object field by field, collecting every fault with its JSON pointer (RFC 6901).

use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::domain::Fault;

/// Most faults that are reported; a hostile body could have a million.
const MAX_FAULTS: usize = 100;

/// Faults found so far.
#[derive(Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, pointer: impl Into<String>, detail: impl Into<String>) {
        let mut faults = self.0.borrow_mut();
        if faults.len() < MAX_FAULTS {
            faults.push(Fault { pointer: pointer.into(), detail: detail.into() });
        }
    }

    /// Faults that another room found relative to `at`.
    pub(super) fn extend(&self, at: &str, found: Vec<Fault>) {
        for fault in found {
            self.add(format!("{at}{}", fault.pointer), fault.detail);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// The pointer of `name` below `at`.
pub(super) fn child(at: &str, name: &str) -> String {
    let mut pointer = String::with_capacity(at.len() + 1 + name.len());
    pointer.push_str(at);
    push_child(&mut pointer, name);
    pointer
}

/// Makes a pointer one to `name` below it.
pub(super) fn push_child(pointer: &mut String, name: &str) {
    pointer.push('/');
    for part in name.split_inclusive(['~', '/']) {
        match part.as_bytes() {
            [plain @ .., b'~'] => {
                pointer.push_str(&part[..plain.len()]);
                pointer.push_str("~0");
            }
            [plain @ .., b'/'] => {
                pointer.push_str(&part[..plain.len()]);
                pointer.push_str("~1");
            }
            _ => pointer.push_str(part),
        }
    }
}

/// A value with its place in the body.
pub(super) struct Place<T> {
    pub(super) at: String,
    pub(super) value: T,
}

impl<T> Place<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Place<U> {
        Place { at: self.at, value: f(self.value) }
    }
}

/// An object being taken apart. What is left at [`Fields::finish`] is unknown and therefore a fault.
pub(super) struct Fields<'f> {
    at: String,
    map: Map<String, Value>,
    known: Vec<&'static str>,
    pub(super) faults: &'f Faults,
}

impl<'f> Fields<'f> {
    /// The object at `at`; anything else is a fault.
    pub(super) fn of(place: Place<Value>, faults: &'f Faults) -> Option<Self> {
        match place.value {
            Value::Object(map) => Some(Self { at: place.at, map, known: Vec::new(), faults }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                faults.add(place.at, "must be an object");
                None
            }
        }
    }

    pub(super) fn at(&self, name: &str) -> String {
        child(&self.at, name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Takes a field; `null` counts as absent. The camel-case spelling of a name is taken too (seed bodies use it), but
    /// not beside the other.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Place<Value>> {
        self.known.push(name);
        let plain = self.map.remove(name).map(|value| Place { at: self.at(name), value });
        let other = name.contains('_').then(|| camel_case(name)).and_then(|camel| {
            let value = self.map.remove(&camel)?;
            Some(Place { at: self.at(&camel), value })
        });
        if let (Some(_), Some(second)) = (&plain, &other) {
            self.faults
                .add(second.at.clone(), format!("is another spelling of {name:?}, which is given too"));
        }
        plain.or(other).filter(|place| !place.value.is_null())
    }

    pub(super) fn string(&mut self, name: &'static str) -> Option<Place<String>> {
        let place = self.take(name)?;
        match place.value {
            Value::String(value) => Some(Place { at: place.at, value }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.faults.add(place.at, "must be a string");
                None
            }
        }
    }

    pub(super) fn required_string(&mut self, name: &'static str) -> Option<Place<String>> {
        if !self.has(name) && !self.has(&camel_case(name)) {
            self.faults.add(self.at(name), "is required");
        }
        self.string(name)
    }

    /// A string with two names that clients use; both at once are a fault.
    pub(super) fn either(&mut self, name: &'static str, other: &'static str) -> Option<Place<String>> {
        let (first, second) = (self.string(name), self.string(other));
        if let (Some(_), Some(second)) = (&first, &second) {
            self.faults
                .add(second.at.as_str(), format!("is another spelling of {name:?}, which is given too"));
        }
        first.or(second)
    }

    /// The same for any value.
    pub(super) fn either_value(&mut self, name: &'static str, other: &'static str) -> Option<Place<Value>> {
        let (first, second) = (self.take(name), self.take(other));
        if let (Some(_), Some(second)) = (&first, &second) {
            self.faults
                .add(second.at.as_str(), format!("is another spelling of {name:?}, which is given too"));
        }
        first.or(second)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let place = self.take(name)?;
        let value = place.value.as_bool();
        if value.is_none() {
            self.faults.add(place.at, "must be true or false");
        }
        value
    }

    /// An integer within `range`.
    pub(super) fn integer(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let place = self.take(name)?;
        let value = place.value.as_i64().filter(|n| range.contains(n));
        if value.is_none() {
            self.faults
                .add(place.at, format!("must be an integer from {} to {}", range.start(), range.end()));
        }
        value
    }

    /// One of a closed set of names, as serde spells them.
    pub(super) fn one_of<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &'static str,
        want: &str,
    ) -> Option<T> {
        let place = self.take(name)?;
        let value = serde_json::from_value(place.value).ok();
        if value.is_none() {
            self.faults.add(place.at, format!("must be {want}"));
        }
        value
    }

    /// A map of strings with at most `most` entries, each checked by `fits(key, value)`.
    pub(super) fn strings(
        &mut self,
        name: &'static str,
        most: usize,
        fits: impl Fn(&str, &str) -> Result<(), &'static str>,
    ) -> std::collections::BTreeMap<String, String> {
        let mut out = std::collections::BTreeMap::new();
        let Some(place) = self.take(name) else { return out };
        let Value::Object(map) = place.value else {
            self.faults.add(place.at, "must be an object of strings");
            return out;
        };
        if map.len() > most {
            self.faults.add(place.at.as_str(), format!("has more than {most} keys"));
            return out;
        }
        for (key, value) in map {
            let at = child(&place.at, &key);
            match value.as_str().ok_or("must be a string").and_then(|text| fits(&key, text).map(|()| text)) {
                Ok(text) => drop(out.insert(key, text.to_owned())),
                Err(detail) => self.faults.add(at, detail),
            }
        }
        out
    }

    /// What no `take` asked for, for another room to judge.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map
    }

    /// Reports what no `take` asked for, with the nearest known name.
    pub(super) fn finish(self) {
        for name in self.map.keys() {
            let near = self
                .known
                .iter()
                .filter(|known| strsim::damerau_levenshtein(known, name) <= 2)
                .min_by_key(|known| strsim::damerau_levenshtein(known, name));
            let hint = near.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
            self.faults.add(child(&self.at, name), format!("unknown field{hint}"));
        }
    }
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(value: Value, read: impl FnOnce(&mut Fields<'_>)) -> Vec<String> {
        let faults = Faults::default();
        let mut fields = Fields::of(Place { at: String::new(), value }, &faults).unwrap();
        read(&mut fields);
        fields.finish();
        faults.into_vec().into_iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect()
    }

    #[test]
    fn unknown_fields_are_named_with_the_nearest_known() {
        let found = with(json!({"prioritty": 1, "a/b": 2}), |f| {
            assert_eq!(f.integer("priority", -1..=1), None);
        });
        assert_eq!(found, ["/a~1b unknown field", "/prioritty unknown field; did you mean \"priority\"?"]);
    }

    #[test]
    fn both_spellings_of_one_field_are_a_fault() {
        let read = |f: &mut Fields<'_>| drop(f.string("notification_url"));
        assert!(with(json!({"notificationUrl": "x"}), read).is_empty());
        assert_eq!(with(json!({"notificationUrl": "x", "notification_url": "y"}), read).len(), 1);
    }

    #[test]
    fn null_is_absent_and_types_are_checked() {
        assert!(with(json!({"s": null}), |f| assert!(f.string("s").is_none())).is_empty());
        assert_eq!(with(json!({"s": 5}), |f| assert!(f.string("s").is_none())), ["/s must be a string"]);
        assert_eq!(with(json!({"n": 1e300}), |f| assert!(f.integer("n", 0..=5).is_none())).len(), 1);
    }
}
