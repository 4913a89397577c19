//! Paging: a list in pieces, where each piece says where the next begins.
//!
//! A token is the key of the last item given, so that it outlives a restart and images that come
//! and go between two pages: none that stays is given twice or left out.

use std::fmt::Display;
use std::str::FromStr;

use tonic::Status;

use super::status;
use crate::wire::{DEFAULT_PAGE, MAX_PAGE};

/// Requested page of a list.
#[derive(Debug)]
pub(crate) struct Page<K> {
    size: usize,
    after: Option<K>,
}

impl<K: FromStr<Err: Display> + Ord> Page<K> {
    /// Reads the two fields of a request.
    pub(super) fn parse(page_size: i32, page_token: &str) -> Result<Self, Status> {
        let size = match usize::try_from(page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_) => return Err(status::invalid("page_size", "is negative")),
        };
        let after = match page_token {
            "" => None,
            token => Some(token.parse().map_err(|e| status::invalid("page_token", e))?),
        };
        Ok(Self { size, after })
    }

    /// Returns that page of `items`, which are sorted by key, and the token of the next page. The
    /// token is empty on the last page.
    pub(super) fn cut<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> K) -> (Vec<T>, String)
    where
        K: Display,
    {
        if let Some(after) = &self.after {
            items.retain(|item| *after < key(item));
        }
        let is_last = items.len() <= self.size;
        items.truncate(self.size);
        let next = items.last().filter(|_| !is_last).map(|last| key(last).to_string());
        (items, next.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(items: &[u64], page_size: i32) -> Vec<Vec<u64>> {
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let page = Page::<u64>::parse(page_size, &token).unwrap();
            let (piece, next) = page.cut(items.to_vec(), |item| *item);
            pages.push(piece);
            if next.is_empty() {
                return pages;
            }
            token = next;
        }
    }

    #[test]
    fn pages_hold_every_item_once() {
        assert_eq!(pages(&[], 2), [Vec::<u64>::new()]);
        assert_eq!(pages(&[1, 2], 2), [[1, 2]]);
        assert_eq!(pages(&[1, 2, 3], 2), [vec![1, 2], vec![3]]);
        assert_eq!(pages(&[1, 2, 3, 4], 2), [[1, 2], [3, 4]]);
        let many: Vec<u64> = (0..500).collect();
        let sizes = |size| pages(&many, size).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(0)[0], DEFAULT_PAGE);
        assert_eq!(sizes(i32::MAX), [MAX_PAGE, MAX_PAGE, 100]);
    }

    #[test]
    fn an_item_that_goes_away_between_two_pages_does_not_hide_another() {
        let page = Page::<u64>::parse(2, "2").unwrap();
        assert_eq!(page.cut(vec![1, 3, 4], |item| *item).0, [3, 4]);
    }

    #[test]
    fn hostile_pages_are_refused() {
        for (size, token) in [(-1, ""), (i32::MIN, ""), (1, "x"), (1, "-1")] {
            let status = Page::<u64>::parse(size, token).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{size} {token:?}");
        }
    }
}
