//! Reading an event stream (WHATWG HTML, "server-sent events"): bytes in, events out.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SseEvent {
    /// Its kind; `message` when not said.
    pub(super) event: String,
    /// The last id seen up to here.
    pub(super) id: Option<String>,
    /// Its data lines, joined.
    pub(super) data: String,
}

/// Collects bytes until an event is whole.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    buffer: Vec<u8>,
    event: Option<String>,
    id: Option<String>,
    data: Vec<String>,
}

impl SseParser {
    /// Takes bytes and gives the events they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\n', '\r'])));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = self.event.take();
            if self.data.is_empty() {
                return None;
            }
            let data = std::mem::take(&mut self.data).join("\n");
            return Some(SseEvent {
                event: event.unwrap_or_else(|| "message".into()),
                id: self.id.clone(),
                data,
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "event" => self.event = Some(value),
            "data" => self.data.push(value),
            "id" => self.id = Some(value),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_any_cut_and_comments_are_skipped() {
        let text = ": hello\nretry: 2000\n\nid: 3\nevent: status\ndata: {\"a\":\ndata: 1}\n\ndata: x\r\n\r\n";
        for cut in 0..text.len() {
            let mut parser = SseParser::default();
            let mut events = parser.push(&text.as_bytes()[..cut]);
            events.extend(parser.push(&text.as_bytes()[cut..]));
            assert_eq!(events.len(), 2, "cut at {cut}");
            assert_eq!(
                events[0],
                SseEvent { event: "status".into(), id: Some("3".into()), data: "{\"a\":\n1}".into() }
            );
            assert_eq!((events[1].event.as_str(), events[1].data.as_str()), ("message", "x"));
        }
    }
}
