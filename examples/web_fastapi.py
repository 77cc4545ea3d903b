"""A web application on FastAPI that answers when the order is stored."""

import os
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request

from metamorphosis.client.aio import MessageSessionFactory
from metamorphosis.errors import MetaQError


@asynccontextmanager
async def messages(app):
    """One session for the whole application, closed after the last request."""
    settings = {"zookeeper": "localhost:2181", "delivery_timeout_ms": 5000}
    async with MessageSessionFactory(**settings) as factory:
        app.state.producer = await factory.create_producer("test")
        yield


app = FastAPI(lifespan=messages)


@app.post("/orders")
async def order(request: Request):
    try:
        result = await app.state.producer.send("test", await request.body())
    except MetaQError as error:
        state = "not stored" if error.outcome_known else "perhaps stored"
        raise HTTPException(503 if error.outcome_known else 504, f"{state}: {error}") from None
    return {"id": result.message_id}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
