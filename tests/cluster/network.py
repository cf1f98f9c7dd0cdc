"""A network of three machines: a namespace for each node, joined by a bridge, and cuts between the nodes while clients still
reach all of them."""

import os
import shutil
import subprocess

NODES = (1, 2, 3)


def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


def missing():
    """Why there can be no such network here, if so."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"no {program}"
    return None


class Network:
    """Names and addresses are of this process, so that two runs do not meet. Must be removed."""

    def __init__(self):
        self.bridge = f"rt{os.getpid()}"
        self.subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        try:
            run("ip", "link", "add", self.bridge, "type", "bridge")
            run("ip", "address", "add", f"{self.subnet}.254/24", "dev", self.bridge)
            run("ip", "link", "set", self.bridge, "up")
            for node in NODES:
                self._join(node)
        except OSError:
            self.remove()
            raise

    def _join(self, node):
        name, outside, inside = self.name(node), f"{self.bridge}v{node}", f"{self.bridge}w{node}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
        run("ip", "link", "set", outside, "master", self.bridge, "up")
        run("ip", "link", "set", inside, "netns", name)
        run("ip", "-n", name, "address", "add", f"{self.address(node)}/24", "dev", inside)
        run("ip", "-n", name, "link", "set", inside, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")

    def name(self, node):
        return f"{self.bridge}-{node}"

    def address(self, node):
        return f"{self.subnet}.{node}"

    def inside(self, node):
        """What a command must begin with to run as on that machine."""
        return ["ip", "netns", "exec", self.name(node)]

    def cut(self, node, way):
        """Nothing gets from the node to the others ("out"), from them to it ("in"), or either ("both")."""
        others = ", ".join(self.address(other) for other in NODES if other != node)
        rules = ["add table inet cut"]
        if way in ("in", "both"):
            rules += ["add chain inet cut in { type filter hook input priority 0; }",
                      f"add rule inet cut in ip saddr {{ {others} }} drop"]
        if way in ("out", "both"):
            rules += ["add chain inet cut out { type filter hook output priority 0; }",
                      f"add rule inet cut out ip daddr {{ {others} }} drop"]
        run(*self.inside(node), "nft", "; ".join(rules))

    def heal(self, node):
        run(*self.inside(node), "nft", "delete table inet cut")

    def remove(self):
        for node in NODES:
            run("ip", "netns", "del", self.name(node), check=False)
            run("ip", "link", "del", f"{self.bridge}v{node}", check=False)
        run("ip", "link", "del", self.bridge, check=False)
