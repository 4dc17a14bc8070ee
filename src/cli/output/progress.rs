//! A spinner on standard error for what takes longer than a moment.

use std::{cell::RefCell, convert::Infallible, rc::Rc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// How long a tool stays silent before it says that it is still at work.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// A spinner that may be shown, or nothing at all. Clones are the same spinner.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Progress(Option<Rc<RefCell<Spinner>>>);

#[derive(Debug, Default)]
struct Spinner {
    message: String,
    /// Only while it is on the screen: indicatif draws at every touch.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A spinner if a person may see it.
    pub(in crate::cli) fn new(visible: bool) -> Self {
        Self(visible.then(Rc::default))
    }

    /// Says what is being done; with nothing to say, nothing is shown.
    pub(in crate::cli) fn doing(&self, what: impl FnOnce() -> String) {
        if let Some(spinner) = &self.0 {
            spinner.borrow_mut().message = what();
        }
    }

    /// Turns the spinner for as long as it is polled; silent at first. No thread: the runtime's timer drives it.
    pub(in crate::cli) async fn turn(&self) -> Infallible {
        let Some(spinner) = &self.0 else {
            return std::future::pending().await;
        };
        tokio::time::sleep(PATIENCE).await;
        loop {
            spinner.borrow_mut().draw();
            tokio::time::sleep(TURN).await;
        }
    }

    /// What was being done is done, and its result about to be shown. Tools that stay have nothing to wait for then.
    pub(in crate::cli) fn done(&self) {
        self.clear();
        self.doing(String::new);
    }

    /// Takes the spinner off the screen, for output or for good.
    pub(in crate::cli) fn clear(&self) {
        if let Some(bar) = self.0.as_ref().and_then(|spinner| spinner.borrow_mut().bar.take()) {
            bar.finish_and_clear();
        }
    }
}

impl Spinner {
    fn draw(&mut self) {
        if self.message.is_empty() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            ProgressBar::new_spinner().with_style(
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            )
        });
        bar.set_message(self.message.clone());
        bar.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_shown_a_result_is_not_at_work_on_it_any_more() {
        let progress = Progress::new(true);
        progress.doing(|| "joining".to_owned());
        progress.done();
        let Some(spinner) = &progress.0 else { panic!("a person may see it") };
        assert_eq!(spinner.borrow().message, "");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_person_there_is_no_spinner() {
        let progress = Progress::new(false);
        progress.doing(|| panic!("nobody reads this"));
        let turned = tokio::time::timeout(Duration::from_millis(5), progress.turn()).await;
        assert!(turned.is_err());
        progress.clear();
    }
}
