//! The shapes of toncenter's API v2, for the client and for the local chain's server.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use num_bigint::BigInt;
use serde_json::{Value, json};
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;

use crate::chain::StackValue;
use crate::error::Error;

/// Exit code with which toncenter answers for an account that has no code.
pub(crate) const EXIT_NOT_INITIALIZED: i32 = -13;
/// How validators word the refusal of an external message; the exit code follows.
pub(crate) const EXIT_CODE_MARK: &str = "exitcode=";
/// Nesting of tuples that is read or written.
const MAX_DEPTH: usize = 64;

pub(crate) fn malformed(what: &'static str, why: impl std::fmt::Display) -> Error {
    Error::Malformed { what, why: why.to_string() }
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(crate) fn boc(cell: &Cell) -> String {
    base64(Boc::encode(cell))
}

pub(crate) fn read_boc(text: &str) -> Result<Cell, Error> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| malformed("base64", error))?;
    Boc::decode(bytes).map_err(|error| malformed("a bag of cells", error))
}

pub(crate) fn read_hash(text: &str) -> Result<[u8; 32], Error> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| malformed("a hash in base64", error))?;
    bytes.try_into().map_err(|_| malformed("a hash in base64", "it is not 32 bytes long"))
}

/// `0x1f`, `-0x1f` or decimal.
pub(crate) fn read_int(text: &str) -> Result<BigInt, Error> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |hex| (hex, 16));
    // 257 bits are 78 decimal digits; more is no TVM integer.
    let plain = digits.len() <= 80 && digits.chars().all(|c| c.is_digit(radix));
    let value = BigInt::parse_bytes(digits.as_bytes(), radix).filter(|_| plain);
    let value = value.ok_or_else(|| malformed("an integer", text))?;
    Ok(if negative { -value } else { value })
}

fn hex_int(value: &BigInt) -> String {
    let (sign, digits) = (value.sign() == num_bigint::Sign::Minus, value.magnitude());
    format!("{}0x{digits:x}", if sign { "-" } else { "" })
}

/// A result stack, as the server writes it.
pub(crate) fn write_stack(stack: &[StackValue]) -> Value {
    let item = |value: &StackValue| match value {
        StackValue::Int(value) => json!(["num", hex_int(value)]),
        StackValue::Cell(cell) => json!(["cell", { "bytes": boc(cell) }]),
        StackValue::Slice(cell) => json!(["slice", { "bytes": boc(cell) }]),
        StackValue::Null => json!(["list", { "@type": "tvm.list", "elements": [] }]),
        StackValue::Tuple(items) => {
            json!(["tuple", { "@type": "tvm.tuple", "elements": items.iter().map(write_entry).collect::<Vec<_>>() }])
        }
    };
    stack.iter().map(item).collect()
}

fn write_entry(value: &StackValue) -> Value {
    match value {
        StackValue::Int(value) => {
            json!({ "@type": "tvm.stackEntryNumber", "number": { "@type": "tvm.numberDecimal", "number": value.to_string() } })
        }
        StackValue::Cell(cell) => {
            json!({ "@type": "tvm.stackEntryCell", "cell": { "@type": "tvm.cell", "bytes": boc(cell) } })
        }
        StackValue::Slice(cell) => {
            json!({ "@type": "tvm.stackEntrySlice", "slice": { "@type": "tvm.slice", "bytes": boc(cell) } })
        }
        StackValue::Null => json!({ "@type": "tvm.stackEntryList", "list": { "@type": "tvm.list", "elements": [] } }),
        StackValue::Tuple(items) => {
            let elements: Vec<_> = items.iter().map(write_entry).collect();
            json!({ "@type": "tvm.stackEntryTuple", "tuple": { "@type": "tvm.tuple", "elements": elements } })
        }
    }
}

/// A result stack, as the client reads it.
pub(crate) fn read_stack(value: &Value) -> Result<Vec<StackValue>, Error> {
    let items = value.as_array().ok_or_else(|| malformed("a stack", "it is no list"))?;
    items.iter().map(read_item).collect()
}

fn read_item(item: &Value) -> Result<StackValue, Error> {
    let cell = || read_boc(item[1]["bytes"].as_str().unwrap_or_default());
    match item[0].as_str().unwrap_or_default() {
        "num" => Ok(StackValue::Int(read_int(item[1].as_str().unwrap_or_default())?)),
        "null" => Ok(StackValue::Null),
        "cell" => Ok(StackValue::Cell(cell()?)),
        "slice" | "builder" => Ok(StackValue::Slice(cell()?)),
        "list" if item[1]["elements"].as_array().is_some_and(Vec::is_empty) => Ok(StackValue::Null),
        "list" | "tuple" => read_elements(&item[1], 0),
        other => Err(malformed("a stack item", other)),
    }
}

fn read_elements(value: &Value, depth: usize) -> Result<StackValue, Error> {
    let items = value["elements"].as_array().ok_or_else(|| malformed("a tuple", "it has no elements"))?;
    if depth > MAX_DEPTH {
        return Err(malformed("a tuple", "it is nested too deeply"));
    }
    Ok(StackValue::Tuple(items.iter().map(|item| read_entry(item, depth)).collect::<Result<_, _>>()?))
}

fn read_entry(entry: &Value, depth: usize) -> Result<StackValue, Error> {
    let cell = |value: &Value| read_boc(value["bytes"].as_str().unwrap_or_default());
    match entry["@type"].as_str().unwrap_or_default() {
        "tvm.stackEntryNumber" => {
            Ok(StackValue::Int(read_int(entry["number"]["number"].as_str().unwrap_or_default())?))
        }
        "tvm.stackEntryCell" => Ok(StackValue::Cell(cell(&entry["cell"])?)),
        "tvm.stackEntrySlice" => Ok(StackValue::Slice(cell(&entry["slice"])?)),
        "tvm.stackEntryList" if entry["list"]["elements"].as_array().is_some_and(Vec::is_empty) => Ok(StackValue::Null),
        "tvm.stackEntryList" => read_elements(&entry["list"], depth + 1),
        "tvm.stackEntryTuple" => read_elements(&entry["tuple"], depth + 1),
        other => Err(malformed("a stack entry", other)),
    }
}

/// Arguments, as the client writes them. Toncenter takes no null and no tuple as an argument.
pub(crate) fn write_arguments(args: &[StackValue]) -> Result<Value, Error> {
    args.iter()
        .map(|value| match value {
            StackValue::Int(value) => Ok(json!(["num", hex_int(value)])),
            StackValue::Cell(cell) => Ok(json!(["tvm.Cell", boc(cell)])),
            StackValue::Slice(cell) => Ok(json!(["tvm.Slice", boc(cell)])),
            StackValue::Null | StackValue::Tuple(_) => {
                Err(malformed("an argument that the network's API takes", "give integers, cells or slices"))
            }
        })
        .collect()
}

/// Arguments, as the server reads them.
pub(crate) fn read_arguments(value: &Value) -> Result<Vec<StackValue>, Error> {
    let Some(items) = value.as_array() else { return Ok(Vec::new()) };
    items
        .iter()
        .map(|item| {
            let text = item[1].as_str().unwrap_or_default();
            match item[0].as_str().unwrap_or_default() {
                "num" => {
                    let number = item[1].as_i64().map(|value| value.to_string());
                    Ok(StackValue::Int(read_int(number.as_deref().unwrap_or(text))?))
                }
                "tvm.Cell" => Ok(StackValue::Cell(read_boc(text)?)),
                "tvm.Slice" | "tvm.Builder" => Ok(StackValue::Slice(read_boc(text)?)),
                other => Err(malformed("an argument of a get-method", other)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tycho_types::cell::CellBuilder;

    #[test]
    fn stacks_survive_the_wire() {
        let cell = CellBuilder::build_from(7u32).unwrap();
        let inner = StackValue::Tuple(vec![StackValue::int(-1), StackValue::Null, StackValue::Slice(cell.clone())]);
        let stack = vec![
            StackValue::int(0),
            StackValue::Int(-BigInt::from(2).pow(256)),
            StackValue::uint256(&[0xff; 32]),
            StackValue::Null,
            StackValue::Cell(cell.clone()),
            StackValue::Tuple(vec![StackValue::Cell(cell.clone()), inner, StackValue::Tuple(Vec::new())]),
        ];
        assert_eq!(read_stack(&write_stack(&stack)).unwrap(), stack);
        let args = vec![StackValue::uint256(&[1; 32]), StackValue::int(-5), StackValue::Slice(cell)];
        assert_eq!(read_arguments(&write_arguments(&args).unwrap()).unwrap(), args);
        assert!(write_arguments(&[StackValue::Null]).is_err());
        for bad in ["", "0x", "1 ", "--1", "0xg"] {
            assert!(read_int(bad).is_err(), "{bad}");
        }
    }
}
