//! What every request goes through: bodies, queries and paths that say in JSON what is wrong with them.

use axum::{
    Json, Router,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{Method, Uri, request::Parts},
};
use serde::de::DeserializeOwned;

use super::error::{Code, Failure};

/// A JSON body.
pub(in crate::api) struct Body<T>(pub(in crate::api) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let Json(body) = Json::<T>::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// A query.
pub(in crate::api) struct Ask<T>(pub(in crate::api) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Ask<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(query) = Query::<T>::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

/// The variable parts of a path.
pub(in crate::api) struct At<T>(pub(in crate::api) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(path) = Path::<T>::from_request_parts(parts, state).await?;
        Ok(Self(path))
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let code = if status == Code::TooLarge.status() {
            Code::TooLarge
        } else {
            Code::BadRequest
        };
        Self::new(code, rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Code::BadRequest, rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::new(Code::BadRequest, rejection.body_text())
    }
}

/// Adds answers for routes and methods that do not exist.
pub(super) fn with_fallbacks(routes: Router) -> Router {
    routes
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_route)
}

async fn no_such_route(uri: Uri) -> Failure {
    let message = format!("there is no route {}", uri.path());
    Failure::new(Code::NoSuchRoute, message)
}

async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let message = format!("{method} is not for {}", uri.path());
    Failure::new(Code::MethodNotAllowed, message)
}
