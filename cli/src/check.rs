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
    /// The directory, whose *.yaml and *.yml files are read, not those of directories within it; or one file.
    directory: PathBuf,

    /// How findings are written. Text: one a line, to standard error. Json: one document, to standard output.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// For people or for programs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
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
    let (findings, warnings, objects) = match check(&files, &Schemas::new()?) {
        Ok(checked) => (
            Vec::new(),
            checked.warnings,
            checked.compiled.verdicts.len(),
        ),
        Err(findings) => (findings, Vec::new(), 0),
    };
    match args.output {
        Output::Json => {
            let ok = findings.is_empty();
            println!(
                "{}",
                serde_json::json!({ "ok": ok, "findings": findings, "warnings": warnings })
            );
        }
        Output::Text if findings.is_empty() => {
            warnings
                .iter()
                .for_each(|warning| eprintln!("warning: {warning}"));
            let well = match warnings.len() {
                0 => "all well".to_owned(),
                1 => "valid, 1 warning".to_owned(),
                several => format!("valid, {several} warnings"),
            };
            let directory = args.directory.display();
            eprintln!("{directory}: {objects} resources, {well}");
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
    /// What is valid and still hardly what was meant, in the order of the files.
    pub(crate) warnings: Vec<Finding>,
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
    let mut warnings = Vec::new();
    for (key, verdict) in &compiled.verdicts {
        let Some(origin) = origins.get(key) else {
            continue;
        };
        let finding = |found: &operator::compile::Finding| {
            let field = found.field.as_ref();
            let field = field.map(|field| format!("spec.{field}"));
            origin.finding(Some(key), field.unwrap_or_default(), found.message.clone())
        };
        findings.extend(verdict.failure().map(finding));
        warnings.extend(verdict.warnings.iter().map(finding));
    }
    for found in [&mut findings, &mut warnings] {
        found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    }
    if findings.is_empty() {
        Ok(Checked { compiled, warnings })
    } else {
        Err(findings)
    }
}
