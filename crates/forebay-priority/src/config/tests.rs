use super::*;

#[test]
fn the_reference_table_is_literal_and_automatic_queues_obey_little() {
    let table = PriorityConfig::reference_table();
    table.check().expect("a preset");
    assert_eq!(table.seats(), 950);
    let row = |class: &ClassConfig| (class.cap(950), class.queue_timeout.as_millis(), class.queue, class.order);
    let expected = [(50, 500), (100, 1000), (300, 3000), (500, 10_000)];
    let expected = expected.map(|(seats, millis)| (seats, millis, QueueLength::Fixed(1000), Order::Fifo));
    assert_eq!(table.classes.iter().map(row).collect::<Vec<_>>(), expected);

    let hold = 350e6;
    let auto = |class: &ClassConfig| {
        let unbounded = class.clone().queue(QueueLength::Auto { max: MOST });
        unbounded.queue_length(class.usable(950, 950), class.patience(hold / 950.0), hold)
    };
    assert_eq!(table.classes.iter().map(auto).collect::<Vec<_>>(), [72, 286, 2572, 14_286]);

    let better = PriorityConfig::four_class(50);
    better.check().expect("a preset");
    let at = |hold: f64| {
        let length = |class: &ClassConfig| class.queue_length(50, class.patience(hold / 50.0), hold);
        better.classes.iter().map(length).collect::<Vec<_>>()
    };
    assert_eq!(at(350e6), [1000, 1000, 1000, 715]);
    assert_eq!(at(20e9), [75, 50, 25, 16]);
    assert_eq!(at(1000e9), [48, 24, 20, 16], "as many as the seats that a class waits for, and at least 16");
    assert!(better.classes.iter().all(|class| class.cap(50) == 50));
}

#[test]
fn every_problem_is_named_at_once() {
    let mut config = PriorityConfig::four_class(MOST + 1).max_queued(MOST + 1);
    config.expected_hold = Duration::ZERO;
    config.expected_head = Duration::ZERO;
    config.classes[0].max_in_flight = Cap::Seats(0);
    config.classes[0].reserved = f64::NAN;
    config.classes[0].patience_seats = 100_001;
    (config.stall, config.max_share) = (Some(Duration::ZERO), Some(0.0));
    config.classes[0].answer_timeout = Some(Duration::ZERO);
    config.classes[1].max_in_flight = Cap::Share(f64::NAN);
    config.classes[1].headroom = 1.0;
    config.classes[2].queue = QueueLength::Fixed(MOST + 1);
    config.classes[2].max_hold = Some(Duration::ZERO);
    config.classes[3].queue = QueueLength::Auto { max: 0 };
    config.classes[3].name = "P0".into();
    let error = config.check().expect_err("sixteen problems");
    assert_eq!(error.problems().len(), 16, "{error}");

    config.classes.clear();
    assert!(config.check().expect_err("no classes").to_string().contains("0 entries"));
    let many = |count: u8| (0..count).map(|i| ClassConfig::new(format!("c{i}"), Duration::ZERO)).collect();
    assert!(PriorityConfig::four_class(1).classes(many(16)).check().is_ok());
    assert!(PriorityConfig::four_class(1).classes(many(17)).check().is_err());
    let mut greedy = PriorityConfig::four_class(1);
    greedy.classes.iter_mut().for_each(|class| class.reserved = 0.2);
    assert!(greedy.check().expect_err("0.8").to_string().contains("at most 0.5"));
    let shares = PriorityConfig::four_class(1).limit(Limit::Sum);
    assert_eq!(shares.check().expect_err("no seats").problems().len(), 4);
}

#[test]
fn headroom_lowers_the_ceiling_and_shares_follow_the_limit() {
    let class = ClassConfig::new("batch", Duration::from_secs(1)).headroom(0.1).max_in_flight(Cap::Share(0.25));
    assert_eq!([100, 10, 9, 0].map(|limit| class.ceiling(limit)), [90, 9, 8, 0]);
    assert_eq!([100, 10, 1, 0].map(|limit| class.cap(limit)), [25, 3, 1, 1]);
    assert_eq!(ClassConfig::new("all", Duration::ZERO).ceiling(7), 7);
}
