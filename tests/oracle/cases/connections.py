"""Bounds of connections."""

import time

from cases import case
from cases.configs import BROKER, DELETE, SET, alter


@case(levels=("high",), world="strict")
def connections(t):
    """max.connections.per.ip is 4 here, connections.max.idle.ms 5000."""
    time.sleep(0.5)  # Those of earlier stories are gone.
    for index in range(4):
        t.ask(f"connection {index}", "ApiVersions", 0, on=f"{index}", drop=("ApiKeys",))
    t.ask("one too many", "ApiVersions", 0, on="4", drop=("ApiKeys",), seconds=5)
    t.hang_up("3")
    time.sleep(0.5)
    t.ask("room again", "ApiVersions", 0, on="5", drop=("ApiKeys",), seconds=5)
    for _ in range(7):
        time.sleep(1)
        t.ask("in use", "ApiVersions", 0, on="5", drop=("ApiKeys",), seconds=5)
    t.ask("idle for too long", "ApiVersions", 0, on="0", drop=("ApiKeys",), seconds=5)
    alter(t, "raised", BROKER, "", ("max.connections.per.ip", SET, "6"), on="5")
    time.sleep(1.5)
    for index in range(6, 12):
        t.ask(f"connection {index}", "ApiVersions", 0, on=f"{index}", drop=("ApiKeys",), seconds=5)
    for index in range(6, 12):
        t.hang_up(f"{index}")
    time.sleep(1)  # Kafka counts a connection until its threads have seen the end of it.
    alter(t, "as it was", BROKER, "", ("max.connections.per.ip", DELETE, None), on="5")
    t.end()
    time.sleep(1)
