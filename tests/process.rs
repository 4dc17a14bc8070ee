//! What only a process of its own can show: signals, pipes and exit codes as a shell sees them.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a process may take for anything; generous, because test machines are busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running tool, which does not outlive its test.
struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tool {
    fn start(binary: &str, arguments: &[&str], home: &Path) -> Self {
        Self::start_in(binary, arguments, home, &[])
    }

    fn start_in(binary: &str, arguments: &[&str], home: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary);
        command.args(arguments).env_clear().env("HOME", home).current_dir(home);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// The first line on standard error: the tool is at work.
    fn first_error_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    /// The first line on standard output.
    fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code; a tool that a signal killed has none.
    fn exit(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn waiting_for_standard_input_can_be_interrupted() {
    let home = tempfile::tempdir().unwrap();
    for signal in ["INT", "TERM"] {
        let mut tool = Tool::start(env!("CARGO_BIN_EXE_p2p-lookup"), &["-"], home.path());
        // What it says about the first line shows that it has begun.
        tool.0.stdin.as_mut().unwrap().write_all(b"nonsense\n").unwrap();
        assert!(tool.first_error_line().contains("'nonsense' names nothing"));
        tool.signal(signal);
        assert_eq!(tool.exit(), Some(130), "{signal}");
    }
}

#[test]
fn a_member_leaves_in_order_at_either_signal_and_the_code_tells_which() {
    for (signal, code) in [("TERM", 0), ("INT", 130)] {
        let home = tempfile::tempdir().unwrap();
        let arguments = ["--local", "testnet", "--short", "--listen", "/ip4/127.0.0.1/tcp/0", "--home", "home"];
        let mut tool = Tool::start(env!("CARGO_BIN_EXE_p2p-join"), &arguments, home.path());
        let address = tool.first_line();
        assert!(address.starts_with("/ip4/127.0.0.1/tcp/") && address.contains("/p2p/12D3KooW"), "{address}");
        let socket = home.path().join("home/member.sock");
        assert!(socket.exists());
        tool.signal(signal);
        assert_eq!(tool.exit(), Some(code), "{signal}");
        assert!(!socket.exists(), "a member that has left takes its socket along");
    }
}

#[test]
fn a_service_manager_is_told_and_metrics_are_served() {
    let home = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(home.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut datagram = [0; 1024];
        let length = manager.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    };
    let mut arguments = vec!["--local", "testnet", "--json", "--home", "home", "--listen", "/ip4/127.0.0.1/tcp/0"];
    arguments.extend(["--metrics", "127.0.0.1:0"]);
    let socket = home.path().join("notify").display().to_string();
    let environment = [("NOTIFY_SOCKET", socket.as_str()), ("WATCHDOG_USEC", "200000")];
    let mut tool = Tool::start_in(env!("CARGO_BIN_EXE_p2p-join"), &arguments, home.path(), &environment);
    let joined: serde_json::Value = serde_json::from_str(&tool.first_line()).unwrap();
    let mut first = heard();
    while first == "WATCHDOG=1\n" {
        first = heard();
    }
    assert_eq!(first, "READY=1\nSTATUS=member of testnet, met 0 others\n");
    assert_eq!(heard(), "WATCHDOG=1\n");

    let url = joined["metrics"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = ask("GET /metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("\n# TYPE p2psip_overlay_records gauge\n"), "{metrics}");
    assert!(metrics.contains("\np2psip_overlay_requests_served_total 0\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(ask("GET /").starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics").starts_with("HTTP/1.1 405 "));

    tool.signal("TERM");
    while heard() != "STOPPING=1\n" {}
    assert_eq!(tool.exit(), Some(0));
}

#[test]
fn a_member_logs_as_json_whatever_there_is_to_say() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let arguments = ["--local", "testnet", "--log-format", "json", "--home", "home", "--listen", &address];
    let mut tool = Tool::start(env!("CARGO_BIN_EXE_p2p-join"), &arguments, home.path());
    assert_eq!(tool.exit(), Some(5));
    let mut text = String::new();
    tool.0.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [began, failed] = &lines[..] else { panic!("{text}") };
    assert_eq!((&began["level"], &began["target"]), (&"warning".into(), &"p2psip::ops::join".into()));
    assert!(began["message"].as_str().unwrap().starts_with("began the local overlay testnet"), "{began}");
    assert_eq!((&failed["level"], &failed["target"]), (&"error".into(), &"p2p-join".into()));
    assert!(failed["message"].as_str().unwrap().contains("cannot listen on"), "{failed}");
    assert!(lines.iter().all(|line| line["time"].as_str().is_some_and(|time| time.ends_with('Z'))), "{text}");
}

#[test]
fn a_pipe_whose_reader_has_gone_ends_a_tool_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2p-join"));
    let ended = command.arg("--print-config").env_clear().stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""));
}
