//! Many questions at once as one: what is asked for while others are about to be asked for, or while
//! the host answers, goes to it together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use crate::reference::Reference;
use crate::source::{ImageSource, ImageSummary, SourceError};

/// Most references that are asked for together: as many as the protocol lets a request have.
const MAX_TOGETHER: usize = 1000;

/// Asks a source what references name.
pub(super) struct Resolver {
    source: Arc<dyn ImageSource>,
    /// The question that is not asked yet.
    next: Mutex<Option<Question>>,
}

type Answers = Mutex<HashMap<Reference, Result<ImageSummary, SourceError>>>;

/// References that are asked for together. Each who waits drives it, so whoever goes away takes
/// nothing from the others.
#[derive(Clone)]
struct Question {
    references: Arc<Mutex<Vec<Reference>>>,
    answers: Arc<Answers>,
    asked: Shared<BoxFuture<'static, ()>>,
}

impl Question {
    fn new(source: Arc<dyn ImageSource>) -> Self {
        let references: Arc<Mutex<Vec<Reference>>> = Arc::default();
        let answers: Arc<Answers> = Arc::default();
        let (asking, found) = (references.clone(), answers.clone());
        let asked = async move {
            let together = std::mem::take(&mut *lock(&asking));
            let resolved = source.resolve_all(&together).await;
            lock(&found).extend(together.into_iter().zip(resolved));
        };
        Self { references, answers, asked: asked.boxed().shared() }
    }

    /// Adds a reference; `false` when this one has been asked for, the question is asked already, or
    /// it is long enough.
    fn add(&self, reference: &Reference) -> bool {
        let mut references = lock(&self.references);
        // An empty list was taken away by whoever asks.
        let fits = (1..MAX_TOGETHER).contains(&references.len()) && !references.contains(reference);
        if fits {
            references.push(reference.clone());
        }
        fits
    }
}

impl Resolver {
    pub(super) fn new(source: Arc<dyn ImageSource>) -> Self {
        Self { source, next: Mutex::default() }
    }

    /// As [`ImageSource::resolve`].
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        let question = self.join(reference);
        // Whoever is about to ask does so first.
        tokio::task::yield_now().await;
        question.asked.await;
        let answer = lock(&question.answers).remove(reference);
        answer.unwrap_or_else(|| {
            let reason = "the source left it out of its answer";
            Err(SourceError::unavailable(reference, reason))
        })
    }

    /// The question that `reference` is part of.
    fn join(&self, reference: &Reference) -> Question {
        let mut next = lock(&self.next);
        if let Some(question) = next.as_ref().filter(|question| question.add(reference)) {
            return question.clone();
        }
        let question = Question::new(self.source.clone());
        lock(&question.references).push(reference.clone());
        *next = Some(question.clone());
        question
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::fixture::{self, MemorySource};

    #[tokio::test]
    async fn what_is_asked_for_at_once_is_one_question() {
        let host = MemorySource::default();
        host.insert("app:1", fixture::image(1, &[10]));
        host.insert("app:2", fixture::image(2, &[10]));
        let resolver = Resolver::new(Arc::new(host.clone()));
        let names = ["app:1", "app:2", "absent:1"].map(|name| name.parse::<Reference>().unwrap());
        let answers = join_all(names.iter().map(|name| resolver.resolve(name))).await;
        assert_eq!(host.lists_resolved(), 1);
        assert!(answers[0].as_ref().unwrap().references.contains(&names[0]));
        assert!(answers[1].as_ref().unwrap().references.contains(&names[1]));
        assert!(matches!(answers[2], Err(SourceError::NotFound { .. })));

        // One name asked for twice at once has two answers.
        let twice = join_all([&names[0], &names[0]].map(|name| resolver.resolve(name))).await;
        assert!(twice.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn who_goes_away_takes_nothing_from_the_others() {
        let host = MemorySource::default();
        host.insert("app:1", fixture::image(1, &[10]));
        let resolver = Resolver::new(Arc::new(host));
        let (name, gone) = ("app:1".parse().unwrap(), "gone:1".parse().unwrap());
        let mut first = Box::pin(resolver.resolve(&gone));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(resolver.resolve(&name));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.await.is_ok());
    }
}
