//! A bar on stderr, and only where somebody looks at it.

use crate::render::Ui;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// How far a command is. Draws nothing unless stderr is a terminal and `--quiet` is off.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar over `total` units of bytes; without a total, a spinner.
    pub(crate) fn new(ui: &Ui, verb: &str, total: u64) -> Self {
        let target =
            if ui.shows_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
        let template = if total > 0 {
            "{prefix:>9} {bar:32} {percent:>3} % {bytes}/{total_bytes} {eta} {msg}"
        } else {
            "{prefix:>9} {spinner} {elapsed} {msg}"
        };
        // The templates are constants, and a test draws them.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━━─"));
        bar.set_prefix(verb.to_owned());
        Self(bar)
    }

    /// A spinner that turns by itself, for work that reports nothing on the way.
    pub(crate) fn spinner(ui: &Ui, verb: &str, what: String) -> Self {
        let bar = Self::new(ui, verb, 0);
        bar.0.set_message(what);
        if ui.shows_progress() {
            bar.0.enable_steady_tick(Duration::from_millis(100));
        }
        bar
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Moves the bar.
    pub(crate) fn at(&self, bytes: u64, message: impl Into<std::borrow::Cow<'static, str>>) {
        if !self.0.is_hidden() {
            self.0.set_position(bytes);
            self.0.set_message(message);
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_good() {
        for template in [
            "{prefix:>9} {bar:32} {percent:>3} % {bytes}/{total_bytes} {eta} {msg}",
            "{prefix:>9} {spinner} {elapsed} {msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
