//! Who brings workers up, and what each way needs.

use std::time::Duration;

use super::{faults, load};
use crate::config::{Config, Waker};

fn keys(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    faults(file, env).into_iter().map(|fault| fault.key).collect()
}

fn waking(file: &str, env: &[(&str, &str)]) -> (Config, Waker) {
    let config = load(file, env).unwrap();
    let waker = config.workers.waking.waker.clone();
    (config, waker)
}

#[test]
fn nobody_by_default() {
    let (config, waker) = waking("", &[]);
    assert!(matches!(waker, Waker::Nobody));
    assert_eq!((config.workers.waking.startup_timeout.as_secs(), config.workers.waking.most.get()), (60, 16));
    assert_eq!(config.worker.idle_timeout, None);
    assert_eq!(keys("[workers]\nwaker = \"magic\"", &[]), ["workers.waker"]);
}

#[test]
fn children_fill_the_machine_and_no_more() {
    let (config, waker) = waking("[workers]\nwaker = \"process\"\n[worker]\nslots = 1", &[]);
    assert_eq!(config.workers.waking.most.get(), 4, "one core each of the four here");
    let Waker::Process(children) = waker else { panic!("{waker:?}") };
    assert_eq!((children.slots.get(), children.idle_timeout), (1, Duration::from_mins(1)));
    let file = "[workers]\nwaker = \"process\"\nwake_max = 3\n[worker]\nidle_timeout = \"300ms\"";
    let (config, waker) = waking(file, &[]);
    let Waker::Process(children) = waker else { panic!("{waker:?}") };
    assert_eq!((config.workers.waking.most.get(), children.idle_timeout), (3, Duration::from_millis(300)));
    let tls = format!("{file}\ntls_cert_file = \"c\"\ntls_key_file = \"k\"");
    assert_eq!(keys(&tls, &[]), ["worker.tls_cert_file"]);
    for idle in ["0s", "99ms", "8d"] {
        assert_eq!(keys(&format!("[worker]\nidle_timeout = \"{idle}\""), &[]), ["worker.idle_timeout"]);
    }
}

#[test]
fn each_way_names_what_it_lacks_and_what_is_not_its_own() {
    assert_eq!(keys("[workers]\nwaker = \"connect\"", &[]), ["workers.waker"]);
    assert_eq!(keys("[workers]\nwaker = \"command\"", &[]), ["workers.wake_command"]);
    let nowhere = "[workers]\nwaker = \"command\"\nwake_command = [\"no-such-program-here\"]";
    assert_eq!(keys(nowhere, &[]), ["workers.wake_command"]);
    assert_eq!(keys("[workers]\nwaker = \"fly\"", &[]), ["workers.fly_app", "workers.fly_token"]);
    let stray =
        "[workers]\nwake_command = [\"/bin/true\"]\nfly_app = \"a\"\nfly_group = \"g\"\nfly_token = \"t\"";
    let mut found = keys(stray, &[]);
    found.sort();
    assert_eq!(found, ["workers.fly_app", "workers.fly_group", "workers.fly_token", "workers.wake_command"]);
    let clear = "[workers]\nwaker = \"fly\"\nfly_app = \"a/b\"\nfly_token = \"t\"\nfly_api_url = \"http://api.example\"";
    assert_eq!(keys(clear, &[]), ["workers.fly_api_url", "workers.fly_app"]);
}

#[test]
fn fly_takes_its_token_from_either_place_and_shows_it_nowhere() {
    let file = "[workers]\nwaker = \"fly\"\nfly_app = \"my-workers\"";
    let (config, _) = waking(file, &[("FLY_API_TOKEN", "FlyV1 s3cr3t")]);
    assert!(!format!("{config:?}{}", config.show()).contains("s3cr3t"));
    let (config, _) = waking(&format!("{file}\nfly_token = \"s3cr3t\""), &[]);
    assert!(!format!("{config:?}{}", config.show()).contains("s3cr3t"));
    assert!(config.show().contains("fly_api_url = \"http://_api.internal:4280\""));
}

#[test]
fn a_command_is_a_list_also_in_the_environment() {
    let env = [("FLUX__WORKERS__WAKER", "command"), ("FLUX__WORKERS__WAKE_COMMAND", "/bin/echo,a b")];
    let (_, waker) = waking("", &env);
    let Waker::Command(words) = waker else { panic!("{waker:?}") };
    assert_eq!(words, ["/bin/echo", "a b"]);
}
