"""``sync``, which a master sends to its synchronous slave: refused by any other broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.broker.dispatch import Table
from metamorphosis.errors import ServiceUnavailable
from metamorphosis.wire import commands as wire

if TYPE_CHECKING:
    from metamorphosis.broker.session import Session

NO_SYNC = "未注册请求处理器，请求处理器类为com.taobao.metamorphosis.network.SyncCommand"


def table() -> Table:
    """The commands that are answered here."""
    return {wire.SyncCommand: refuse}


def refuse(command: wire.SyncCommand, session: Session) -> None:
    """Refuse as the original does, which has no processor registered for it."""
    raise ServiceUnavailable(NO_SYNC)
