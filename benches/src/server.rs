use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server process that is ended when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its address, `127.0.0.1:port`.
    pub address: String,
}

impl Server {
    /// Starts `command` and waits for a line on its stdout that holds `http://` and the address.
    ///
    /// # Panics
    ///
    /// It cannot be started, or ends without such a line.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("piped above");
        let mut lines = BufReader::new(stdout).lines();
        let address = loop {
            let line = lines.next().and_then(Result::ok).unwrap_or_else(|| panic!("{command:?} ended at once"));
            if let Some((_, rest)) = line.split_once("http://") {
                let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).unwrap_or(rest.len());
                break rest[..end].to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop)); // so that it never blocks on a full pipe
        Self { child, address }
    }

    /// A server that is known to listen on `address`.
    #[must_use]
    pub const fn running(child: Child, address: String) -> Self {
        Self { child, address }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A polite end first: nginx would leave its workers behind.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the binary of a server is, if it is installed: on the path, or where only the superuser's path leads.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Waits until somebody listens; panics after 10 s.
pub(crate) fn await_listener(address: SocketAddr) {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "nobody listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Builds the binary of a package of this workspace in release mode and returns its path.
///
/// # Panics
///
/// The build fails.
#[must_use]
pub fn build(package: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let done = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", package])
        .current_dir(&root)
        .status()
        .expect("cargo runs, as it runs this benchmark");
    assert!(done.success(), "{package} does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("release").join(package)
}
