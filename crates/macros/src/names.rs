//! Names in other cases.

/// `MoneyDeposited` as `money` `deposited`, joined by `separator`. A run of capitals is one word: `HTTPSent`
/// is `http` `sent`.
pub(crate) fn words(name: &str, separator: char) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut words = String::with_capacity(name.len() + 4);
    for (at, letter) in letters.iter().enumerate() {
        let after_small = at > 0 && !letters[at - 1].is_uppercase();
        let before_small = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && at > 0 && (after_small || before_small) {
            words.push(separator);
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_begin_with_capitals() {
        for (name, kebab) in [
            ("Opened", "opened"),
            ("MoneyDeposited", "money-deposited"),
            ("HTTPSent", "http-sent"),
            ("A4Sent", "a4-sent"),
        ] {
            assert_eq!(words(name, '-'), kebab);
        }
        assert_eq!(words("AccountBalance", '_'), "account_balance");
    }
}
