//! Against Graphite's own carbon-cache: a line is read back out of the whisper file.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use harness::{
    DEADLINE, Directory, PythonCarbon, RelayProcess, Sender, destination, eventually, finish,
    relay, route, skip, tools, unix_seconds,
};

#[test]
fn a_line_is_read_back_from_the_whisper_file_of_a_real_carbon() {
    through_whisper("Plaintext", "Tcp", PythonCarbon::line);
}

#[test]
fn a_pickle_is_read_back() {
    through_whisper("Pickle", "Tcp", PythonCarbon::pickle);
}

#[test]
fn protobuf_is_read_back() {
    through_whisper("Protobuf", "Tcp", PythonCarbon::protobuf);
}

#[test]
fn a_datagram_is_read_back() {
    through_whisper("Plaintext", "Udp", PythonCarbon::line);
}

fn through_whisper(encoding: &str, transport: &str, address: fn(&PythonCarbon) -> SocketAddr) {
    let fetch = match tools("whisper-fetch.py") {
        Ok(fetch) => fetch,
        Err(why) => return skip(&why),
    };
    let Some(cache) = PythonCarbon::cache() else {
        return;
    };
    let address = address(&cache);
    eventually(DEADLINE, "carbon to listen", || {
        let connected = std::net::TcpStream::connect(address);
        connected.map(drop).map_err(|error| error.to_string())
    });
    let spec = format!("address: \"{address}\", encoding: {encoding}, transport: {transport}");
    let directory = Directory::of([
        relay("", ""),
        destination("graphite", &format!("carbon: {{{spec}}}")),
        route("all", "destinations: [{name: graphite}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    relay.wait_for_connected("graphite", true);
    // in the past, so that it is within what is fetched
    let now = unix_seconds();
    let time = now - 10;
    Sender::deliver(relay.address(), format!("servers.web1.cpu 42.5 {time}\n"));
    relay.settle(1);

    let file = cache.whisper_file("servers.web1.cpu");
    let expected = format!("{time}\t42.500000");
    eventually(DEADLINE, "carbon to write the point", || {
        fs::metadata(&file).map_err(|error| error.to_string())?;
        let mut command = Command::new(&fetch);
        command
            .arg(format!("--from={}", time - 2))
            .arg(format!("--until={now}"))
            .arg(&file);
        let points = finish(&mut command);
        match points.stdout.lines().any(|line| line == expected) {
            true => Ok(()),
            false => Err(format!("{points:?}")),
        }
    });
}
