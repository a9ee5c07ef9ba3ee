//! `cocoon endorsements`: fetches what vendors say about the platform that some evidence is of, keeps it in a folder, and hands it
//! out again where there is no network.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use cocoon_attestation::{Bundle, UnixTime};
use cocoon_node::endorsements::{Addresses, Endorser, Folder, Limits};
use cocoon_verifier::roots::Product;
use cocoon_verifier::{Need, needs};
use serde::Serialize;

use crate::verify::{evidence, gpus, read};

/// The schema that `show --json` names.
const SCHEMA: &str = "cocoon/endorsements/v1";

/// Fetches and keeps what vendors say about platforms: certificates, revocation lists, TCB info, reference manifests.
#[derive(Debug, Args)]
pub struct EndorsementsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch what some evidence needs into a folder. What is there and current is not fetched again
    Pull {
        #[command(flatten)]
        input: Input,
        /// The folder to keep it in.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// Fetch everything anew.
        #[arg(long)]
        anew: bool,
        #[command(flatten)]
        services: ServiceArgs,
    },
    /// Fetch anew whatever in a folder lapses some day: on the day of a revocation or of a TCB recovery, for all platforms at once. A node that
    /// uses the folder looks again at what it accepted within 15 seconds
    Refresh {
        /// The folder.
        folder: PathBuf,
        #[command(flatten)]
        services: ServiceArgs,
    },
    /// List a folder: what is there, and until when it counts
    Show {
        /// The folder.
        folder: PathBuf,
        /// The time to look at it from, in seconds since 1970; now if left out.
        #[arg(long, value_name = "UNIX")]
        at: Option<u64>,
        /// One line of JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Hand out what some evidence needs, from a folder alone: for a bundle the bundle with everything stapled, for a quote its
    /// collateral, for a report a folder of certificates, manifests and answers, as `cocoon verify` takes them
    Export {
        #[command(flatten)]
        input: Input,
        /// The folder of endorsements.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The file or folder to write; it must not exist yet.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Input {
    /// A bundle, a TDX quote, an SNP report, or GPU evidence (a report, or NVIDIA's evidence JSON).
    evidence: PathBuf,
    /// For a GPU's report alone: its certificates, PEM, leaf first.
    #[arg(long, value_name = "PEM")]
    chain: Option<PathBuf>,
    /// For an SNP report of version 2, which does not say it: Milan, Genoa or Turin.
    #[arg(long, value_name = "NAME")]
    product: Option<String>,
    /// For an SNP report signed with a VLEK: its certificate, which the host has.
    #[arg(long, value_name = "FILE")]
    vek: Option<PathBuf>,
    /// The time that endorsements must be current at, in seconds since 1970; now if left out.
    #[arg(long, value_name = "UNIX")]
    at: Option<u64>,
}

/// Mirrors to ask instead of the vendors' services.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// A PCCS to ask instead of Intel's service.
    #[arg(long, value_name = "URL")]
    pccs: Option<String>,
    /// A mirror of AMD's key distribution service.
    #[arg(long, value_name = "URL")]
    amd: Option<String>,
    /// A mirror of NVIDIA's manifests.
    #[arg(long, value_name = "URL")]
    nvidia_rim: Option<String>,
    /// A mirror of NVIDIA's OCSP service.
    #[arg(long, value_name = "URL")]
    nvidia_ocsp: Option<String>,
}

impl ServiceArgs {
    /// Whether none was named.
    pub(crate) fn is_empty(&self) -> bool {
        [&self.pccs, &self.amd, &self.nvidia_rim, &self.nvidia_ocsp].into_iter().all(Option::is_none)
    }

    pub(crate) fn addresses(self) -> Addresses {
        let mut addresses = Addresses::default();
        if let Some(pccs) = self.pccs {
            addresses = addresses.with_pccs(&pccs);
        }
        let put = |to: &mut String, url: Option<String>| *to = url.unwrap_or_else(|| to.clone());
        put(&mut addresses.amd, self.amd);
        put(&mut addresses.nvidia_rim, self.nvidia_rim);
        put(&mut addresses.nvidia_ocsp, self.nvidia_ocsp);
        addresses
    }
}

/// Evidence, told by its first bytes.
enum Kind {
    Bundle(Box<Bundle>),
    Tdx(Vec<u8>),
    Snp(Vec<u8>),
    Gpu(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Input {
    fn at(&self) -> Result<UnixTime> {
        time(self.at)
    }

    fn product(&self) -> Result<Option<Product>> {
        let Some(name) = &self.product else { return Ok(None) };
        let product = Product::from_name(name);
        Ok(Some(product.with_context(|| format!("--product {name:?} is none of Milan, Genoa and Turin"))?))
    }

    fn vek(&self) -> Result<Option<Vec<u8>>> {
        self.vek.as_deref().map(read).transpose()
    }

    fn kind(&self) -> Result<Kind> {
        const SNP_REPORT: usize = 1184;
        const SPDM_REQUEST: [u8; 2] = [0x11, 0xe0];
        let bytes = evidence(&self.evidence)?;
        let chain = self.chain.as_deref().map(read).transpose()?;
        let json = matches!(bytes.trim_ascii_start().first(), Some(b'[' | b'{'));
        if json || bytes.starts_with(&SPDM_REQUEST) {
            return Ok(Kind::Gpu(gpus(&self.evidence, chain)?));
        }
        if let Ok(bundle) = Bundle::from_cbor(&bytes) {
            return Ok(Kind::Bundle(Box::new(bundle)));
        }
        // A report of version 5 begins as a quote of version 5 does; no quote is as short.
        if bytes.len() == SNP_REPORT {
            return Ok(Kind::Snp(bytes));
        }
        if matches!(bytes.get(..2), Some([4 | 5, 0])) {
            return Ok(Kind::Tdx(bytes));
        }
        bail!("{} is no bundle, TDX quote, SNP report or GPU evidence", self.evidence.display())
    }
}

fn time(at: Option<u64>) -> Result<UnixTime> {
    match at {
        Some(at) => Ok(UnixTime(at)),
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            Ok(UnixTime(now.context("this computer's clock is before 1970: give --at")?.as_secs()))
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Evidence cannot be read, a service does not give what it needs, or a folder cannot be written.
pub async fn run(args: EndorsementsArgs) -> Result<()> {
    let text = match args.command {
        Command::Pull { input, into, anew, services } => {
            let endorser = Endorser::online(&into, services.addresses(), Limits::default())?;
            let before = Folder::open(&into)?.entries()?.len();
            get(&endorser, &input, anew).await?;
            let entries = Folder::open(&into)?.entries()?.len();
            format!("{entries} endorsement(s) in {}, {} of them new\n", into.display(), entries.saturating_sub(before))
        }
        Command::Refresh { folder, services } => {
            Folder::open(&folder).with_context(|| format!("cannot open {}", folder.display()))?;
            refresh(&Endorser::online(&folder, services.addresses(), Limits::default())?, &folder).await?
        }
        Command::Show { folder, at, json } => show(&folder, time(at)?, json)?,
        Command::Export { input, from, out } => {
            ensure!(!out.exists(), "{} exists already: name another --out", out.display());
            let files = get(&Endorser::offline(&from)?, &input, false).await?;
            write(&out, files)?
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write")
}

/// Asks for everything again whose path says what to ask. One service that fails keeps nobody from the others.
async fn refresh(endorser: &Endorser, path: &Path) -> Result<String> {
    let (folder, at) = (Folder::open(path)?, time(None)?);
    let (mut text, mut failed, mut fetched) = (String::new(), 0, 0);
    for entry in folder.entries()? {
        let Some(need) = Need::of_path(&entry.path) else {
            // An answer about a certificate that is not in the folder.
            if entry.path.starts_with("nvidia/ocsp/") {
                text.push_str(&format!("left as it is: {}, which is asked for with its evidence (pull)\n", entry.path));
            }
            continue;
        };
        let before = folder.read(&entry)?;
        match endorser.get(&need, at, true).await {
            Ok(now) if now == before => text.push_str(&format!("the same: {}\n", entry.path)),
            Ok(_) => text.push_str(&format!("NEW: {}\n", entry.path)),
            Err(error) => {
                failed += 1;
                text.push_str(&format!("FAILED: {}: {error}\n", entry.path));
                continue;
            }
        }
        fetched += 1;
    }
    text.push_str(&format!("{fetched} endorsement(s) in {} fetched anew\n", path.display()));
    if failed > 0 {
        // What was fetched is in the folder, and worth saying.
        print!("{text}");
        bail!(
            "{failed} endorsement(s) could not be fetched: the old ones are still there; try again, or name a mirror"
        );
    }
    Ok(text)
}

/// What evidence needs, as files: one without a name, or several with names.
async fn get(endorser: &Endorser, input: &Input, anew: bool) -> Result<Vec<(String, Vec<u8>)>> {
    let at = input.at()?;
    let numbered = |name: &str, ending: &str, all: Vec<Vec<u8>>| {
        let files = all.into_iter().enumerate().map(|(n, bytes)| (format!("{name}-{n}.{ending}"), bytes));
        files.collect::<Vec<_>>()
    };
    Ok(match input.kind()? {
        Kind::Bundle(mut bundle) => {
            endorser.staple(&mut bundle, at, anew).await?;
            vec![(String::new(), bundle.to_cbor())]
        }
        Kind::Tdx(quote) => vec![(String::new(), endorser.tdx(&quote, at, anew).await?)],
        Kind::Snp(report) => {
            let (product, vek) = (input.product()?, input.vek()?);
            let found = endorser.snp(&report, product, vek.as_deref(), at, anew).await?;
            let mut files = vec![("vek.der".to_owned(), found.vek)];
            files.extend(numbered("ca", "der", found.ca));
            files.extend(found.crl.map(|crl| ("crl.der".to_owned(), crl)));
            files
        }
        Kind::Gpu(evidence) => {
            let evidence: Vec<_> = evidence.iter().map(|(report, chain)| (&report[..], &chain[..])).collect();
            let found = endorser.gpus(&evidence, at, anew).await?;
            let mut files = numbered("rim", "xml", found.manifests);
            files.extend(numbered("ocsp", "der", found.ocsp));
            files
        }
    })
}

fn write(out: &Path, files: Vec<(String, Vec<u8>)>) -> Result<String> {
    if let [(name, bytes)] = &files[..]
        && name.is_empty()
    {
        std::fs::write(out, bytes).with_context(|| format!("cannot write {}", out.display()))?;
        return Ok(format!("{}\n", out.display()));
    }
    std::fs::create_dir(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut text = String::new();
    for (name, bytes) in files {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        text.push_str(&format!("{}\n", path.display()));
    }
    Ok(text)
}

#[derive(Serialize)]
struct Shown {
    path: String,
    bytes: u64,
    /// When it lapses by its own word; null: never, or it cannot be read.
    lapses: Option<UnixTime>,
    current: bool,
    /// Why it cannot be used, if it cannot.
    fault: Option<String>,
}

fn show(folder: &Path, at: UnixTime, json: bool) -> Result<String> {
    let open = || format!("cannot open {}", folder.display());
    let folder = Folder::open(folder).with_context(open)?;
    let entries = folder.entries()?.into_iter().map(|entry| {
        let looked = needs::look_by_path(&entry.path, &folder.read(&entry)?);
        let (lapses, fault) = match looked {
            Ok(lapses) => (lapses, None),
            Err(fault) => (None, Some(fault)),
        };
        let current = fault.is_none() && lapses.is_none_or(|lapses| at < lapses);
        anyhow::Ok(Shown { path: entry.path, bytes: entry.bytes, lapses, current, fault })
    });
    let entries = entries.collect::<Result<Vec<_>>>()?;
    if json {
        return Ok(serde_json::json!({ "schema": SCHEMA, "at": at, "entries": entries }).to_string() + "\n");
    }
    let mut text = String::new();
    for entry in &entries {
        let state = match (&entry.fault, entry.lapses, entry.current) {
            (Some(fault), _, _) => format!("UNUSABLE: {fault}"),
            (_, Some(lapses), true) => format!("until {lapses}"),
            (_, Some(lapses), false) => format!("LAPSED at {lapses}"),
            (_, None, _) => "does not lapse".into(),
        };
        text.push_str(&format!("{:>8} {}\n         {state}\n", entry.bytes, entry.path));
    }
    text.push_str(&format!("{} endorsement(s), looked at from {at}\n", entries.len()));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::dev::{CollateralSpec, DevPlatform, GpuSpec, SnpSpec, TdxSpec};
    use cocoon_attestation::{CpuEvidence, Endorsements, GpuEndorsements};

    use super::*;

    fn input(path: &Path) -> Input {
        Input { evidence: path.to_owned(), chain: None, product: None, vek: None, at: Some(1_790_000_000) }
    }

    fn bundle(quote: Vec<u8>) -> Bundle {
        Bundle {
            claims: vec![0xa0],
            cpu: CpuEvidence::Tdx { quote },
            gpu: Vec::new(),
            event_log: None,
            endorsements: Endorsements::None,
            gpu_endorsements: GpuEndorsements::default(),
        }
    }

    #[test]
    fn evidence_is_told_by_its_bytes() {
        let (folder, platform) = (tempfile::tempdir().unwrap(), DevPlatform::from_seed([7; 32]));
        let path = folder.path().join("evidence");
        let kind = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            input(&path).kind().map(|kind| match kind {
                Kind::Bundle(_) => "bundle",
                Kind::Tdx(_) => "tdx",
                Kind::Snp(_) => "snp",
                Kind::Gpu(_) => "gpu",
            })
        };
        let quote = platform.tdx_quote(&TdxSpec::default());
        assert_eq!(kind(&quote).unwrap(), "tdx");
        assert_eq!(kind(hex::encode(&quote).as_bytes()).unwrap(), "tdx");
        for version in [2, 3, 5] {
            let report = platform.snp_report(&SnpSpec { version, ..SnpSpec::default() });
            assert_eq!(kind(&report).unwrap(), "snp", "version {version}");
        }
        assert_eq!(kind(&bundle(quote).to_cbor()).unwrap(), "bundle");
        assert_eq!(kind(br#"[{"evidence": "EeA=", "certificate": "eA=="}]"#).unwrap(), "gpu");
        let lonely = kind(&platform.gpu_report(&GpuSpec::default())).err().unwrap().to_string();
        assert!(lonely.contains("--chain"), "{lonely}");
        assert!(kind(b"none").err().unwrap().to_string().contains("is no bundle"));
        std::fs::write(&path, [4, 0]).unwrap();
        let product = Input { product: Some("Rome".into()), ..input(&path) };
        assert!(product.product().unwrap_err().to_string().contains("none of Milan"));
    }

    #[tokio::test]
    async fn a_folder_is_shown_and_handed_out() {
        let (folder, platform) = (tempfile::tempdir().unwrap(), DevPlatform::from_seed([7; 32]));
        let (path, kept) = (folder.path().join("quote"), folder.path().join("kept"));
        let quote = platform.tdx_quote(&TdxSpec::default());
        std::fs::write(&path, &quote).unwrap();
        let (from, to) = (UnixTime(1_789_999_000), UnixTime(1_790_001_000));
        let collateral = platform.tdx_collateral(&CollateralSpec::issued(from, to));
        let need = &needs::of_tdx(&quote).unwrap()[0];
        Folder::create(&kept).unwrap().put(need, &collateral).unwrap();
        std::fs::write(kept.join("tdx/note.txt"), "mine").unwrap();
        let text = show(&kept, UnixTime(1_790_000_000), false).unwrap();
        assert!(text.contains("tdx/c0c000000000-platform.json\n         until 1790001000\n"), "{text}");
        assert!(text.contains("UNUSABLE: it is none of the files"), "{text}");
        assert!(show(&kept, to, false).unwrap().contains("LAPSED at 1790001000"));
        let json: serde_json::Value = serde_json::from_str(&show(&kept, to, true).unwrap()).unwrap();
        assert_eq!((&json["schema"], &json["entries"][0]["current"]), (&SCHEMA.into(), &false.into()));

        let endorser = Endorser::offline(&kept).unwrap();
        let out = folder.path().join("collateral.json");
        write(&out, get(&endorser, &input(&path), false).await.unwrap()).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), collateral);
        std::fs::write(&path, bundle(quote).to_cbor()).unwrap();
        let out = folder.path().join("stapled");
        write(&out, get(&endorser, &input(&path), false).await.unwrap()).unwrap();
        let stapled = Bundle::from_cbor(&std::fs::read(&out).unwrap()).unwrap();
        assert_eq!(stapled.endorsements, Endorsements::Tdx { collateral });
        let late = Input { at: Some(to.0), ..input(&path) };
        assert!(
            get(&endorser, &late, false).await.unwrap_err().to_string().contains("pull it where there is a network")
        );
        let again = Command::Export { input: input(&path), from: kept, out: out.clone() };
        let error = run(EndorsementsArgs { command: again }).await.unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
    }
}
