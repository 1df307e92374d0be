use std::path::Path;
use std::time::Instant;

use super::fleet::Arrival;
use super::fleet::Fleet;
use super::load::offer;
use super::outcome::Outcome;
use super::proxies::Proxy;
use super::table::{Results, judge, show};
use crate::{Report, build};

/// Runs the same load through each proxy, one after the other, and reports what each made of it; `smoke`: a short run of
/// the gateway alone, which judges nothing.
///
/// # Panics
///
/// The gateway or the model server does not build or start.
pub fn compare(report: &mut Report, smoke: bool) {
    let (fleets, proxies): (&[Fleet], &[Proxy]) =
        if smoke { (&[Fleet::SMOKE], &[Proxy::Gateway]) } else { (&Fleet::JUDGED, &Proxy::ALL) };
    let (models, gateway) = (build("forebay-model-server"), build("forebay-gateway"));
    for missing in proxies.iter().filter_map(|proxy| proxy.missing()) {
        println!("{missing}");
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads and epoll");
    for fleet in fleets {
        let arrivals = fleet.arrivals();
        let through = |&proxy: &Proxy| (proxy, runtime.block_on(run(fleet, &arrivals, proxy, &models, &gateway)));
        let results: Results = proxies.iter().map(through).collect();
        show(report, fleet, &results);
        if !smoke {
            judge(report, fleet, &results);
        }
    }
}

/// Runs the load through one proxy, before model servers of its own; `None` if the proxy is missing.
async fn run(fleet: &Fleet, arrivals: &[Arrival], proxy: Proxy, models: &Path, gateway: &Path) -> Option<Outcome> {
    if proxy.missing().is_some() {
        return None;
    }
    let servers = fleet.start(models);
    let server = proxy.start(fleet, &servers, gateway)?;
    let client = std::process::id();
    let (began, cpu) = (Instant::now(), crate::cpu_time(client));
    let ended = offer(*fleet, arrivals, &server.address).await;
    let spent = (crate::cpu_time(client).saturating_sub(cpu)).as_secs_f64() / began.elapsed().as_secs_f64();
    Some(Outcome::new(fleet, &ended, spent))
}
