//! What goes wrong around a gateway at work: it says so, and goes on as it was.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use crate::harness::{Authority, Gateway, gateway};

const HOUR: Duration = Duration::from_secs(3600);
const ROUTE: &str = "[[route]]\nmatch = \"/\"\nrespond = { body = \"ok\" }\n";

fn with_tls(cert: &str, key: &str) -> String {
    format!(
        "[listen.public]\naddress = \"127.0.0.1:0\"\n[listen.tls]\naddress = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}] }}\n{ROUTE}"
    )
}

/// The running gateway refuses a configuration in these words, and is as it was.
#[track_caller]
fn refuses(gw: &Gateway, config: &str, words: &[&str]) {
    gw.rewrite(config);
    let problem = gw.reload().expect(422).problem("configuration").json();
    let detail = problem["detail"].as_str().unwrap();
    words.iter().for_each(|words| assert!(detail.contains(words), "no {words:?} in\n{detail}"));
    gw.get("/").send().expect(200).says("ok");
}

#[test]
fn a_running_gateway_survives_every_bad_file() {
    let authority = Authority::new("test");
    let now = SystemTime::now();
    let (good, other) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let expired = authority.issue_between(&["a.test"], now - 48 * HOUR, now - HOUR);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let whole = with_tls("good.pem", "good.key");
    let gw = gateway()
        .file("good.pem", &good.cert)
        .file("good.key", &good.key)
        .file("other.key", &other.key)
        .file("expired.pem", &expired.cert)
        .file("expired.key", &expired.key)
        .file("half.pem", &good.cert[..good.cert.len() / 2])
        .file("one.toml", "include = [\"two.toml\"]")
        .file("two.toml", "include = [\"one.toml\"]")
        .config(&whole)
        .start();
    refuses(&gw, &whole[..whole.len() / 2], &["portcullis.toml", "not valid TOML"]);
    refuses(&gw, &format!("include = [\"one.toml\"]\n{whole}"), &["includes itself", "one.toml"]);
    refuses(&gw, &format!("include = [\"none.toml\"]\n{whole}"), &["no file matches", "none.toml", ":1:"]);
    refuses(&gw, &with_tls("none.pem", "good.key"), &["cannot read", "none.pem", "No such file", ":5:"]);
    refuses(&gw, &with_tls("half.pem", "good.key"), &["half.pem"]);
    refuses(&gw, &with_tls("good.pem", "other.key"), &["the key does not belong to the certificate", "other.key"]);
    refuses(&gw, &with_tls("expired.pem", "expired.key"), &["the certificate expired on", "expired.pem"]);
    let more = format!("[listen.more]\naddress = \"{}\"\n{whole}", taken.local_addr().unwrap());
    refuses(&gw, &more, &["cannot listen on", "another process listens there"]);
    let external = "external_account = { kid = \"k\", key = { credential = \"hmac\" } }";
    let acme = format!(
        "[server]\nthreads = 1\nstate_dir = \"@dir/state\"\n[listen.public]\naddress = \"127.0.0.1:0\"\n[listen.more]\naddress = \"127.0.0.1:0\"\n\
         tls = {{ acme = {{ names = [\"a.test\"], agree_to_terms = true, {external} }} }}\n{ROUTE}"
    );
    refuses(&gw, &acme, &["$CREDENTIALS_DIRECTORY is not set", "LoadCredential="]);
    gw.rewrite(&whole);
    gw.reload().expect(200);
}

/// Runs `check` as a user who may not read everything.
fn check_as_nobody(dir: &Path, config: &Path) -> Output {
    let binary = dir.join("portcullis");
    std::fs::copy(env!("CARGO_BIN_EXE_portcullis"), &binary).unwrap();
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(binary);
            command
        }
        false => Command::new(binary),
    };
    command.arg("check").arg(config).output().unwrap()
}

#[test]
fn a_file_of_another_owner_says_whose_it_is() {
    let identity = Authority::new("test").issue(&["a.test"]);
    let gw = gateway()
        .file("a.pem", &identity.cert)
        .file("a.key", &identity.key)
        .config(&with_tls("a.pem", "a.key"))
        .start();
    let config = gw.rewrite(&with_tls("a.pem", "a.key"));
    let shut = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(gw.dir().join("a.key"), Some(1), Some(1)).unwrap();
    }
    for path in [gw.dir().join("a.key"), config.clone()] {
        shut(&path, 0o200);
        let output = check_as_nobody(gw.dir(), &config);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        shut(&path, 0o644);
        let whose = format!("cannot read {}: Permission denied", path.display());
        assert!(!output.status.success() && said.contains(&whose), "{said}");
        assert!(said.contains("with mode 200, and the gateway runs as user"), "{said}");
    }
    let output = check_as_nobody(gw.dir(), &config);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// In a mount namespace of its own, with a full disk at `full` in the test's folder.
#[test]
fn a_full_disk_is_said_to_be_full() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("portcullis.toml");
    let text = "[server]\nstate_dir = \"full/state\"\npid_file = \"full/pid\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
                [listen.public]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(&config, format!("{text}{ROUTE}")).unwrap();
    let script = format!(
        "cd {} && mkdir full && mount -t tmpfs -o size=16k tmpfs full && mkdir full/state && touch full/state/lock && \
         {{ dd if=/dev/zero of=full/file bs=1k 2> /dev/null; exec {} run --config portcullis.toml; }}",
        dir.path().display(),
        env!("CARGO_BIN_EXE_portcullis")
    );
    let output = Command::new("unshare").args(["--mount", "--map-root-user", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("cannot write the pid file") && said.contains("No space left on device"), "{said}");
}
