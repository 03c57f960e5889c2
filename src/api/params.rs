//! Query and path parameters, read strictly: what is not known is refused, not ignored.

use http::Uri;

use super::problem::{Kind, Problem};

/// The decoded pairs of a query string.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The value of `name`, if given once.
    pub(super) fn one(&self, name: &str) -> Result<Option<String>, Problem> {
        let mut found = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        match (found.next(), found.next()) {
            (first, None) => Ok(first.cloned()),
            (_, Some(_)) => {
                Err(Problem::new(Kind::InvalidRequest, format!("the parameter {name} is given twice")))
            }
        }
    }

    /// The value of `name` as `T`.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        want: &str,
    ) -> Result<Option<T>, Problem> {
        let bad = || Problem::new(Kind::InvalidRequest, format!("the parameter {name} must be {want}"));
        self.one(name)?.map(|text| parse(&text).ok_or_else(bad)).transpose()
    }

    /// Refuses parameters besides these and `tenant`, which every route knows.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(key, _)| key != "tenant" && !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Problem::new(Kind::InvalidRequest, format!("unknown parameter {key:?}; known: {known}")))
            }
        }
    }
}

/// An id of a path; what is not an id names nothing.
pub(super) fn id<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::no_such(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_about_names_and_repeats() {
        let params = Params::of(&Uri::from_static("/jobs?limit=5&label=a%3Db&limit=6"));
        assert_eq!(params.one("label").unwrap().as_deref(), Some("a=b"));
        assert!(params.one("limit").is_err());
        assert!(params.only(&["limit", "label"]).is_ok());
        assert!(params.only(&["limit"]).is_err());
        assert!(Params::of(&Uri::from_static("/jobs?tenant=x")).only(&[]).is_ok());
    }
}
