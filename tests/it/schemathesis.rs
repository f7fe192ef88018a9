//! schemathesis against an OpenAPI document that was imported: what the document allows gets through to a service, and what
//! it does not allow is refused and never seen there. How it is run, and what it leaves out, is in
//! `tests/parts/schemathesis.toml`.

use std::path::Path;

use crate::harness::{Part, gateway, installed, output, portcullis, python};

#[test]
fn schemathesis_finds_nothing_in_what_is_imported() {
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts");
    let (service, port) = Part::with_port(&mut python("library_server.py"));
    let gateway = gateway().file("library.yaml", std::fs::read(parts.join("library.yaml")).unwrap());
    let at = |name: &str| gateway.dir().join(name).to_str().unwrap().to_owned();
    let (document, written) = (at("library.yaml"), at("library.toml"));
    let address = format!("127.0.0.1:{port}");
    let done = portcullis(&["import", &document, "--address", &address, "--output", &written]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let written = std::fs::read_to_string(written).unwrap();
    let gw = gateway.config(&written.replace("127.0.0.1:8080", "127.0.0.1:0")).start();

    let mut schemathesis = installed("schemathesis");
    schemathesis.arg("--config-file").arg(parts.join("schemathesis.toml"));
    let report = output(
        schemathesis
            .args(["run", &document, "--url", &format!("http://{}/v1", gw.address().tcp())])
            .current_dir(gw.dir()),
    );
    assert!(report.contains("No issues found"), "{report}");
    let unseen = &service.output()[1..];
    assert!(unseen.is_empty(), "the service has seen what the document does not allow: {unseen:#?}");
    for route in written.lines().filter_map(|line| line.strip_prefix("name     = ")) {
        let count = |class: &str| gw.metric(&format!("portcullis_requests_total{{route={route},class=\"{class}\"}}"));
        let (taken, refused) = (count("2xx").unwrap_or(0.0), count("4xx").unwrap_or(0.0));
        assert!(taken >= 20.0 && refused >= 10.0, "{route}: {taken} were taken and {refused} refused\n{report}");
    }
}
