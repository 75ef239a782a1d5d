//! `flawtune report`

use flawtune_lab::workflow::report;

use crate::Context;
use crate::args::ReportArgs;
use crate::console::{bytes, out, out_json, warn};
use crate::failure::Failure;
use crate::progress::Display;

pub(crate) fn run(args: &ReportArgs, context: Context) -> Result<(), Failure> {
    let mut display = Display::new(context.console);
    let result = report(&args.request, &mut |event| display.show(event));
    display.finish();
    let made = result.map_err(|e| Failure::from_error(&e))?;
    if context.json {
        out_json(&made)?;
    } else {
        out(&made.page.display().to_string());
        let plots = match made.plots.len() {
            0 => String::new(),
            n => format!(", {n} plots"),
        };
        let runs = if made.runs.len() == 1 {
            "1 run".to_owned()
        } else {
            format!("{} runs", made.runs.len())
        };
        context
            .console
            .note(&format!("{runs}, {}{plots}", bytes(made.bytes as u64)));
    }
    if args.open
        && let Err(error) = open::that_detached(&made.page)
    {
        // the page is there; a machine without a browser is not a failure
        warn(&format!(
            "no browser could be started ({error}); open {} yourself",
            made.page.display()
        ));
    }
    Ok(())
}
