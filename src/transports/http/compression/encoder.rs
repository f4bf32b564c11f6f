//! The three encoders, each writing into memory, at settings that suit answers made for one client and sent once.
//!
//! Measured on JSON, one core: zstd 3 does 300 MB/s down to 20 %, gzip 4 110 MB/s to 19 % (6, the usual choice, half
//! of that to 18 %), brotli 4 80 MB/s to 19 % (5 half of that).

use std::io::{self, Write};
use std::mem;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::negotiation::Coding;

const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: i32 = 4;
const GZIP_LEVEL: u32 = 4;

/// How far back zstd and brotli look, as a power of two. It bounds what a long answer costs in memory: 2.5 MiB with
/// brotli (3.6 with the window of its own choice), 1.3 MiB with zstd; gzip has its own 0.3 MiB.
const WINDOW: u8 = 18;

/// Brotli's buffer on the way out.
const BROTLI_BUFFER: usize = 4096;

/// One body being compressed.
pub enum Encoder {
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

/// All of `body` at once.
pub fn whole(coding: Coding, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::new(coding, Some(body.len()))?;
    encoder.write(body)?;
    encoder.finish()
}

impl Encoder {
    /// An encoder for a body of `length` bytes, if that is known.
    pub fn new(coding: Coding, length: Option<usize>) -> io::Result<Encoder> {
        Ok(match coding {
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW.into())?;
                encoder.set_pledged_src_size(length.map(|length| length as u64))?;
                Encoder::Zstd(encoder)
            }
            Coding::Brotli => {
                // Its size hint stays unset: from quality 5 on it made small bodies take twenty times as long.
                let mut settings = BrotliEncoderParams::default();
                (settings.quality, settings.lgwin) = (BROTLI_QUALITY, WINDOW.into());
                Encoder::Brotli(Box::new(CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, &settings)))
            }
            Coding::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
        })
    }

    /// Takes in a piece; what comes of it may stay inside for long.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Zstd(encoder) => encoder.write_all(piece),
            Encoder::Brotli(encoder) => encoder.write_all(piece),
            Encoder::Gzip(encoder) => encoder.write_all(piece),
        }
    }

    /// Moves all that is inside to the output, so that the client can read every byte written so far.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
        }
    }

    pub fn has_output(&self, least: usize) -> bool {
        let output = match self {
            Encoder::Zstd(encoder) => encoder.get_ref(),
            Encoder::Brotli(encoder) => encoder.get_ref(),
            Encoder::Gzip(encoder) => encoder.get_ref(),
        };
        output.len() >= least
    }

    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(match self {
            Encoder::Zstd(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Gzip(encoder) => encoder.get_mut(),
        })
    }

    /// The last of the output.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Brotli(encoder) => Ok(encoder.into_inner()),
            Encoder::Gzip(encoder) => encoder.finish(),
        }
    }
}
