//! `cocoon measure` as its users run it, on a small firmware and kernel of the tests' own; every JSON key against
//! `docs/schemas/measure.schema.json`; and that policies and the Registry take what it writes.

#[path = "../../firmware-measurements/tests/common/made.rs"]
mod made;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cocoon_attestation::dev::{CollateralSpec, DevPlatform, SnpEndorsementSpec, SnpSpec, TdxSpec};
use cocoon_attestation::{Event, EventLog, Measurement};
use made::{Image, acpi_tables, kernel};
use serde_json::Value;

const AT: &str = "1790000000";
/// Seed of 0x09 in every byte, and its public key (docs/vectors/reference-values.json).
const SEED: [u8; 32] = [9; 32];
const SIGNER: &str = "fd1724385aa0c75b64fb78cd602fa1d991fdebf76b13c58ed702eac835e9f618";

const IMAGE: &str = r#"
name = "guest"
version = "1"
kernel = "vmlinuz"
initrd = "initrd"
cmdline = "console=ttyS0"

[tdx]
firmware = "OVMF.fd"
[[tdx.machine]]
name = "small"
memory = "4G"
vcpus = 2
acpi = "acpi"
[[tdx.machine]]
name = "large"
memory = "8G"
vcpus = 2
acpi = "acpi"
qemu = "10.2"

[snp]
firmware = "OVMF.fd"
[[snp.machine]]
vcpus = [1, 2]
cpu = ["EPYC-Milan", "EPYC-Genoa"]
guest_features = ["0x1", "0x21"]
"#;

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.write("OVMF.fd", &Image::default().bytes());
        world.write("vmlinuz", &kernel("6.12.0", b"the kernel"));
        world.write("initrd", b"the initial ram disk");
        std::fs::create_dir(world.path("acpi")).unwrap();
        world.write("acpi/etc_acpi_tables", &acpi_tables(2, b""));
        world.write("key", hex::encode(SEED).as_bytes());
        world.write("image.toml", IMAGE.as_bytes());
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cocoon")).args(args).current_dir(self.0.path()).output().unwrap()
    }

    fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        documented(serde_json::from_str(&self.text(&[args, &["--json"]].concat())).unwrap())
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    fn tdx(&self, more: &[&'static str]) -> Vec<&'static str> {
        let args = ["measure", "tdx", "--firmware", "OVMF.fd", "--kernel", "vmlinuz", "--initrd", "initrd"];
        let machine = ["--cmdline", "console=ttyS0", "--memory", "4G", "--vcpus", "2"];
        [&args[..], &machine, more].concat()
    }
}

/// A result, once it is known to be what the schema says.
fn documented(value: Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/measure.schema.json");
    let schemas: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let name = value["schema"].as_str().unwrap();
    check(&value, &schemas["$defs"][name], name);
    value
}

fn check(value: &Value, schema: &Value, at: &str) {
    if let Some(expected) = schema.get("const") {
        assert_eq!(value, expected, "{at}");
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value}");
    }
    let kind = match value {
        Value::Null => "null",
        Value::String(_) => "string",
        Value::Number(_) => "integer",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Bool(_) => "boolean",
    };
    match &schema["type"] {
        Value::String(expected) => assert_eq!(kind, expected, "{at}"),
        Value::Array(kinds) => assert!(kinds.contains(&kind.into()), "{at} is {kind}"),
        _ => {}
    }
    if let Value::Array(items) = value {
        items.iter().for_each(|item| check(item, &schema["items"], at));
    }
    if let Value::Object(fields) = value {
        for (name, field) in fields {
            let known = schema["properties"].get(name).unwrap_or_else(|| panic!("{at}: {name} is not documented"));
            check(field, known, &format!("{at}.{name}"));
        }
        for name in schema["required"].as_array().unwrap() {
            assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
        }
    }
}

fn measurement(value: &Value) -> [u8; 48] {
    value.as_str().unwrap().parse::<Measurement>().unwrap().0
}

#[test]
fn tdx_measurements_are_a_table_or_documented_json() {
    let world = World::new();
    let full = world.json(&world.tdx(&["--acpi", "acpi"]));
    assert_eq!(full["rtmr"][0]["events"].as_array().unwrap().len(), 13);
    assert_eq!(full["inputs"]["page_order"], "single");
    let two = world.json(&world.tdx(&["--page-order", "two"]));
    assert_ne!(two["mrtd"], full["mrtd"]);
    assert_eq!((&two["rtmr"][0]["value"], &two["rtmr"][1]), (&Value::Null, &full["rtmr"][1]));
    assert!(two["rtmr"][0]["reason"].as_str().unwrap().contains("--acpi"));
    let table = world.text(&world.tdx(&["--acpi", "acpi"]));
    for part in ["MRTD   ", "RTMR2  ", "hand-off-list", "console=ttyS0 initrd=initrd"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(table.contains(full["rtmr"][1]["value"].as_str().unwrap()));
    for (more, words) in
        [(&["--qemu", "7.2"][..], "8.0 to 10.x"), (&["--acpi", "nowhere"], "nowhere"), (&["--memory", "4"], "unit")]
    {
        let args: Vec<_> = world.tdx(more);
        // The last of two counts for clap only where it may be repeated, so the first is taken out.
        let args = if more[0] == "--memory" { [&args[..10], &args[12..]].concat() } else { args };
        assert!(world.fails(&args).contains(words), "{words}");
    }
}

#[test]
fn snp_digests_need_firmware_that_verifies_kernels() {
    let world = World::new();
    let machine = ["--vcpus", "2", "--cpu", "EPYC-Milan", "--guest-features", "0x1"];
    let args =
        [&["measure", "snp", "--firmware", "OVMF.fd", "--kernel", "vmlinuz", "--initrd", "initrd"][..], &machine]
            .concat();
    let found = world.json(&args);
    assert_eq!(found["inputs"]["cpu_signature"], "0xa00f11");
    let table = world.text(&args);
    assert!(table.contains(found["launch_digest"].as_str().unwrap()) && table.contains("kernel-hashes"), "{table}");
    let alone = world.json(&[&["measure", "snp", "--firmware", "OVMF.fd"][..], &machine].concat());
    assert_ne!(alone["launch_digest"], found["launch_digest"]);

    let mut generic = Image::default();
    generic.drivers.truncate(60);
    world.write("OVMF.fd", &generic.bytes());
    assert!(world.fails(&args).contains("the host could load another"));
    world.json(&[&args[..], &["--allow-unverified-kernel"]].concat());
    let host =
        [&["measure", "snp", "--firmware", "OVMF.fd", "--vcpus", "2", "--guest-features", "1", "--cpu", "host"][..]]
            .concat();
    assert!(world.fails(&host).contains("EPYC-Genoa"));
}

#[test]
fn an_image_is_measured_signed_and_read_again() {
    let world = World::new();
    let args = ["measure", "image", "image.toml", "--key", "key", "--out", "references.toml"];
    let made = world.json(&args);
    assert_eq!(made["signer"], SIGNER);
    assert_eq!(made["shapes"].as_array().unwrap().len(), 2 + 8);
    let first = std::fs::read(world.path("references.toml")).unwrap();
    assert!(world.text(&args).contains("2 of TDX, 8 of SEV-SNP"));
    assert_eq!(std::fs::read(world.path("references.toml")).unwrap(), first, "the same bytes every time");

    let read = world.json(&["measure", "verify", "references.toml", "--signer", SIGNER]);
    assert_eq!((&read["image_digest"], read["snp"].as_array().unwrap().len()), (&made["image_digest"], 8));
    let alone = world.json(&world.tdx(&["--acpi", "acpi"]));
    assert_eq!(read["tdx"][0]["mrtd"], alone["mrtd"]);
    assert_eq!(read["tdx"][0]["rtmr"][2], alone["rtmr"][2]["value"]);
    assert!(world.text(&["measure", "verify", "references.toml", "--signer", SIGNER]).contains("RTMR3  0000"));
    let other = "00".repeat(32);
    assert!(world.fails(&["measure", "verify", "references.toml", "--signer", &other]).contains("none of the keys"));
    let changed = String::from_utf8(first).unwrap().replacen("version = \"1\"", "version = \"2\"", 1);
    world.write("changed.toml", changed.as_bytes());
    assert!(world.fails(&["measure", "verify", "changed.toml", "--signer", SIGNER]).contains("changed after"));

    world.write("image.toml", IMAGE.replacen("acpi = \"acpi\"\n", "", 1).as_bytes());
    assert!(world.fails(&args).contains("acpi"), "reference values without RTMR0 would accept any");
    world.write("image.toml", IMAGE.replacen("vcpus = 2", "vcpus = 3", 1).as_bytes());
    assert!(world.fails(&args).contains("machine \"small\""));
    world.write("key", b"not a key");
    let error = world.fails(&args);
    assert!(error.contains("not a 32-byte seed") && !error.contains("not a key"), "{error}");
}

/// Whoever has the image's files needs no key to say whether what somebody signed is right.
#[test]
fn what_others_signed_is_compared() {
    let world = World::new();
    world.json(&["measure", "image", "image.toml", "--key", "key", "--out", "references.toml"]);
    std::fs::remove_file(world.path("key")).unwrap();
    let compare = ["measure", "image", "image.toml", "--compare", "references.toml", "--signer", SIGNER];
    assert!(world.text(&compare).contains("the same: 2 of TDX, 8 of SEV-SNP"));
    assert_eq!(documented(world.json(&compare))["same"], true);
    let differs = || {
        let output = world.run(&[&compare[..], &["--json"]].concat());
        assert_eq!(output.status.code(), Some(10), "{}", String::from_utf8_lossy(&output.stderr));
        let found = documented(serde_json::from_slice(&output.stdout).unwrap());
        assert_eq!(found["same"], false);
        found["differences"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let image = String::from_utf8(std::fs::read(world.path("image.toml")).unwrap()).unwrap();
    world.write("image.toml", image.replacen("version = \"1\"", "version = \"2\"", 1).as_bytes());
    assert_eq!(differs()[..1], ["version is 2, and 1 there"]);
    // Other features of the machines make other digests.
    world.write("image.toml", image.replacen("\"0x1\"", "\"0x9\"", 1).as_bytes());
    let found = differs();
    assert!(found.iter().any(|line| line.starts_with("only here: SEV-SNP guest: ")), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("only there: SEV-SNP guest: ")), "{found:?}");
    let text = String::from_utf8(world.run(&compare).stdout).unwrap();
    assert!(text.contains("differs: only here: "), "{text}");

    let error = world.fails(&["measure", "image", "image.toml", "--compare", "references.toml"]);
    assert!(error.contains("--signer"), "{error}");
    let error = world.fails(&["measure", "image", "image.toml", "--out", "x"]);
    assert!(error.contains("--key"), "{error}");
}

/// Evidence of the development platform that states these registers.
fn quote(world: &World, found: &Value) -> DevPlatform {
    let platform = DevPlatform::from_seed([7; 32]);
    let mut spec = TdxSpec::default();
    spec.body.mr_td = measurement(&found["mrtd"]);
    spec.body.rtmr = [0, 1, 2, 3].map(|n| measurement(&found["rtmr"][n]["value"]));
    world.write("quote", &platform.tdx_quote(&spec));
    world.write("collateral", &platform.tdx_collateral(&CollateralSpec::default()));
    world.write("root", &platform.tdx_root_der());
    platform
}

#[test]
fn a_policy_names_the_file_and_its_signer() {
    let world = World::new();
    world.json(&["measure", "image", "image.toml", "--key", "key", "--out", "references.toml"]);
    let named = |signer: &str| format!("[references]\nfile = \"references.toml\"\nsigners = [\"{signer}\"]\n");
    world.write("policy.toml", named(SIGNER).as_bytes());
    assert!(world.text(&["policy", "explain", "policy.toml"]).contains("guest 1, by one of 10 measurements"));

    let good = world.json(&world.tdx(&["--acpi", "acpi"]));
    let platform = quote(&world, &good);
    let verify = [
        "verify",
        "tdx",
        "quote",
        "--collateral",
        "collateral",
        "--root",
        "root",
        "--at",
        AT,
        "--policy",
        "policy.toml",
    ];
    let result = world.text(&verify);
    assert!(result.starts_with("*** ") && result.contains("reference.measurement"), "{result}");
    let other = world.json(
        &[&world.tdx(&["--acpi", "acpi"])[..9], &["console=ttyS1"], &world.tdx(&["--acpi", "acpi"])[10..]].concat(),
    );
    quote(&world, &other);
    let refused = world.run(&verify);
    assert_eq!(refused.status.code(), Some(10), "{}", String::from_utf8_lossy(&refused.stdout));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("another guest runs there"));

    let snp = world.json(&["measure", "verify", "references.toml", "--signer", SIGNER]);
    let spec = SnpSpec { measurement: measurement(&snp["snp"][3]), ..SnpSpec::default() };
    let chain = platform.snp_endorsements(&SnpEndorsementSpec::default());
    world.write("report", &platform.snp_report(&spec));
    world.write("vek", &chain.vek);
    chain.ca.iter().enumerate().for_each(|(n, ca)| world.write(&format!("ca{n}"), ca));
    world.write("snp-root", &platform.snp_ark_der());
    let verify = [
        "verify",
        "snp",
        "report",
        "--vek",
        "vek",
        "--ca",
        "ca0",
        "--ca",
        "ca1",
        "--root",
        "snp-root",
        "--at",
        AT,
        "--policy",
        "policy.toml",
    ];
    world.text(&verify);
    world.write("report", &platform.snp_report(&SnpSpec::default()));
    assert_eq!(world.run(&verify).status.code(), Some(10));

    world.write("policy.toml", named(&"00".repeat(32)).as_bytes());
    assert!(world.fails(&verify).contains("none of the keys"), "a file that another signed");
    world.write("policy.toml", b"[references]\nfile = \"references.toml\"\nsigners = []\n");
    assert!(world.fails(&verify).contains("nobody is named"));
    world.write("policy.toml", b"[reference]\nfile = \"references.toml\"\n");
    assert!(world.fails(&verify).contains("reference"), "a mistyped table");
}

/// The Registry's command reads the file before it asks any chain.
#[test]
fn the_registry_takes_the_image_of_a_signed_file_only() {
    let world = World::new();
    world.json(&["measure", "image", "image.toml", "--key", "key", "--out", "references.toml"]);
    let registry = format!("0:{}", "11".repeat(32));
    let propose = ["registry", "propose", &registry, "allow", "--references", "references.toml"];
    assert!(world.fails(&propose).contains("--signer"));
    let with =
        |signer: &str| world.fails(&[&propose[..], &["--signer", signer, "--chain", "http://127.0.0.1:1"]].concat());
    assert!(with(&"00".repeat(32)).contains("none of the keys"));
    assert!(!with(SIGNER).contains("reference values"), "the file is read, and then there is no chain");
}

#[test]
fn a_quote_is_explained() {
    let world = World::new();
    let text = world.text(&[&world.tdx(&["--acpi", "acpi"])[..], &["--json"]].concat());
    world.write("expected.json", text.as_bytes());
    let found: Value = serde_json::from_str(&text).unwrap();
    let log = |alter: &dyn Fn(&mut Vec<Event>)| {
        let mut events = Vec::new();
        for register in 0..4 {
            for event in found["rtmr"][usize::from(register)]["events"].as_array().unwrap() {
                let kind = event["name"].as_str().unwrap().to_owned();
                events.push(Event { register, kind, digest: measurement(&event["digest"]), data: Vec::new() });
            }
        }
        alter(&mut events);
        EventLog(events)
    };
    quote(&world, &found);
    let explain = ["measure", "explain", "quote", "--event-log", "log"];
    let against = [&explain[..], &["--expected", "expected.json"]].concat();
    world.write("log", &log(&|_| {}).to_cbor());
    assert_eq!(world.json(&explain)["difference"], Value::Null);
    assert!(world.text(&against).contains("the registers are the computed ones"));

    // Another kernel ran, and the log says so.
    let other = log(&|events| events[13].digest[0] ^= 1);
    let mut altered = found.clone();
    for (n, value) in other.replay().unwrap().iter().enumerate() {
        altered["rtmr"][n]["value"] = value.to_string().into();
    }
    quote(&world, &altered);
    world.write("log", &other.to_cbor());
    assert_eq!(world.json(&explain)["difference"], Value::Null, "in itself the log is right");
    let output = world.run(&[&against[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(10));
    let result = documented(serde_json::from_slice(&output.stdout).unwrap());
    let words = result["difference"].as_str().unwrap();
    assert!(words.contains("RTMR1, event 0 (kernel) should be") && words.contains("Authenticode"), "{words}");

    world.write("log", &log(&|_| {}).to_cbor());
    let output = world.run(&explain);
    assert_eq!(output.status.code(), Some(10), "the log is not the quote's");
    assert!(String::from_utf8_lossy(&output.stdout).contains("RTMR1  "));
    world.write("log", b"neither");
    assert!(world.fails(&explain).contains("neither an event log as CBOR"));
}
