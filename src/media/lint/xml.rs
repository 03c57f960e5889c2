//! As much of XML as an MPD needs: elements, attributes, text. No document types, no external entities.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Elements read at most.
const MAX_ELEMENTS: usize = 500_000;
/// How deep they may lie.
const MAX_DEPTH: usize = 32;

/// One element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Without a prefix.
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    pub(super) children: Vec<Self>,
    pub(super) text: String,
}

impl Element {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.trim().parse().ok()
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// Reads a document's root element.
pub(super) fn parse(text: &str) -> Result<Element, String> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = vec![Element::default()];
    let mut count = 0;
    loop {
        let event = reader.read_event().map_err(|error| error.to_string())?;
        let (start, closed) = match &event {
            Event::Start(start) => (Some(element(start)?), false),
            Event::Empty(start) => (Some(element(start)?), true),
            Event::End(_) => (None, true),
            Event::Text(words) => {
                if let Some(parent) = open.last_mut() {
                    parent.text.push_str(words.decode().map_err(|error| error.to_string())?.trim());
                }
                continue;
            }
            Event::Eof => break,
            Event::DocType(_) => return Err("a document type".into()),
            _ => continue,
        };
        if let Some(start) = start {
            count += 1;
            if count > MAX_ELEMENTS || open.len() > MAX_DEPTH {
                return Err("too many elements".into());
            }
            open.push(start);
        }
        if closed
            && open.len() > 1
            && let Some(done) = open.pop()
            && let Some(parent) = open.last_mut()
        {
            parent.children.push(done);
        }
    }
    let document = open.pop().filter(|_| open.is_empty());
    let root = document.and_then(|mut document| document.children.pop());
    root.ok_or_else(|| "an element that does not end".to_owned())
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = String::from_utf8_lossy(attribute.key.local_name().as_ref()).into_owned();
        let value = String::from_utf8_lossy(&attribute.value);
        let value = quick_xml::escape::unescape(&value).map_err(|error| error.to_string())?;
        attributes.push((key, value.into_owned()));
    }
    Ok(Element { name, attributes, ..Element::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_nest_and_have_attributes() {
        let root =
            parse("<?xml version=\"1.0\"?><x:MPD a=\"1 &amp; 2\"><P> t </P><P b='3'/></x:MPD>").unwrap();
        assert_eq!((root.name.as_str(), root.get("a")), ("MPD", Some("1 & 2")));
        assert_eq!(root.all("P").count(), 2);
        assert_eq!(root.child("P").unwrap().text, "t");
        assert_eq!(root.children[1].number("b"), Some(3));
    }

    #[test]
    fn what_is_no_plain_document_is_refused() {
        let deep = "<a>".repeat(100);
        for bad in ["", "text", "<a>", "<a></b>", "<!DOCTYPE a [<!ENTITY x \"y\">]><a/>", "<a b=c/>", &deep] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
