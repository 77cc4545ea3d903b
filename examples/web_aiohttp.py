"""A web application on aiohttp that answers when the order is stored."""

import os

from aiohttp import web

from metamorphosis.client.aio import MessageSessionFactory
from metamorphosis.errors import MetaQError, NoPartition, NotConnected


async def messages(app):
    """One session for the whole application, closed after the last request."""
    settings = {"zookeeper": "localhost:2181", "delivery_timeout_ms": 5000}
    async with MessageSessionFactory(**settings) as factory:
        app["producer"] = await factory.create_producer("test")
        yield


async def order(request):
    body = await request.read()
    try:
        result = await request.app["producer"].send("test", body)
    except (NotConnected, NoPartition):
        raise web.HTTPServiceUnavailable(text="not stored, try again\n") from None
    except MetaQError as error:
        state = "not stored" if error.outcome_known else "perhaps stored"
        raise web.HTTPGatewayTimeout(text=f"{state}: {error}\n") from None
    return web.json_response({"id": result.message_id})


app = web.Application()
app.cleanup_ctx.append(messages)
app.add_routes([web.post("/orders", order)])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
