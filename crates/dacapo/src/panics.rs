//! The texts of errors and panics of user code, in one line each.

use std::any::Any;

/// An error and what caused it, in one line. A cause that the text ends with is not repeated: many errors show their
/// source themselves.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
}

/// Returns the text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<Caused>>,
    }

    fn caused(texts: &[&'static str]) -> Caused {
        let source = (texts.len() > 1).then(|| Box::new(caused(&texts[1..])));
        Caused { text: texts[0], source }
    }

    #[test]
    fn a_cause_that_the_text_ends_with_is_not_repeated() {
        assert_eq!(chain(&caused(&["cannot read it: no field", "no field"])), "cannot read it: no field");
        assert_eq!(chain(&caused(&["cannot read it", "no field", "at line 1"])), "cannot read it: no field: at line 1");
        let shown_once = caused(&["cannot read it: no field", "no field", "at line 1"]);
        assert_eq!(chain(&shown_once), "cannot read it: no field: at line 1");
    }
}
