//! The scenarios of the process tier, at full length.

use std::time::Duration;

use harness::scenarios;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn one_of_three_destinations_is_slow_for_a_minute() {
    let figures = scenarios::one_of_three_is_slow(MINUTE);
    let part = figures.with_one_slow / figures.with_three_fast;
    println!("{figures:?}: the other two kept {:.0} %", part * 100.0);
}

#[test]
fn a_destination_is_down_for_a_minute_at_500_000_lines_a_second() {
    let figures = scenarios::down(MINUTE, 500_000);
    let rate = figures.backlog as f64 / figures.replay.as_secs_f64();
    println!("{figures:?}: {rate:.0} lines a second from disk, beside what came in");
}

#[test]
fn a_spool_file_system_of_64_mebibytes_fills_up() {
    println!("{:?}", scenarios::full_disk(64));
}

#[test]
fn a_peer_is_a_black_hole_for_a_minute() {
    let write_timeout = Duration::from_secs(5);
    let noticed = scenarios::black_hole(MINUTE, write_timeout);
    println!("noticed after {noticed:?}, with a write time-out of {write_timeout:?}");
}

#[test]
fn a_day_in_minutes() {
    let (sent, missing) = scenarios::day(300);
    println!("{sent} lines sent; {missing} did not come, and may be missing");
}

#[test]
fn every_sink_is_away_for_a_minute() {
    if let Some((lines, took)) = scenarios::every_sink_is_away(MINUTE) {
        println!("all had {lines} lines {took:?} after they were back");
    }
}
