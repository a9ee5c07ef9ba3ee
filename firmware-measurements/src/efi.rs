//! Events that OVMF and the kernel's EFI stub measure on the way from reset to Linux (TCG, "PC Client Platform Firmware Profile";
//! the names are edk2's).

use crate::event::Event;
use crate::guid::Guid;

const GLOBAL: Guid = Guid::new(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
const SECURITY: Guid = Guid::new(0xd719_b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);
/// Name of the firmware volume with the drivers, and of the boot manager's screen in it.
pub(crate) const DRIVERS_VOLUME: Guid =
    Guid::new(0x7cb8_bdc9, 0xf8eb, 0x4f34, [0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1]);
pub(crate) const UI_APP: Guid =
    Guid::new(0x462c_aa21, 0x7614, 0x4503, [0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31]);

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The five variables of Secure Boot, none of which exists: Secure Boot is off.
pub(crate) fn secure_boot_variables() -> Vec<Event> {
    let names = [("SecureBoot", GLOBAL), ("PK", GLOBAL), ("KEK", GLOBAL), ("db", SECURITY), ("dbx", SECURITY)];
    let event = |(name, vendor): (&str, Guid)| {
        // UEFI_VARIABLE_DATA: vendor, length of the name in characters, length of the data, name, data.
        let mut data = vendor.0.to_vec();
        data.extend((name.len() as u64).to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        data.extend(utf16(name));
        Event::of(
            &format!("variable-{name}"),
            &data,
            format!("variable {name}, which does not exist: Secure Boot is off"),
        )
    };
    names.map(event).to_vec()
}

/// The end of a stage.
pub(crate) fn separator(meaning: &str) -> Event {
    Event::of("separator", &[0; 4], meaning)
}

/// The boot order of a guest without variables: one entry, which is the firmware's own screen.
pub(crate) fn boot_variables() -> [Event; 2] {
    let mut option = 0x109_u32.to_le_bytes().to_vec(); // active, hidden, an application
    option.extend(0x2c_u16.to_le_bytes()); // length of the path
    option.extend(utf16("UiApp\0"));
    for (subtype, name) in [(7, DRIVERS_VOLUME), (6, UI_APP)] {
        option.extend([4, subtype, 20, 0]);
        option.extend(name.0);
    }
    option.extend([0x7f, 0xff, 4, 0]);
    [
        Event::of("variable-BootOrder", &[0, 0], "variable BootOrder: Boot0000 alone"),
        Event::of("variable-Boot0000", &option, "variable Boot0000: the firmware's own screen"),
    ]
}

/// An action, measured by its words.
pub(crate) fn action(name: &str, words: &str) -> Event {
    Event::of(name, words.as_bytes(), format!("the words {words:?}"))
}

/// Options that the firmware gives the kernel, as the kernel measures them.
pub(crate) fn load_options(options: &str) -> Event {
    let mut data = utf16(options);
    data.extend([0, 0]);
    Event::of("command-line", &data, format!("the command line {options:?} in UTF-16, with a NUL"))
}
