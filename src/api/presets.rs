//! The presets clients may name, in full.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;
use super::problem::{Kind, Problem};
use crate::domain::preset::{EncodeSpec, PresetName};

/// `GET /presets`.
pub(super) async fn list(State(api): State<Api>) -> Response {
    let presets: Vec<_> =
        api.presets.iter().map(|(name, about, spec)| view(name.as_str(), about, spec)).collect();
    axum::Json(json!({"presets": presets})).into_response()
}

/// `GET /presets/{name}`.
pub(super) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    if let Some(spec) = api.presets.get(&name) {
        let about = api.presets.description(&name).unwrap_or_default();
        return Ok(axum::Json(view(&name, about, spec)).into_response());
    }
    let near: Vec<_> = api.presets.near(&name).into_iter().map(PresetName::as_str).collect();
    let hint = if near.is_empty() { String::new() } else { format!("; near: {}", near.join(", ")) };
    Err(Problem::new(Kind::NotFound, format!("no such preset{hint}")))
}

/// The settings as a request would spell them, with name and description.
fn view(name: &str, about: &str, spec: &EncodeSpec) -> Value {
    let mut settings = serde_json::to_value(spec).unwrap_or_default();
    settings["name"] = name.into();
    settings["description"] = about.into();
    settings
}
