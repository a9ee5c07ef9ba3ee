//! A guest's configuration as a command line of QEMU. What has a place in the guest has it here, so that nothing moves with QEMU's version.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::config::{ConfigError, GuestConfig, QMP_SOCKET, QUOTE_SOCKET, QuoteService, Snp, Tdx, Tee};
use super::image::Image;

/// Name of the port at which a development guest asks for quotes.
pub const QUOTE_PORT: &str = "cocoon.quotes";

/// Under this name of QEMU's firmware configuration a guest finds its own.
pub const ENCLAVE_CONFIG: &str = "opt/cocoon/config";

/// What only the machine knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFacts {
    /// Processors of the NUMA node that the guest is bound to, as sysfs lists them: `0-31,64-95`.
    pub node_cpus: Option<String>,
    /// From QMP's `query-sev-capabilities`: `cbitpos` and `reduced-phys-bits`.
    pub sev: Option<(u32, u32)>,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
}

impl fmt::Display for CommandLine {
    /// For a shell, one option a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.program))?;
        for arg in &self.args {
            f.write_str(if arg.starts_with('-') { " \\\n  " } else { " " })?;
            f.write_str(&quoted(arg))?;
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=+@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A value inside an option of QEMU's, where a comma ends it unless it is doubled.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

struct Options(Vec<String>);

impl Options {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.into(), value.into()]);
    }
}

/// The command line of a guest whose configuration and image were checked.
///
/// # Errors
/// Something only the machine knows is missing, or a file of the identity block cannot be read.
pub fn command_line(config: &GuestConfig, image: &Image, facts: &MachineFacts) -> Result<CommandLine, ConfigError> {
    let mut options = Options(Vec::new());
    options.option("-name", format!("{},process={}", config.name, config.name));
    options.flag("-no-user-config");
    options.flag("-nodefaults");
    options.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    options.option("-display", "none");
    options.flag("-no-reboot");
    platform(&mut options, config, facts)?;
    options.option("-smp", format!("{n},sockets=1,cores={n},threads=1", n = config.vcpus));
    options.option("-m", format!("{}M", config.memory.mebibytes()));
    options.option("-object", memory(config));
    options.option("-bios", image.firmware.display().to_string());
    options.option("-kernel", image.kernel.display().to_string());
    options.option("-initrd", image.initrd.display().to_string());
    options.option("-append", image.cmdline.clone());
    if let Some(file) = &config.enclave {
        options.0.extend(enclave_config(file));
    }
    devices(&mut options, config, image);
    gpus(&mut options, config);
    options.option("-chardev", "stdio,id=console,signal=off");
    options.option("-serial", "chardev:console");
    options
        .option("-chardev", format!("socket,id=qmp,path={},server=on,wait=off", value(&config.data.join(QMP_SOCKET))));
    options.option("-mon", "chardev=qmp,mode=control");
    let qemu = config.qemu.display().to_string();
    let Some(node) = config.numa else { return Ok(CommandLine { program: qemu, args: options.0 }) };
    // A guest's private memory ignores the policy of its backend on some kernels; where its threads run decides then.
    let cpus = facts.node_cpus.clone().ok_or_else(|| {
        ConfigError::Setting(format!(
            "numa = {node}: this machine has no such node; `cocoon host doctor` lists what it has"
        ))
    })?;
    let mut args = vec!["--cpu-list".into(), cpus, qemu];
    args.append(&mut options.0);
    Ok(CommandLine { program: "taskset".into(), args })
}

/// Hands the guest its configuration.
pub(crate) fn enclave_config(file: &Path) -> [String; 2] {
    ["-fw_cfg".into(), format!("name={ENCLAVE_CONFIG},file={}", value(file))]
}

fn platform(options: &mut Options, config: &GuestConfig, facts: &MachineFacts) -> Result<(), ConfigError> {
    let machine = config.machine();
    match config.tee {
        Tee::Tdx => {
            options.option("-accel", "kvm");
            options.option("-object", json_option(tdx_object(&config.tdx.clone().unwrap_or_default())));
            options.option(
                "-machine",
                format!("{machine},kernel-irqchip=split,confidential-guest-support=tdx,memory-backend=mem0,hpet=off"),
            );
            options.option("-cpu", "host");
        }
        Tee::Snp => {
            options.option("-accel", "kvm");
            options.option("-object", snp_object(&config.snp.clone().unwrap_or_default(), facts)?);
            options.option(
                "-machine",
                format!("{machine},confidential-guest-support=sev0,memory-backend=mem0,vmport=off"),
            );
            // Without an invariant counter the guest's kernel counts time by something that the host plays, and the guest does not start.
            options.option("-cpu", config.cpu.clone().unwrap_or_else(|| "EPYC-v4,+invtsc".into()));
        }
        Tee::Development => {
            options.option("-accel", "tcg");
            options.option("-machine", format!("{machine},memory-backend=mem0"));
            options.option("-cpu", config.cpu.clone().unwrap_or_else(|| "max".into()));
        }
    }
    Ok(())
}

/// An option in JSON, its keys in one order however serde_json is built.
fn json_option(mut value: Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

fn tdx_object(tdx: &Tdx) -> Value {
    let mut object = Map::from_iter([("qom-type".into(), json!("tdx-guest")), ("id".into(), json!("tdx"))]);
    for (name, digest) in
        [("mrconfigid", &tdx.mrconfigid), ("mrowner", &tdx.mrowner), ("mrownerconfig", &tdx.mrownerconfig)]
    {
        if let Some(digest) = digest {
            object.insert(name.into(), json!(STANDARD.encode(digest.0)));
        }
    }
    let socket = match &tdx.quotes {
        QuoteService::Vsock { cid, port } => json!({"type": "vsock", "cid": cid.to_string(), "port": port.to_string()}),
        QuoteService::Unix(path) => json!({"type": "unix", "path": path}),
    };
    object.insert("quote-generation-socket".into(), socket);
    Value::Object(object)
}

fn snp_object(snp: &Snp, facts: &MachineFacts) -> Result<String, ConfigError> {
    let (cbitpos, reduced) = match (snp.cbitpos, snp.reduced_phys_bits, facts.sev) {
        (Some(cbitpos), Some(reduced), _) => (cbitpos, reduced),
        (cbitpos, reduced, Some(sev)) => (cbitpos.unwrap_or(sev.0), reduced.unwrap_or(sev.1)),
        _ => {
            return Err(ConfigError::Setting(
                "this machine does not say where its encryption bit is: run on the SNP machine, or give snp.cbitpos and snp.reduced_phys_bits (51 and 1 on Milan)".into(),
            ));
        }
    };
    let mut object = format!(
        "sev-snp-guest,id=sev0,policy={:#x},kernel-hashes=on,cbitpos={cbitpos},reduced-phys-bits={reduced}",
        snp.policy
    );
    if let Some(data) = snp.host_data {
        object += &format!(",host-data={}", STANDARD.encode(data.0));
    }
    for (name, path) in [("id-block", &snp.id_block), ("id-auth", &snp.id_auth)] {
        if let Some(path) = path {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.clone(), source })?;
            let text: String = text.split_whitespace().collect();
            if name == "id-auth" && has_author(&text) {
                object.push_str(",author-key-enabled=on");
            }
            object += &format!(",{name}={text}");
        }
    }
    Ok(object)
}

/// Whether an author vouches for the identity key: then the second number of the authentication information names its algorithm
/// (SEV-SNP Firmware ABI, "ID Authentication Information"), and QEMU must be told.
fn has_author(id_auth: &str) -> bool {
    STANDARD.decode(id_auth).is_ok_and(|bytes| bytes.get(4..8).is_some_and(|algorithm| algorithm != [0; 4]))
}

fn memory(config: &GuestConfig) -> String {
    let mut object =
        format!("memory-backend-memfd,id=mem0,size={}M,share=true,prealloc=false", config.memory.mebibytes());
    if let Some(page) = config.hugepages {
        object += &format!(",hugetlb=on,hugetlbsize={}M", page.mebibytes());
    }
    if let Some(node) = config.numa {
        object += &format!(",host-nodes={node},policy=bind");
    }
    object
}

/// Devices of a confidential guest go through memory that it shares: none of them may take another way.
const SHARED: &str = "disable-legacy=on,iommu_platform=on";

fn devices(options: &mut Options, config: &GuestConfig, image: &Image) {
    if let Some(model) = &image.model {
        let node = json!({"node-name": "model", "driver": "raw", "read-only": true,
                          "file": {"driver": "file", "filename": model, "locking": "off"}});
        options.option("-blockdev", json_option(node));
        options.option("-device", format!("virtio-blk-pci,drive=model,bus=pcie.0,addr=0x3,{SHARED}"));
    }
    match (config.network.vsock, config.network.tcp) {
        (Some(cid), _) => {
            options.option("-device", format!("vhost-vsock-pci,guest-cid={cid},bus=pcie.0,addr=0x5,{SHARED}"));
        }
        (None, Some(address)) => {
            let guest = config.network.port;
            options.option(
                "-netdev",
                format!("user,id=net0,restrict=on,hostfwd=tcp:{}:{}-:{guest}", address.ip(), address.port()),
            );
            options.option("-device", format!("virtio-net-pci,netdev=net0,bus=pcie.0,addr=0x5,romfile=,{SHARED}"));
        }
        (None, None) => {}
    }
    if config.tee == Tee::Development {
        options.option("-device", format!("virtio-rng-pci,bus=pcie.0,addr=0x4,{SHARED}"));
        options.option("-device", format!("virtio-serial-pci,id=serial0,bus=pcie.0,addr=0x6,{SHARED}"));
        let socket = value(&config.data.join(QUOTE_SOCKET));
        options.option("-chardev", format!("socket,id=quotes,path={socket},server=on,wait=off"));
        options.option("-device", format!("virtserialport,bus=serial0.0,nr=1,chardev=quotes,name={QUOTE_PORT}"));
    }
}

fn gpus(options: &mut Options, config: &GuestConfig) {
    if config.gpus.is_empty() {
        return;
    }
    options.option("-object", "iommufd,id=iommufd0");
    for (index, gpu) in config.gpus.iter().enumerate() {
        let (port, slot) = (index + 1, 0x10 + index);
        options.option("-device", format!("pcie-root-port,id=pci.{port},bus=pcie.0,chassis={port},addr={slot:#x}"));
        options.option("-device", format!("vfio-pci,host={gpu},bus=pci.{port},iommufd=iommufd0"));
    }
    options.option("-fw_cfg", format!("name=opt/ovmf/X-PciMmio64Mb,string={}", config.gpu_window().mebibytes()));
}
