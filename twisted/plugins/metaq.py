"""Makes ``twistd metaq`` known. Nothing else may be here: Twisted imports it for every ``twistd``."""

from twisted.application.service import ServiceMaker

metaq = ServiceMaker(
    "metaq",
    "metamorphosis.tap",
    "A MetaQ (Metamorphosis 1.4.6.2) message broker.",
    "metaq",
)
