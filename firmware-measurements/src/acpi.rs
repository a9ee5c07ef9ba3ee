//! ACPI tables as QEMU hands them to the firmware, which measures three files: the loader's commands, the root pointer, and the
//! tables (QEMU, `hw/acpi/bios-linker-loader.c`, `hw/i386/acpi-build.c`).

use crate::Error;
use crate::bytes::Bytes;
use crate::event::Event;

const TABLES: &str = "etc/acpi/tables";
const ROOT: &str = "etc/acpi/rsdp";
const WHAT: &str = "ACPI tables";
const MAX_TABLES: u64 = 1 << 20;
const MAX_LOADER: usize = 64 << 10;
const HEADER: u64 = 36;
/// The loader's commands fill whole pages.
const LOADER_PAGE: usize = 4096;
/// Tables without addresses of others in them.
const PLAIN: [&[u8; 4]; 6] = [b"APIC", b"HPET", b"MCFG", b"WAET", b"SRAT", b"SLIT"];

/// The three files, as read from fw_cfg **after** the firmware enumerated PCI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    tables: Vec<u8>,
    root: Vec<u8>,
    loader: Vec<u8>,
}

struct Table {
    signature: [u8; 4],
    offset: u64,
    len: u64,
}

impl AcpiTables {
    /// The three files of a dump: `etc/acpi/tables`, `etc/acpi/rsdp`, `etc/table-loader`.
    ///
    /// # Errors
    /// The tables are cut, or were read before the firmware had enumerated PCI.
    pub fn new(tables: Vec<u8>, root: Vec<u8>, loader: Vec<u8>) -> Result<Self, Error> {
        if !(root.len() == 20 || root.len() == 36) || !root.starts_with(b"RSD PTR ") {
            return Err(Error::malformed(
                "ACPI root pointer",
                "it does not start with \"RSD PTR \" or has another length than 20 or 36",
            ));
        }
        if loader.is_empty() || !loader.len().is_multiple_of(128) || loader.len() > MAX_LOADER {
            return Err(Error::malformed("ACPI table loader", "its length is not that of whole commands of 128 bytes"));
        }
        list(&tables)?;
        Ok(Self { tables, root, loader })
    }

    /// From `etc/acpi/tables` alone: the other two follow from it where all tables are ones that QEMU always writes in the same way.
    ///
    /// # Errors
    /// As for [`Self::new`], or a table is there whose loader commands are not known.
    pub fn from_tables(tables: Vec<u8>) -> Result<Self, Error> {
        let found = list(&tables)?;
        let named = |signature: &[u8; 4]| found.iter().find(|table| table.signature == *signature);
        let need = |signature: &[u8; 4]| {
            let name = String::from_utf8_lossy(signature).into_owned();
            named(signature).ok_or_else(|| Error::malformed(WHAT, format!("there is no {name}")))
        };
        need(b"FACS")?;
        let mut loader = Loader::default();
        loader.allocate(ROOT, 16, 2);
        loader.allocate(TABLES, 64, 1);
        loader.checksum_of(need(b"DSDT")?);
        let facp = need(b"FACP")?;
        for (field, size) in [(36, 4), (40, 4), (140, 8)] {
            loader.pointer(TABLES, facp.offset + field, size);
        }
        loader.checksum_of(facp);
        let rsdt = need(b"RSDT")?;
        for table in &found {
            match &table.signature {
                b"FACS" | b"DSDT" | b"FACP" | b"RSDT" => {}
                plain if PLAIN.contains(&plain) => loader.checksum_of(table),
                other => {
                    return Err(Error::Unsupported(format!(
                        "ACPI table {}: give etc/table-loader and etc/acpi/rsdp of the same dump as well",
                        String::from_utf8_lossy(other)
                    )));
                }
            }
        }
        // The RSDT names the FACP and every plain table.
        let named = found.len() as u64 - 3;
        if rsdt.len != HEADER + 4 * named {
            return Err(Error::malformed(WHAT, "the RSDT does not name each table once"));
        }
        for n in 0..named {
            loader.pointer(TABLES, rsdt.offset + HEADER + 4 * n, 4);
        }
        loader.checksum_of(rsdt);
        loader.pointer(ROOT, 16, 4);
        loader.checksum(ROOT, 8, 0, 20);
        let mut root = b"RSD PTR \0BOCHS \0".to_vec();
        root.extend((rsdt.offset as u32).to_le_bytes());
        Ok(Self { root, loader: loader.finish(), tables })
    }

    /// How many vCPUs the tables describe: those present and those that can be added.
    pub fn vcpus(&self) -> Result<u32, Error> {
        let found = list(&self.tables)?;
        let apic = found.iter().find(|table| table.signature == *b"APIC");
        let apic = apic.ok_or_else(|| Error::malformed(WHAT, "there is no APIC table, which lists vCPUs"))?;
        let bytes = Bytes::new(WHAT, &self.tables);
        let (mut at, end, mut count) = (apic.offset + 44, apic.offset + apic.len, 0);
        while at < end {
            let [kind, len] = bytes.array(at)?;
            if len < 2 {
                return Err(bytes.malformed("an entry of the APIC table has no length"));
            }
            // Local APIC, local x2APIC.
            count += u32::from(kind == 0 || kind == 9);
            at += u64::from(len);
        }
        Ok(count)
    }

    /// The three files as the firmware reads them: table loader, root pointer, tables.
    pub fn files(&self) -> [&[u8]; 3] {
        [&self.loader, &self.root, &self.tables]
    }

    pub(crate) fn events(&self) -> [Event; 3] {
        [
            Event::of("acpi-loader", &self.loader, "ACPI: commands of the table loader (etc/table-loader)"),
            Event::of("acpi-rsdp", &self.root, "ACPI: root pointer (etc/acpi/rsdp)"),
            Event::of(
                "acpi-tables",
                &self.tables,
                "ACPI: the tables (etc/acpi/tables): vCPUs, devices, bridges, address windows",
            ),
        ]
    }
}

/// The tables, up to the zeros that follow them.
fn list(tables: &[u8]) -> Result<Vec<Table>, Error> {
    let bytes = Bytes::new(WHAT, tables);
    if bytes.len() > MAX_TABLES {
        return Err(bytes.malformed("more than 1 MiB"));
    }
    let (mut found, mut offset) = (Vec::new(), 0);
    while offset + 8 <= bytes.len() && bytes.array(offset)? != [0; 4] {
        let (signature, len) = (bytes.array(offset)?, u64::from(bytes.u32(offset + 4)?));
        if len < HEADER {
            return Err(bytes.malformed(format!("a table at {offset:#x} says it has {len} bytes")));
        }
        bytes.slice(offset, len)?;
        found.push(Table { signature, offset, len });
        offset += len;
    }
    if tables[offset.min(bytes.len()) as usize..].iter().any(|byte| *byte != 0) {
        return Err(bytes.malformed("there is something other than zeros behind the last table"));
    }
    if !found.iter().any(|table| table.signature == *b"MCFG") {
        return Err(Error::Contradiction(
            "the ACPI tables lack MCFG: they were read before the firmware had enumerated PCI, and change then; read them again later".into(),
        ));
    }
    Ok(found)
}

#[derive(Default)]
struct Loader(Vec<u8>);

impl Loader {
    fn command(&mut self, number: u32, parts: &[&[u8]]) {
        let end = self.0.len() + 128;
        self.0.extend(number.to_le_bytes());
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self.0.resize(end, 0);
    }

    fn allocate(&mut self, file: &str, alignment: u32, zone: u8) {
        self.command(1, &[&name(file), &alignment.to_le_bytes(), &[zone]]);
    }

    /// A pointer in a file into the tables.
    fn pointer(&mut self, file: &str, offset: u64, size: u8) {
        self.command(2, &[&name(file), &name(TABLES), &(offset as u32).to_le_bytes(), &[size]]);
    }

    fn checksum(&mut self, file: &str, result: u64, start: u64, len: u64) {
        let numbers = [result, start, len].map(|number| (number as u32).to_le_bytes());
        self.command(3, &[&name(file), numbers.as_flattened()]);
    }

    fn checksum_of(&mut self, table: &Table) {
        self.checksum(TABLES, table.offset + 9, table.offset, table.len);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(LOADER_PAGE), 0);
        self.0
    }
}

fn name(file: &str) -> [u8; 56] {
    let mut out = [0; 56];
    out[..file.len()].copy_from_slice(file.as_bytes());
    out
}
