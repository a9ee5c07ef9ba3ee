//! Get-methods on tycho-vm.

use num_bigint::BigInt;
use tycho_executor::ParsedConfig;
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::dict::Dict;
use tycho_types::models::Account;
use tycho_vm::{BehaviourModifiers, OwnedCellSlice, RcStackValue, SafeRc, Stack, VmCaller, VmGetterArgs};

use crate::chain::{GetResult, StackValue};
use crate::error::Error;

/// Runs `method` on an account's code at `now`.
pub(super) fn run(
    config: &ParsedConfig,
    account: &Account,
    method: &str,
    args: &[StackValue],
    now: u32,
) -> Result<GetResult, Error> {
    let caller = VmCaller {
        libraries: Dict::new(),
        behaviour_modifiers: BehaviourModifiers::default(),
        config: config.raw.params.clone(),
    };
    let mut getter_args = VmGetterArgs::default();
    getter_args.now = now;
    let stack = args.iter().map(to_vm).collect();
    let output = caller
        .call_getter_ext(account, method, stack, &getter_args, None)
        .map_err(|error| Error::Execution(format!("{method}: {error}")))?;
    let stack = output.stack.iter().map(from_vm).collect::<Result<_, _>>()?;
    Ok(GetResult { exit_code: output.exit_code, stack, gas_used: output.gas_used })
}

fn to_vm(value: &StackValue) -> RcStackValue {
    match value {
        StackValue::Null => Stack::make_null(),
        StackValue::Int(value) => RcStackValue::new_dyn_value(value.clone()),
        StackValue::Cell(cell) => RcStackValue::new_dyn_value(cell.clone()),
        StackValue::Slice(cell) => RcStackValue::new_dyn_value(OwnedCellSlice::new_allow_exotic(cell.clone())),
        StackValue::Tuple(items) => {
            let items: Vec<RcStackValue> = items.iter().map(to_vm).collect();
            SafeRc::new(items).into_dyn_value()
        }
    }
}

fn from_vm(value: &RcStackValue) -> Result<StackValue, Error> {
    if value.is_null() {
        return Ok(StackValue::Null);
    }
    if let Some(int) = value.as_int() {
        return Ok(StackValue::Int(BigInt::clone(int)));
    }
    if let Some(cell) = value.as_cell() {
        return Ok(StackValue::Cell(Cell::clone(cell)));
    }
    if let Some(slice) = value.as_cell_slice() {
        return Ok(StackValue::Slice(CellBuilder::build_from(slice.apply())?));
    }
    if let Some(builder) = value.as_cell_builder() {
        return Ok(StackValue::Slice(builder.clone().build()?));
    }
    if let Some(items) = value.as_tuple() {
        return Ok(StackValue::Tuple(items.iter().map(from_vm).collect::<Result<_, _>>()?));
    }
    Err(Error::Unexpected("a get-method that returns a continuation".into()))
}
