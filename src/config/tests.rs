//! What the layers of settings make together.

use std::time::Duration;

use super::*;

fn layer(toml: &str) -> Layer {
    Layer::from_toml(Path::new("weft.toml"), toml).unwrap()
}

fn refused(toml: &str) -> String {
    let error = Layer::from_toml(Path::new("weft.toml"), toml).unwrap_err();
    error.to_string()
}

#[test]
fn a_file_may_say_everything() {
    let layer = layer(
        r#"
        name = "n1"
        label = ["zone=a", "rack=7"]
        listen = "10.0.0.1:9338"
        advertise = "192.0.2.7"
        data-dir = "/srv/weft"
        socket = "/run/w.sock"
        join = ["a", "b:9000", "[::1]:9001"]
        token = "weft-1-x"
        log = "debug"
        log-format = "json"
        profile = "wan"
        dns = "127.0.0.1:53"
        dns-upstream = ["192.0.2.1", "[::1]:54"]
        dns-ttl = "1m"
        docker = "on"
        docker-plugin = "/run/p.sock"
        docker-engine = "/run/e.sock"
        plugin-dir = "/srv/plugins"
        [membership]
        probe-period = "3s"
        copies = 1
        stream-ping = false
        "#,
    );

    let config = Config::resolve(layer, &Host::default()).unwrap();

    let join: Vec<String> = config.join.iter().map(Seed::to_string).collect();
    assert_eq!(join, ["a:9338", "b:9000", "[::1]:9001"]);
    assert_eq!(config.labels.get("zone"), Some("a"));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.profile, Profile::Wan);
    let expected = membership::Config {
        probe_period: Duration::from_secs(3),
        copies: 1,
        stream_ping: false,
        ..membership::Config::wan()
    };
    assert_eq!(config.membership, expected);
    assert_eq!(config.data_dir, Path::new("/srv/weft"));
    assert_eq!(config.dns_ttl, Some(DnsTtl(Duration::from_secs(60))));
    assert!(config.dns.is_some() && config.docker.is_some() && config.plugin_dir.is_some());
}

#[test]
fn a_file_is_refused_with_the_line_and_what_is_wrong() {
    assert_eq!(
        refused("name = \"a\"\nport = 3\n")
            .split(", expected")
            .next(),
        Some("weft.toml:2: unknown field `port`")
    );
    assert!(refused("\n\nname = \"-\"").starts_with("weft.toml:3: a name may have"));
    assert!(refused("listen = \"here\"").starts_with("weft.toml:1: invalid socket address"));
    assert!(refused("join = [\"a:b\"]").contains("HOST or HOST:PORT is expected"));
    assert!(refused("label = [\"zone\"]").contains("is not KEY=VALUE"));
    assert!(refused("name = ").starts_with("weft.toml:1: "));
    let figure = refused("\n[membership]\ncopies = 9\n");
    assert!(figure.starts_with("weft.toml:"), "{figure}");
    assert!(
        figure.ends_with("copies may be from 1 to 4, and not 9"),
        "{figure}"
    );
    assert!(refused("[membership]\nperiod = \"1s\"").contains("has no figure \"period\""));
    assert!(refused("[membership]\nprobe-period = 1.5").contains("a text, a whole number"));
}

#[test]
fn figures_of_membership_are_layered_one_by_one_and_must_go_together() {
    let host = Host {
        name: "n1".to_owned(),
        ..Host::default()
    };
    let flags = layer("[membership]\nprobe-period = \"500ms\"");
    let file = layer("[membership]\nprobe-period = \"9s\"\nsuspect-for = \"2s\"");

    let config = Config::resolve(flags.clone().over(file), &host).unwrap();

    let expected = membership::Config {
        probe_period: Duration::from_millis(500),
        suspect_for: Duration::from_secs(2),
        ..membership::Config::lan()
    };
    assert_eq!(config.membership, expected);
    let wan = layer("profile = \"wan\"");
    let refused = Config::resolve(flags.over(wan), &host).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "membership: probe-timeout may be from 5ms to 250ms, half of probe-period, and not 700ms"
    );
}

#[test]
fn a_higher_layer_wins_and_a_lower_one_fills_in() {
    let flags = layer("name = \"flag\"\nlog = \"debug\"");
    let file = layer("name = \"file\"\nprofile = \"local\"");

    let config = Config::resolve(flags.over(file), &Host::default()).unwrap();

    assert_eq!(config.name.as_str(), "flag");
    assert_eq!(config.log, "debug");
    assert_eq!(config.profile, Profile::Local);
    assert_eq!(config.listen, "0.0.0.0:9338".parse().unwrap());
}

#[test]
fn a_token_replaces_a_token_file_of_a_lower_layer() {
    let flags = layer("token = \"weft-1-x\"");
    let file = layer("token-file = \"/t\"");

    let both = flags.over(file);

    assert_eq!(both.token, Some(Secret("weft-1-x".to_owned())));
    assert_eq!(both.token_file, None);
}

#[test]
fn defaults_fit_who_runs_it() {
    let user = Host {
        name: "box.example.org".to_owned(),
        is_root: false,
        has_docker: false,
        runtime_dir: Some("/run/user/1000".into()),
        state_dir: Some("/home/u/.local/state".into()),
    };
    let root = Host {
        is_root: true,
        ..user.clone()
    };

    assert_eq!(user.socket(), Path::new("/run/user/1000/weft/weft.sock"));
    assert_eq!(user.data_dir(), Path::new("/home/u/.local/state/weft"));
    assert_eq!(root.socket(), Path::new("/run/weft/weft.sock"));
    assert_eq!(root.data_dir(), Path::new("/var/lib/weft"));
    let config = Config::resolve(Layer::default(), &user).unwrap();
    assert_eq!(config.name.as_str(), "box");
}

#[test]
fn a_token_does_not_show_in_logs() {
    let layer = layer("token = \"weft-1-secret\"");

    assert!(!format!("{layer:?}").contains("secret"));
}
