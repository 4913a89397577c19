//! Lists in pages: all pages of a list, but never endlessly many.

/// Most pages of one list, of 200 items each. More than any agent has; a list with more repeats
/// itself.
const MAX_PAGES: usize = 1000;

/// A list without an end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the list has no end after {pages} pages, because the agent that sends it repeats itself; \
     restart or upgrade that agent"
)]
pub(super) struct Endless {
    pages: usize,
}

/// Progress through a list.
#[derive(Debug)]
pub(super) struct Pages {
    token: Option<String>,
    read: usize,
}

impl Pages {
    /// The beginning of a list.
    pub(super) fn new() -> Self {
        Self { token: Some(String::new()), read: 0 }
    }

    /// Token of the page to ask for; `None` after the last page.
    pub(super) fn token(&self) -> Option<String> {
        self.token.clone()
    }

    /// Takes note of a page, with the token of the next one.
    ///
    /// # Errors
    /// [`Endless`] if the page names itself as the next, or the list has too many pages.
    pub(super) fn read(&mut self, next: Option<String>) -> Result<(), Endless> {
        self.read += 1;
        if next.is_some() && (next == self.token || self.read == MAX_PAGES) {
            return Err(Endless { pages: self.read });
        }
        self.token = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a list whose tokens are these; the pages read, and how it ended.
    fn read(tokens: impl IntoIterator<Item = &'static str>) -> (usize, Result<(), Endless>) {
        let (mut pages, mut tokens) = (Pages::new(), tokens.into_iter());
        while pages.token().is_some() {
            if let Err(endless) = pages.read(tokens.next().map(Into::into)) {
                return (pages.read, Err(endless));
            }
        }
        (pages.read, Ok(()))
    }

    #[test]
    fn a_list_is_read_to_its_end_and_an_endless_one_is_an_error() {
        assert_eq!(read([]), (1, Ok(())));
        assert_eq!(read(["a", "b"]), (3, Ok(())));
        let longest = || ["a", "b"].into_iter().cycle().take(MAX_PAGES - 1);
        assert_eq!(read(longest()), (MAX_PAGES, Ok(())));
        assert_eq!(read(["a", "a", "b"]), (2, Err(Endless { pages: 2 })));
        let alternating = ["a", "b"].into_iter().cycle();
        assert_eq!(read(alternating), (MAX_PAGES, Err(Endless { pages: MAX_PAGES })));
    }
}
