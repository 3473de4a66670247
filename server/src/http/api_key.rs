//! Who may use the HTTP API.

use warp::http::HeaderMap;
use warp::http::header::AUTHORIZATION;

/// Whether the request carries `key`: in `X-API-Key`, in `Authorization: apikey KEY`, or as `api_key` in the query.
pub(super) fn is_authorized(key: Option<&str>, headers: &HeaderMap, query: &str) -> bool {
    let Some(key) = key else { return false };
    let from_header = headers.get("x-api-key").map(|value| value.as_bytes());
    let from_authorization = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"apikey ").then(|| key.trim_ascii())
    });
    let from_query = query.split('&').find_map(|pair| pair.strip_prefix("api_key=")).map(str::as_bytes);
    let mut given = [from_header, from_authorization, from_query].into_iter().flatten();
    given.any(|given| equal_in_constant_time(key.as_bytes(), given))
}

/// Compares in a time that depends on the lengths alone.
fn equal_in_constant_time(key: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(key.len() != given.len());
    for (index, byte) in given.iter().enumerate() {
        difference |= std::hint::black_box(byte ^ key[index % key.len()]);
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_key_may_come_in_three_ways() {
        let none = HeaderMap::new();
        assert!(is_authorized(Some("k1"), &headers("x-api-key", "k1"), ""));
        assert!(is_authorized(Some("k1"), &headers("authorization", "apikey k1"), ""));
        assert!(is_authorized(Some("k1"), &none, "a=b&api_key=k1"));
        assert!(!is_authorized(Some("k1"), &none, ""));
        assert!(!is_authorized(Some("k1"), &headers("x-api-key", "k2"), ""));
        assert!(!is_authorized(Some("k1"), &headers("x-api-key", "k1k1"), ""));
        assert!(!is_authorized(Some("k1"), &headers("x-api-key", ""), ""));
        assert!(!is_authorized(Some("k1"), &headers("authorization", "bearer k1"), ""));
        assert!(!is_authorized(None, &headers("x-api-key", ""), ""));
    }
}
