//! With COCOON_TRACES naming a folder, what the local chain did goes there, so that TON's own emulator can be asked for the same
//! (`settlement/contracts/tests/replay`).

use std::fs::{File, create_dir_all};
use std::io::Write;
use std::path::Path;

/// A file of executions, one a line.
pub struct Trace(File);

impl Trace {
    /// Begins the file of this name; `None` if nobody asks for it.
    pub fn begin(name: &str) -> Option<Self> {
        let folder = Path::new(&std::env::var_os("COCOON_TRACES")?).join("local-chain");
        create_dir_all(&folder).expect("a folder for traces");
        Some(Self(File::create(folder.join(format!("{name}.jsonl"))).expect("a file for a trace")))
    }

    /// Adds an execution, as `Execution::to_json` gives it.
    pub fn write(&mut self, execution: &str) {
        self.0.write_all(format!("{execution}\n").as_bytes()).expect("a trace is written");
    }
}
