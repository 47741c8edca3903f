//! Connections over TLS, to a server whose certificate the test makes. The program `openssl` has to be installed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use turnwise::cluster::{Engine, EngineConfig, EngineError, RedisStore};
use turnwise::store::SessionStore;

use crate::server::Server;
use crate::support::{run, Folder};

fn openssl(folder: &Path, args: &str) -> bool {
    let mut command = Command::new("openssl");
    command.args(args.split(' ')).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Makes an authority `ca`, a key and certificate `server` of 127.0.0.1, and another authority `other`. `false` where
/// `openssl` is not installed.
fn make_certificates(folder: &Path) -> bool {
    if !openssl(folder, "version") {
        assert!(std::env::var_os("TURNWISE_REQUIRE_REDIS").is_none(), "openssl is not installed");
        eprintln!("nothing is proven here: openssl is not installed");
        return false;
    }
    std::fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1").expect("a file");
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let steps = [
        format!("{new} -x509 -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"),
        format!("{new} -x509 -days 2 -subj /CN=other -keyout other.key -out other.pem"),
        format!("{new} -subj /CN=server -keyout server.key -out server.csr"),
        "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out server.pem".into(),
    ];
    steps.iter().for_each(|step| assert!(openssl(folder, step), "{step}"));
    true
}

#[test]
fn c80_a_server_with_a_trusted_certificate_is_opened_over_tls() {
    let folder = Folder::new();
    if !make_certificates(&folder) {
        return;
    }
    let file = |name: &str| folder.join(name).to_str().expect("a path").to_owned();
    // The plain port is for the test itself.
    let tls = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (certificate, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let settings = ["--tls-port", &tls, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let settings = [&settings[..], &["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no"]].concat();
    let Some(server) = Server::start(&settings) else { return };
    run(move || {
        let open = |root: &str| {
            let pem = std::fs::read(folder.join(root)).unwrap();
            let config = EngineConfig::new().lease(Duration::from_secs(2)).root_certificates(pem);
            Engine::open(&format!("rediss://127.0.0.1:{tls}"), config)
        };
        let store = RedisStore::new(open("ca.pem").unwrap());
        assert!(store.list().unwrap().is_empty());
        // A connection that is cut is made again, over TLS too.
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert!(store.list().unwrap().is_empty());
        let error = open("other.pem").unwrap_err();
        assert!(matches!(&error, EngineError::Unreachable { reason } if reason.contains("certificate")), "{error}");
        let error = open("ext").unwrap_err();
        assert!(matches!(error, EngineError::InvalidConfig { option: "root_certificates", .. }), "{error}");
        let error = Engine::open(&format!("rediss://127.0.0.1:{tls}/#insecure"), EngineConfig::new()).unwrap_err();
        assert_eq!(error, EngineError::InvalidUrl, "a certificate is always checked");
    });
}
