"""Makes ``twistd metaq-zookeeper`` known; nothing else may be here: every ``twistd`` imports it."""

from twisted.application.service import ServiceMaker

metaq_zookeeper = ServiceMaker(
    "metaq-zookeeper",
    "metamorphosis.zookeeper.tap",
    "A coordination service of one node for clients of ZooKeeper 3.4.",
    "metaq-zookeeper",
)
