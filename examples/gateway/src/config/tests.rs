use super::*;

const NO_ENV: fn(&str) -> Option<String> = |_| None;

#[test]
fn a_file_reads_back_as_it_prints_but_for_the_keys() {
    let text = r#"
        listen = "127.0.0.1:9000"
        [tiers]
        enterprise = "p0"
        [[keys]]
        tenant = "acme"
        tier = "enterprise"
        key = "acme-secret"
        [[upstreams]]
        url = "http://127.0.0.1:8001"
        weight = 3
    "#;
    let config = Config::parse(text).expect("valid");
    config.validate().expect("valid");
    let printed = config.to_toml().expect("TOML");
    assert!(!printed.contains("acme-secret") && !format!("{config:?}").contains("acme-secret"));
    let mut again = Config::parse(&printed).expect("what we print, we read");
    again.keys[0].key = "acme-secret".into();
    assert_eq!(again.to_toml().expect("TOML"), printed, "also with every setting of the priority layer");
    again.priority = config.priority.clone();
    assert_eq!(again, config);
}

#[test]
fn problems_name_the_field_and_all_come_at_once() {
    let error = Config::parse("listn = 1").expect_err("unknown field");
    assert!(error.to_string().contains("listn"), "{error}");
    let error = Config::parse("listen = 'nowhere'").expect_err("no address");
    assert!(error.to_string().contains("listen"), "{error}");
    let error = Config::load(Some(Path::new("/no/such/file")), NO_ENV).expect_err("no file");
    assert!(error.to_string().contains("/no/such/file"));
    let mut bad = Config { max_body_bytes: 0, ..Config::default() };
    bad.tiers.insert("gold".into(), "urgent".into());
    bad.priority.overflow.push("batch".into());
    bad.keys.push(Key { tenant: String::new(), tier: "lead".into(), key: "short".into() });
    let error = bad.validate().expect_err("seven problems");
    assert_eq!(error.problems().len(), 7, "{error}");
    assert!(!error.to_string().contains("short"), "a key is never printed");
}

#[test]
fn r20_a_gpu_exporter_and_the_rows_of_each_backend_are_read_and_checked() {
    let read = |exporter: &str, rows: &str| {
        let text = format!(
            "[balance]\n{exporter}\n[[upstreams]]\nurl = 'http://a'\n[[upstreams]]\nurl = 'http://b'\n{rows}\n"
        );
        let config = Config::parse(&text)?;
        config.validate()?;
        Ok::<_, ConfigError>(config)
    };
    let exporter = "gpu_exporter = { url = 'http://{host}:9400/metrics' }";
    let config = read(exporter, "gpu_rows = { gpu = ['0', '1'], pod = ['x'] }").expect("valid");
    assert_eq!(config.upstreams[1].gpu_rows["gpu"], ["0", "1"]);
    let again = Config::parse(&config.to_toml().expect("TOML")).expect("what we print, we read");
    assert_eq!((again.balance, again.upstreams), (config.balance, config.upstreams));
    for (exporter, rows, named) in [
        ("", "gpu_rows = { gpu = ['0'] }", "upstreams[1].gpu_rows is set, but balance.gpu_exporter"),
        (exporter, "gpu_rows = { gpu = [] }", "upstreams[1].gpu_rows.gpu is []"),
        (exporter, "gpu_rows = { UUID = [''] }", "upstreams[1].gpu_rows.UUID"),
        (exporter, "gpu_rows = { gpu = 0 }", "gpu_rows"),
        ("gpu_exporter = { url = '{host}:9400' }", "", "balance.gpu_exporter.url"),
        ("gpu_exporter = { url = 'http://a/m', kind = 'rocm' }", "", "kind"),
        ("gpu_exporter = { kind = 'dcgm' }", "", "url"),
    ] {
        let error = read(exporter, rows).expect_err(named).to_string();
        assert!(error.contains(named), "{named} in {error}");
    }
}

#[test]
fn settings_for_uploads_are_printed_and_checked() {
    let printed = Config::default().to_toml().expect("TOML");
    for line in ["[uploads]", "collect_max_bytes = 1048576", "max_total_bytes = 67108864", "idle_timeout_seconds = 120"]
    {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    let problems = |text: &str| {
        let text = format!("{text}\n[[upstreams]]\nurl = 'http://a'");
        let error = Config::parse(&text).expect("TOML").validate();
        error.map_or_else(|error| error.problems().to_vec(), |()| Vec::new())
    };
    assert!(problems("[uploads]\ncollect_max_bytes = 25\nmax_total_bytes = 100").is_empty());
    for (text, named) in [
        ("collect_max_bytes = 26\nmax_total_bytes = 100", "uploads.collect_max_bytes is 26: must be 1 to 25"),
        ("collect_max_bytes = 0", "uploads.collect_max_bytes is 0"),
        ("max_total_bytes = 3", "uploads.max_total_bytes is 3"),
        ("max_caller_percent = 101", "uploads.max_caller_percent is 101: must be 1 to 100"),
        ("body_timeout_seconds = 0", "uploads.body_timeout_seconds is 0"),
        ("min_bytes_per_second = 0", "uploads.min_bytes_per_second is 0"),
    ] {
        let problems = problems(&format!("[uploads]\n{text}"));
        assert!(problems.len() == 1 && problems[0].starts_with(named), "{named} in {problems:?}");
    }
    assert_eq!(problems("[uploads]\nbody_timeout_seconds = 0\nmin_bytes_per_second = 0").len(), 2);
    assert_eq!(problems("[balance]\nidle_timeout_seconds = 0").len(), 1);
}

#[test]
fn the_environment_goes_over_the_file() {
    let env = |name: &str| match name {
        "FOREBAY_LISTEN" => Some("127.0.0.1:0".to_owned()),
        "FOREBAY_UPSTREAMS" => Some("http://a:1=3, http://b:2".to_owned()),
        _ => None,
    };
    let config = Config::load(None, env).expect("valid");
    assert_eq!(config.listen.port(), 0);
    assert_eq!(config.upstreams, [Upstream::new("http://a:1", 3), Upstream::new("http://b:2", 1)]);
    let wrong = |name: &str| (name == "FOREBAY_PRIORITY_LIMIT").then(|| "many".to_owned());
    assert!(Config::load(None, wrong).expect_err("no number").to_string().contains("FOREBAY_PRIORITY_LIMIT"));
}

#[test]
fn attempt_timeouts_and_the_share_of_a_tenant_are_read_checked_and_printed() {
    let read = |jobs: &str| {
        let config = Config::parse(&format!("[jobs]\n{jobs}\n[[upstreams]]\nurl = 'http://a'\n"))?;
        config.validate()?;
        Ok::<_, ConfigError>(config)
    };
    let config = read("max_tenant_share = 0.25\nattempt_timeout_seconds = { p0 = 600, P15 = 1 }").expect("valid");
    assert_eq!(config.jobs.max_tenant_share, 0.25);
    assert_eq!(config.jobs.attempt_timeout_seconds["p0"], 600);
    let printed = config.to_toml().expect("TOML");
    assert!(printed.contains("max_tenant_share = 0.25") && printed.contains("P15 = 1"), "{printed}");
    let again = Config::parse(&printed).expect("what we print, we read");
    assert_eq!(again.jobs, config.jobs);
    assert_eq!(read("").expect("valid").jobs, Jobs::default());
    for (jobs, named) in [
        ("max_tenant_share = 0.0", "jobs.max_tenant_share is 0"),
        ("max_tenant_share = 1.5", "jobs.max_tenant_share is 1.5"),
        ("max_tenant_share = nan", "jobs.max_tenant_share is NaN"),
        ("attempt_timeout_seconds = { p16 = 5 }", "jobs.attempt_timeout_seconds has \"p16\""),
        ("attempt_timeout_seconds = { p3 = 0 }", "jobs.attempt_timeout_seconds.p3 is 0"),
        ("attempt_timeout_seconds = { p3 = -1 }", "attempt_timeout_seconds"),
    ] {
        let error = read(jobs).expect_err(named).to_string();
        assert!(error.contains(named), "{named} in {error}");
    }
    let error =
        read("max_tenant_share = 2.0\nattempt_timeout_seconds = { batch = 0, p1 = 0 }").expect_err("all at once");
    assert_eq!(error.problems().len(), 4, "{error}");
}
