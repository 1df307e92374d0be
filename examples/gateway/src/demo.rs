use forebay_core::ConfigError;
use forebay_model_server::{Handle, ModelServer, serve};
use tokio::net::TcpListener;

use crate::config::{Config, Key, Priority, Upstream};

/// A fleet of simulated model servers in this process, and the configuration of a gateway before it.
#[derive(Debug)]
pub struct Demo {
    /// The gateway's configuration: three upstreams of weights 3, 2 and 1, and two keys.
    pub config: Config,
    /// The servers; they end with the process.
    pub servers: Vec<Handle>,
}

const TIERS: [(&str, &str, &str, &str); 2] =
    [("acme", "enterprise", "p0", "demo-enterprise-key"), ("visitor", "trial", "p3", "demo-trial-key")];

impl Demo {
    /// Starts the servers on free ports and adds them, and the demo keys, to `config`.
    ///
    /// # Errors
    ///
    /// A server cannot be started.
    pub async fn start(mut config: Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut servers = Vec::new();
        for weight in [3_u16, 2, 1] {
            let slots = u32::from(weight) * 4;
            let settings = ModelServer::builder().model("sim-7b").slots(slots as _).build()?;
            let server = serve(TcpListener::bind("127.0.0.1:0").await?, settings, std::future::pending())?;
            let mut upstream = Upstream::new(server.url(), weight);
            upstream.max_concurrency = Some(slots); // and so the priority layer has as many seats
            config.upstreams.push(upstream);
            servers.push(server);
        }
        if config.priority == Priority::default() {
            config.priority.overflow = vec!["p3".into()]; // trial users get a job instead of a 429
        }
        for (tenant, tier, class, key) in TIERS {
            config.tiers.insert(tier.into(), class.into());
            config.keys.push(Key { tenant: tenant.into(), tier: tier.into(), key: key.into() });
        }
        config.validate().map_err(|error: ConfigError| Box::new(error))?;
        Ok(Self { config, servers })
    }

    /// What to try next, with the gateway at `address`.
    #[must_use]
    pub fn hints(&self, address: std::net::SocketAddr) -> String {
        let ask = |flags: &str, key: &str, more: &str| {
            format!(
                "  curl {flags} http://{address}/v1/chat/completions -H 'authorization: Bearer {key}' \\\n    -H \
                 'content-type: application/json' -d '{{\"model\":\"sim-7b\",{more}\"messages\":[{{\"role\":\"user\",\
                 \"content\":\"Why dams?\"}}]}}'"
            )
        };
        let [enterprise, trial] = TIERS.map(|(_, _, _, key)| key);
        let stream = ask("-sN", enterprise, "\"stream\":true,");
        let job = ask("-si -H 'prefer: respond-async'", enterprise, "");
        let patient = ask("-s", trial, "");
        format!(
            "Three simulated model servers (weights 3, 2, 1; 24 slots) are behind http://{address}. Try:\n\na stream, as an \
             enterprise customer (P0):\n{stream}\n\na job (202 at once; ask its Location, and .../result, with the same \
             key):\n{job}\n\na trial user (P3, who waits behind P0 when all slots are taken):\n{patient}\n\nwhat the \
             autoscaler sees: http://{address}/metrics\n"
        )
    }
}
