//! API v3, the index: REST, with whole traces and without cells of transactions.

use cocoon_attestation::types::{Digest, UnixTime};
use serde_json::{Value, json};
use tycho_types::cell::Cell;

use super::json::{boc, malformed, read_boc, read_hash, read_int};
use super::{PAGE, Toncenter};
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::chain::{
    AccountState, BlockRef, EXIT_BAD_STATE, EXIT_NO_GAS, EXIT_NO_STATE, EXIT_SUSPENDED, GetResult, MessageSummary,
    StackValue, Trace, TxSummary,
};
use crate::error::Error;

/// Nesting of tuples that is read.
const MAX_DEPTH: usize = 64;

/// A number, written as one or as text.
fn number<T: TryFrom<i64>>(value: &Value, what: &'static str) -> Result<T, Error> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| malformed(what, format!("the number {value}")))
}

/// An amount; an absent one is nothing.
fn amount(value: &Value) -> Result<Nanoton, Error> {
    if value.is_null() { Ok(Nanoton::ZERO) } else { number(value, "an amount in nanoton").map(Nanoton) }
}

fn hash(value: &Value) -> Result<[u8; 32], Error> {
    read_hash(value.as_str().unwrap_or_default())
}

fn address(value: &Value) -> Result<Option<Address>, Error> {
    value.as_str().filter(|text| !text.is_empty()).map(str::parse).transpose()
}

fn list<'a>(value: &'a Value, what: &'static str) -> Result<&'a Vec<Value>, Error> {
    value.as_array().ok_or_else(|| malformed(what, "it is no list"))
}

fn block(block: &Value) -> Result<(BlockRef, NetworkId), Error> {
    let what = "a block";
    let reference = BlockRef {
        seqno: number(&block["seqno"], what)?,
        root_hash: Digest(hash(&block["root_hash"])?),
        time: UnixTime(number(&block["gen_utime"], what)?),
    };
    Ok((reference, NetworkId(number(&block["global_id"], what)?)))
}

/// Percent-encodes what is not plain in a query: `+`, `/` and `=` of base64, and `:` of addresses.
fn query(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

impl Toncenter {
    pub(super) async fn v3_head(&self) -> Result<(BlockRef, NetworkId), Error> {
        block(&self.get("/masterchainInfo").await?["last"])
    }

    pub(super) async fn v3_block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
        let answer = self.get(&format!("/blocks?workchain=-1&seqno={seqno}&limit=1")).await?;
        let found = list(&answer["blocks"], "a list of blocks")?.first().map(block).transpose()?;
        match found {
            Some((reference, _)) if reference.seqno != seqno => Err(malformed("the block asked for", reference.seqno)),
            other => Ok(other.map(|(reference, _)| reference)),
        }
    }

    pub(super) async fn v3_account(&self, account: &Address) -> Result<AccountState, Error> {
        let path = format!("/accountStates?address={}&include_boc=true", query(&account.to_string()));
        let answer = self.get(&path).await?;
        let Some(state) = list(&answer["accounts"], "a list of accounts")?.first() else {
            return Ok(AccountState::default());
        };
        if address(&state["address"])? != Some(*account) {
            return Err(malformed("the account asked for", &state["address"]));
        }
        let cell = |name: &str| state[name].as_str().map(read_boc).transpose();
        let code = cell("code_boc")?;
        let active = state["status"] == "active";
        if active && code.is_none() {
            return Err(malformed("an account", "it is active and has no code"));
        }
        let last = |name: &str| Some(&state[name]).filter(|value| !value.is_null());
        Ok(AccountState {
            balance: amount(&state["balance"])?,
            active,
            code_hash: code.as_ref().map(|code| code.repr_hash().0),
            code,
            data: cell("data_boc")?,
            last_lt: last("last_transaction_lt").map_or(Ok(0), |lt| number::<u64>(lt, "an account"))?,
            last_hash: last("last_transaction_hash").map_or(Ok([0; 32]), hash)?,
        })
    }

    pub(super) async fn v3_run_get(
        &self,
        account: &Address,
        method: &str,
        args: &[StackValue],
    ) -> Result<Option<GetResult>, Error> {
        let stack: Vec<Value> = args.iter().map(argument).collect::<Result<_, _>>()?;
        let body = json!({ "address": account.to_string(), "method": method, "stack": stack });
        let result = self.call_path("/runGetMethod", Some(&body)).await?;
        let exit_code = number(&result["exit_code"], "a get-method's result")?;
        if exit_code == super::json::EXIT_NOT_INITIALIZED {
            return Ok(None);
        }
        let stack = list(&result["stack"], "a stack")?.iter().map(|item| entry(item, 0)).collect::<Result<_, _>>()?;
        let gas_used = number(&result["gas_used"], "a get-method's result")?;
        Ok(Some(GetResult { exit_code, stack, gas_used }))
    }

    pub(super) async fn v3_transactions(
        &self,
        account: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, Error> {
        let end = before.map_or_else(String::new, |(lt, _)| format!("&end_lt={}", lt.saturating_sub(1)));
        let account_query = query(&account.to_string());
        let path = format!("/transactions?account={account_query}&limit={}&sort=desc{end}", limit.min(PAGE));
        let answer = self.get(&path).await?;
        list(&answer["transactions"], "a list of transactions")?.iter().map(transaction).collect()
    }

    pub(super) async fn v3_trace(&self, message: &[u8; 32]) -> Result<Option<Trace>, Error> {
        let path = format!("/traces?msg_hash={}&limit=1", query(&super::json::base64(message)));
        let answer = self.get(&path).await?;
        let Some(trace) = list(&answer["traces"], "a list of traces")?.first() else { return Ok(None) };
        let what = "a trace";
        // An emulated transaction is a guess about a block that does not exist yet: nothing has arrived by it.
        let all = list(&trace["transactions_order"], what)?
            .iter()
            .map(|hash| &trace["transactions"][hash.as_str().unwrap_or_default()]);
        let (emulated, made): (Vec<_>, Vec<_>) = all.partition(|tx| tx["emulated"] == true);
        let transactions = made.into_iter().map(transaction).collect::<Result<Vec<_>, _>>()?;
        if transactions.is_empty() {
            return Ok(None);
        }
        let info = &trace["trace_info"];
        let pending: u64 =
            if info["pending_messages"].is_null() { 0 } else { number(&info["pending_messages"], what)? };
        let finished =
            info["trace_state"] == "complete" && trace["is_incomplete"] != true && pending == 0 && emulated.is_empty();
        Ok(Some(Trace { transactions, finished }))
    }
}

fn argument(value: &StackValue) -> Result<Value, Error> {
    let item = |kind: &str, value: String| Ok(json!({ "type": kind, "value": value }));
    match value {
        StackValue::Int(int) if int.sign() == num_bigint::Sign::Minus => {
            item("num", format!("-0x{:x}", int.magnitude()))
        }
        StackValue::Int(int) => item("num", format!("0x{:x}", int.magnitude())),
        StackValue::Cell(cell) => item("cell", boc(cell)),
        StackValue::Slice(cell) => item("slice", boc(cell)),
        StackValue::Null | StackValue::Tuple(_) => {
            Err(malformed("an argument that the network's API takes", "give integers, cells or slices"))
        }
    }
}

fn entry(item: &Value, depth: usize) -> Result<StackValue, Error> {
    if depth > MAX_DEPTH {
        return Err(malformed("a tuple", "it is nested too deeply"));
    }
    let value = &item["value"];
    let cell = || -> Result<Cell, Error> { read_boc(value.as_str().unwrap_or_default()) };
    match item["type"].as_str().unwrap_or_default() {
        "num" => Ok(StackValue::Int(read_int(value.as_str().unwrap_or_default())?)),
        "null" => Ok(StackValue::Null),
        "cell" => Ok(StackValue::Cell(cell()?)),
        "slice" | "builder" => Ok(StackValue::Slice(cell()?)),
        "list" if value.as_array().is_some_and(Vec::is_empty) => Ok(StackValue::Null),
        "list" | "tuple" => {
            let items = list(value, "a tuple")?.iter().map(|item| entry(item, depth + 1));
            Ok(StackValue::Tuple(items.collect::<Result<_, _>>()?))
        }
        other => Err(malformed("a stack item", other)),
    }
}

/// A message between accounts as seen from its end that is not `peer`.
fn message(message: &Value, peer: &str) -> Result<Option<MessageSummary>, Error> {
    if address(&message["source"])?.is_none() || address(&message["destination"])?.is_none() {
        return Ok(None);
    }
    let Some(peer) = address(&message[peer])? else { return Ok(None) };
    let bounced = message["bounced"] == true;
    let op = match message["opcode"].as_str() {
        Some(text) if !bounced => Some(u32::try_from(read_int(text)?).map_err(|_| malformed("an operation", text))?),
        _ => None,
    };
    // The index may leave either out: whoever needs it asks for it (`contracts::events::of`).
    let cell = |content: &Value| content["body"].as_str().map(read_boc).transpose();
    let (body, init) = (cell(&message["message_content"])?, cell(&message["init_state"])?);
    let (value, op) = (amount(&message["value"])?, op.filter(|op| *op != 0));
    Ok(Some(MessageSummary { peer, value, op, bounced, body, init }))
}

fn transaction(tx: &Value) -> Result<TxSummary, Error> {
    let what = "a transaction";
    let description = &tx["description"];
    if description["type"] != "ord" {
        return Err(malformed(what, "it is not an ordinary one"));
    }
    let compute = &description["compute_ph"];
    let skipped = compute["skipped"] == true;
    let (compute_code, gas_used) = if skipped {
        let code = match compute["reason"].as_str().unwrap_or_default() {
            "no_state" => EXIT_NO_STATE,
            "bad_state" => EXIT_BAD_STATE,
            "no_gas" => EXIT_NO_GAS,
            "suspended" => EXIT_SUSPENDED,
            other => return Err(malformed(what, format!("skipped because of {other:?}"))),
        };
        (code, 0)
    } else {
        (number(&compute["exit_code"], what)?, number(&compute["gas_used"], what)?)
    };
    let action = &description["action"];
    let action_failed = action.is_object() && action["success"] != true;
    let exit_code = if action_failed { number(&action["result_code"], what)? } else { compute_code };
    let mut sent = Vec::new();
    let mut out_msg_hashes = Vec::new();
    let mut fees = amount(&tx["total_fees"])?;
    for out in list(&tx["out_msgs"], what)? {
        if let Some(summary) = message(out, "destination")? {
            fees = fees.saturating_add(amount(&out["fwd_fee"])?);
            sent.push(summary);
        }
        out_msg_hashes.push(hash(&out["hash"])?);
    }
    let in_msg = &tx["in_msg"];
    let received = if in_msg.is_null() { None } else { message(in_msg, "source")? };
    let deploys = !in_msg["init_state"].is_null();
    let previous = match number(&tx["prev_trans_lt"], what)? {
        0 => None,
        lt => Some((lt, hash(&tx["prev_trans_hash"])?)),
    };
    // As for cells: a plain transfer to an account without code stays there, which is no failure to people.
    let kept = skipped && !deploys && description["bounce"].is_null() && tx["end_status"] != "active";
    Ok(TxSummary {
        account: address(&tx["account"])?.ok_or_else(|| malformed(what, "no account"))?,
        lt: number(&tx["lt"], what)?,
        hash: hash(&tx["hash"])?,
        time: UnixTime(number(&tx["now"], what)?),
        exit_code,
        failed: description["aborted"] == true && !kept,
        gas_used,
        fees,
        value_in: received.as_ref().map_or(Nanoton::ZERO, |message| message.value),
        value_out: sent.iter().map(|message| message.value).sum(),
        received,
        sent,
        in_msg_hash: if in_msg.is_null() { [0; 32] } else { hash(&in_msg["hash"])? },
        out_msg_hashes,
        previous,
        existed: tx["orig_status"] != "nonexist",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::events;

    #[test]
    fn a_body_that_is_left_out_is_not_taken_for_an_empty_one() {
        let (one, other) = (format!("0:{}", "11".repeat(32)), format!("0:{}", "22".repeat(32)));
        let mut row = json!({ "source": one, "destination": other, "value": "5", "bounced": false, "opcode": "0x43020008",
                              "message_content": null, "init_state": null });
        let read = message(&row, "source").unwrap().unwrap();
        assert_eq!((read.op, &read.body, &read.init), (Some(0x4302_0008), &None, &None));
        assert!(matches!(events::of(&read), Err(Error::Incomplete(_))));
        // Nobody needs what a plain transfer says.
        row["opcode"] = Value::Null;
        assert_eq!(events::of(&message(&row, "source").unwrap().unwrap()).unwrap(), None);
        let init = crate::contracts::provider::prune(1, &cocoon_attestation::types::EnclaveKey([3; 32])).unwrap();
        (row["message_content"], row["init_state"]) = (json!({ "body": boc(&init) }), json!({ "body": boc(&init) }));
        let read = message(&row, "source").unwrap().unwrap();
        assert_eq!((read.body.as_ref(), read.init.as_ref()), (Some(&init), Some(&init)));
    }
}
