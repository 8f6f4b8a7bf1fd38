//! Arguments in, exit code out; the only file that prints errors.

use std::error::Error;
use std::process::ExitCode;

use watchpost::cli::{self, CliError};

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // Nobody is left to tell if writing fails here.
            let _ = match &error {
                CliError::Usage(usage) => usage.print(),
                CliError::Closed => Ok(()),
                CliError::Several(errors) => errors.iter().try_for_each(print),
                error => print(error),
            };
            error.exit().into()
        }
    }
}

fn print(error: &CliError) -> std::io::Result<()> {
    use std::io::Write;
    let mut stderr = anstream::stderr().lock();
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let text = error.to_string();
    writeln!(stderr, "{red}error{red:#}: {text}")?;
    // Some errors quote their cause where it reads best; it is not said twice.
    let causes = std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    causes.filter(|cause| !text.contains(cause)).try_for_each(|cause| writeln!(stderr, "  because: {cause}"))?;
    error.details().iter().try_for_each(|detail| writeln!(stderr, "  {detail}"))
}
