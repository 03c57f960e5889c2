//! The commands and their arguments: what `--help` says.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::domain::preset::MediaTime;

/// Encode video: one file here, or many through a server.
#[derive(Debug, Parser)]
#[command(name = "flux", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A server and how to be known there.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// The server's address
    #[arg(long, env = "FLUX_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    /// The API key
    #[arg(long, env = "FLUX_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,
    /// How results are written
    #[arg(short = 'o', long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: API, queue and workers
    Serve(ServeArgs),
    /// Encode one file, without a server
    Encode(EncodeArgs),
    /// Show what a file or URL is, without a server: as a worker would see it
    Probe(ProbeArgs),
    /// Submit a job to a server
    Submit(SubmitArgs),
    /// List jobs, newest first
    Jobs(JobsArgs),
    /// Show one job
    Job(IdArgs),
    /// Follow a job until it ends; exit code 1 unless it is completed
    Watch(IdArgs),
    /// Cancel a job
    Cancel(IdArgs),
    /// Run a failed job again; completed outputs stay
    Retry(IdArgs),
    /// Delete a job's record, cancelling it first; results stay where they are
    Delete(IdArgs),
    /// Show the encoder's last lines of every attempt of a job
    Logs(IdArgs),
    /// List presets, or show one
    Presets(PresetsArgs),
    /// List a server's workers
    Workers(Server),
    /// Show what retention is about to remove, or would with another time
    Retention(RetentionArgs),
    /// Check an HLS or DASH presentation; exit code 1 if it breaks a rule that must hold
    Validate(ValidateArgs),
    /// Check this machine: ffmpeg, encoders, disk, storage
    Doctor(ConfigFile),
    /// Check or show the configuration
    Config(ConfigArgs),
    /// Make an API key
    Key(KeyArgs),
    /// Try webhooks out, see what a job's were told, send them again
    Webhooks(WebhooksArgs),
    /// Write shell completions to stdout
    Completions(CompletionsArgs),
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// Configuration file [default: ./flux.toml where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the database, keys, uploads and local storage [default: ./flux-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Where the configuration is of a command that keeps no data.
#[derive(Debug, Clone, Args)]
pub struct ConfigOnly {
    /// Configuration file [default: ./flux.toml where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// What this process does
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// Where it is configured.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Address of the API, for the roles all and control [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address that controls call, for the role worker [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    pub grpc_listen: Option<String>,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Role {
    /// API, queue and a worker in one process.
    #[default]
    All,
    /// API and queue; workers are on other machines.
    Control,
    /// A worker that controls call.
    Worker,
}

impl From<Role> for crate::config::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::All => Self::All,
            Role::Control => Self::Control,
            Role::Worker => Self::Worker,
        }
    }
}

/// Arguments of `encode`.
#[derive(Debug, Clone, Args)]
pub struct EncodeArgs {
    /// File or URL (http, https, s3, gs, az) to encode
    pub input: String,
    /// Preset; see `flux presets`
    #[arg(short, long, value_name = "NAME")]
    pub preset: String,
    /// File to write, for HLS and DASH the folder [default: INPUT's name, the preset's name and its extension, in this folder]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Begin here: seconds or HH:MM:SS.mmm [default: the source's beginning]
    #[arg(long, value_name = "TIME")]
    pub start: Option<MediaTime>,
    /// End after so much: seconds or HH:MM:SS.mmm [default: the source's end]
    #[arg(long, value_name = "TIME")]
    pub duration: Option<MediaTime>,
    /// Fail when the output exists
    #[arg(long)]
    pub no_clobber: bool,
    /// How closely the output is checked [default: verify.level of the configuration, "sampled" without]
    #[arg(long, value_enum)]
    pub verify: Option<Verify>,
    /// What damage in the source means [default: fail]
    #[arg(long, value_enum)]
    pub on_damage: Option<Damage>,
    /// Where it is configured.
    #[command(flatten)]
    pub file: ConfigOnly,
}

/// Arguments of `probe`.
#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// File or URL (http, https, s3, gs, az) to look at
    pub source: String,
    /// Write JSON: the same as `POST /api/v1/probe` answers
    #[arg(long)]
    pub json: bool,
    /// How results are written
    #[arg(short = 'o', long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Where it is configured.
    #[command(flatten)]
    pub file: ConfigOnly,
}

/// How closely an output is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Streams, counts, durations.
    Probe,
    /// Also every packet, all keyframes, samples decoded.
    Sampled,
    /// Also a full decode.
    Full,
}

/// What damage in a source means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Damage {
    /// Any lost frame fails the job.
    Fail,
    /// A little damage is only warned about.
    Warn,
}

/// Arguments of `submit`.
#[derive(Debug, Clone, Args)]
pub struct SubmitArgs {
    /// Which server.
    #[command(flatten)]
    pub server: Server,
    /// Source: URL (http, https, s3, gs, az, ftp, ftps), or a file, which is uploaded first
    #[arg(required_unless_present = "body")]
    pub source: Option<String>,
    /// Preset; give it again for more outputs
    #[arg(short, long = "preset", value_name = "NAME", required_unless_present = "body")]
    pub presets: Vec<String>,
    /// Path of the results in the server's storage
    #[arg(
        long,
        value_name = "PATH",
        help = "Path of the results in the server's storage; {job_id} {index} {preset} {name} {height} {ext} are filled in",
        default_value = "outputs/{job_id}/{name}_{preset}.{ext}"
    )]
    pub path: String,
    /// Send this JSON file as the whole job ("-" is standard input)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "presets"])]
    pub body: Option<PathBuf>,
    /// Submits the job once, however often it is sent with this key within 24 hours
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Label to find the job by, as NAME=VALUE; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Follow the job until it ends
    #[arg(short, long)]
    pub wait: bool,
}

/// Arguments of `jobs`.
#[derive(Debug, Clone, Args)]
pub struct JobsArgs {
    /// Which server.
    #[command(flatten)]
    pub server: Server,
    /// Only this status: queued, running, completed, failed, cancelled
    #[arg(long)]
    pub status: Option<String>,
    /// Only with this label, as NAME=VALUE
    #[arg(long)]
    pub label: Option<String>,
    /// How many, 1 to 100
    #[arg(long, default_value_t = 25)]
    pub limit: u32,
    /// Where to go on (`next_cursor` of the page before)
    #[arg(long)]
    pub cursor: Option<String>,
}

/// One job.
#[derive(Debug, Clone, Args)]
pub struct IdArgs {
    /// Which server.
    #[command(flatten)]
    pub server: Server,
    /// The job's id
    pub id: String,
}

/// Arguments of `presets`.
#[derive(Debug, Clone, Args)]
pub struct PresetsArgs {
    /// Show this one
    pub name: Option<String>,
    /// How results are written
    #[arg(short = 'o', long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Where it is configured.
    #[command(flatten)]
    pub file: ConfigFile,
}

/// Arguments of `config`.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// What about it
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What about the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Report every fault; exit code 5 if there is one
    Check(CheckArgs),
    /// Print what is in force, secrets hidden
    Show(ConfigFile),
}

/// Arguments of `config check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Also what this role needs: certificates, and that nobody is let in or told secrets by mistake
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// Where it is configured.
    #[command(flatten)]
    pub file: ConfigFile,
}

/// Arguments of `key`.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// What about it
    #[command(subcommand)]
    pub action: KeyAction,
}

/// What about keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyAction {
    /// Print a new key (shown this once) and the entry for the configuration
    New {
        /// Its name, and its owner unless --tenant says otherwise
        name: String,
        /// Whose jobs it sees
        #[arg(long)]
        tenant: Option<String>,
    },
}

/// Arguments of `retention`.
#[derive(Debug, Clone, Args)]
pub struct RetentionArgs {
    /// Which server.
    #[command(flatten)]
    pub server: Server,
    /// As if finished jobs were kept so long [default: retention.hours of the server]
    #[arg(long)]
    pub hours: Option<u32>,
    /// How many of each kind, 1 to 1000
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
}

/// Arguments of `webhooks`.
#[derive(Debug, Clone, Args)]
pub struct WebhooksArgs {
    /// What about them
    #[command(subcommand)]
    pub action: WebhooksAction,
}

/// What about webhooks.
#[derive(Debug, Clone, Subcommand)]
pub enum WebhooksAction {
    /// Receive webhooks here, check their signatures and print them
    Listen(ListenArgs),
    /// List a job's deliveries
    List(IdArgs),
    /// Send a job's deliveries again
    Redeliver(RedeliverArgs),
    /// Print a new secret for webhooks.secret
    Secret,
}

const SECRET_FILE_HELP: &str = "File with the secrets, one a line [default: what FLUX_WEBHOOK_SECRET says, else \
                                webhook.secret in the data folder]";

/// Arguments of `webhooks listen`.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address to receive at; the server must be allowed to call it (webhooks.allow)
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDR")]
    pub listen: std::net::SocketAddr,
    /// File with the secrets.
    #[arg(long, value_name = "FILE", help = SECRET_FILE_HELP)]
    pub secret_file: Option<PathBuf>,
    /// The data folder of a server on this machine
    #[arg(long, default_value = "./flux-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// How messages are written
    #[arg(short = 'o', long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// Arguments of `webhooks redeliver`.
#[derive(Debug, Clone, Args)]
pub struct RedeliverArgs {
    /// The job.
    #[command(flatten)]
    pub job: IdArgs,
    /// The delivery's id [default: every one that no receiver took]
    pub delivery: Option<String>,
}

/// Arguments of `validate`.
#[derive(Debug, Clone, Args)]
pub struct ValidateArgs {
    /// Folder, master or media playlist or MPD; or the URL of one (http, https)
    #[arg(value_name = "PATH|URL")]
    pub place: String,
    /// How findings are written
    #[arg(short = 'o', long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
