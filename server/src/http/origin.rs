//! Which web pages may connect.

/// Whether a request with these header fields may connect. Without `Origin` it comes from no page and may. A page that this
/// host served may (its origin's authority is the request's `Host`); others only if a pattern matches.
pub(super) fn is_allowed(origin: Option<&[u8]>, host: Option<&[u8]>, patterns: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    let origin = origin.to_ascii_lowercase();
    let authority = origin.splitn(2, |byte| *byte == b'/').nth(1).and_then(|rest| rest.strip_prefix(b"/"));
    if let (Some(authority), Some(host)) = (authority, host)
        && host.eq_ignore_ascii_case(authority)
    {
        return true;
    }
    patterns.iter().any(|pattern| matches(pattern.to_ascii_lowercase().as_bytes(), &origin))
}

/// Whether `text` matches `pattern`, where `*` stands for any text and `?` for any one byte.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    // Where to resume after the last star, having given it one more byte.
    let mut resume: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                resume = Some((at_pattern + 1, at_text));
                at_pattern += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[at_text] => {
                at_pattern += 1;
                at_text += 1;
            }
            _ => match resume {
                None => return false,
                Some((after_star, given)) => {
                    resume = Some((after_star, given + 1));
                    at_pattern = after_star;
                    at_text = given + 1;
                }
            },
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: &str, patterns: &[&str]) -> bool {
        let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        is_allowed(Some(origin.as_bytes()), Some(b"chat.example.org:8000"), &patterns)
    }

    #[test]
    fn own_pages_and_programs_may_always_connect() {
        assert!(is_allowed(None, Some(b"h"), &[]));
        assert!(allowed("http://chat.example.org:8000", &[]));
        assert!(allowed("HTTP://Chat.example.org:8000", &[]));
        assert!(!allowed("http://chat.example.org", &[]));
        assert!(!allowed("http://evil.example", &[]));
        assert!(!allowed("null", &[]));
    }

    #[test]
    fn patterns_are_globs() {
        assert!(allowed("https://a.example.com", &["https://*.example.com"]));
        assert!(allowed("https://a.b.example.com", &["http://x", "https://*.EXAMPLE.com"]));
        assert!(!allowed("https://example.com", &["https://*.example.com"]));
        assert!(!allowed("https://a.example.com.evil", &["https://*.example.com"]));
        assert!(allowed("null", &["*"]));
    }

    #[test]
    fn stars_give_back_what_they_took() {
        assert!(matches(b"a*b*c", b"aXbYbZc"));
        assert!(!matches(b"a*b*c", b"aXbYbZ"));
        assert!(matches(b"**", b""));
        assert!(matches(b"a?c", b"abc"));
        assert!(!matches(b"a?c", b"ac"));
    }
}
