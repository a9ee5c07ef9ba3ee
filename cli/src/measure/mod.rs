//! `cocoon measure`: what a CPU measures when a guest is launched, computed from its files alone; and why a quote says otherwise.

mod acpi;
mod explain;
mod id_auth;
pub(crate) mod image;
mod inspected;
mod print;
mod reference;
mod snp;
mod tdx;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use cocoon_firmware_measurements::AcpiTables;

/// Largest file that is read: an initial ram disk may hold much.
const MAX_FILE: u64 = 2 << 30;

/// Computes launch measurements offline. What is unknown is an error, never a guess; docs/measurements.md says what goes into each
/// register.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Intel TDX: MRTD and RTMR0 to 3, with every event
    Tdx(tdx::TdxArgs),
    /// AMD SEV-SNP: the launch digest and the identity block
    Snp(snp::SnpArgs),
    /// A whole image over many machines: writes signed reference values
    Image(image::ImageArgs),
    /// The ACPI tables of a guest's machine, which TDX measures: start its QEMU without the guest, and write them to a folder
    Acpi(acpi::AcpiArgs),
    /// Who vouches for an identity block of SEV-SNP, in base64 as QEMU takes it (`id-auth=`)
    IdAuth(id_auth::IdAuthArgs),
    /// Read signed reference values: who signed them, and what they accept
    Verify(reference::VerifyArgs),
    /// Replay an event log against a TDX quote, and name the first difference; exit code 10 if there is one
    Explain(explain::ExplainArgs),
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read, or what it would measure is not known.
pub fn run(args: MeasureArgs) -> Result<ExitCode> {
    let (text, code) = match args.command {
        Command::Tdx(args) => (args.run()?, ExitCode::SUCCESS),
        Command::Snp(args) => (args.run()?, ExitCode::SUCCESS),
        Command::Image(args) => args.run()?,
        Command::IdAuth(args) => (args.run()?, ExitCode::SUCCESS),
        Command::Acpi(args) => (args.run()?, ExitCode::SUCCESS),
        Command::Verify(args) => (args.run()?, ExitCode::SUCCESS),
        Command::Explain(args) => args.run()?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    Ok(code)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        // A kernel that is copied as its place grows takes as long to read as to hash.
        bytes.reserve_exact(usize::try_from(file.metadata()?.len().min(MAX_FILE) + 1).unwrap_or_default());
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)
    });
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() as u64 <= MAX_FILE, "{} has more than {MAX_FILE} bytes", path.display());
    Ok(bytes)
}

fn read_if_named(path: Option<&PathBuf>) -> Result<Vec<u8>> {
    path.map_or_else(|| Ok(Vec::new()), |path| read(path))
}

/// A size with its unit, as QEMU's `-m` takes it: 512M, 64G, 1T. A bare number is refused, because its unit would be a guess.
fn size(text: &str) -> Result<u64, String> {
    let shift = match text.chars().last() {
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => return Err("give a number with its unit: M, G or T (of 1,024)".into()),
    };
    let number = text[..text.len() - 1].parse::<u64>().map_err(|error| error.to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "more memory than 64 bits can count".into())
}

/// A number in hex, with or without 0x.
fn hexadecimal(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16)
        .map_err(|_| format!("{text:?} is no number in hex"))
}

/// Names of the files of a dump: tables, root pointer, loader.
const DUMP: [&str; 3] = ["etc_acpi_tables", "etc_acpi_rsdp", "etc_table-loader"];

/// ACPI tables from a folder: `etc_acpi_tables`, and unless they follow from it `etc_acpi_rsdp` and `etc_table-loader`.
fn acpi_tables(folder: &Path) -> Result<AcpiTables> {
    let [tables, root, loader] = DUMP.map(|name| folder.join(name));
    let tables = read(&tables)?;
    let tables = match (root.exists(), loader.exists()) {
        (false, false) => AcpiTables::from_tables(tables),
        _ => AcpiTables::new(tables, read(&root)?, read(&loader)?),
    };
    tables.with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("64G"), Ok(64 << 30));
        assert_eq!(size("1T"), Ok(1 << 40));
        for text in ["", "G", "64", "64g", "-1G", "1.5G", "99999999999T", "4\u{e9}"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hexadecimal_numbers_may_say_so() {
        assert_eq!((hexadecimal("0x21"), hexadecimal("21")), (Ok(0x21), Ok(0x21)));
        assert!(hexadecimal("0x").is_err() && hexadecimal("21h").is_err());
    }
}
