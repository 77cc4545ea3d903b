"""Makes ``twistd metaq`` known; nothing else may be here: every ``twistd`` imports it."""

from twisted.application.service import ServiceMaker

metaq = ServiceMaker(
    "metaq",
    "metamorphosis.tap",
    "A MetaQ (Metamorphosis 1.4.6.2) message broker.",
    "metaq",
)
