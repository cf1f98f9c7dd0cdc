"""The cases, by subject. A case tells one story at several versions, in one world (a pair of brokers with the same settings)."""

import importlib
import os
import pkgutil

WORLDS = {
    # Nobody has asked for a coordinator yet.
    "fresh": {},
    "usual": {},
    "strict": {
        "auto.create.topics.enable": "false",
        "delete.topic.enable": "false",
        "group.max.size": "2",
        "group.min.session.timeout.ms": "7000",
        "group.max.session.timeout.ms": "9000",
        "message.max.bytes": "2000",
        "offset.metadata.max.bytes": "8",
        "socket.request.max.bytes": "5000",
        "max.connections.per.ip": "4",
        "connections.max.idle.ms": "5000",
        "fetch.max.bytes": "1024",
    },
}
# ALL_VERSIONS=1 takes every version of every request, one after the other: some minutes.
LEVELS = tuple(range(19)) if os.environ.get("ALL_VERSIONS") else ("low", "middle", "high")
CASES = []


class Case:
    def __init__(self, run, levels, world):
        self.run, self.levels, self.world, self.name = run, levels, world, run.__name__.replace("_", "-")


def case(levels=LEVELS, world="usual"):
    def register(run):
        CASES.append(Case(run, levels, world))
        return run

    return register


def all_cases():
    for module in sorted(found.name for found in pkgutil.iter_modules([os.path.dirname(__file__)])):
        importlib.import_module(f"cases.{module}")
    return CASES
