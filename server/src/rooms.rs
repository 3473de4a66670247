//! What a room may be called.

use manifold_protocol::ErrorCode;

/// The rules for room names of this node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomRules {
    pub(crate) bytes_max: usize,
    pub(crate) unicode: bool,
}

impl RoomRules {
    /// Checks a name that is not empty.
    ///
    /// # Errors
    /// 107 for one that is too long, not ASCII, or begins with a control character; 103 for one that needs a subscription token (it begins with `$`), which no
    /// client can have yet.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), ErrorCode> {
        self.check_form(name)?;
        if name.starts_with('$') { Err(ErrorCode::PERMISSION_DENIED) } else { Ok(()) }
    }

    /// Checks length and characters alone: the server API may use every room of clients.
    pub(crate) fn check_form(&self, name: &str) -> Result<(), ErrorCode> {
        let well_formed =
            !name.is_empty() && name.len() <= self.bytes_max && (self.unicode || name.is_ascii());
        // Rooms that the nodes use among themselves begin with a control character.
        if well_formed && !name.starts_with(char::is_control) { Ok(()) } else { Err(ErrorCode::BAD_REQUEST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_bytes() {
        let rules = RoomRules { bytes_max: 5, unicode: true };
        assert_eq!(rules.check_name("abcde"), Ok(()));
        assert_eq!(rules.check_name("abcdef"), Err(ErrorCode::BAD_REQUEST));
        assert_eq!(rules.check_name("ééé"), Err(ErrorCode::BAD_REQUEST));
        assert_eq!(rules.check_name("éé"), Ok(()));
        assert_eq!(rules.check_name("$abc"), Err(ErrorCode::PERMISSION_DENIED));
        assert_eq!(rules.check_form("$abc"), Ok(()));
        for hidden in ["\u{1}abc", "\n", "\u{85}a"] {
            assert_eq!(rules.check_form(hidden), Err(ErrorCode::BAD_REQUEST));
        }
        let ascii = RoomRules { unicode: false, ..rules };
        assert_eq!(ascii.check_name("é"), Err(ErrorCode::BAD_REQUEST));
    }
}
