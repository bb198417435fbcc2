//! Files as destinations.

use std::fs;
use std::path::Path;

use harness::{
    DEADLINE, Directory, RelayProcess, Sender, destination, eventually, file, numbered_line, relay,
    route,
};
use tempfile::TempDir;

fn relay_to_file(path: &Path) -> (RelayProcess, Directory) {
    let directory = Directory::of([
        relay("", ""),
        file("lines", path),
        route("all", "destinations: [{name: lines}]"),
    ]);
    (RelayProcess::run(&directory), directory)
}

#[test]
fn lines_are_appended_to_a_file() {
    let output = Directory::of([]);
    let path = output.file("lines.txt");
    fs::write(&path, "what was there\n").unwrap();
    let (relay, _directory) = relay_to_file(&path);
    Sender::deliver(relay.address(), "a   1 1\nb 2 2\n");
    relay.settle(2);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "what was there\na 1 1\nb 2 2\n"
    );
}

#[test]
fn dev_stdout_is_the_standard_output() {
    let (relay, _directory) = relay_to_file(Path::new("/dev/stdout"));
    let greeting = relay.process.stdout().len();
    Sender::deliver(
        relay.address(),
        "servers.web1.cpu 1 1\nservers.web2.cpu 2 2\n",
    );
    let lines = eventually(DEADLINE, "two more lines on stdout", || {
        let lines = relay.process.stdout();
        if lines.len() >= greeting + 2 {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        }
    });
    assert_eq!(
        lines[greeting..],
        ["servers.web1.cpu 1 1", "servers.web2.cpu 2 2"]
    );
    relay.settle(2);
}

#[test]
fn a_file_that_cannot_be_opened_is_tried_again_and_its_lines_wait() {
    let output = Directory::of([]);
    let path = output.file("not/yet/there");
    let (relay, _directory) = relay_to_file(&path);
    Sender::deliver(relay.address(), "a 1 1\n");
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["WARN", "default/lines", "not/yet/there"]);
    assert_eq!(relay.accounts().destination("lines").queued, 1);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    relay.settle(1);
    assert_eq!(fs::read_to_string(&path).unwrap(), "a 1 1\n");
}

#[test]
fn a_file_that_was_moved_away_is_made_anew_after_a_restart() {
    let output = Directory::of([]);
    let path = output.file("lines.txt");
    let (mut relay, directory) = relay_to_file(&path);
    Sender::deliver(relay.address(), "a 1 1\n");
    relay.settle(1);
    fs::rename(&path, output.file("lines.1")).unwrap();
    relay.process.kill();
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "b 1 1\n");
    relay.settle(1);
    let read = |name| fs::read_to_string(output.file(name)).unwrap();
    assert_eq!(
        (read("lines.1"), read("lines.txt")),
        ("a 1 1\n".into(), "b 1 1\n".into())
    );
}

#[test]
fn a_full_disk_makes_lines_wait_and_hurts_nobody_else() {
    let output = Directory::of([]);
    let good = output.file("good");
    let directory = Directory::of([
        relay("", ""),
        file("full", Path::new("/dev/full")),
        file("good", &good),
        route("all", "destinations: [{name: full}, {name: good}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a 1 1\nb 1 1\n");
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["WARN", "default/full", "No space left"]);
    eventually(
        DEADLINE,
        "the other file to have the lines",
        || match fs::read_to_string(&good).unwrap_or_default().as_str() {
            "a 1 1\nb 1 1\n" => Ok(()),
            text => Err(text.into()),
        },
    );
    let accounts = relay.accounts();
    assert_eq!(accounts.balance(), Ok(()));
    assert_eq!(
        (
            accounts.destination("full").queued,
            accounts.destination("good").sent
        ),
        (2, 2)
    );
    // moved to where there is room, they are all there
    let room = output.file("room");
    let text = fs::read_to_string(directory.file("resources.yaml")).unwrap();
    directory.write(
        "resources.yaml",
        &text.replace("/dev/full", &room.display().to_string()),
    );
    relay.settle(2);
    assert_eq!(fs::read_to_string(&room).unwrap(), "a 1 1\nb 1 1\n");
}

#[test]
fn a_file_that_is_large_enough_is_put_aside_between_lines() {
    const LINES: u64 = 20_000;
    let state = TempDir::new().unwrap();
    let path = state.path().join("lines");
    let spec = format!(
        "file: {{path: {}, rotate: {{maxBytes: 64Ki, keep: 2}}}}",
        path.display()
    );
    let directory = Directory::of([
        relay("", ""),
        destination("f", &spec),
        route("all", "destinations: [{name: f}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    let aside = |number: u32| state.path().join(format!("lines.{number}"));
    let mut sent = 0;
    while !aside(2).exists() || sent < LINES {
        sender.send_numbers("n", sent, sent + 1000);
        sent += 1000;
        relay.settle(sent);
    }
    let files = [aside(2), aside(1), path];
    let text: String = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let lines: Vec<&str> = text.lines().collect();
    // The last ones, in order and whole: what is older was removed.
    let first = sent - lines.len() as u64;
    for (line, number) in lines.iter().zip(first..) {
        assert_eq!(*line, numbered_line("n", number).trim_end());
    }
    assert!(!aside(3).exists() && std::fs::metadata(aside(1)).unwrap().len() >= 64 << 10);
}
