//! `cocoon measure image`: an image over a matrix of machines, as one signed file of reference values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use cocoon_attestation::reference::{ModelReference, TdxReference};
use cocoon_attestation::{Measurement, ReferenceValues, model_root};
use cocoon_firmware_measurements::image::{ImageFiles, Matrix};
use cocoon_firmware_measurements::inspect::require_verified_kernel;
use cocoon_firmware_measurements::snp::{self, Firmware, SnpMachine};
use cocoon_firmware_measurements::tdx::{self, QemuVersion, TdxMachine};
use cocoon_firmware_measurements::{CpuModel, KernelHashes, Vmm};
use cocoon_host::vm::Plan;
use cocoon_image::guest::GuestImage;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::inspected::inspect;
use super::{acpi_tables, hexadecimal, read, read_if_named, size};
use crate::verify::signed_reference_values;

/// The schema that `--json` names.
pub const SCHEMA: &str = "cocoon/measure-image/v1";
/// The schema that `--compare --json` names.
pub const COMPARED: &str = "cocoon/measure-compare/v1";
/// More shapes than anybody has machines of, so that a mistyped matrix does not run for hours.
const MAX_SHAPES: usize = 4096;

#[derive(Debug, Args)]
pub struct ImageArgs {
    /// What the image is made of and which machines may run it, TOML; docs/measurements.md explains each key
    file: PathBuf,
    /// The Ed25519 key that signs the reference values: a file with its 32-byte seed in hex
    #[arg(long, value_name = "FILE", required_unless_present = "compare", requires = "out")]
    key: Option<PathBuf>,
    /// Where the reference values go
    #[arg(long, value_name = "FILE", requires = "key")]
    out: Option<PathBuf>,
    /// Sign nothing, and compare with these signed reference values: exit code 10 if they are others
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "out"], requires = "signer")]
    compare: Option<PathBuf>,
    /// Ed25519 public key, hex, of who must have signed what it is compared with; repeatable
    #[arg(long, value_name = "KEY", requires = "compare")]
    signer: Vec<String>,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The description of an image. Paths are taken from the file's folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    name: String,
    version: String,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    #[serde(default)]
    cmdline: String,
    tdx: Option<Tdx>,
    snp: Option<Snp>,
    #[serde(default)]
    models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tdx {
    firmware: PathBuf,
    /// Whether nothing may have been extended into RTMR3. Switch off if the guest extends it itself.
    #[serde(default = "yes")]
    rtmr3_untouched: bool,
    machine: Vec<TdxShape>,
}

fn yes() -> bool {
    true
}

/// One machine: its ACPI tables are of this machine and no other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxShape {
    name: String,
    memory: String,
    vcpus: u32,
    acpi: PathBuf,
    qemu: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snp {
    firmware: PathBuf,
    machine: Vec<SnpShape>,
}

/// Every combination of what is listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpShape {
    vcpus: Vec<u32>,
    cpu: Vec<String>,
    guest_features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: String,
    path: PathBuf,
}

impl ImageArgs {
    pub fn run(self) -> Result<(String, ExitCode)> {
        let text =
            String::from_utf8(read(&self.file)?).with_context(|| format!("{} is no text", self.file.display()))?;
        let description: Description = toml::from_str(&text).with_context(|| self.file.display().to_string())?;
        let base = self.file.parent().map(Path::to_owned).unwrap_or_default();
        if let Some(file) = &self.compare {
            // Before what takes longer.
            let theirs = signed_reference_values(file, &self.signer)?;
            let (own, _) = description.measure(&base)?;
            return Ok(compared(&own, &theirs, self.json));
        }
        let (Some(key), Some(out)) = (self.key, self.out) else { bail!("--key and --out are needed, or --compare") };
        let seed = seed(&key)?;
        let (values, shapes) = description.measure(&base)?;
        let signed = values.to_signed(&seed)?;
        std::fs::write(&out, &signed).with_context(|| format!("cannot write {}", out.display()))?;
        let signer = signed.lines().last().and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
        if self.json {
            let object = json!({
                "schema": SCHEMA, "name": description.name, "version": description.version,
                "image_digest": values.image.digest.to_string(), "signer": signer, "references": out,
                "shapes": shapes.iter().map(Shape::json).collect::<Vec<_>>(),
            });
            return Ok((format!("{object}\n"), ExitCode::SUCCESS));
        }
        let mut text = format!(
            "image   {} {}\ndigest  {}\nsigner  {signer}\n\n",
            description.name, description.version, values.image.digest
        );
        text.extend(shapes.iter().map(|shape| format!("{:4} {:40} {}\n", shape.tee, shape.name, shape.measurement)));
        text.push_str(&format!("\n{}: {} of TDX, {} of SEV-SNP\n", out.display(), values.tdx.len(), values.snp.len()));
        Ok((text, ExitCode::SUCCESS))
    }
}

/// What came of a comparison: the same values, or each difference in a line.
fn compared(own: &ReferenceValues, theirs: &ReferenceValues, json: bool) -> (String, ExitCode) {
    let differences = differences(own, theirs);
    let code = if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(10) };
    let image = &own.image;
    if json {
        let object = json!({
            "schema": COMPARED, "name": image.name, "version": image.version, "image_digest": image.digest.to_string(),
            "same": differences.is_empty(), "differences": differences,
        });
        return (format!("{object}\n"), code);
    }
    let mut text = format!("image   {} {}\ndigest  {}\n\n", image.name, image.version, image.digest);
    if differences.is_empty() {
        text.push_str(&format!(
            "the same: {} of TDX, {} of SEV-SNP, {} models\n",
            own.tdx.len(),
            own.snp.len(),
            own.models.len()
        ));
    }
    text.extend(differences.iter().map(|difference| format!("differs: {difference}\n")));
    (text, code)
}

/// What one has and the other has not. Lists are compared as sets: an order accepts nothing.
fn differences(own: &ReferenceValues, theirs: &ReferenceValues) -> Vec<String> {
    let mut found = Vec::new();
    for (what, a, b) in [
        ("name", &own.image.name, &theirs.image.name),
        ("version", &own.image.version, &theirs.image.version),
        ("image digest", &own.image.digest.to_string(), &theirs.image.digest.to_string()),
    ] {
        if a != b {
            found.push(format!("{what} is {a}, and {b} there"));
        }
    }
    let tdx = |values: &ReferenceValues| -> BTreeSet<String> {
        let register = |value: Option<Measurement>| value.map_or("any".into(), |value| value.to_string());
        let of = |entry: &TdxReference| {
            let registers = entry.rtmrs().map(register).into_iter().enumerate();
            let registers: String = registers.map(|(n, value)| format!(", RTMR{n} {value}")).collect();
            format!("TDX guest: MRTD {}{registers}", entry.mrtd)
        };
        values.tdx.iter().map(of).collect()
    };
    let snp = |values: &ReferenceValues| -> BTreeSet<String> {
        values.snp.iter().map(|entry| format!("SEV-SNP guest: {}", entry.measurement)).collect()
    };
    let models = |values: &ReferenceValues| -> BTreeSet<String> {
        values.models.iter().map(|model| format!("model {:?}: {}", model.name, model.root)).collect()
    };
    for (own, theirs) in [(tdx(own), tdx(theirs)), (snp(own), snp(theirs)), (models(own), models(theirs))] {
        found.extend(own.difference(&theirs).map(|entry| format!("only here: {entry}")));
        found.extend(theirs.difference(&own).map(|entry| format!("only there: {entry}")));
    }
    found
}

/// A shape and what identifies it: MRTD, or the launch digest.
struct Shape {
    tee: &'static str,
    name: String,
    measurement: String,
}

impl Shape {
    fn json(&self) -> Value {
        json!({ "tee": self.tee, "name": self.name, "measurement": self.measurement })
    }
}

impl Description {
    fn measure(&self, base: &Path) -> Result<(ReferenceValues, Vec<Shape>)> {
        let file = |path: &PathBuf| read(&base.join(path));
        let kernel = file(&self.kernel)?;
        let initrd = read_if_named(self.initrd.as_ref().map(|path| base.join(path)).as_ref())?;
        let tdx_firmware = self.tdx.as_ref().map(|tdx| file(&tdx.firmware)).transpose()?;
        let snp_firmware = self.snp.as_ref().map(|snp| file(&snp.firmware)).transpose()?;
        let files = ImageFiles {
            kernel: &kernel,
            initrd: &initrd,
            cmdline: &self.cmdline,
            tdx_firmware: tdx_firmware.as_deref(),
            snp_firmware: snp_firmware.as_deref(),
        };
        let mut matrix = Matrix::new(&self.name, &self.version, &files);
        let mut shapes = Vec::new();
        if let Some((tdx, firmware)) = self.tdx.as_ref().zip(files.tdx_firmware) {
            tdx.measure(base, firmware, &files, &mut matrix, &mut shapes)?;
        }
        if let Some((snp, firmware)) = self.snp.as_ref().zip(files.snp_firmware) {
            snp.measure(firmware, &files, &mut matrix, &mut shapes)?;
        }
        let mut values = matrix.finish()?;
        for model in &self.models {
            let root = model_root(&base.join(&model.path)).with_context(|| format!("model {:?}", model.name))?;
            values.models.push(ModelReference { name: model.name.clone(), root: root.root });
        }
        Ok((values, shapes))
    }
}

impl Tdx {
    fn measure(
        &self,
        base: &Path,
        firmware: &[u8],
        files: &ImageFiles<'_>,
        matrix: &mut Matrix,
        shapes: &mut Vec<Shape>,
    ) -> Result<()> {
        let inspection = inspect(firmware).context("TDX firmware")?;
        for shape in &self.machine {
            let context = || format!("machine {:?}", shape.name);
            let memory = size(&shape.memory).map_err(anyhow::Error::msg).with_context(context)?;
            let tables = acpi_tables(&base.join(&shape.acpi)).with_context(context)?;
            let qemu = shape.qemu.as_deref().map(str::parse).transpose().with_context(context)?;
            let machine = TdxMachine {
                firmware,
                inspection,
                kernel: files.kernel,
                initrd: files.initrd,
                cmdline: files.cmdline,
                memory,
                vcpus: shape.vcpus,
                qemu: qemu.unwrap_or(QemuVersion::DEFAULT),
                page_order: None,
                acpi: Some(&tables),
            };
            let found = tdx::measure(&machine).with_context(context)?;
            matrix.add_tdx(&shape.name, &found, self.rtmr3_untouched)?;
            shapes.push(Shape { tee: "tdx", name: shape.name.clone(), measurement: found.mrtd.to_string() });
        }
        Ok(())
    }
}

impl Snp {
    fn measure(
        &self,
        firmware: &[u8],
        files: &ImageFiles<'_>,
        matrix: &mut Matrix,
        shapes: &mut Vec<Shape>,
    ) -> Result<()> {
        require_verified_kernel(firmware).context("SNP firmware")?;
        let firmware = Firmware::parse(firmware).context("SNP firmware")?;
        let kernel = Some(KernelHashes::of(files.kernel, files.initrd, files.cmdline)?);
        let count: usize =
            self.machine.iter().map(|shape| shape.vcpus.len() * shape.cpu.len() * shape.guest_features.len()).sum();
        ensure!(count <= MAX_SHAPES, "[snp] lists {count} shapes of machines; {MAX_SHAPES} are the most");
        for shape in &self.machine {
            for name in &shape.cpu {
                let cpu: CpuModel = name.parse()?;
                for features in &shape.guest_features {
                    let guest_features = hexadecimal(features).map_err(anyhow::Error::msg)?;
                    for vcpus in shape.vcpus.iter().copied() {
                        let machine = SnpMachine {
                            firmware: &firmware,
                            kernel,
                            svsm: None,
                            vcpus,
                            cpu,
                            guest_features,
                            vmm: Vmm::Qemu,
                        };
                        let found = snp::measure(&machine)?;
                        matrix.add_snp(&found);
                        let name = format!("{name}, {vcpus} vCPUs, features {guest_features:#x}");
                        shapes.push(Shape { tee: "snp", name, measurement: found.digest.to_string() });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reference values of one development guest, from its image's files and the machine of its launch.
///
/// # Errors
/// A file or the machine's tables cannot be read, or what they measure is not known.
pub(crate) fn of_guest(plan: &Plan, image: &GuestImage, model_name: &str) -> Result<ReferenceValues> {
    let dump = super::acpi::dump(plan)?;
    let [firmware, kernel, initrd] =
        [&plan.image.firmware, &plan.image.kernel, &plan.image.initrd].map(|path| read(path));
    let (firmware, kernel, initrd) = (firmware?, kernel?, initrd?);
    let files = ImageFiles {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &plan.image.cmdline,
        tdx_firmware: Some(&firmware),
        snp_firmware: None,
    };
    let found = tdx::measure(&TdxMachine {
        firmware: &firmware,
        inspection: inspect(&firmware)?,
        kernel: &kernel,
        initrd: &initrd,
        cmdline: files.cmdline,
        memory: plan.config.memory.0,
        vcpus: plan.config.vcpus.into(),
        qemu: dump.qemu,
        page_order: None,
        acpi: Some(&dump.tables),
    })?;
    let mut matrix = Matrix::new(&image.name, &image.version, &files);
    matrix.add_tdx(&plan.config.name, &found, true)?;
    let mut values = matrix.finish()?;
    values.models.push(ModelReference { name: model_name.into(), root: image.model_root });
    Ok(values)
}

/// Reads a seed from a file. Neither the file's text nor the library's error, which quotes from it, may be seen.
pub(crate) fn seed(path: &Path) -> Result<Zeroizing<[u8; 32]>> {
    let text = Zeroizing::new(read(path)?);
    let mut seed = Zeroizing::new([0; 32]);
    if hex::decode_to_slice(text.trim_ascii(), &mut *seed).is_err() {
        bail!("{} is not a 32-byte seed in hex", path.display());
    }
    Ok(seed)
}
