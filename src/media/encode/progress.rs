//! `-progress`: blocks of `key=value` lines, each ended by `progress=continue` or `progress=end`.

/// One report of a running encode. `progress=end` is no proof of success (ENCODING §6), so it is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tick {
    /// Frames encoded, of the first picture stream.
    pub frame: Option<u64>,
    /// Frames encoded per second of wall time.
    pub fps: Option<f64>,
    /// Seconds of media per second of wall time.
    pub speed: Option<f64>,
    /// The latest end of a packet over all outputs, seconds.
    pub out_seconds: Option<f64>,
    /// Bytes written to the first output.
    pub total_size: Option<u64>,
}

/// Collects the lines of a block. `N/A` and unknown keys are nothing.
#[derive(Debug, Default)]
pub(super) struct Block {
    tick: Tick,
}

impl Block {
    /// Takes a line; gives the tick when it ends a block.
    pub(super) fn line(&mut self, line: &str) -> Option<Tick> {
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        match key.trim() {
            "frame" => self.tick.frame = value.parse().ok(),
            "fps" => self.tick.fps = real(value),
            "speed" => self.tick.speed = real(value.trim_end_matches('x')),
            "total_size" => self.tick.total_size = value.parse().ok(),
            // `out_time_ms` is in microseconds too, an old mistake.
            "out_time_us" => self.tick.out_seconds = real(value).map(|micros| micros / 1e6),
            "progress" => return Some(std::mem::take(&mut self.tick)),
            _ => {}
        }
        None
    }
}

fn real(value: &str) -> Option<f64> {
    value.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_tick() {
        let text = "frame=132\nfps=61.20\nstream_0_0_q=-1.0\nbitrate= 957.2kbits/s\ntotal_size=635561\n\
                    out_time_us=5312000\nout_time_ms=5312000\nout_time=00:00:05.312000\ndup_frames=0\nspeed=6.29x\nprogress=end";
        let mut block = Block::default();
        let ticks: Vec<Tick> = text.lines().filter_map(|line| block.line(line)).collect();
        let expected = Tick {
            frame: Some(132),
            fps: Some(61.2),
            speed: Some(6.29),
            out_seconds: Some(5.312),
            total_size: Some(635_561),
        };
        assert_eq!(ticks, [expected]);
    }

    #[test]
    fn what_is_not_known_is_none() {
        let text = "frame=0\nfps=0.00\ntotal_size=N/A\nout_time_us=N/A\nspeed=N/A\nprogress=continue\n\
                    speed=   0x\nout_time_us=-9223372036854775807\ngarbage\n=\nprogress=continue";
        let mut block = Block::default();
        let ticks: Vec<Tick> = text.lines().filter_map(|line| block.line(line)).collect();
        assert_eq!(ticks[0], Tick { frame: Some(0), fps: Some(0.0), ..Tick::default() });
        assert_eq!(ticks[1], Tick { speed: Some(0.0), ..Tick::default() });
    }
}
