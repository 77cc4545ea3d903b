"""
The original's three partners in replication, played from section 3.13, 4, 5 and 5.1 of the
specification, defects included, because its slaves were never published:

* ``ScriptedFollower`` copies from a master of ours as a Java slave does (``-Fmetaslave``);
* ``ScriptedGregor`` is the slave of a pair whose master is ours (``-Fgregor``);
* ``ScriptedSamsa`` is the master of a pair whose slave is ours (``-Fsamsa``).

Each is strict about every byte that it receives: ``verify`` raises what it did not expect. A wire
of ``scriptedwire`` connects it, in memory or over sockets::

    gregor = ScriptedGregor({"test": 2})
    wire = MemoryWire(gregor, protocol)        # of a unit test, on a StringTransport
    wire = LinkWire(gregor, link)              # of a unit test, on a MemoryRuntime
    wire = SocketWire(gregor)                  # listens on wire.port
    gregor.faults[3] = Fault.REFUSE            # the third record that it is sent
"""

from __future__ import annotations

from tests.support.scriptedfollower import Copying, ScriptedFollower, Step
from tests.support.scriptedgregor import Fault, ScriptedGregor
from tests.support.scriptedlogs import PROBE, Place, ScriptedLog, record
from tests.support.scriptedsamsa import ScriptedSamsa, Sent

__all__ = [
    "PROBE",
    "Copying",
    "Fault",
    "Place",
    "ScriptedFollower",
    "ScriptedGregor",
    "ScriptedLog",
    "ScriptedSamsa",
    "Sent",
    "Step",
    "record",
]
