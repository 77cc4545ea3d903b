"""A script in the style of kafka-python, on the blocking face."""

from metamorphosis.client.blocking import MessageSessionFactory

# KafkaProducer(bootstrap_servers=...), KafkaConsumer(..., group_id=...)
with MessageSessionFactory(zookeeper="localhost:2181") as factory:
    with factory.create_producer("test") as producer:
        for number in range(3):
            # producer.send(topic, value, key=key).get(timeout=10)
            result = producer.send("test", b"value %d" % number, key="key")
            print("stored at", result.offset, "of", result.partition)

    # auto_offset_reset="earliest" is the default for a new group
    with factory.create_consumer("from-kafka") as consumer:
        consumer.subscribe("test").complete_subscribe()
        for count, message in enumerate(consumer, 1):
            print(message.topic, message.partition, message.offset, message.data)
            if count == 3:
                consumer.ack(message)  # otherwise the next message would acknowledge it
                break
