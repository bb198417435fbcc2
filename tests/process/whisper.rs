//! Against Graphite's own carbon-cache: a line is read back out of the whisper file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::{
    DEADLINE, Directory, Process, RelayProcess, Sender, carbon, eventually, finish, own_address,
    relay, route, skip, tools, unix_seconds,
};

struct CarbonCache {
    _process: Process,
    address: std::net::SocketAddr,
    directory: Directory,
}

impl CarbonCache {
    fn start(program: &PathBuf) -> Self {
        let directory = Directory::of([]);
        let (root, own) = (directory.path().display().to_string(), own_address());
        directory.write(
            "carbon.conf",
            &format!(
                "[cache]\nSTORAGE_DIR = {root}\nLOCAL_DATA_DIR = {root}/whisper\nLOG_CREATES = True\n\
                 LINE_RECEIVER_INTERFACE = {own}\nLINE_RECEIVER_PORT = 2003\n\
                 PICKLE_RECEIVER_INTERFACE = {own}\nPICKLE_RECEIVER_PORT = 2004\n\
                 CACHE_QUERY_INTERFACE = {own}\nCACHE_QUERY_PORT = 7002\n\
                 ENABLE_UDP_LISTENER = False\nCARBON_METRIC_INTERVAL = 0\nMAX_CREATES_PER_MINUTE = inf\n"
            ),
        );
        directory.write(
            "storage-schemas.conf",
            "[all]\npattern = .*\nretentions = 1s:1h\n",
        );
        let mut command = Command::new(program);
        command
            .args(["--nodaemon", "--config"])
            .arg(directory.file("carbon.conf"))
            .arg("start")
            .env("GRAPHITE_ROOT", &root);
        Self {
            _process: Process::start(&mut command),
            address: (own, 2003).into(),
            directory,
        }
    }

    fn whisper_file(&self, name: &str) -> PathBuf {
        let path = format!("whisper/{}.wsp", name.replace('.', "/"));
        self.directory.file(&path)
    }
}

#[test]
fn a_line_is_read_back_from_the_whisper_file_of_a_real_carbon() {
    let (cache, fetch) = match (tools("carbon-cache.py"), tools("whisper-fetch.py")) {
        (Ok(cache), Ok(fetch)) => (cache, fetch),
        (Err(why), _) | (_, Err(why)) => return skip(&why),
    };
    let cache = CarbonCache::start(&cache);
    let directory = Directory::of([
        relay("", ""),
        carbon("graphite", cache.address, ""),
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
