"""One request to a broker on this machine, over the Unix socket in its data path. Blocks."""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any

from metamorphosis.config import serverini
from metamorphosis.errors import MetaQError
from metamorphosis.web.unixsocket import reachable, socket_path

SERVER_INI = "server.ini"


class NotRunning(MetaQError):
    """No broker serves the data directory."""


class Refused(MetaQError):
    """The broker has refused the request."""


class _Connection(http.client.HTTPConnection):
    """
    HTTP over a Unix socket.

    :param path: of the socket.
    """

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Called by ``http.client``."""
        end = socket.socket(socket.AF_UNIX)
        try:
            end.settimeout(self.timeout)
            with reachable(self._path) as name:
                end.connect(name)
        except BaseException:
            end.close()
            raise
        self.sock = end


def find_socket(data: str | None, config: str | None) -> str:
    """
    The socket of the broker with this data path.

    :param data: a data path, or the directory of ``twistd metaq --local``.
    :param config: a ``server.ini``, without ``data``.
    :raises ConfigError: ``config`` is faulty.
    :raises MetaQError: the directory does not exist.
    """
    if data is not None:
        path, inside = socket_path(data), os.path.join(data, SERVER_INI)
        if not os.path.isdir(data):
            raise MetaQError(f"{data} is not a directory")
        if os.path.exists(path) or not os.path.exists(inside):
            return path
        config = inside
    assert config is not None  # the command line requires one of them
    return socket_path(serverini.load(config).data_path)


def ask(path: str, method: str, route: str, timeout: float) -> Any:
    """
    The broker's reply.

    :param path: of the socket.
    :param route: the path after ``/api/v1``.
    :param timeout: seconds.
    :raises NotRunning: no process listens there.
    :raises Refused: the broker has refused.
    :raises MetaQError: it does not reply in time, or the connection is lost.
    """
    connection = _Connection(path, timeout)
    try:
        connection.request(method, f"/api/v1{route}")
        response = connection.getresponse()
        status, value = response.status, json.loads(response.read())
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(f"no broker runs on {os.path.dirname(path)}") from error
    except PermissionError as error:
        raise MetaQError(f"{path}: only the user of the broker, and root, may use it") from error
    except TimeoutError as error:
        text = f"the broker on {os.path.dirname(path)} has not answered within {timeout:g} s"
        raise MetaQError(text) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        what = "; its log says why" if method == "POST" else ""
        text = f"the broker on {os.path.dirname(path)} went away or let us not in{what}"
        raise MetaQError(f"{text} ({error})") from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise Refused(str(value.get("error", status)))
    return value
