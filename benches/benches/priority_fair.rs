//! Fairness within a class: 100 tenants at twice the capacity, one of whom asks for a hundred times as much as each of
//! the others. How long do the others wait, with him and without, and how are the seats shared? In virtual time.
//!
//! `cargo bench -p forebay-benches --bench priority_fair`

use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_benches::priority::{Backend, HOLD, Hold, Random, SEATS, Spent};
use forebay_benches::{Goal, Report};
use forebay_core::{Class, Principal};
use forebay_priority::{ClassConfig, Limit, PriorityConfig, PriorityLayer};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, Service, ServiceExt as _};

const TENANTS: usize = 100;
const TIME: Duration = Duration::from_secs(30);
const WARM: Duration = Duration::from_secs(5);
/// How long the class may wait, and its callers do.
const PATIENCE: Duration = Duration::from_secs(3);
const CAPACITY: f64 = SEATS as f64 / HOLD.as_secs_f64();

/// Of one tenant, after the warm-up: requests, what each waited for the backend (3 s where it had no answer), how long
/// each took in all, answers and seat-time.
#[derive(Debug, Clone, Default)]
struct Tenant {
    asked: usize,
    waits: Vec<Duration>,
    times: Vec<Duration>,
    answers: usize,
    seats: Duration,
}

/// Sends each tenant's requests, so many a second, independently of each other.
async fn offer<S, R>(service: S, rates: &[f64]) -> Vec<Tenant>
where
    S: Service<Request<()>, Response = Response<R>, Error: Send, Future: Send> + Clone + Send + 'static,
    R: http_body::Body<Data: Send, Error: Send> + Send + 'static,
{
    let tenants = Arc::new(Mutex::new(vec![Tenant::default(); rates.len()]));
    let names: Vec<_> = (0..rates.len()).map(|tenant| Principal::from_bytes(format!("tenant {tenant}"))).collect();
    let total: f64 = rates.iter().sum();
    let (mut random, start) = (Random::new(11), Instant::now());
    let (mut at, mut callers) = (start, JoinSet::new());
    loop {
        at += Duration::from_secs_f64(random.exponential(1.0 / total));
        if at - start >= TIME {
            break;
        }
        sleep_until(at).await;
        let mut dice = random.unit() * total;
        let below = |rate: &f64| {
            dice -= rate;
            dice < 0.0
        };
        let tenant = rates.iter().position(below).unwrap_or(0);
        let mut request = Request::new(());
        request.extensions_mut().insert(Class::P0);
        request.extensions_mut().insert(names[tenant].clone());
        request.extensions_mut().insert(Hold::random(&mut random));
        let (service, tenants, arrived) = (service.clone(), Arc::clone(&tenants), Instant::now());
        callers.spawn(async move {
            let answer = timeout(PATIENCE + HOLD * 2, async {
                let response = service.oneshot(request).await.ok()?;
                let spent = response.extensions().get::<Spent>().copied()?;
                response.into_body().collect().await.ok()?;
                Some(spent.0)
            });
            let spent = answer.await.ok().flatten();
            let now = Instant::now();
            let mut tenants = tenants.lock().expect("no panic");
            let tenant = &mut tenants[tenant];
            if arrived - start >= WARM {
                tenant.asked += 1;
                let whole = if spent.is_some() { now - arrived } else { PATIENCE };
                tenant.waits.push(whole.saturating_sub(spent.unwrap_or_default()));
                tenant.times.push(whole);
            }
            if let Some(spent) = spent
                && (start + WARM..start + TIME).contains(&now)
            {
                tenant.answers += 1;
                tenant.seats += spent;
            }
        });
        while let Some(done) = callers.try_join_next() {
            done.expect("no panic");
        }
    }
    while let Some(done) = callers.join_next().await {
        done.expect("no panic");
    }
    tenants.lock().expect("no panic").clone()
}

#[derive(Clone, Copy)]
enum Kind {
    Ours,
    Fifo,
}

fn run(kind: Kind, rates: &[f64]) -> Vec<Tenant> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        match kind {
            Kind::Ours => {
                let config = PriorityConfig::four_class(SEATS).expected_hold(HOLD).expected_head(HOLD);
                let config = config.classes(vec![ClassConfig::new("one", PATIENCE)]).limit(Limit::Fixed(SEATS));
                let layer = PriorityLayer::builder().config(config).build_with_handle().expect("valid").0;
                offer(layer.layer(Backend::default()), rates).await
            }
            Kind::Fifo => offer(ConcurrencyLimitLayer::new(SEATS).layer(Backend::default()), rates).await,
        }
    })
}

fn p99(tenants: &[Tenant], of: fn(&Tenant) -> &[Duration]) -> Duration {
    let mut waits: Vec<_> = tenants.iter().flat_map(|tenant| of(tenant).iter().copied()).collect();
    waits.sort_unstable();
    waits.get(waits.len() * 99 / 100).copied().unwrap_or_default()
}

/// The level up to which each is served when all are served equally, and nobody gets more than he asks for.
fn level(rates: &[f64]) -> f64 {
    let (mut sorted, mut left) = (rates.to_vec(), CAPACITY);
    sorted.sort_unstable_by(f64::total_cmp);
    for (at, rate) in sorted.iter().enumerate() {
        let equal = left / (sorted.len() - at) as f64;
        if *rate >= equal {
            return equal;
        }
        left -= rate;
    }
    f64::INFINITY
}

/// Jain, Chiu and Hawe, DEC-TR-301, 1984, over seat-time by what each was entitled to.
fn jain(tenants: &[Tenant], rates: &[f64]) -> f64 {
    let level = level(rates);
    let seconds = (TIME - WARM).as_secs_f64();
    let entitled = |tenant: &Tenant| (tenant.asked as f64 / seconds).min(level) * HOLD.as_secs_f64() * seconds;
    let shares: Vec<_> = tenants.iter().map(|tenant| tenant.seats.as_secs_f64() / entitled(tenant)).collect();
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

fn main() {
    let mut report = Report::default();
    println!(
        "{:<44} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "others' p99 wait", "alone", "with him", "answered", "his", "Jain"
    );
    let mut goals = Vec::new();
    for (title, others, greed) in [
        // He a hundredfold, all together twice the capacity: the others alone fill it almost.
        ("others want 99.5 %, he 100x", 2.0 * CAPACITY / 199.0, 100.0),
        ("others want 50 %, he 100x (1.005x in all)", 0.5 * CAPACITY / 99.0, 100.0),
        ("others want 50 %, he 297x (2x in all)", 0.5 * CAPACITY / 99.0, 297.0),
    ] {
        let mut rates = vec![others; TENANTS];
        rates[0] *= greed;
        for (name, kind) in [("forebay", Kind::Ours), ("ConcurrencyLimit", Kind::Fifo)] {
            let (alone, with) = (run(kind, &rates[1..]), run(kind, &rates));
            let both = |of: fn(&Tenant) -> &[Duration]| (p99(&alone, of), p99(&with[1..], of));
            let ((before, after), times) = (both(|tenant| &tenant.waits), both(|tenant| &tenant.times));
            let share = |tenants: &[Tenant]| {
                let sum = |of: fn(&Tenant) -> usize| tenants.iter().map(of).sum::<usize>() as f64;
                sum(|tenant| tenant.answers) / sum(|tenant| tenant.asked)
            };
            let (served, his, jain) = (share(&with[1..]), share(&with[..1]), jain(&with, &rates));
            println!(
                "{:<44} {before:>9.0?} {after:>9.0?} {:>8.2}% {:>7.2}% {jain:>8.4}",
                format!("{title}: {name}"),
                served * 100.0,
                his * 100.0
            );
            report.figure(&format!("{title}: {name}: others' p99 wait alone, ms"), before.as_millis() as u64);
            report.figure(&format!("{title}: {name}: others' p99 wait with him, ms"), after.as_millis() as u64);
            report.figure(&format!("{title}: {name}: others answered"), (served * 1e4).round() / 1e4);
            report.figure(&format!("{title}: {name}: Jain index"), (jain * 1e4).round() / 1e4);
            if matches!(kind, Kind::Ours) {
                let ratio = after.as_secs_f64() / before.as_secs_f64().max(0.001); // the clock's step
                goals.push((format!("{title}: others' p99 wait, with him / without"), ratio, Goal::AtMost(1.2)));
                let ratio = times.1.as_secs_f64() / times.0.as_secs_f64();
                goals.push((
                    format!("{title}: others' p99 time to the answer, with him / without"),
                    ratio,
                    Goal::AtMost(1.2),
                ));
                goals.push((format!("{title}: Jain index of seat-time"), jain, Goal::AtLeast(0.99)));
            }
        }
    }
    println!();
    for (name, value, goal) in goals {
        report.target(&name, value, goal);
    }
    report.print();
}
