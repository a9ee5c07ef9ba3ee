//! What was measured into a TDX guest's runtime registers, and its replay. Schema: `docs/schemas/event-log.cddl`.

use aws_lc_rs::digest;

use crate::Error;
use crate::cbor::{self, Fields, Value};
use crate::types::Measurement;

const WHAT: &str = "event log";

/// One extension of a runtime register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// RTMR index, 0 to 3.
    pub register: u8,
    /// What kind of thing was measured, for people and policies; not itself measured.
    pub kind: String,
    /// SHA-384 that the register was extended with.
    pub digest: [u8; 48],
    /// What was measured, or a description of it; may be empty.
    pub data: Vec<u8>,
}

/// Events in the order in which they happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventLog(pub Vec<Event>);

impl EventLog {
    /// The registers after all events: each starts at zero and becomes `SHA-384(register || digest)` with each event
    /// (Intel TDX Module 1.5 Base Architecture Specification, "RTMR: Run-Time Measurement Registers").
    pub fn replay(&self) -> Result<[Measurement; 4], Error> {
        let mut registers = [Measurement([0; 48]); 4];
        for event in &self.0 {
            let register = registers.get_mut(usize::from(event.register)).ok_or(Error::Register(event.register))?;
            let mut context = digest::Context::new(&digest::SHA384);
            context.update(&register.0);
            context.update(&event.digest);
            register.0.copy_from_slice(context.finish().as_ref());
        }
        Ok(registers)
    }

    /// Deterministic CBOR: an array of events.
    pub fn to_cbor(&self) -> Vec<u8> {
        let events = self.0.iter().map(|event| {
            cbor::map([
                (0, Value::from(event.register)),
                (1, Value::from(event.kind.as_str())),
                (2, Value::Bytes(event.digest.to_vec())),
                (3, Value::Bytes(event.data.clone())),
            ])
        });
        cbor::encode(&Value::Array(events.collect()))
    }

    /// Reads an event log; registers outside 0 to 3 are refused.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        let Value::Array(items) = cbor::decode(WHAT, bytes)? else {
            return Err(Error::Field { what: WHAT, detail: "must be an array".into() });
        };
        let events = items.into_iter().map(|item| {
            let mut fields = Fields::new(WHAT, item)?;
            let register = fields.uint(0)?;
            let register = u8::try_from(register).map_err(|_| Error::Register(u8::MAX))?;
            if register > 3 {
                return Err(Error::Register(register));
            }
            let event = Event { register, kind: fields.text(1)?, digest: fields.array(2)?, data: fields.bytes(3)? };
            fields.finish()?;
            Ok(event)
        });
        events.collect::<Result<_, _>>().map(Self)
    }
}
