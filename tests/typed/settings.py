"""Settings and arguments of every face and of the offset stores."""

from __future__ import annotations

from pathlib import Path

from metamorphosis.client import aio, blocking, tx
from metamorphosis.client.offsets.localfile import LocalFileOffsetStore
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.client.offsets.mysql import MySQLOffsetStore
from metamorphosis.client.offsets.zookeeper import ZooKeeperOffsetStore
from metamorphosis.client.settings import ClientConfig, ConsumerConfig
from metamorphosis.testing import MemoryCluster


def factories() -> None:
    """Settings of a session factory."""
    for module in (tx, aio, blocking):
        module.MessageSessionFactory(zookeeper="a:1", send_timeout_ms=4, recover_path="x")
    tx.MessageSessionFactory("a:1", recover_path=Path("x"), partitions_info={"t": "0:4"})
    tx.MessageSessionFactory("a:1", send_timout_ms=4)  # type: ignore[call-arg]
    tx.MessageSessionFactory("a:1", send_timeout_ms="5")  # type: ignore[arg-type]
    aio.MessageSessionFactory("a:1", send_timout_ms=4)  # type: ignore[call-arg]
    aio.MessageSessionFactory("a:1", send_timeout_ms="5")  # type: ignore[arg-type]
    blocking.MessageSessionFactory("a:1", send_timout_ms=4)  # type: ignore[call-arg]
    blocking.MessageSessionFactory("a:1", send_timeout_ms="5")  # type: ignore[arg-type]
    blocking.MessageSessionFactory(zookeeper=["a:1"])  # type: ignore[arg-type]
    MemoryCluster({"t": 1}).twisted_factory(send_timout_ms=4)  # type: ignore[call-arg]


def configurations() -> None:
    """The same as values."""
    client = ClientConfig(broker="a:1", heartbeat_failures=4)
    client.replaced(broker="b:1", max_body_bytes=5)
    client.replaced(max_body_byte=5)  # type: ignore[call-arg]
    client.replaced(max_body_bytes="5")  # type: ignore[arg-type]
    ClientConfig(brooker="a:1")  # type: ignore[call-arg]
    consumer = ConsumerConfig(group="g", offset_at_ms=5)
    consumer.replaced(group="h", long_poll_ms=0)
    consumer.replaced(long_poll=0)  # type: ignore[call-arg]


async def consumers(one: tx.MessageSessionFactory, other: aio.MessageSessionFactory) -> None:
    """Settings of a consumer."""
    one.create_consumer("g", max_deliveries=4).subscribe("t")
    one.create_consumer("g", max_delivery=4)  # type: ignore[call-arg]
    one.create_consumer("g", offset=b"4")  # type: ignore[arg-type]
    other.create_broadcast_consumer("g", commit_offset_period_ms=5)
    other.create_broadcast_consumer("g", commit_period_ms=5)  # type: ignore[call-arg]
    other.create_broadcast_consumer("g", send_timeout_ms=5)  # type: ignore[call-arg]
    messages = await one.create_consumer("g").poll(1.5, max=5)
    print(messages[0].data, messages[0].attribute)
    await other.create_consumer("g").poll("1")  # type: ignore[arg-type]


def plain_calls(factory: blocking.MessageSessionFactory) -> None:
    """The blocking face."""
    factory.create_consumer("g", stop_timeout_ms=5)
    factory.create_consumer("g", stop_timeout=5)  # type: ignore[call-arg]
    factory.create_consumer("g", stop_timeout_ms=None)  # type: ignore[arg-type]
    for message in factory.create_consumer("g").messages(timeout=5):
        print(message.offset)
    factory.create_consumer("g", store=MySQLOffsetStore(factory.runtime, host="db"))


def stores(factory: tx.MessageSessionFactory) -> None:
    """Arguments of the offset stores."""
    runtime = factory.runtime
    store = MySQLOffsetStore(runtime, "shop.offsets", host="db", port=3306, password="x")
    factory.create_consumer("g", store=store)
    MySQLOffsetStore(runtime, hots="db")  # type: ignore[call-arg]
    MySQLOffsetStore(runtime, port="3306")  # type: ignore[arg-type]
    MySQLOffsetStore(runtime, table=5)  # type: ignore[arg-type]
    factory.create_consumer("g", store=LocalFileOffsetStore(runtime, "offsets"))
    LocalFileOffsetStore(runtime, 5)  # type: ignore[arg-type]
    LocalFileOffsetStore(runtime, file="offsets")  # type: ignore[call-arg]
    factory.create_consumer("g", store=MemoryOffsetStore())
    assert factory.registry is not None
    factory.create_consumer("g", store=ZooKeeperOffsetStore(factory.registry, factory.paths))
    ZooKeeperOffsetStore(factory.paths, factory.registry)  # type: ignore[arg-type]
    factory.create_consumer("g", store="offsets")  # type: ignore[arg-type]
