use serde_json::json;

use super::fleet::Fleet;
use super::outcome::Outcome;
use super::proxies::Proxy;
use crate::{Goal, Report};

pub(super) type Results = Vec<(Proxy, Option<Outcome>)>;

/// Prints the table of a fleet, and reports its figures.
pub(super) fn show(report: &mut Report, fleet: &Fleet, results: &Results) {
    let name = fleet.name();
    println!("\n{name}: streams at twice the load that fits, {} s counted", fleet.measured);
    println!("{:<10} class  offered  refused %  first token p50 s   p99 s   goodput", "");
    for (proxy, outcome) in results {
        let proxy = proxy.name();
        let Some(outcome) = outcome else {
            println!("{proxy:<10} missing");
            continue;
        };
        for class in 0..4 {
            let first =
                |share| outcome.first(class, share).map_or_else(|| "-".to_owned(), |first| format!("{first:.3}"));
            println!(
                "{:<10} P{class}    {:>7}  {:>9.1}  {:>17}  {:>6}   {}",
                if class == 0 { proxy } else { "" },
                outcome.offered[class],
                outcome.refused(class) * 100.0,
                first(0.5),
                first(0.99),
                if class == 0 { format!("{:.4}", outcome.goodput) } else { String::new() }
            );
        }
        println!(
            "{:<10} the client sent at most {:.1} ms late, and took {:.0} % of a core",
            "",
            outcome.late * 1e3,
            outcome.client * 100.0
        );
        report.figure(&format!("{name}, {proxy}"), figures(outcome));
    }
}

fn figures(outcome: &Outcome) -> serde_json::Value {
    let round = |value: f64| (value * 1e4).round() / 1e4;
    let first = |share| (0..4).map(|class| outcome.first(class, share).map(round)).collect::<Vec<_>>();
    json!({
        "offered": outcome.offered,
        "refused": outcome.refused,
        "first_token_p50_s": first(0.5),
        "first_token_p99_s": first(0.99),
        "goodput": round(outcome.goodput),
    })
}

/// Judges the gateway beside HAProxy, where that is installed.
///
/// One run decides little between two proxies that both serve P0 first: as they give slots to other requests of the less
/// urgent classes, slots come free at other times, and the ratio of the 99th percentiles scatters from 0.6 to 1.9.
pub(super) fn judge(report: &mut Report, fleet: &Fleet, results: &Results) {
    let name = fleet.name();
    let of = |wanted: Proxy| results.iter().find(|(proxy, _)| *proxy == wanted).and_then(|(_, it)| it.as_ref());
    let (Some(ours), Some(theirs)) = (of(Proxy::Gateway), of(Proxy::Haproxy)) else { return };
    println!();
    let refused = ours.refused(0) - theirs.refused(0);
    report.target(&format!("{name}: P0 refused, gateway - HAProxy"), refused, Goal::AtMost(0.0));
    // A proxy that served no P0 at all has no time to compare with; its share of refused ones says so.
    if let (Some(ours), Some(theirs)) = (ours.first(0, 0.99), theirs.first(0, 0.99)) {
        report.target(&format!("{name}: P0 first token p99, gateway / HAProxy"), ours / theirs, Goal::AtMost(1.0));
    }
    report.target(&format!("{name}: goodput, gateway / HAProxy"), ours.goodput / theirs.goodput, Goal::AtLeast(1.0));
}
