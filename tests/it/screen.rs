//! A virtual terminal: the screen of a command while it runs and after its end.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs a command with a terminal of so many rows and columns, whose bytes it copies.
const PTY: &str = r#"
import fcntl, os, pty, struct, subprocess, sys, termios
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", int(sys.argv[1]), int(sys.argv[2]), 0, 0))
command = subprocess.Popen(sys.argv[3:], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
os.close(theirs)
while True:
    try:
        said = os.read(ours, 65536)
    except OSError:
        break
    if not said:
        break
    os.write(1, said)
sys.exit(command.wait())
"#;

const ROWS: u16 = 100;

/// A command that runs on a terminal.
pub struct Screen {
    process: Child,
    shown: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    columns: u16,
}

impl Screen {
    /// Starts `uphill` on a terminal of so many columns.
    pub fn start(arguments: &[&str], folder: &Path, columns: u16) -> Self {
        let mut process = Command::new("python3")
            .args(["-c", PTY, &ROWS.to_string(), &columns.to_string(), env!("CARGO_BIN_EXE_uphill")])
            .args(arguments)
            .current_dir(folder)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let shown = Arc::new(Mutex::new(vt100::Parser::new(ROWS, columns, 0)));
        let (mut bytes, screen) = (process.stdout.take().expect("a pipe"), shown.clone());
        let reader = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(read @ 1..) = bytes.read(&mut some) {
                screen.lock().expect("a screen").process(&some[..read]);
            }
        });
        Screen { process, shown, reader: Some(reader), columns }
    }

    /// Runs `uphill`, which must succeed; gives the lines on the screen.
    pub fn of(arguments: &[&str], folder: &Path, columns: u16) -> String {
        let (screen, code) = Screen::start(arguments, folder, columns).end();
        assert_eq!(code, 0, "{arguments:?}: {screen}");
        screen
    }

    /// The lines on the screen, without the empty ones at its end.
    pub fn now(&self) -> String {
        let shown = self.shown.lock().expect("a screen");
        let lines: Vec<String> = shown.screen().rows(0, self.columns).map(|line| line.trim_end().to_string()).collect();
        lines.join("\n").trim_end().to_string()
    }

    /// Waits until the screen shows what is wanted.
    pub fn wait_for(&mut self, is_there: impl Fn(&str) -> bool) -> String {
        loop {
            let now = self.now();
            if is_there(&now) {
                return now;
            }
            assert!(self.process.try_wait().expect("a process").is_none(), "ended: {now}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end: the last screen, and the exit code.
    pub fn end(mut self) -> (String, i32) {
        let code = self.process.wait().expect("it ends").code().expect("an exit code");
        self.reader.take().expect("a reader").join().expect("read");
        (self.now(), code)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
