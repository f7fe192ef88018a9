//! The Debian package and its units, beside a systemd of their own: see `tests/parts/with-systemd` and the drills in
//! `tests/parts/systemd-drill`. The package is the one that `make deb` makes, with the binary under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::output;

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_unit_is_in_a_sandbox() {
    let unit = root().join("systemd/portcullis.service");
    let report = output(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(unit));
    let level = report.lines().find_map(|line| line.split("exposure level for portcullis.service: ").nth(1));
    let level: f32 = level.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{report}"));
    assert!(level <= 1.5, "{report}");
}

#[test]
fn the_manual_and_the_completions_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    output(Command::new(manual()).arg(dir.path()));
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for command in ["run", "reload", "upgrade", "check", "test", "explain", "demo"] {
        assert!(read("man/portcullis.1").contains(&format!("portcullis\\-{command}(1)")), "{command}");
        assert!(read(&format!("man/portcullis-{command}.1")).contains(".SH SYNOPSIS"));
        for completions in ["portcullis.bash", "_portcullis", "portcullis.fish"] {
            assert!(read(completions).contains(command), "{completions} lacks {command}");
        }
    }
}

/// The program that writes manual pages and completions.
fn manual() -> PathBuf {
    let manual = Path::new(BINARY).with_file_name("examples").join("manual");
    assert!(manual.exists(), "`cargo test` builds all examples; for one test alone, `cargo build --example manual`");
    manual
}

/// A folder with `old.deb` and `new.deb`.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
        let _ = fs::remove_dir_all(&dir);
        let built = dir.join("release");
        fs::create_dir_all(built.join("examples")).unwrap();
        fs::copy(BINARY, built.join("portcullis")).unwrap();
        fs::copy(manual(), built.join("examples/manual")).unwrap();
        for (name, version) in [("old", "0.1.0-1"), ("new", "0.1.0-2")] {
            let made = output(
                Command::new("make")
                    .args(["--silent", "pack", &format!("VERSION={version}")])
                    .current_dir(root())
                    .env("CARGO_TARGET_DIR", &dir),
            );
            let made = made.lines().last().unwrap_or_else(|| panic!("no package was made"));
            fs::rename(made, dir.join(name).with_extension("deb")).unwrap();
        }
        dir
    })
}

/// A drill for each function that `tests/parts/systemd-drill` has for it.
macro_rules! drills {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let parts = root().join("tests/parts");
                let drill = parts.join("systemd-drill");
                output(Command::new(parts.join("with-systemd")).arg(drill).arg(stringify!($name)).env("DEBS", packages()));
            }
        )*

        #[test]
        fn every_drill_is_run() {
            let script = fs::read_to_string(root().join("tests/parts/systemd-drill")).unwrap();
            let drills = script.split("\ninstall() {").next().unwrap();
            let drills: Vec<&str> = drills.lines().filter_map(|line| line.strip_suffix("() {")).collect();
            assert_eq!(drills, [$(stringify!($name)),*]);
        }
    };
}

drills! {
    the_package_starts_a_gateway
    a_reload_succeeds_or_changes_nothing
    a_bad_file_keeps_it_from_starting
    secrets_arrive_as_credentials
    an_unprivileged_user_takes_port_80
    a_restart_with_a_socket_refuses_nobody
    a_newer_package_takes_over_under_load
    a_newer_package_with_a_bad_file_stops_nothing
    an_upgrade_by_signal
    an_upgrade_keeps_the_sockets_of_systemd
    a_process_that_hangs_is_replaced
    logs_are_rotated
    the_package_goes_without_a_trace
}
