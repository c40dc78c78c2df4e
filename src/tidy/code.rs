//! Source files as words and paths: enough of Rust's grammar to follow `use` trees, `super` and inline modules.

/// A Rust file, its path written from the repository's top.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    /// Returns where the file stands in the crate, for example `core`, `wire`, `codec`.
    pub(super) fn module(&self) -> Vec<&str> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let mut module: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
        if matches!(module[..], [.., "mod"] | ["lib" | "main"]) {
            module.pop();
        }
        module
    }

    /// Returns the file's room; nothing for a front door of rooms (`lib.rs`, `core/mod.rs`), for `main.rs` and these checks.
    pub(super) fn room(&self) -> Option<String> {
        match self.module()[..] {
            [] | ["core"] | ["tidy", ..] => None,
            ["core", room, ..] => Some(format!("core::{room}")),
            [room, ..] => Some(room.to_owned()),
        }
    }

    pub(super) fn is_test_file(&self) -> bool {
        self.module()
            .iter()
            .any(|part| *part == "tests" || part.ends_with("_tests"))
    }

    pub(super) fn fault(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// A path in the code, written out: one for each leaf of a `use` tree. `super` and `self` are resolved.
pub(super) struct CodePath {
    pub(super) line: usize,
    pub(super) parts: Vec<String>,
    pub(super) in_tests: bool,
}

pub(super) fn paths(source: &Source) -> Vec<CodePath> {
    let tokens = tokens(&source.text);
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let mut modules: Vec<(String, usize)> = Vec::new();
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for index in 0..tokens.len() {
        match text(index) {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                modules.pop_if(|(_, opened_at)| *opened_at == depth);
            }
            "mod" if text(index + 2) == "{" => modules.push((text(index + 1).to_owned(), depth)),
            word => {
                let follows = index
                    .checked_sub(1)
                    .is_some_and(|before| matches!(text(before), "::" | "."));
                let begins = text(index + 1) == "::" || (index > 0 && text(index - 1) == "use");
                if is_word(word) && !follows && begins {
                    let mut leaves = Vec::new();
                    leaf_paths(&tokens, index, Vec::new(), &mut leaves);
                    let mut inside: Vec<String> = vec!["crate".to_owned()];
                    inside.extend(source.module().into_iter().map(str::to_owned));
                    inside.extend(modules.iter().map(|(name, _)| name.clone()));
                    found.extend(leaves.into_iter().map(|(line, parts)| CodePath {
                        line,
                        parts: resolve(parts, &inside),
                        in_tests: modules.iter().any(|(name, _)| name == "tests"),
                    }));
                }
            }
        }
    }
    found
}

/// Follows a path or `use` tree from `index` and adds its leaves; returns the index after it.
fn leaf_paths(
    tokens: &[Token],
    index: usize,
    mut stem: Vec<String>,
    leaves: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let line = tokens.get(index).map_or(0, |token| token.line);
    if text(index) == "{" {
        let mut next = index + 1;
        while !matches!(text(next), "}" | "") {
            if text(next) == "," {
                next += 1;
                continue;
            }
            let after = leaf_paths(tokens, next, stem.clone(), leaves);
            next = after.max(next + 1);
        }
        return next + 1;
    }
    if !is_word(text(index)) && text(index) != "*" {
        leaves.push((line, stem));
        return index;
    }
    if text(index) == "as" || text(index) == "_" {
        return index + 2;
    }
    stem.push(text(index).to_owned());
    if text(index + 1) == "::" {
        return leaf_paths(tokens, index + 2, stem, leaves);
    }
    leaves.push((line, stem));
    index + if text(index + 1) == "as" { 3 } else { 1 }
}

fn resolve(parts: Vec<String>, inside: &[String]) -> Vec<String> {
    let climbs = match parts.first().map(String::as_str) {
        Some("super") => 1,
        Some("self") => 0,
        _ => return parts,
    };
    let kept = inside.len().saturating_sub(climbs);
    inside
        .iter()
        .take(kept)
        .cloned()
        .chain(parts.into_iter().skip(1))
        .collect()
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

pub(super) struct Token {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Splits Rust code into words, `::` and single characters. Comments, literals and lifetimes are left out.
pub(super) fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = code;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_len(rest);
        let len = match skipped {
            0 if is_word(rest) => word_len(rest),
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            _ => skipped,
        };
        let (text, after) = rest.split_at(len);
        if skipped == 0 && !first.is_whitespace() {
            found.push(Token {
                line,
                text: text.to_owned(),
            });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    found
}

fn word_len(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len())
}

/// Returns how many bytes at the beginning are a comment, a literal or a lifetime.
fn skipped_len(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return word_len(rest);
    }
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        rest.strip_prefix(prefix)
            .is_some_and(|after| after.trim_start_matches('#').starts_with('"'))
    });
    if let Some(prefix) = prefix {
        let after = &rest[prefix.len()..];
        let hashes = after.len() - after.trim_start_matches('#').len();
        if prefix.ends_with('r') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &after[hashes + 1..];
            return prefix.len()
                + hashes
                + 1
                + body.find(&close).map_or(body.len(), |at| at + close.len());
        }
        if hashes == 0 {
            return prefix.len() + quoted_len(after, '"');
        }
    }
    let character = rest
        .strip_prefix('b')
        .filter(|after| after.starts_with('\''))
        .unwrap_or(rest);
    if !character.starts_with('\'') {
        return 0;
    }
    let mut letters = character.chars().skip(1);
    let is_literal = letters.next() == Some('\\') || letters.next() == Some('\'');
    let len = if is_literal {
        quoted_len(character, '\'')
    } else {
        1 + word_len(&character[1..])
    };
    rest.len() - character.len() + len
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
