//! Reports from the development platform, which plays the CPU outside the guest and is asked over a Unix socket.
//!
//! A request is 64 bytes of report data and one byte of privilege level (255: none). A response is one status byte; then,
//! after 0, provider, report and certificate table, each behind its length (u32, big-endian; an absent table has length
//! zero); after 1, an error message in the same form.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::{Tsm, TsmReport};
use crate::Error;

const NO_LEVEL: u8 = u8::MAX;
/// A quote or table longer than this is not one.
const MAX_PART: usize = 1 << 20;

/// Asks the development platform for reports. **Not confidential.**
#[derive(Debug)]
pub struct SocketTsm {
    stream: UnixStream,
    requests: u64,
}

impl SocketTsm {
    /// Takes the guest's end of the socket.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, requests: 0 }
    }
}

impl Tsm for SocketTsm {
    fn report(&mut self, report_data: &[u8; 64], privlevel: Option<u32>) -> Result<TsmReport, Error> {
        let gone = |error| Error::Tsm(format!("the development platform does not answer: {error}"));
        let level = match privlevel {
            None => NO_LEVEL,
            Some(level @ 0..=3) => level as u8,
            Some(level) => return Err(Error::Tsm(format!("privilege level {level} is not 0 to 3"))),
        };
        let mut request = [level; 65];
        request[..64].copy_from_slice(report_data);
        self.stream.write_all(&request).map_err(gone)?;
        let mut status = [0];
        self.stream.read_exact(&mut status).map_err(gone)?;
        if status != [0] {
            let message = read_part(&mut self.stream).map_err(gone)?;
            return Err(Error::Tsm(String::from_utf8_lossy(&message).into_owned()));
        }
        let mut part = || read_part(&mut self.stream).map_err(gone);
        let (provider, outblob, auxblob) = (part()?, part()?, part()?);
        self.requests += 1;
        Ok(TsmReport {
            provider: String::from_utf8_lossy(&provider).into_owned(),
            outblob,
            auxblob: (!auxblob.is_empty()).then_some(auxblob),
            generation: self.requests,
        })
    }
}

/// Reads one request; `None` at the end of the stream.
pub(crate) fn read_request(stream: &mut impl Read) -> std::io::Result<Option<([u8; 64], Option<u32>)>> {
    let mut request = [0; 65];
    if stream.read(&mut request[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut request[1..])?;
    let mut report_data = [0; 64];
    report_data.copy_from_slice(&request[..64]);
    Ok(Some((report_data, (request[64] != NO_LEVEL).then_some(u32::from(request[64])))))
}

/// Writes one response.
pub(crate) fn write_response(stream: &mut impl Write, answer: &Result<TsmReport, Error>) -> std::io::Result<()> {
    let mut response = Vec::new();
    let mut part = |bytes: &[u8]| {
        response.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        response.extend_from_slice(bytes);
    };
    let status = match answer {
        Ok(report) => {
            part(report.provider.as_bytes());
            part(&report.outblob);
            part(report.auxblob.as_deref().unwrap_or_default());
            0
        }
        Err(error) => {
            part(error.to_string().as_bytes());
            1
        }
    };
    response.insert(0, status);
    stream.write_all(&response)
}

fn read_part(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_PART {
        return Err(std::io::Error::other("its answer is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
