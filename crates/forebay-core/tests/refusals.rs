//! The words of all refusals: what is written here is what callers, logs and other people's dashboards know.

use std::fmt::Write as _;
use std::time::Duration;

use forebay_core::{Class, Protocol, Reason, Rejection};

/// Status, fields and body of the refusal for each reason, after 1.5 s in P2; the time to come back is 4 s and up to a
/// quarter more.
fn refusals(caller: Protocol) -> String {
    let mut text = String::new();
    for &reason in Reason::ALL {
        let rejection = Rejection::new(reason).class(Class::P2).waited(Duration::from_millis(1500));
        let response = rejection.retry_after(Duration::from_secs(4)).into_response_for(caller);
        writeln!(text, "{}", response.status()).expect("a String takes all");
        for (name, value) in response.headers() {
            let value = match value.to_str().expect("visible text") {
                "5" => "4",
                "5000" => "4000",
                other => other,
            };
            writeln!(text, "{name}: {value}").expect("a String takes all");
        }
        let body = std::str::from_utf8(response.body()).expect("UTF-8");
        writeln!(text, "{}", body.replace("\"retry_after\":5", "\"retry_after\":4")).expect("a String takes all");
    }
    text
}

#[test]
fn http_callers_read_a_problem_document() {
    insta::assert_snapshot!(refusals(Protocol::Http));
}

#[test]
fn r33_grpc_callers_read_trailers_only() {
    insta::assert_snapshot!(refusals(Protocol::Grpc));
}
