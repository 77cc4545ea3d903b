"""
A Twisted application: ``twistd -ny twisted_service.py`` runs a service that copies each message to
standard output, and stops in order with the process.
"""

from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from metamorphosis.client.tx import MessageSessionFactory


class Copier(Service):
    log = Logger()

    def startService(self):
        super().startService()
        self.factory = MessageSessionFactory(zookeeper="localhost:2181")
        ensureDeferred(self.run()).addErrback(
            lambda failure: self.log.failure("The consumer cannot start", failure)
        )

    async def run(self):
        await self.factory.start()
        consumer = self.factory.create_consumer(group="copier")
        consumer.subscribe("test", listener=self.copy)
        await consumer.complete_subscribe()

    def copy(self, message):
        self.log.info("got {data}", data=message.data.decode())

    def stopService(self) -> Deferred:
        """The reactor waits for the end of the consumer."""
        super().stopService()
        return self.factory.close()


application = Application("copier")
Copier().setServiceParent(application)
