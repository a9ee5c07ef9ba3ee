//! Messages on their way, and what must hold of every one that arrives.

use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::models::{
    Account, AccountState, ComputePhase, IntAddr, IntMsgInfo, Message, MessageLayout, MsgInfo, OwnedMessage, StateInit,
    TxInfo,
};

use super::History;
use super::books::Incoming;
use super::money::{Money, outs};
use super::parties::person;
use crate::address::Address;
use crate::local::config;
use crate::local::execute::{Delivery, deliver, empty_account, envelope};
use crate::local::execution::Execution;

impl History {
    /// Puts a message of a person's on its way.
    pub(super) fn send(&mut self, from: u8, to: Address, value: u64, body: Option<Cell>, init: Option<StateInit>) {
        self.lt += 10;
        let info = IntMsgInfo {
            ihr_disabled: true,
            // One in ten cannot come back.
            bounce: !self.random.one_in(10),
            src: person(from).into(),
            dst: to.into(),
            value: u128::from(value).try_into().map(|tokens: tycho_types::num::Tokens| tokens.into()).unwrap(),
            created_lt: self.lt,
            created_at: self.now as u32,
            ..IntMsgInfo::default()
        };
        let long = body.as_ref().is_some_and(|body| body.bit_len() > 200);
        let message = OwnedMessage {
            info: MsgInfo::Int(info),
            init,
            body: body.unwrap_or_default().into(),
            layout: long.then_some(MessageLayout { init_to_cell: true, body_to_cell: true }),
        };
        let cell = CellBuilder::build_from(message).unwrap();
        self.pending.entry((person(from), to)).or_default().push_back(cell);
    }

    /// Delivers everything that is under way, in some order.
    pub(super) fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.deliver_one();
        }
    }

    pub(super) fn deliver_one(&mut self) {
        let n = self.random.below(self.pending.len());
        let Some(pair) = self.pending.keys().nth(n).copied() else { return };
        let queue = self.pending.get_mut(&pair).unwrap();
        let message = queue.pop_front().unwrap();
        if queue.is_empty() {
            self.pending.remove(&pair);
        }
        self.deliver(pair.1, message);
    }

    pub(super) fn is_contract(&self, address: &Address) -> bool {
        *address == self.registry || self.provider_at.contains_key(address) || self.place_at.contains_key(address)
    }

    pub(super) fn balance(account: Option<&Account>) -> u128 {
        account.map_or(0, |account| account.balance.tokens.into())
    }

    pub(super) fn deliver(&mut self, to: Address, cell: Cell) {
        if !self.is_contract(&to) {
            // A person, or nobody: what arrives stays.
            let message = cell.parse::<Message<'_>>().unwrap();
            let (MsgInfo::Int(info), mut body) = (&message.info, message.body) else { panic!("not internal") };
            self.credit(to, body.load_u32().unwrap_or_default(), info.value.tokens.into());
            return;
        }
        self.delivered += 1;
        self.lt += 100;
        let before = self.accounts.get(&to).cloned().unwrap_or_else(|| empty_account().unwrap());
        let envelope = envelope(&cell).unwrap().unwrap();
        let params = config::executor_params(self.now as u32, self.lt, [0; 32]);
        let delivery = deliver(&self.config, &params, self.lt, &envelope, cell.clone(), &before).unwrap();
        if let Some(trace) = &mut self.trace {
            trace.write(&Execution::of(&params, self.lt, &before, cell.clone(), &delivery).unwrap().to_json());
        }
        let Delivery::Done(output) = delivery else { panic!("internal messages are always taken") };
        let transaction = output.transaction.load().unwrap();
        let TxInfo::Ordinary(info) = transaction.load_info().unwrap() else { panic!("not ordinary") };
        let (old, new) = (before.load_account().unwrap(), output.new_state.load_account().unwrap());
        let message = cell.parse::<Message<'_>>().unwrap();
        let MsgInfo::Int(header) = &message.info else { panic!("not internal") };
        let mut body = message.body;
        let op = if header.bounced { 0xffff_ffff } else { body.load_u32().unwrap_or_default() };

        // Value is conserved, transaction by transaction.
        let sent: u128 = transaction
            .iter_out_msgs()
            .map(|message| match message.unwrap().info {
                MsgInfo::Int(info) => u128::from(info.value.tokens) + u128::from(info.fwd_fee),
                _ => 0,
            })
            .sum();
        let came = u128::from(header.value.tokens);
        let fees = u128::from(transaction.total_fees.tokens);
        let (had, has) = (Self::balance(old.as_ref()), Self::balance(new.as_ref()));
        assert_eq!(had + came, has + sent + fees, "value is not conserved by {op:#x} at {to}");

        // What is refused loses nothing but itself.
        let rent = info.storage_phase.as_ref().map_or(0, |phase| u128::from(phase.storage_fees_collected));
        if info.aborted {
            assert!(has + rent >= had, "{to} lost {} to a refused {op:#x}", had - has);
            assert_eq!(data_of(old.as_ref()), data_of(new.as_ref()), "a refused {op:#x} changed {to}");
            if let ComputePhase::Executed(phase) = &info.compute_phase {
                *self.refusals.entry((op, phase.exit_code)).or_default() += 1;
            }
        }
        let state = (output.new_state.clone(), new);
        self.accounts.insert(to, state.0);
        let outs = outs(&transaction);
        let paid = outs.iter().map(|out| out.amount).sum();
        let IntAddr::Std(from) = header.src.clone() else { panic!("a message from nowhere") };
        let came_in = Incoming { from: from.into(), op, bounce: header.bounce, body, taken: !info.aborted };
        let money = Money { had, came, has, fees, rent };
        self.in_debt += usize::from(!header.bounce && rent > had);
        match self.place_at.get(&to).copied() {
            Some(n) => self.channel_moved(n, came_in.from, op, came_in.taken, &money, &outs),
            None => self.booked(to, &came_in, &money, &outs, old.as_ref()),
        }
        for out in &outs {
            if !self.is_contract(&out.to) {
                *self.sent.entry((out.to, out.op)).or_default() += out.value;
            }
        }
        for message in transaction.iter_out_msgs() {
            let message = message.unwrap();
            let MsgInfo::Int(info) = &message.info else { continue };
            let IntAddr::Std(address) = &info.dst else { continue };
            let cell = CellBuilder::build_from(&message).unwrap();
            self.pending.entry((to, address.clone().into())).or_default().push_back(cell);
        }
        if !info.aborted {
            *self.kinds.entry(op).or_default() += 1;
            self.look(to, op, body, paid, &state.1);
        }
    }
}

fn data_of(account: Option<&Account>) -> Option<Cell> {
    match &account?.state {
        AccountState::Active(state) => state.data.clone(),
        _ => None,
    }
}
