"""What tests do with a broker of AMQP. ADDRESS is host:port."""

import json
import sys

import pika


def channel(address):
    host, port = address.rsplit(":", 1)
    connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port)))
    return connection.channel()


def bind(address, exchange, queue, pattern):
    """Makes a durable queue, and has it get what has a routing key of this pattern."""
    to = channel(address)
    to.queue_declare(queue, durable=True)
    to.exchange_declare(exchange, "topic", durable=True)
    to.queue_bind(queue, exchange, pattern)


def delete(address, queue):
    channel(address).queue_delete(queue)


def publish(address, exchange):
    """Publishes what standard input has: a routing key, a tab and a body on each line, in which | stands for a newline."""
    to = channel(address)
    to.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2)
    for line in sys.stdin:
        key, body = line.rstrip("\n").split("\t")
        to.basic_publish(exchange, key, body.replace("|", "\n"), properties, mandatory=True)


def consume(address, queue, count):
    """Takes so many messages out of a queue, and prints them as JSON: [key, body]."""
    to = channel(address)
    left = int(count)
    for method, _, body in to.consume(queue, inactivity_timeout=10):
        if method is None:
            break
        to.basic_ack(method.delivery_tag)
        print(json.dumps([method.routing_key, body.decode()]))
        left -= 1
        if left == 0:
            break


def count(address, queue):
    """How many messages wait in a queue for somebody who takes them."""
    print(channel(address).queue_declare(queue, passive=True).method.message_count)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
