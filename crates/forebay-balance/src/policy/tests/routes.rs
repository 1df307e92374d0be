//! Pools: routes, spill and borrowing.

use super::*;

/// Pool 0 is shared and has two places, pool 1 is P0's own and has one; P3 may borrow there while one stays free.
fn pools(dedicated: u32) -> (Picker, Instant) {
    let mut routes = Routes::to_one_pool();
    routes.0[0].pools = vec![1, 0];
    routes.0[3].guests = vec![Guest { pool: 1, at_most: 1, keep: 1 }];
    let now = now();
    let mut picker = Picker::new(Settings::default(), routes, 2, 7, now);
    picker.insert(new(1, Some(2)), now);
    picker.insert(New { pool: 1, ..new(1, Some(dedicated)) }, now);
    (picker, now)
}

fn ask(class: Class) -> Ask<'static> {
    Ask { class, ..Ask::default() }
}

#[test]
fn r42_a_class_goes_to_its_own_pool_and_spills_when_that_is_full() {
    let (mut picker, now) = pools(1);
    let reasons: Vec<_> = (0..3).map(|_| picker.pick(ask(Class::P0), &[], now).expect("open").reason).collect();
    assert_eq!(reasons, [PickReason::Load, PickReason::Spill, PickReason::Spill]);
    assert_eq!(picker.pick(ask(Class::P0), &[], now), Err(PickError::AtCapacity));
}

#[test]
fn r43_nobody_else_enters_but_who_may_borrow_and_then_so_many() {
    let (mut picker, now) = pools(3);
    for _ in 0..2 {
        assert_eq!(picker.pick(ask(Class::P1), &[], now).expect("shared").claim.pool(), 0);
    }
    assert_eq!(picker.pick(ask(Class::P1), &[], now), Err(PickError::AtCapacity), "not in P0's");
    let guest = picker.pick(ask(Class::P3), &[], now).expect("borrowed");
    assert_eq!((guest.claim.pool(), guest.reason), (1, PickReason::Borrow));
    assert_eq!(picker.pick(ask(Class::P3), &[], now), Err(PickError::AtCapacity), "one at most");
    end(&mut picker, &guest, Outcome::Success, now, now);
    let claim = picker.reserve(Class::P3).expect("a place to borrow again");
    assert!(picker.reserve(Class::P3).is_none());
    picker.unreserve(claim);
    let own: Vec<_> = (0..2).map(|_| picker.pick(ask(Class::P0), &[], now).expect("its own")).collect();
    assert_eq!(picker.pick(ask(Class::P3), &[], now), Err(PickError::AtCapacity), "one is kept");
    assert!(own.iter().all(|picked| picked.claim.pool() == 1));
    assert_eq!(picker.pools[1].borrowed[3], 0);
}

#[test]
fn r43_a_dead_dedicated_pool_spills() {
    let (mut picker, now) = pools(1);
    picker.remove(1, now);
    assert_eq!(picker.pick(ask(Class::P0), &[], now).expect("shared").reason, PickReason::Spill);
    picker.remove(0, now);
    assert_eq!(picker.pick(ask(Class::P0), &[], now), Err(PickError::NoEndpoint));
}

#[test]
fn r32_a_reservation_of_one_pool_is_given_back_where_a_better_one_came_free() {
    let (mut picker, now) = pools(1);
    let own = picker.pick(ask(Class::P0), &[], now).expect("its own");
    let claim = picker.reserve(Class::P0).expect("in the shared one");
    assert_eq!(claim.pool(), 0);
    end(&mut picker, &own, Outcome::Success, now, now);
    let picked = picker.pick(Ask { claim: Some(claim), ..ask(Class::P0) }, &[], now).expect("open");
    assert_eq!((picked.claim.pool(), picker.pools[0].reserved, picker.pools[0].open()), (1, 0, 2));
}
