//! The open of an engine: what it refuses, and what its errors show.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use turnwise::cluster::{Durability, Engine, EngineConfig, EngineError};

use crate::server::Server;

fn short() -> EngineConfig {
    EngineConfig::new().lease(Duration::from_secs(1))
}

fn code(url: &str, config: EngineConfig) -> &'static str {
    Engine::open(url, config).unwrap_err().code()
}

#[test]
fn c80_a_suitable_server_is_opened_again_and_again() {
    let Some(mut server) = Server::start(&[]) else { return };
    let engines = [(); 3].map(|()| Engine::open(&server.url(), short()).unwrap());
    assert_eq!(engines[0].config().namespace, "turnwise");
    server.kill();
    server.start_again();
    Engine::open(&server.url(), short()).unwrap();
    Engine::open(&format!("{}/1", server.url()), short()).unwrap();
}

#[test]
fn c80_urls_and_settings_that_cannot_be_are_refused_at_once() {
    for url in ["", "localhost", "http://localhost", "redis://", "redis://host:port", "redis://0.0.0.0/x"] {
        assert_eq!(code(url, short()), "ENGINE_INVALID_URL", "{url}");
    }
    #[cfg(not(feature = "redis-tls"))]
    assert_eq!(code("rediss://localhost", short()), "ENGINE_TLS_NOT_SUPPORTED");
    let url = "redis://localhost";
    for namespace in ["", "a b", "a:b", "ä", &"x".repeat(65)] {
        assert_eq!(code(url, short().namespace(namespace)), "ENGINE_INVALID_CONFIG", "{namespace}");
    }
    for lease in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(3601)] {
        assert_eq!(code(url, short().lease(lease)), "ENGINE_INVALID_CONFIG", "{lease:?}");
    }
}

#[test]
fn c80_a_server_that_is_not_there_or_stays_silent_is_an_error_in_time() {
    // Nobody accepts the connections of the second one, and the third one closes them.
    let (free, silent, closing) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap(), server_of(|_| None));
    let gone = free.local_addr().unwrap();
    drop(free);
    for address in [gone, silent.local_addr().unwrap(), closing] {
        let begun = Instant::now();
        assert_eq!(code(&format!("redis://{address}"), short()), "ENGINE_UNREACHABLE");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}

#[test]
fn c80_unsuitable_servers_are_refused_with_the_reason() {
    let open =
        |settings: &[&str]| Server::start(settings).map(|server| Engine::open(&server.url(), short()).unwrap_err());
    let Some(error) = open(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]) else { return };
    assert_eq!(error, EngineError::Evicts { policy: "allkeys-lru".into() });
    assert_eq!(open(&["--cluster-enabled", "yes"]), Some(EngineError::ClusterMode));
    assert_eq!(open(&["--appendonly", "no"]), Some(EngineError::NotDurable));
    let primary = Server::start(&[]).unwrap();
    let of = primary.port().to_string();
    assert_eq!(open(&["--replicaof", "127.0.0.1", &of]), Some(EngineError::Replica));
    let volatile = Server::start(&["--appendonly", "no"]).unwrap();
    Engine::open(&volatile.url(), short().durability(Durability::Any)).unwrap();
}

#[test]
fn c80_an_old_server_is_refused_before_it_gets_a_script() {
    let info = "redis_version:6.2.14\r\nrole:master\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
    let address = server_of(move |command| match command {
        command if command.contains("SETINFO") => Some("-ERR unknown\r\n-ERR unknown\r\n".into()),
        command if command.contains("INFO") => Some(format!("${}\r\n{info}\r\n", info.len())),
        command => panic!("{command}"),
    });
    assert_eq!(
        Engine::open(&format!("redis://{address}"), short()).unwrap_err(),
        EngineError::TooOld { version: "6.2.14".into() }
    );
}

#[test]
fn c80_a_namespace_of_other_scripts_is_refused() {
    let Some(server) = Server::start(&[]) else { return };
    Engine::open(&server.url(), short()).unwrap();
    server.command(&["HSET", "turnwise:meta", "version", "999"]);
    let error = Engine::open(&server.url(), short()).unwrap_err();
    assert!(matches!(&error, EngineError::OtherVersion { found, .. } if &**found == "999"), "{error}");
    Engine::open(&server.url(), short().namespace("other")).unwrap();
}

#[test]
fn c80_a_full_server_refuses_a_new_namespace() {
    let Some(server) = Server::start(&["--maxmemory", "1"]) else { return };
    assert_eq!(code(&server.url(), short()), "ENGINE_OUT_OF_MEMORY");
}

#[test]
fn c80_passwords_are_used_and_never_shown() {
    let Some(server) = Server::start(&["--requirepass", "a-secret-word"]) else { return };
    let at = |user: &str| format!("redis://{user}127.0.0.1:{}", server.port());
    let engine = Engine::open(&at(":a-secret-word@"), short()).unwrap();
    let mut shown = format!("{engine:?} {:?}", engine.config());
    for user in ["", ":a-secret-guess@", "nobody:a-secret-guess@"] {
        let error = Engine::open(&at(user), short()).unwrap_err();
        assert_eq!(error.code(), "ENGINE_DENIED", "{error}");
        shown.push_str(&format!("{error} {error:?}"));
    }
    let error = Engine::open("redis://:a-secret-word@host:port", short()).unwrap_err();
    shown.push_str(&format!("{error} {error:?}"));
    assert!(shown.contains("127.0.0.1"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

/// A server that answers each piece of input as told, and closes the connection where it is told nothing.
fn server_of(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut input = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut input) {
                let Some(answer) = answer(&String::from_utf8_lossy(&input[..len])) else { break };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    address
}
