//! What people ask: cancel, delete, lists, uploads, retention.

use std::time::Duration;

use super::*;

pub(super) async fn cancel_is_immediate_and_final(desk: Desk) {
    let id = desk.submit_outputs(2).await;
    assert_eq!(desk.store.cancel(None, id, desk.now()).await.unwrap(), Cancelled::Now(vec![]));
    let again = desk.store.cancel(None, id, desk.now()).await.unwrap();
    assert_eq!(again, Cancelled::Already(JobStatus::Cancelled));
    assert!(desk.claim(1).await.is_empty());
    let retried = desk.store.retry(None, id, desk.task(), desk.now()).await.unwrap();
    assert_eq!(retried, Retried::NotFailed(JobStatus::Cancelled));
    let nobody = JobId::from_uuid(desk.ids.random());
    assert_eq!(desk.store.cancel(None, nobody, desk.now()).await.unwrap(), Cancelled::NotFound);
    desk.check_history(id).await;
}

pub(super) async fn delete_hides_at_once_and_sweeps_later(desk: Desk) {
    let mut job = desk.job();
    job.spec.source = Source::Inline { key: ObjectPath::parse("inline/1").unwrap(), size: 3 };
    let source = job.spec.source.clone();
    let id = desk.submit(job).await;
    let claimed = desk.start().await;
    let (publication, _) = desk.permit(&claimed, 0).await;
    assert_eq!(desk.store.delete(None, id, desk.now()).await.unwrap(), Deleted::Cancelling);
    assert!(desk.store.get(None, id).await.unwrap().is_some());
    desk.done(claimed.key, &publication).await;
    assert_eq!(desk.store.delete(None, id, desk.now()).await.unwrap(), Deleted::Done(vec![]));
    assert_eq!(desk.store.delete(None, id, desk.now()).await.unwrap(), Deleted::NotFound);
    assert_eq!(desk.store.get(None, id).await.unwrap(), None);
    assert!(desk.store.list(&JobFilter { limit: 10, ..JobFilter::default() }).await.unwrap().jobs.is_empty());

    let long_ago = Timestamp::from_micros(0);
    desk.store.expire(long_ago, desk.now()).await.unwrap();
    assert!(desk.store.events(id, 0).await.unwrap().is_empty());
    let garbage = desk.store.garbage(Folder::ONLY, desk.now()).await.unwrap();
    assert_eq!(garbage[0].what.source(), Some(source));
    desk.store.swept(&[garbage[0].id]).await.unwrap();
    assert!(desk.store.garbage(Folder::ONLY, desk.now()).await.unwrap().is_empty());
}

pub(super) async fn other_tenants_see_nothing(desk: Desk) {
    let id = desk.submit_outputs(1).await;
    let other: Tenant = "other".parse().unwrap();
    let (tenant, now) = (Some(&other), desk.now());
    assert_eq!(desk.store.get(tenant, id).await.unwrap(), None);
    assert_eq!(desk.store.cancel(tenant, id, now).await.unwrap(), Cancelled::NotFound);
    assert_eq!(desk.store.retry(tenant, id, desk.task(), now).await.unwrap(), Retried::NotFound);
    assert_eq!(desk.store.delete(tenant, id, now).await.unwrap(), Deleted::NotFound);
    assert!(desk.store.get(Some(&Tenant::local()), id).await.unwrap().is_some());
}

pub(super) async fn pages_are_newest_first_and_complete(desk: Desk) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(desk.submit_outputs(2).await);
    }
    ids.reverse();
    for tenant in [None, Some(Tenant::local())] {
        let mut seen = Vec::new();
        let mut filter = JobFilter { tenant, limit: 3, ..JobFilter::default() };
        loop {
            let page = desk.store.list(&filter).await.unwrap();
            assert!(page.jobs.iter().all(|j| j.aggregate.outputs.len() == 2));
            seen.extend(page.jobs.iter().map(|j| j.aggregate.job.id));
            filter.before = seen.last().copied();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, ids);
    }
}

pub(super) async fn lists_are_filtered(desk: Desk) {
    let mut labelled = Vec::new();
    for n in 0..6 {
        let mut job = desk.job();
        if n % 2 == 0 {
            job.spec.labels.insert("show".into(), "news".into());
        }
        let id = desk.submit(job).await;
        if n % 2 == 0 {
            labelled.push(id);
        }
    }
    desk.store.cancel(None, labelled[0], desk.now()).await.unwrap();
    let other = NewJob { tenant: "other".parse().unwrap(), ..desk.job() };
    desk.submit(other).await;
    for tenant in [None, Some(Tenant::local())] {
        let label = Some(("show".to_owned(), "news".to_owned()));
        let filter = JobFilter { tenant, label, limit: 10, ..JobFilter::default() };
        let ids = async |filter: JobFilter| -> Vec<JobId> {
            desk.store.list(&filter).await.unwrap().jobs.iter().map(|j| j.aggregate.job.id).collect()
        };
        assert_eq!(ids(filter.clone()).await, [labelled[2], labelled[1], labelled[0]]);
        let queued = JobFilter { status: Some(JobStatus::Queued), ..filter.clone() };
        assert_eq!(ids(queued).await, [labelled[2], labelled[1]]);
        let older = JobFilter { before: Some(labelled[1]), ..filter };
        assert_eq!(ids(older).await, [labelled[0]]);
    }
    let cancelled = JobFilter { status: Some(JobStatus::Cancelled), limit: 10, ..JobFilter::default() };
    assert_eq!(desk.store.list(&cancelled).await.unwrap().jobs.len(), 1);
}

pub(super) async fn uploads_are_kept_while_used(desk: Desk) {
    let upload = UploadRecord {
        id: UploadId::from_uuid(desk.ids.random()),
        tenant: Tenant::local(),
        name: "in.mp4".into(),
        size: 5,
        etag: None,
        expires_at: desk.now().plus(Duration::from_hours(1)),
    };
    desk.store.create_upload(&upload).await.unwrap();
    desk.store.create_upload(&upload).await.unwrap();
    desk.store.upload_done(upload.id, "ab").await.unwrap();
    assert!(desk.store.upload_done(upload.id, "cd").await.is_err(), "it is whole already");
    let done = UploadRecord { etag: Some("ab".into()), ..upload.clone() };
    assert_eq!(desk.store.upload(Some(&Tenant::local()), upload.id).await.unwrap(), Some(done));
    let other: Tenant = "other".parse().unwrap();
    assert_eq!(desk.store.upload(Some(&other), upload.id).await.unwrap(), None);

    let mut job = desk.job();
    job.spec.source = Source::Upload { id: upload.id };
    desk.submit(job).await;
    desk.clock.advance(Duration::from_hours(2));
    desk.store.expire(Timestamp::from_micros(0), desk.now()).await.unwrap();
    assert!(desk.store.upload(None, upload.id).await.unwrap().is_some(), "a job uses it");
    desk.finish().await;
    desk.clock.advance(Duration::from_hours(1));
    desk.store.expire(desk.now(), desk.now()).await.unwrap();
    assert!(desk.store.upload(None, upload.id).await.unwrap().is_none());
    let folder = Folder::holding(&Source::Upload { id: upload.id });
    assert_eq!(desk.store.garbage(folder, desk.now()).await.unwrap().len(), 1);
}

pub(super) async fn an_upload_is_given_up_unless_jobs_use_it(desk: Desk) {
    let expires_at = desk.now().plus(Duration::from_hours(1));
    let upload = |id| UploadRecord {
        id,
        tenant: Tenant::local(),
        name: "in.mp4".into(),
        size: 5,
        etag: Some("ab".into()),
        expires_at,
    };
    let [used, unused] = [1, 2].map(|_| UploadId::from_uuid(desk.ids.random()));
    for id in [used, unused] {
        desk.store.create_upload(&upload(id)).await.unwrap();
    }
    let mut job = desk.job();
    job.spec.source = Source::Upload { id: used };
    desk.submit(job).await;
    assert!(!desk.store.abandon_upload(used, desk.now()).await.unwrap(), "a job needs it");
    assert_eq!(desk.store.upload(None, used).await.unwrap(), Some(upload(used)));
    let now = desk.now();
    assert!(desk.store.abandon_upload(unused, now).await.unwrap());
    let given_up = UploadRecord { expires_at: now, ..upload(unused) };
    assert_eq!(desk.store.upload(None, unused).await.unwrap(), Some(given_up));
    desk.store.expire(Timestamp::from_micros(0), desk.now()).await.unwrap();
    assert!(desk.store.upload(None, unused).await.unwrap().is_none());
    let folder = Folder::holding(&Source::Upload { id: unused });
    assert_eq!(desk.store.garbage(folder, desk.now()).await.unwrap().len(), 1);
    assert!(!desk.store.abandon_upload(unused, desk.now()).await.unwrap(), "there is none");
}

pub(super) async fn each_folder_is_swept_by_its_own_control(desk: Desk) {
    let folders = [1, 2].map(|n| Folder::of(uuid::Uuid::from_u128(n)));
    for folder in folders {
        let upload = UploadRecord {
            id: UploadId::from_uuid(folder.mark(desk.ids.random())),
            tenant: Tenant::local(),
            name: "in.mp4".into(),
            size: 5,
            etag: None,
            expires_at: desk.now(),
        };
        desk.store.create_upload(&upload).await.unwrap();
    }
    // Whoever notices that they are over.
    desk.store.expire(Timestamp::from_micros(0), desk.now()).await.unwrap();
    for folder in folders {
        let found = desk.store.garbage(folder, desk.now()).await.unwrap();
        assert_eq!(found.iter().map(|g| g.what.folder()).collect::<Vec<_>>(), [folder]);
    }
    assert!(desk.store.garbage(Folder::ONLY, desk.now()).await.unwrap().is_empty());
}

pub(super) async fn old_jobs_expire(desk: Desk) {
    let mut labelled = desk.keyed("k", "body");
    labelled.spec.labels.insert("show".into(), "news".into());
    let old = desk.submit(labelled).await;
    desk.finish().await;
    let waiting = desk.submit_outputs(1).await;
    desk.clock.advance(Duration::from_hours(2));
    let cut = desk.now();
    desk.clock.advance(Duration::from_hours(1));
    let removed = desk.store.expire(cut, desk.now()).await.unwrap();
    assert_eq!((removed, desk.store.get(None, old).await.unwrap()), (1, None));
    assert_eq!(
        desk.store.submit(desk.keyed("k", "body")).await.unwrap(),
        Submitted::KeyGone,
        "the promise holds"
    );
    assert_eq!(desk.status(waiting).await, JobStatus::Queued, "waiting jobs never expire");
    desk.clock.advance(Duration::from_hours(24));
    assert_eq!(desk.store.expire(cut, desk.now()).await.unwrap(), 0, "it was counted");
    desk.submit(desk.keyed("k", "body")).await;
}

/// A desk whose retention removes results.
async fn thorough(desk: Desk) -> Desk {
    let options =
        Options { results: Results::Remove, ids: Arc::new(SeededIds::new(9)), ..Options::default() };
    let (store, outbox, place) = (desk.another)(options).await;
    let session = store.open_session("desk", desk.now()).await.unwrap();
    Desk { store, outbox, session, _place: place, ..desk }
}

pub(super) async fn results_go_with_expired_jobs_where_that_is_wanted(desk: Desk) {
    let desk = thorough(desk).await;
    let promised = desk.submit(desk.keyed("k", "body")).await;
    let first = desk.finish().await;
    let plain = desk.submit_outputs(2).await;
    let second = desk.finish().await;
    let deleted = desk.submit_outputs(1).await;
    desk.finish().await;
    assert!(matches!(desk.store.delete(None, deleted, desk.now()).await.unwrap(), Deleted::Done(_)));
    desk.submit_outputs(1).await;
    desk.clock.advance(Duration::from_hours(1));
    let jobs = [(promised, &first), (plain, &second)];
    let mut expected = Vec::new();
    for (job, _) in jobs {
        for output in desk.get(job).await.aggregate.outputs {
            let publication = output.publication.unwrap();
            let destination = Box::new(output.spec.destination);
            expected.push(Waste::Result { destination, publication, others: Vec::new() });
        }
    }
    // Looking at it changes nothing.
    for _ in 0..2 {
        let doomed = desk.store.doomed(desk.now(), desk.now(), 10).await.unwrap();
        let ids: Vec<_> = doomed.jobs.iter().map(|job| (job.id, job.results.len())).collect();
        assert_eq!((ids, doomed.garbage, doomed.more), (vec![(promised, 1), (plain, 2)], 0, false));
        assert!(desk.store.doomed(desk.now(), desk.now(), 1).await.unwrap().more);
    }
    assert_eq!(desk.store.expire(desk.now(), desk.now()).await.unwrap(), 2);
    desk.clock.advance(Duration::from_hours(25));
    desk.store.expire(desk.now(), desk.now()).await.unwrap();
    let garbage = desk.store.garbage(Folder::ONLY, desk.now()).await.unwrap();
    let found: Vec<_> = garbage.into_iter().map(|garbage| garbage.what).collect();
    assert_eq!(found.len(), expected.len(), "each once, and nothing of the one that was deleted: {found:?}");
    assert!(expected.iter().all(|what| found.contains(what)), "{found:?}");
    assert_eq!(desk.store.doomed(desk.now(), desk.now(), 10).await.unwrap().garbage, 3);
}

pub(super) async fn results_stay_otherwise(desk: Desk) {
    desk.submit_outputs(1).await;
    desk.finish().await;
    desk.clock.advance(Duration::from_hours(1));
    assert_eq!(desk.store.expire(desk.now(), desk.now()).await.unwrap(), 1);
    assert!(desk.store.garbage(Folder::ONLY, desk.now()).await.unwrap().is_empty());
}

pub(super) async fn changes_are_hinted(desk: Desk) {
    let mut changes = desk.store.changes();
    let id = desk.submit_outputs(1).await;
    assert_eq!(changes.recv().await, Ok(id));
    desk.start().await;
    assert_eq!(changes.recv().await, Ok(id));
    assert!(desk.store.ping().await.is_ok());
}
