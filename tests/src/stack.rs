use forebay_gateway::{Config, Gateway, Upstream};
use forebay_model_server::{Handle, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A gateway on a free port before model servers on free ports, all in this process.
#[derive(Debug)]
pub struct Stack {
    /// `http://127.0.0.1:port` of the gateway.
    pub url: String,
    /// The gateway's handles.
    pub gateway: Gateway,
    /// The model servers.
    pub servers: Vec<Handle>,
    _stop: oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

impl Stack {
    /// Starts a model server for each configuration, with weights n, n-1, …, 1, and the gateway before them.
    ///
    /// # Panics
    ///
    /// Something cannot be started.
    pub async fn start(models: Vec<forebay_model_server::Config>, mut config: Config) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        config.jobs.file = folder.path().join("jobs.redb");
        let mut servers = Vec::new();
        for (weight, model) in (1..=models.len() as u16).rev().zip(models) {
            let server = serve(free().await, model, std::future::pending()).expect("a model server");
            config.upstreams.push(Upstream::new(server.url(), weight));
            servers.push(server);
        }
        let gateway = Gateway::new(&config).await.expect("a valid configuration");
        let listener = free().await;
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(gateway.clone().serve(listener, async {
            let _ = stopped.await; // dropping the stack stops it
        }));
        Self { url, gateway, servers, _stop: stop, _folder: folder }
    }
}

async fn free() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}
