//! Spells filters and the graph that shares one decode.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::domain::preset::{Flip, MediaTime};
use crate::domain::{FieldOrder, Rotation};
use crate::media::plan::{EncodePlan, Feed, Filter, Joining, Matrix, Range, Signal, Transfer};

/// A chain as `-vf` and `-af` take it.
pub(super) fn chain(filters: &[Filter]) -> String {
    filters.iter().copied().map(spell).collect::<Vec<_>>().join(",")
}

/// The graph of pictures that more than one file uses: what their chains begin with alike is done once, then the
/// picture is split; pictures that are made of a larger one branch off behind it. Pictures of one file only are left
/// to a plain `-vf`.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) text: Option<String>,
    /// Label by position in the plan.
    labels: BTreeMap<usize, String>,
}

impl Graph {
    pub(super) fn of(plan: &EncodePlan) -> Self {
        let mut users: BTreeMap<u32, Vec<(usize, &[Filter])>> = BTreeMap::new();
        let mut fed: BTreeMap<usize, Vec<(usize, &[Filter])>> = BTreeMap::new();
        for (position, output) in plan.outputs.iter().enumerate() {
            if let Some(video) = &output.video {
                let user = (position, &video.filters[..]);
                match video.feed {
                    Feed::Source => users.entry(video.stream).or_default().push(user),
                    Feed::Picture(larger) => fed.entry(larger).or_default().push(user),
                }
            }
        }
        // Behind all files, as on the command line.
        for (n, poster) in plan.posters.iter().enumerate() {
            let user = (plan.outputs.len() + n, &poster.filters[..]);
            fed.entry(poster.place).or_default().push(user);
        }
        let mut writing = Writing { fed, graph: Self::default(), splits: Vec::new(), branches: Vec::new() };
        for (stream, users) in users {
            if users.len() > 1 || writing.fed.contains_key(&users[0].0) {
                writing.stream(stream, &users);
            }
        }
        let Writing { mut graph, splits, branches, .. } = writing;
        // Splits first, for people who read it.
        let parts = [splits, branches].concat();
        graph.text = (!parts.is_empty()).then(|| parts.join(";"));
        graph
    }

    pub(super) fn label(&self, position: usize) -> Option<&str> {
        self.labels.get(&position).map(String::as_str)
    }
}

/// A graph that is being written.
struct Writing<'p> {
    /// By position: who is made of that picture.
    fed: BTreeMap<usize, Vec<(usize, &'p [Filter])>>,
    graph: Graph,
    splits: Vec<String>,
    branches: Vec<String>,
}

impl Writing<'_> {
    fn stream(&mut self, stream: u32, users: &[(usize, &[Filter])]) {
        if let [(position, filters)] = users {
            let ends = self.ends(*position, filters);
            self.splits.push(format!("[0:{stream}]{ends}"));
            return;
        }
        let shared =
            users.iter().skip(1).fold(users[0].1.len(), |n, (_, filters)| n.min(alike(users[0].1, filters)));
        let mut split = format!("[0:{stream}]");
        if shared > 0 {
            split.push_str(&chain(&users[0].1[..shared]));
            split.push(',');
        }
        let _ = write!(split, "split={}", users.len());
        for (position, filters) in users {
            let rest = &filters[shared..];
            if rest.is_empty() && !self.fed.contains_key(position) {
                let label = self.named(*position);
                let _ = write!(split, "[{label}]");
            } else {
                let _ = write!(split, "[s{position}]");
                let ends = self.ends(*position, rest);
                self.branches.push(format!("[s{position}]{ends}"));
            }
        }
        self.splits.push(split);
    }

    /// A chain, its label, and the branches that begin behind it.
    fn ends(&mut self, position: usize, filters: &[Filter]) -> String {
        let mut text = chain(filters);
        let smaller = self.fed.remove(&position).unwrap_or_default();
        let label = self.named(position);
        if !smaller.is_empty() {
            if !text.is_empty() {
                text.push(',');
            }
            let _ = write!(text, "split={}", smaller.len() + 1);
        }
        let _ = write!(text, "[{label}]");
        for (position, filters) in smaller {
            let _ = write!(text, "[s{position}]");
            let ends = self.ends(position, filters);
            self.branches.push(format!("[s{position}]{ends}"));
        }
        text
    }

    fn named(&mut self, position: usize) -> String {
        let label = format!("v{position}");
        self.graph.labels.insert(position, label.clone());
        label
    }
}

fn alike(a: &[Filter], b: &[Filter]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn span(start: MediaTime, end: Option<MediaTime>) -> String {
    end.map_or_else(|| format!("start={start}"), |end| format!("start={start}:end={end}"))
}

fn spell(filter: Filter) -> String {
    match filter {
        Filter::CutPicture { start, end } => format!("trim={},setpts=PTS-{start}/TB", span(start, end)),
        Filter::CutSound { start, end } => format!("atrim={},asetpts=PTS-{start}/TB", span(start, end)),
        Filter::Deinterlace(joining) => match joining {
            Joining::Flagged => "bwdif=mode=send_frame:parity=auto:deint=interlaced".to_owned(),
            Joining::PerFrame(order) => format!("bwdif=mode=send_frame:parity={}:deint=all", parity(order)),
            Joining::PerField(order) => format!("bwdif=mode=send_field:parity={}:deint=all", parity(order)),
        },
        Filter::MatchFields(order) => format!("fieldmatch=order={}", parity(order)),
        Filter::Decimate => "decimate".to_owned(),
        Filter::Fps(rate) => format!("fps={rate}:round=near"),
        Filter::FpsFromZero(rate) => format!("fps={rate}:round=near:start_time=0"),
        Filter::Scale { width, height, from, to } => format!(
            "scale=w={width}:h={height}:flags=bicubic+accurate_rnd+full_chroma_int:in_color_matrix={}:out_color_matrix={}:in_range={}:out_range={}",
            swscale(from.matrix),
            swscale(to.matrix),
            from.range.name(),
            to.range.name(),
        ),
        Filter::Convert { width, height, from, to } => {
            format!("zscale=w={width}:h={height}:filter=bicubic:{}:{}", zscale_in(from), zscale_out(to))
        }
        Filter::Linearise { width, height, from } => {
            format!("zscale=w={width}:h={height}:filter=bicubic:{}:t=linear:npl=100:p=bt709", zscale_in(from))
        }
        Filter::ToneMap { peak } => format!("tonemap=tonemap=hable:desat=0:peak={peak}"),
        Filter::Delinearise(to) => format!("zscale={}", zscale_out(to)),
        Filter::Format(layout) => format!("format={}", layout.pix_fmt()),
        Filter::Crop { width, height, x, y } => format!("crop={width}:{height}:{x}:{y}"),
        Filter::Turn(turn) => match turn {
            Rotation::None => "null".to_owned(),
            Rotation::Cw90 => "transpose=dir=clock".to_owned(),
            Rotation::Half => "hflip,vflip".to_owned(),
            Rotation::Cw270 => "transpose=dir=cclock".to_owned(),
        },
        Filter::Mirror(flip) => match flip {
            Flip::None => "null".to_owned(),
            Flip::Horizontal => "hflip".to_owned(),
            Flip::Vertical => "vflip".to_owned(),
        },
        Filter::Pad { width, height, x, y, color } => {
            let [red, green, blue] = color.rgb();
            format!("pad={width}:{height}:{x}:{y}:color=0x{red:02x}{green:02x}{blue:02x}")
        }
        Filter::Extend { width, height, right, bottom } => {
            format!("pad={width}:{height}:0:0,fillborders=right={right}:bottom={bottom}:mode=smear")
        }
        Filter::Tag(signal) => format!(
            "setparams=range={}:color_primaries={}:color_trc={}:colorspace={}",
            signal.range.name(),
            signal.primaries.name(),
            signal.transfer.name(),
            signal.matrix.name(),
        ),
        Filter::SquareSamples => "setsar=1".to_owned(),
        Filter::Resample { rate, channels } => format!(
            "aresample={rate}:async=1:first_pts=0:center_mix_level=0.707107:surround_mix_level=0.707107:rematrix_maxval=1,aformat=channel_layouts={}",
            layout(channels),
        ),
        Filter::BothSides => "pan=stereo|c0=c0|c1=c0".to_owned(),
        Filter::Spread(seconds) => {
            format!("select=isnan(prev_selected_t)+gte(t-prev_selected_t\\,{seconds:.3})")
        }
        Filter::Typical(count) => format!("thumbnail=n={count}"),
        Filter::Gain(db) => format!("volume={db:.3}dB"),
        Filter::CountFields => "idet".to_owned(),
        Filter::EveryNth(step) => format!("framestep={step}"),
        // 24 of 255, as a part, so that it means the same in 10 bits.
        Filter::FindBars => "cropdetect=limit=0.094118:round=2:skip=0:reset=0".to_owned(),
        Filter::Measure => "ebur128=peak=true:framelog=verbose".to_owned(),
    }
}

/// Which field is the earlier one; `auto` = as each frame says.
const fn parity(order: FieldOrder) -> &'static str {
    match order {
        FieldOrder::TopFirst => "tff",
        FieldOrder::BottomFirst => "bff",
        FieldOrder::Unknown | FieldOrder::Progressive => "auto",
    }
}

const fn layout(channels: u16) -> &'static str {
    match channels {
        0 | 1 => "mono",
        2..=5 => "stereo",
        6.. => "5.1",
    }
}

/// swscale's names; it has one for both 601 families, whose coefficients are the same.
const fn swscale(matrix: Matrix) -> &'static str {
    match matrix {
        // Of RGB only the other side's matrix is used. The last three never get here (plan::color).
        Matrix::Rgb | Matrix::Ycgco | Matrix::Bt2020c | Matrix::Ictcp => "auto",
        Matrix::Bt709 => "bt709",
        Matrix::Fcc => "fcc",
        Matrix::Bt470bg | Matrix::Smpte170m => "bt601",
        Matrix::Smpte240m => "smpte240m",
        Matrix::Bt2020nc => "bt2020",
    }
}

fn zscale_in(from: Signal) -> String {
    format!(
        "min={}:pin={}:tin={}:rin={}",
        zscale_matrix(from.matrix),
        from.primaries.name(),
        zscale_transfer(from.transfer),
        zscale_range(from.range),
    )
}

fn zscale_out(to: Signal) -> String {
    format!(
        "m={}:p={}:t={}:r={}",
        zscale_matrix(to.matrix),
        to.primaries.name(),
        zscale_transfer(to.transfer),
        zscale_range(to.range),
    )
}

const fn zscale_range(range: Range) -> &'static str {
    match range {
        Range::Limited => "limited",
        Range::Full => "full",
    }
}

/// zscale of ffmpeg 5.1 cannot name SMPTE 240M (its table has a typing error); 709 is the nearest it can.
const fn zscale_matrix(matrix: Matrix) -> &'static str {
    match matrix {
        Matrix::Smpte240m => "bt709",
        other => other.name(),
    }
}

/// zscale does not know SMPTE 240M's curve, which 709's follows within a hundredth.
const fn zscale_transfer(transfer: Transfer) -> &'static str {
    match transfer {
        Transfer::Smpte240m => "bt709",
        other => other.name(),
    }
}
