//! stub
use crate::cli::DemoArgs;
use crate::exit::{Exit, Outcome};
use crate::render::Ui;
pub(crate) fn run(_args: &DemoArgs, _ui: &Ui) -> Outcome {
    Ok(Exit::Ok)
}
