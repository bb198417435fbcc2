//! Faults under load, in short; the soak tier has them at full length.

use std::time::Duration;

use harness::scenarios;

const SHORT: Duration = Duration::from_secs(2);

#[test]
fn a_slow_destination_is_no_matter_to_others_and_gets_every_line_in_the_end() {
    let figures = scenarios::one_of_three_is_slow(SHORT);
    assert!(figures.with_one_slow > 0.0, "{figures:?}");
}

#[test]
fn a_destination_that_was_down_gets_what_waited_and_what_comes() {
    let figures = scenarios::down(SHORT, 50_000);
    assert!(figures.backlog > 50_000, "{figures:?}");
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_no_more_once_there_is_space() {
    if let Some(figures) = scenarios::full_disk(16) {
        assert!(figures.dropped > 0 && figures.dropped < figures.sent);
    }
}

#[test]
fn a_way_that_swallows_packets_is_noticed_and_no_line_is_lost() {
    let write_timeout = Duration::from_secs(1);
    if let Some(noticed) = scenarios::black_hole(SHORT, write_timeout) {
        assert!(noticed > write_timeout / 2, "{noticed:?}");
    }
}

#[test]
fn random_faults_lose_nothing_that_may_not_be_lost() {
    let (sent, missing) = scenarios::day(12);
    assert!(missing < sent, "{missing} of {sent} did not come");
}
