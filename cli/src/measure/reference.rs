//! `cocoon measure verify`: signed reference values, as policies, nodes and the Registry take them.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use cocoon_attestation::Measurement;
use serde_json::json;

use crate::verify::signed_reference_values;

/// The schema that `--json` names.
pub const SCHEMA: &str = "cocoon/measure-verify/v1";

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The file
    file: PathBuf,
    /// Ed25519 public key, hex, of who must have signed it; repeatable
    #[arg(long, value_name = "KEY", required = true)]
    signer: Vec<String>,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl VerifyArgs {
    pub fn run(self) -> Result<String> {
        let values = signed_reference_values(&self.file, &self.signer)?;
        let image = &values.image;
        let register = |value: &Option<Measurement>| value.map(|value| value.to_string());
        if self.json {
            let tdx: Vec<_> = values
                .tdx
                .iter()
                .map(|entry| json!({ "mrtd": entry.mrtd.to_string(), "rtmr": entry.rtmrs().iter().map(register).collect::<Vec<_>>() }))
                .collect();
            let snp: Vec<_> = values.snp.iter().map(|entry| entry.measurement.to_string()).collect();
            let models: Vec<_> = values
                .models
                .iter()
                .map(|model| json!({ "name": model.name, "root": model.root.to_string() }))
                .collect();
            let object = json!({
                "schema": SCHEMA, "name": image.name, "version": image.version, "image_digest": image.digest.to_string(),
                "tdx": tdx, "snp": snp, "models": models,
            });
            return Ok(format!("{object}\n"));
        }
        let mut out = format!("image   {} {}\ndigest  {}\n", image.name, image.version, image.digest);
        for entry in &values.tdx {
            out.push_str(&format!("\nTDX  MRTD   {}\n", entry.mrtd));
            for (n, value) in entry.rtmrs().iter().enumerate() {
                let value = register(value).unwrap_or_else(|| "not compared".into());
                out.push_str(&format!("     RTMR{n}  {value}\n"));
            }
        }
        out.extend(values.snp.iter().map(|entry| format!("\nSNP  {}\n", entry.measurement)));
        out.extend(values.models.iter().map(|model| format!("\nmodel {}  {}\n", model.name, model.root)));
        Ok(out)
    }
}
