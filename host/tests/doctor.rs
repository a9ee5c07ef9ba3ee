//! What the doctor says of whole machines, and of good ones with one thing wrong. The machines are recordings in `machines/`;
//! `COCOON_BLESS=1` writes what is said of them anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cocoon_host::doctor::{Answer, Outcome, Recording, Wanted, check_ids, examine};
use cocoon_host::vm::config::{QuoteService, Size, Tee};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines")
}

fn machine(name: &str) -> Recording {
    let path = folder().join(format!("{name}.machine"));
    Recording::parse(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

/// Compares with a file, or writes it.
fn golden(name: &str, text: &str) {
    let path = folder().join(name);
    if std::env::var_os("COCOON_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, text, "{}", path.display());
}

#[test]
fn whole_machines_are_told_as_they_are() {
    let cases = [
        ("tdx", Outcome::Ready),
        ("snp", Outcome::Ready),
        ("tdx-off", Outcome::Wrong),
        ("snp-as-delivered", Outcome::Wrong),
        ("laptop", Outcome::Wrong),
        ("virtual", Outcome::Wrong),
    ];
    for (name, outcome) in cases {
        let report = examine(&machine(name), &Wanted::default());
        golden(&format!("{name}.doctor"), &report.text());
        assert_eq!(report.outcome(), outcome, "{name}");
        documented(&report.json());
    }
}

#[test]
fn a_machine_without_a_tee_can_be_fit_for_development() {
    let wanted = Wanted { tee: Some(Tee::Development), ..Wanted::default() };
    let report = examine(&machine("virtual"), &wanted);
    golden("virtual.development.doctor", &report.text());
    assert!(report.text().contains("NOT CONFIDENTIAL"));
    documented(&report.json());
}

/// `docs/schemas/doctor.schema.json` names every key and every word that is written.
fn documented(value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/doctor.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let same = |schema: &Value, value: &Value| {
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&schema["properties"]), names(value));
        let required: BTreeSet<_> =
            schema["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect();
        assert_eq!(required, names(value));
        for (key, value) in value.as_object().unwrap() {
            if let Some(words) = schema["properties"][key]["enum"].as_array() {
                assert!(words.contains(value), "{key}: {value}");
            }
        }
    };
    same(&schema, value);
    assert_eq!(schema["properties"]["schema"]["const"], value["schema"]);
    let ids: Vec<_> = check_ids().collect();
    for check in value["checks"].as_array().unwrap() {
        same(&schema["properties"]["checks"]["items"], check);
        assert!(ids.contains(&check["id"].as_str().unwrap()));
        assert_eq!(check["fix"].is_null(), check["status"] == "ok", "whatever is not well says what to do");
    }
}

#[test]
fn exit_codes_are_those_of_every_command_that_judges() {
    let codes: Vec<u8> =
        [Outcome::Ready, Outcome::Wrong, Outcome::Unknown, Outcome::Malformed].map(Outcome::exit_code).into();
    assert_eq!(codes, [0, 10, 20, 30]);
}

/// What is wanted of the machines below: everything there is.
fn wanted() -> Wanted {
    Wanted { memory: Size(64 << 30), hugepages: Some(Size(1 << 30)), numa: Some(0), ..Wanted::default() }
}

/// A good machine that has the huge pages that are wanted.
fn good(name: &str) -> Recording {
    let mut machine = machine(name);
    machine.set("file /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", Answer::Text("64".into()));
    // One node for all GPUs.
    machine.set("file /sys/bus/pci/devices/0000:61:00.0/numa_node", Answer::Text("0".into()));
    machine
}

fn text(text: &str) -> Answer {
    Answer::Text(text.into())
}

fn failed(why: &str) -> Answer {
    Answer::Failed(why.into())
}

/// A good machine, what is changed, the status that one check then has, and a part of its line.
struct Case(&'static str, &'static str, Answer, &'static str, &'static str, &'static str);

fn replaced(machine: &str, question: &str, from: &str, to: &str) -> Answer {
    let Answer::Text(before) = good(machine).get(question) else { panic!("{machine} answers {question} with no text") };
    assert!(before.contains(from), "{question}: {from}");
    text(&before.replace(from, to))
}

fn cases() -> Vec<Case> {
    let gpu = "/sys/bus/pci/devices/0000:41:00.0";
    let cpu = "file /proc/cpuinfo";
    let leak = |text: String| -> &'static str { text.leak() };
    let status = |at: usize, byte: &str| {
        let Answer::Text(status) = good("snp").get("snp-status") else { panic!("snp-status") };
        text(&format!("{}{byte}{}", &status[..at * 2], &status[at * 2 + 2..]))
    };
    vec![
        Case("tdx", cpu, replaced("tdx", cpu, ": 207", ": 106"), "wrong", "cpu.model", "no TDX"),
        Case("snp", cpu, replaced("snp", cpu, "25", "23"), "wrong", "cpu.model", "no SEV-SNP"),
        Case("tdx", cpu, replaced("tdx", cpu, " tme", ""), "wrong", "cpu.flags", "TME"),
        Case("snp", cpu, replaced("snp", cpu, " sev_snp", ""), "wrong", "cpu.flags", "SEV-SNP Support"),
        Case("snp", cpu, replaced("snp", cpu, " svm", " svm hypervisor"), "wrong", "cpu.flags", "virtual machine"),
        Case("snp", cpu, replaced("snp", cpu, "microcode", "nothing"), "unknown", "cpu.microcode", "no microcode"),
        Case("tdx", cpu, two_microcodes(), "wrong", "cpu.microcode", "different microcode"),
        Case("snp", "file /sys/class/dmi/id/bios_date", text("11/02/2023"), "wrong", "bios.version", "update the BIOS"),
        Case("snp", "file /sys/class/dmi/id/bios_date", text("soon"), "malformed", "bios.version", "soon"),
        Case("snp", "file /sys/class/dmi/id/bios_date", Answer::Denied, "unknown", "bios.version", "sudo"),
        Case("tdx", "kernel-log tdx", text("virt/tdx: something else"), "wrong", "bios.tee", "TME Multi-Tenant"),
        Case("tdx", "kernel-log tdx", text(""), "unknown", "bios.tee", "reboot"),
        Case("tdx", "kernel-log tdx", Answer::Denied, "unknown", "bios.tee", "sudo"),
        Case("snp", "bytes /dev/cpu/0/msr 3221291024 8", text("00008003000000"), "malformed", "bios.tee", "SYSCFG"),
        Case("snp", "bytes /dev/cpu/0/msr 3221291024 8", text("0000f40200000000"), "wrong", "bios.tee", "SNP is off"),
        Case("snp", "bytes /dev/cpu/0/msr 3221291024 8", text("0000740300000000"), "wrong", "bios.tee", "SMEE"),
        Case("snp", "bytes /dev/cpu/0/msr 3221291024 8", Answer::Missing, "unknown", "bios.tee", "modprobe msr"),
        Case("snp", "bytes /dev/cpu/0/msr 3221291024 8", Answer::Denied, "unknown", "bios.tee", "sudo"),
        Case("tdx", "device /dev/sgx_provision", Answer::Missing, "wrong", "bios.sgx", "SGX"),
        Case("tdx", "file /proc/sys/kernel/osrelease", text("6.15.3"), "wrong", "kernel.version", "6.16"),
        Case("snp", "file /proc/sys/kernel/osrelease", text("6.8.0-90-generic"), "wrong", "kernel.version", "6.11"),
        Case("snp", "file /proc/sys/kernel/osrelease", text("trunk"), "malformed", "kernel.version", "trunk"),
        Case("snp", "file /proc/cmdline", text("quiet iommu=pt"), "wrong", "kernel.parameters", "iommu=pt"),
        Case(
            "tdx",
            "file /proc/cmdline",
            text("quiet kvm_intel.tdx=1"),
            "wrong",
            "kernel.parameters",
            "intel_iommu=on",
        ),
        Case("tdx", "device /dev/kvm", Answer::Denied, "wrong", "kvm", "group kvm"),
        Case("tdx", "device /dev/kvm", Answer::Missing, "wrong", "kvm", "modprobe kvm_intel"),
        Case(
            "tdx",
            "qmp qemu-system-x86_64 kvm query-kvm",
            failed("failed to initialize kvm"),
            "wrong",
            "kvm",
            "initialize",
        ),
        Case("tdx", "file /sys/module/kvm_intel/parameters/tdx", text("N"), "wrong", "tdx.module", "kvm_intel.tdx=1"),
        Case("tdx", "file /sys/module/kvm_intel/parameters/tdx", Answer::Missing, "wrong", "tdx.module", "6.16"),
        Case("tdx", "vsock 2:4050", failed("refused"), "wrong", "tdx.quotes", "qgsd"),
        Case("tdx", "file /etc/sgx_default_qcnl.conf", Answer::Missing, "wrong", "tdx.pccs", "libsgx-dcap-default-qpl"),
        Case("tdx", "file /etc/sgx_default_qcnl.conf", text("{}"), "malformed", "tdx.pccs", "pccs_url"),
        Case("tdx", "tcp localhost:8081", failed("Connection refused"), "wrong", "tdx.pccs", "systemctl start pccs"),
        Case("snp", "file /sys/module/kvm_amd/parameters/sev_snp", text("N"), "wrong", "snp.enabled", "iommu=pt"),
        Case(
            "snp",
            "file /sys/module/kvm_amd/parameters/sev_snp",
            Answer::Missing,
            "wrong",
            "snp.enabled",
            "modprobe kvm_amd",
        ),
        Case(
            "snp",
            "bytes /dev/cpu/0/msr 3221291315 8",
            text("ffff5f5400000000"),
            "wrong",
            "snp.rmp",
            "covers 255 GiB of 1026 GiB",
        ),
        Case(
            "snp",
            "bytes /dev/cpu/0/msr 3221291315 8",
            text("0000000000000000"),
            "wrong",
            "snp.rmp",
            "reserved no RMP",
        ),
        Case(
            "snp",
            "kernel-log rmp",
            text("SEV-SNP: Memory reserved for the RMP table does not cover full system RAM (expected 0x100 got 0x10)"),
            "wrong",
            "snp.rmp",
            "Coverage",
        ),
        Case("snp", "snp-status", Answer::Missing, "wrong", "snp.firmware", "modprobe ccp"),
        Case("snp", "snp-status", Answer::Denied, "unknown", "snp.firmware", "API 1.58"),
        Case("snp", "snp-status", failed("Input/output error"), "wrong", "snp.firmware", "linux-firmware"),
        Case("snp", "snp-status", text("01"), "malformed", "snp.firmware", "01"),
        Case("snp", "snp-status", status(1, "1e"), "wrong", "snp.firmware", "need 1.51"),
        Case("snp", "snp-status", status(2, "00"), "wrong", "snp.firmware", "not initialised"),
        Case("snp", "snp-status", status(8, "01"), "wrong", "snp.firmware", "MaskChipId"),
        Case("snp", "snp-status", status(24, "09"), "wrong", "snp.firmware", "snphost commit"),
        Case(
            "snp",
            "qmp qemu-system-x86_64 kvm query-sev-capabilities",
            failed("SEV: no"),
            "wrong",
            "snp.capabilities",
            "/dev/sev",
        ),
        Case(
            "snp",
            "qmp qemu-system-x86_64 kvm query-sev-capabilities",
            text("{}"),
            "malformed",
            "snp.capabilities",
            "{}",
        ),
        Case("snp", "folder /sys/kernel/iommu_groups", text(""), "wrong", "iommu", "AMD-Vi"),
        Case("snp", "file /sys/kernel/iommu_groups/0/type", text("identity"), "wrong", "iommu", "translation"),
        Case("tdx", "device /dev/iommu", Answer::Missing, "wrong", "iommufd", "modprobe iommufd"),
        Case("tdx", "device /dev/iommu", Answer::Denied, "wrong", "iommufd", "udev"),
        Case("tdx", "device /dev/vhost-vsock", Answer::Missing, "wrong", "vsock", "modprobe vhost_vsock"),
        Case("snp", "device /dev/vhost-vsock", Answer::Denied, "wrong", "vsock", "group kvm"),
        Case(
            "snp",
            "file /proc/meminfo",
            text("MemTotal: 1056498688 kB\nMemAvailable: 100000000 kB"),
            "wrong",
            "memory",
            "pins both copies",
        ),
        Case(
            "tdx",
            "file /proc/meminfo",
            text("MemTotal: 1056498688 kB\nMemAvailable: 60000000 kB"),
            "wrong",
            "memory",
            "64 GiB",
        ),
        Case("tdx", "file /proc/meminfo", text("MemTotal: 1056498688 kB"), "malformed", "memory", "MemAvailable"),
        Case(
            "tdx",
            "file /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
            text("3"),
            "wrong",
            "hugepages",
            "hugepages=64",
        ),
        Case(
            "tdx",
            "file /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
            Answer::Missing,
            "wrong",
            "hugepages",
            "2M",
        ),
        Case("tdx", "folder /sys/devices/system/node", text("node1"), "wrong", "numa", "numa = 0"),
        Case("tdx", leak(format!("file {gpu}/numa_node")), text("1"), "wrong", "numa", "numa = 1"),
        Case("tdx", "file /proc/self/limits", limits("8388608", "524288"), "wrong", "limits.memlock", "LimitMEMLOCK"),
        Case("tdx", "file /proc/self/limits", limits("unlimited", "1024"), "wrong", "limits.files", "LimitNOFILE"),
        Case(
            "tdx",
            "command qemu-system-x86_64 --version",
            text("QEMU emulator version 10.0.2"),
            "wrong",
            "qemu.version",
            "10.1",
        ),
        Case(
            "snp",
            "command qemu-system-x86_64 --version",
            text("QEMU emulator version 9.1.0"),
            "wrong",
            "qemu.version",
            "9.1.1",
        ),
        Case(
            "snp",
            "command qemu-system-x86_64 --version",
            text("something"),
            "malformed",
            "qemu.version",
            "something",
        ),
        Case(
            "snp",
            "command qemu-system-x86_64 --version",
            Answer::Missing,
            "wrong",
            "qemu.version",
            "apt-get install",
        ),
        Case(
            "tdx",
            "command qemu-system-x86_64 -object help",
            replaced("tdx", "command qemu-system-x86_64 -object help", "tdx-guest", ""),
            "wrong",
            "qemu.objects",
            "tdx-guest",
        ),
        Case(
            "snp",
            "command qemu-system-x86_64 -object help",
            replaced("snp", "command qemu-system-x86_64 -object help", "iommufd", ""),
            "wrong",
            "qemu.objects",
            "iommufd",
        ),
        Case(
            "tdx",
            "command qemu-system-x86_64 -device help",
            replaced("tdx", "command qemu-system-x86_64 -device help", "vfio-pci", ""),
            "wrong",
            "qemu.devices",
            "vfio-pci",
        ),
        Case(
            "tdx",
            "bytes /usr/share/ovmf/OVMF.inteltdx.fd -1024 1024",
            Answer::Missing,
            "wrong",
            "firmware",
            "ovmf-inteltdx",
        ),
        Case(
            "tdx",
            "bytes /usr/share/ovmf/OVMF.inteltdx.fd -1024 1024",
            good("snp").get("bytes /usr/share/ovmf/OVMF.amdsev.fd -1024 1024"),
            "wrong",
            "firmware",
            "not made for tdx",
        ),
        Case("snp", "bytes /usr/share/ovmf/OVMF.amdsev.fd -1024 1024", text("00"), "malformed", "firmware", "no OVMF"),
        Case("tdx", leak(format!("file {gpu}/device")), text("0x20b0"), "wrong", "gpu.model", "no confidential mode"),
        Case("tdx", leak(format!("link {gpu}/driver")), text("nouveau"), "wrong", "gpu.driver", "driverctl"),
        Case("tdx", leak(format!("link {gpu}/driver")), Answer::Missing, "wrong", "gpu.driver", "no driver"),
        Case(
            "tdx",
            "folder /sys/kernel/iommu_groups/41/devices",
            text("0000:41:00.0\n0000:42:00.0"),
            "wrong",
            "gpu.group",
            "ACS",
        ),
        Case("tdx", "device /dev/vfio/devices/vfio0", Answer::Denied, "wrong", "gpu.group", "udev"),
        Case(
            "tdx",
            leak(format!("file {gpu}/resource")),
            text("0x0 0x0 0x0\n0x1000 0xfff0fff 0x0"),
            "wrong",
            "gpu.window",
            "Above 4G",
        ),
        Case("tdx", leak(format!("file {gpu}/resource")), text("what"), "malformed", "gpu.window", "cannot be read"),
        Case("tdx", "window 0000:41:00.0 0x1182cc", text("0x4"), "wrong", "gpu.mode", "--set-cc-mode=on"),
        Case("tdx", "window 0000:41:00.0 0x1182cc", text("0x7"), "wrong", "gpu.mode", "devtools"),
        Case("tdx", "window 0000:61:00.0 0x590", text("0xffffffff"), "malformed", "gpu.mode", "wake it up"),
        Case("tdx", "window 0000:41:00.0 0x1182cc", Answer::Denied, "unknown", "gpu.mode", "sudo"),
        Case(
            "tdx",
            "command timedatectl show --property=NTPSynchronized --value",
            text("no"),
            "wrong",
            "clock",
            "chrony",
        ),
        Case(
            "tdx",
            "command timedatectl show --property=NTPSynchronized --value",
            Answer::Missing,
            "unknown",
            "clock",
            "chrony",
        ),
        Case("tdx", "file /proc/sys/kernel/random/entropy_avail", text("3"), "wrong", "entropy", "trust_cpu"),
        Case(
            "tdx",
            "command df --block-size=1 --output=avail /var/lib",
            text("Avail\n1048576"),
            "wrong",
            "disk",
            "20 GiB",
        ),
    ]
}

fn two_microcodes() -> Answer {
    let Answer::Text(info) = good("tdx").get("file /proc/cpuinfo") else { panic!("no processor") };
    text(&info.replacen("0x210002b3", "0x21000291", 1))
}

fn limits(memory: &str, files: &str) -> Answer {
    text(&format!("Max open files  {files}  {files}  files\nMax locked memory  {memory}  {memory}  bytes"))
}

#[test]
fn each_fault_shows_in_its_own_line_alone() {
    let mut seen = BTreeSet::new();
    for Case(name, question, answer, status, id, part) in cases() {
        let mut machine = good(name);
        let tee = if name == "tdx" { Tee::Tdx } else { Tee::Snp };
        machine.set(question, answer);
        let report = examine(&machine, &Wanted { tee: Some(tee), ..wanted() });
        let bad: Vec<_> = report.checks.iter().filter(|check| check.finding.status() != "ok").collect();
        let lines = report.text();
        assert_eq!(bad.iter().map(|check| check.id).collect::<Vec<_>>(), [id], "{question}\n{lines}");
        assert_eq!(bad[0].finding.status(), status, "{question}\n{lines}");
        let (found, fix) = bad[0].finding.parts();
        assert!(format!("{found} {}", fix.unwrap_or_default()).contains(part), "{part} is not in\n{lines}");
        seen.insert(id);
    }
    let missing: Vec<_> = check_ids().filter(|id| !seen.contains(id)).collect();
    assert!(missing.is_empty(), "no fault is tested for {missing:?}");
}

#[test]
fn the_good_machines_are_well_with_all_that_is_wanted() {
    for name in ["tdx", "snp"] {
        let report = examine(&good(name), &wanted());
        assert_eq!(report.outcome(), Outcome::Ready, "{}", report.text());
    }
}

#[test]
fn quotes_may_come_over_a_unix_socket_and_from_a_service_that_cannot_be_asked() {
    let path = "/var/run/tdx-qgs/qgs.socket";
    let wanted = Wanted { quotes: QuoteService::Unix(path.into()), ..Wanted::default() };
    let mut machine = good("tdx");
    machine.set("vsock 2:4050", Answer::Missing);
    assert_eq!(examine(&machine, &wanted).outcome(), Outcome::Wrong);
    machine.set(&format!("device {path}"), text("usable"));
    assert_eq!(examine(&machine, &wanted).outcome(), Outcome::Ready);
    machine.set("command systemctl is-active qgsd", text("active"));
    let report = examine(&machine, &Wanted::default());
    assert_eq!(report.outcome(), Outcome::Unknown, "{}", report.text());
    assert!(report.text().contains("vsock_loopback"));
}

#[test]
fn a_machine_of_which_nothing_is_known_says_so_and_does_not_fail() {
    for tee in [None, Some(Tee::Tdx), Some(Tee::Snp), Some(Tee::Development)] {
        let report = examine(&Recording::default(), &Wanted { tee, ..wanted() });
        assert_ne!(report.outcome(), Outcome::Ready, "{}", report.text());
    }
}

#[test]
fn what_a_machine_says_cannot_move_the_cursor() {
    let mut machine = good("snp");
    machine.set("file /sys/class/dmi/id/bios_version", text("\u{1b}[2J evil"));
    assert!(!examine(&machine, &Wanted::default()).text().contains('\u{1b}'));
}
