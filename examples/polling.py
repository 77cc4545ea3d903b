"""A script takes lists of messages, and ends when no more come."""

from metamorphosis.client.blocking import MessageSessionFactory

with (
    MessageSessionFactory(zookeeper="localhost:2181") as factory,
    factory.create_consumer("polling") as consumer,
):
    consumer.subscribe("test").complete_subscribe()
    # A list of 100 at most, empty after 5 s; poll acknowledges the messages of the list before it.
    while messages := consumer.poll(5, 100):
        print(len(messages), "messages, the last one:", messages[-1].data.decode())
print("no more messages")
