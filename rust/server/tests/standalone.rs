//! The sidecar as a program of its own: it starts, takes, tells and ends as it does under Python.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_barograph-server");

struct Running {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Running {
    fn start(name: &str, before: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("barograph-standalone-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("sh")
            .args(["-c", &format!("{before} exec \"$0\" \"$@\""), PROGRAM, "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(folder.join("data"))
            .env("BAROGRAPH_TOKEN", "a-token-for-tests")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = Self { child, port, folder };
        let began = Instant::now();
        while !out.ask("GET", "/readyz", "").starts_with("HTTP/1.1 200") {
            assert!(out.child.try_wait().unwrap().is_none(), "it has ended");
            assert!(began.elapsed() < Duration::from_secs(30), "it does not become ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        out
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let head =
                "Host: localhost\r\nAuthorization: Bearer a-token-for-tests\r\nContent-Type: application/x-ndjson\r\nConnection: close";
            let length = body.len();
            let _ = write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    /// Asks it to end; its exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn lines(count: usize) -> String {
    (0..count).map(|at| format!("{{\"x\": {}, \"c\": \"{}\"}}\n", at % 17, at % 3)).collect::<Vec<_>>().concat()
}

#[test]
fn it_starts_takes_tells_and_ends() {
    let running = Running::start("runs", "");
    let answer = running.ask("POST", "/v1/models/m/events", &lines(11_000));
    assert!(answer.contains("\"accepted\":11000"), "{answer}");
    assert!(running.ask("GET", "/v1/models/m/drift", "").starts_with("HTTP/1.1 200"));
    assert!(running.ask("GET", "/metrics", "").contains("barograph_events_total{model=\"m\"} 11000"));
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_limit_on_the_size_of_files_does_not_end_it() {
    // In blocks of 512 bytes, or of 1024.
    let running = Running::start("limited", "ulimit -f 600;");
    let body = lines(5000);
    let mut answers = (0..200).map(|_| running.ask("POST", "/v1/models/m/events", &body));
    let refused = answers.find(|answer| !answer.starts_with("HTTP/1.1 200")).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(running.ask("GET", "/healthz", "").starts_with("HTTP/1.1 200"));
    assert!(running.ask("GET", "/v1/models/m/drift", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn what_it_cannot_be_told_ends_it_with_2() {
    let done = Command::new(PROGRAM).args(["--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("tokens"), "{said}");
    assert!(Command::new(PROGRAM).arg("--version").output().unwrap().status.success());
}
