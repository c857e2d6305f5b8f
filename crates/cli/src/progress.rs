//! Progress bars: one look for everything that takes long. They go to standard error, and only if it is a terminal.

use std::fmt::Write;
use std::io::Write as _;

use indicatif::{ProgressBar, ProgressFinish, ProgressState, ProgressStyle};

use crate::numbers::{count, duration, rate};
use crate::shown::shown;

/// Returns a bar that counts to `length`, and tells how fast it goes and how long it takes yet.
pub(crate) fn counting(length: u64, title: &'static str) -> ProgressBar {
    let bar = with(length, "{prefix}  {wide_bar} {percent:>3} %  {done}  {rate}  {left}");
    bar.set_prefix(title);
    bar
}

/// Returns a bar whose caller sets the message after it.
pub(crate) fn told(length: u64) -> ProgressBar {
    with(length, "{prefix}  {wide_bar} {percent:>3} %  {msg}")
}

/// Sets the message after a bar, with what would act on a terminal escaped.
pub(crate) fn say(bar: &ProgressBar, message: &str) {
    bar.set_message(shown(message).into_owned());
}

/// Writes a line that stays, above the bar where there is one.
pub(crate) fn line(bar: &ProgressBar, line: &str) {
    let line = shown(line);
    // If standard error cannot be written to, there is nobody to tell.
    bar.suspend(|| std::io::stderr().lock().write_fmt(format_args!("{line}\n"))).ok();
}

/// Something under way whose end nobody knows.
pub(crate) fn endless() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    bar.set_style(style("{spinner} {msg}"));
    bar
}

fn with(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_finish(ProgressFinish::AndClear);
    bar.set_style(style(template).progress_chars("━╸ "));
    bar
}

fn style(template: &str) -> ProgressStyle {
    #[expect(clippy::expect_used, reason = "the templates are this module's")]
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    style
        .with_key("done", |state: &ProgressState, to: &mut dyn Write| write(to, count(state.pos())))
        .with_key("rate", |state: &ProgressState, to: &mut dyn Write| write(to, rate(state.per_sec())))
        .with_key("left", |state: &ProgressState, to: &mut dyn Write| write(to, left(state)))
}

/// Returns the time left, once there is a pace to tell it from.
fn left(state: &ProgressState) -> String {
    if state.pos() == 0 { String::new() } else { format!("{} left", duration(state.eta().as_secs_f64())) }
}

fn write(to: &mut dyn Write, text: String) {
    // A bar is drawn into memory first, which cannot fail.
    let _ = to.write_str(&text);
}
