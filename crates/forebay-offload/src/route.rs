//! Which resource a request of the [`JobRouter`](crate::JobRouter) is about.

use http::Method;

use crate::policy::JobId;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Status(JobId),
    Result(JobId),
    Delete(JobId),
    Cancel(JobId),
    /// The resource is there, the method is not: these are.
    WrongMethod(&'static str),
    /// There is no such resource.
    Nothing,
}

impl Route {
    /// Reads method and path. The mount path may have been stripped by whatever routes to us, or not.
    pub(crate) fn of(method: &Method, path: &str, mount: &str) -> Self {
        let rest = path.strip_prefix(mount).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
        let mut segments = rest.strip_prefix('/').unwrap_or(rest).split('/');
        let (id, action, end) = (segments.next(), segments.next(), segments.next());
        let Some(id) = id.and_then(|id| id.parse::<JobId>().ok()) else { return Self::Nothing };
        let read = *method == Method::GET || *method == Method::HEAD;
        match (action, end) {
            (None, None) if read => Self::Status(id),
            (None, None) if *method == Method::DELETE => Self::Delete(id),
            (None, None) => Self::WrongMethod("GET, HEAD, DELETE"),
            (Some("result"), None) if read => Self::Result(id),
            (Some("result"), None) => Self::WrongMethod("GET, HEAD"),
            (Some("cancel"), None) if *method == Method::POST => Self::Cancel(id),
            (Some("cancel"), None) => Self::WrongMethod("POST"),
            _ => Self::Nothing,
        }
    }
}

/// Finds the capability token in a query: 64 hexadecimal digits need no decoding.
pub(crate) fn token(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix("token="))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Route, token};
    use crate::policy::JobId;

    #[test]
    fn paths_are_read_with_and_without_their_mount() {
        let id = JobId::random();
        for mount in ["", "/jobs"] {
            let of = |method, tail: &str| Route::of(&method, &format!("{mount}/{id}{tail}"), "/jobs");
            assert_eq!(of(Method::GET, ""), Route::Status(id));
            assert_eq!(of(Method::HEAD, "/result"), Route::Result(id));
            assert_eq!(of(Method::DELETE, ""), Route::Delete(id));
            assert_eq!(of(Method::POST, "/cancel"), Route::Cancel(id));
            assert_eq!(of(Method::PUT, ""), Route::WrongMethod("GET, HEAD, DELETE"));
            assert_eq!(of(Method::GET, "/result/"), Route::Nothing);
            assert_eq!(of(Method::GET, "/other"), Route::Nothing);
        }
    }

    #[test]
    fn other_paths_are_nothing() {
        for path in ["", "/", "/jobs", "/jobs/", "//", "/jobs/x", "/jobsx", "/../etc", "/%00", "/jobs/1/2/3/4"] {
            assert_eq!(Route::of(&Method::GET, path, "/jobs"), Route::Nothing, "{path}");
        }
    }

    #[test]
    fn the_first_token_counts() {
        assert_eq!(token(Some("a=b&token=c&token=d")), Some("c"));
        assert_eq!(token(Some("xtoken=c")), None);
        assert_eq!(token(None), None);
    }
}
