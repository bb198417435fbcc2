//! `carbonway check`: says what is wrong with a directory, for people, Git hooks and CI.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use operator::compile::{Compiled, compile};

use crate::directory::{self, Directory, Files};
use crate::finding::Finding;
use crate::schema::Schemas;

/// Flags of `carbonway check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory; its *.yaml and *.yml files are read, not those of directories within it.
    directory: PathBuf,

    /// How findings are written. Text: one a line, to standard error. Json: one document, to standard output.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs `carbonway check`.
#[expect(clippy::print_stdout, reason = "the findings are what was asked for")]
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let files = directory::read(&args.directory)?;
    if files.is_empty() {
        // Most likely a path that was mistyped, which must not pass for a good one.
        bail!(
            "{}: there is no *.yaml or *.yml in it",
            args.directory.display()
        );
    }
    let (findings, objects) = match check(&files, &Schemas::new()?) {
        Ok(checked) => (Vec::new(), checked.compiled.verdicts.len()),
        Err(findings) => (findings, 0),
    };
    match args.output {
        Output::Json => {
            let ok = findings.is_empty();
            println!("{}", serde_json::json!({ "ok": ok, "findings": findings }));
        }
        Output::Text if findings.is_empty() => {
            eprintln!(
                "{}: {objects} resources, all well",
                args.directory.display()
            );
        }
        Output::Text => findings.iter().for_each(|finding| eprintln!("{finding}")),
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A directory with which all is well.
pub(crate) struct Checked {
    pub(crate) compiled: Compiled,
}

/// Parses and compiles files as the operator would.
///
/// # Errors
/// Everything that is wrong, in the order of the files.
pub(crate) fn check(files: &Files, schemas: &Schemas) -> Result<Checked, Vec<Finding>> {
    let Directory {
        inputs,
        origins,
        mut findings,
    } = directory::parse(files, schemas);
    let compiled = compile(&inputs);
    for (key, verdict) in &compiled.verdicts {
        let (Some(failure), Some(origin)) = (verdict.failure(), origins.get(key)) else {
            continue;
        };
        let field = failure
            .field
            .as_ref()
            .map(|field| format!("spec.{field}"))
            .unwrap_or_default();
        findings.push(origin.finding(Some(key), field, failure.message.clone()));
    }
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    if findings.is_empty() {
        Ok(Checked { compiled })
    } else {
        Err(findings)
    }
}
