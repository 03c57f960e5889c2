use super::*;
use crate::api::testkit::{START, event, report, stored};
use crate::domain::{Code, Failure, RunNumber};

/// `id event` of every frame, `-` where there is no id.
fn frames(out: &BytesMut) -> Vec<String> {
    let text = std::str::from_utf8(out).unwrap();
    let field = |frame: &str, name: &str| {
        frame.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned())
    };
    text.split("\n\n")
        .filter(|frame| !frame.is_empty())
        .map(|frame| {
            format!("{} {}", field(frame, "id:").unwrap_or("-".into()), field(frame, "event:").unwrap())
        })
        .collect()
}

fn data(out: &BytesMut, index: usize) -> Value {
    let text = std::str::from_utf8(out).unwrap();
    let line = text.lines().filter_map(|line| line.strip_prefix("data: ")).nth(index).unwrap();
    serde_json::from_str(line).unwrap()
}

fn at_seq(status: JobStatus, seq: i64) -> StoredJob {
    let mut job = stored(status);
    job.aggregate.job.seq = seq;
    job
}

#[test]
fn a_fresh_reader_gets_a_snapshot_then_what_follows() {
    let job = at_seq(JobStatus::Running, 2);
    let mut reader = Follower::new(&job, None);
    let mut out = BytesMut::new();
    reader.catch_up(&mut out, &job, &[], Some(&report(417)), START);
    assert_eq!(frames(&out), ["2 snapshot"]);
    assert_eq!(data(&out, 0)["progress"], 41.7);
    assert_eq!(data(&out, 0)["job"]["status"], "running");

    out.clear();
    let done = at_seq(JobStatus::Completed, 4);
    let mut output = event(3, JobStatus::Running);
    output.kind = EventKind::Output;
    output.output = Some(OutputIndex(0));
    output.output_status = Some(OutputStatus::Completed);
    reader.catch_up(&mut out, &done, &[output, event(4, JobStatus::Completed)], None, START);
    assert_eq!(frames(&out), ["3 output", "4 completed"]);
    assert_eq!(data(&out, 0)["output"], serde_json::json!({"index": 0, "status": "completed"}));
    let last = data(&out, 1);
    assert_eq!((&last["progress"], &last["error"]), (&serde_json::json!(100.0), &Value::Null));
    assert_eq!(last["output_url"], view::content_url(done.aggregate.job.id, OutputIndex(0)));
    assert!(reader.ended());
}

#[test]
fn late_readers_get_snapshot_and_end() {
    let mut job = at_seq(JobStatus::Failed, 5);
    job.aggregate.job.failure =
        Some(Failure::new(Code::MediaTruncated, "the source ends early").with_detail("/host/path"));
    let mut reader = Follower::new(&job, None);
    let mut out = BytesMut::new();
    reader.catch_up(&mut out, &job, &[], None, START);
    assert_eq!(frames(&out), ["5 snapshot", "5 failed"]);
    assert_eq!(data(&out, 1)["error"]["code"], "media_truncated");
    assert!(!std::str::from_utf8(&out).unwrap().contains("/host/path"));
}

#[test]
fn a_known_id_resumes_and_an_unknown_one_starts_anew() {
    let job = at_seq(JobStatus::Running, 4);
    let events: Vec<_> = (1..=4).map(|seq| event(seq, JobStatus::Running)).collect();
    let told = |last: &str| {
        let mut reader = Follower::new(&job, Some(last));
        let after = reader.wants_after(&job);
        let wanted: Vec<_> = events.iter().filter(|e| e.seq > after).cloned().collect();
        let mut out = BytesMut::new();
        reader.catch_up(&mut out, &job, &wanted, None, START);
        frames(&out)
    };
    assert_eq!(told("2"), ["3 status", "4 status"]);
    assert!(told("4").is_empty());
    for unknown in ["5", "0", "-1", "x", "", "99999999999999999999"] {
        assert_eq!(told(unknown), ["4 snapshot"], "{unknown:?}");
    }
}

/// G8: a reader that is cut after any event and comes back misses no state event, and always sees the end.
#[test]
fn cut_anywhere_nothing_is_missed() {
    let events: Vec<_> =
        (1..=5).map(|seq| event(seq, JobStatus::Running)).chain([event(6, JobStatus::Completed)]).collect();
    let done = at_seq(JobStatus::Completed, 6);
    for cut in 1..=6 {
        let mut reader = Follower::new(&done, Some(&cut.to_string()));
        let mut out = BytesMut::new();
        let wanted: Vec<_> = events.iter().filter(|e| e.seq > cut).cloned().collect();
        reader.catch_up(&mut out, &done, &wanted, None, START);
        let mut want: Vec<_> = (cut + 1..=5).map(|seq| format!("{seq} status")).collect();
        want.push("6 completed".into());
        assert_eq!(frames(&out), want, "cut after {cut}");
    }
}

#[test]
fn an_earlier_runs_end_is_history_not_the_end() {
    let mut job = at_seq(JobStatus::Running, 4);
    job.aggregate.job.run = RunNumber(2);
    let mut retried = event(3, JobStatus::Queued);
    retried.run = RunNumber(2);
    let mut running = event(4, JobStatus::Running);
    running.run = RunNumber(2);
    let mut reader = Follower::new(&job, Some("1"));
    let mut out = BytesMut::new();
    reader.catch_up(&mut out, &job, &[event(2, JobStatus::Failed), retried, running], None, START);
    assert_eq!(frames(&out), ["2 status", "3 status", "4 status"]);
    assert!(!reader.ended());
}

#[test]
fn events_newer_than_the_record_wait_for_it() {
    let job = at_seq(JobStatus::Running, 3);
    let mut reader = Follower::new(&job, Some("2"));
    let mut out = BytesMut::new();
    reader.catch_up(
        &mut out,
        &job,
        &[event(3, JobStatus::Running), event(4, JobStatus::Completed)],
        None,
        START,
    );
    assert_eq!(frames(&out), ["3 status"]);
    assert_eq!(reader.wants_after(&job), 3);
}

#[test]
fn progress_is_conflated_monotonic_and_without_id() {
    let job = at_seq(JobStatus::Running, 2);
    let mut reader = Follower::new(&job, Some("2"));
    let mut out = BytesMut::new();
    reader.catch_up(&mut out, &job, &[], None, START);
    for permille in [500, 500, 300, 600] {
        reader.progress(&mut out, &report(permille), START);
    }
    assert_eq!(frames(&out), ["- progress", "- progress", "- progress"]);
    let seen: Vec<_> = (0..3).map(|n| data(&out, n)["progress"].as_f64().unwrap()).collect();
    assert_eq!(seen, [50.0, 50.0, 60.0]);
}

#[test]
fn figures_that_are_not_numbers_are_null() {
    let job = at_seq(JobStatus::Running, 2);
    let mut reader = Follower::new(&job, Some("2"));
    let mut out = BytesMut::new();
    reader.catch_up(&mut out, &job, &[], None, START);
    let odd =
        TaskReport { fps: Some(f64::NAN), speed: Some(f64::INFINITY), eta_seconds: None, ..report(500) };
    reader.progress(&mut out, &odd, START);
    insta::assert_json_snapshot!(data(&out, 0));
}

#[test]
fn a_frame_is_one_event_whatever_the_data() {
    let mut out = BytesMut::new();
    opening(&mut out);
    write(&mut out, "status", Some(7), &serde_json::json!({"message": "a\nb\r\n\nevent: forged"}));
    let text = std::str::from_utf8(&out).unwrap();
    assert_eq!(
        text,
        "retry: 2000\n\nid: 7\nevent: status\ndata: {\"message\":\"a\\nb\\r\\n\\nevent: forged\"}\n\n"
    );
}
