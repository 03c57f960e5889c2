//! Webhook deliveries of a job: what was told, what is still to be told, and telling it again.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::auth::Principal;
use super::problem::{Kind, Problem};
use super::{Api, params};
use crate::domain::webhook::{Delivery, TryError, WebhookEvent};
use crate::domain::{DeliveryId, DeliveryState, Timestamp};
use crate::store::Redelivered;

/// A delivery without its address, which may be a secret.
#[derive(Debug, Serialize)]
struct DeliveryView {
    id: DeliveryId,
    event: WebhookEvent,
    state: DeliveryState,
    tries: u32,
    created_at: Timestamp,
    next_at: Option<Timestamp>,
    last: Option<TryView>,
    /// Until when it can be asked for again.
    redeliver_until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct TryView {
    at: Timestamp,
    status: Option<u16>,
    error: Option<TryError>,
}

impl From<&Delivery> for DeliveryView {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id,
            event: delivery.event,
            state: delivery.state,
            tries: delivery.tries,
            created_at: delivery.created_at,
            next_at: delivery.next_at,
            last: delivery.last.map(|last| TryView { at: last.at, status: last.status, error: last.error }),
            redeliver_until: delivery.wipe_at,
        }
    }
}

/// `GET /jobs/{id}/deliveries`: oldest first.
pub(super) async fn list(
    State(api): State<Api>,
    who: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = params::id(&id, "job")?;
    let found = api.control.deliveries(who.reach(), job).await?;
    let deliveries = found.ok_or_else(|| Problem::no_such("job"))?;
    let deliveries: Vec<_> = deliveries.iter().map(DeliveryView::from).collect();
    Ok(axum::Json(json!({"job_id": job, "deliveries": deliveries})).into_response())
}

/// `POST /jobs/{id}/deliveries/{delivery}/redeliver`: 202, due now.
pub(super) async fn redeliver(
    State(api): State<Api>,
    who: Principal,
    Path((job, delivery)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (job, delivery) = (params::id(&job, "job")?, params::id(&delivery, "delivery")?);
    match api.control.redeliver(who.reach(), job, delivery).await? {
        Redelivered::Due(delivery) => {
            Ok((StatusCode::ACCEPTED, axum::Json(DeliveryView::from(&delivery))).into_response())
        }
        Redelivered::Wiped => Err(Problem::new(
            Kind::Gone,
            "its address was wiped 24 hours after the delivery ended; ask for the job instead",
        )),
        Redelivered::NotFound => Err(Problem::no_such("delivery")),
    }
}
