"""Hosts that are network, process and mount namespaces of this machine, each with its own sshd."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.213.7"

HOST_SCRIPT = """\
set -e
mount --bind "$1/passwd" /etc/passwd
mkdir -p /tmp/ray /run/sshd
mount -t tmpfs tmpfs /tmp/ray
mount -t tmpfs -o size=1g tmpfs /dev/shm
exec /usr/sbin/sshd -D -e -f "$1/sshd_config"
"""

SSHD = """\
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {keys}
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 50
"""


@dataclass(frozen=True)
class Hosts:
    """Hosts on a network of their own, and one more to command them from."""

    folder: Path
    addresses: tuple[str, ...]
    prefix: str

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def home(self, address: str) -> Path:
        return self.folder / address / "home"

    def from_outside(self, command: list[str]) -> list[str]:
        """A command as given on the host that is not theirs."""
        return ["ip", "netns", "exec", f"{self.prefix}c", *command]

    def processes(self, name: str) -> list[int]:
        """Processes of the hosts, by a word of their command line."""
        spaces = {self.network_of(index) for index in range(len(self.addresses))}
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                ours = os.stat(path / "ns" / "net").st_ino in spaces
                if ours and name.encode() in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def network_of(self, index: int) -> int:
        return os.stat(f"/run/netns/{self.prefix}{index}").st_ino


def can_make_hosts() -> bool:
    """Whether this is root on a machine with what it takes."""
    return os.geteuid() == 0 and all(map(shutil.which, ("ip", "unshare", "sshd", "rsync")))


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def namespace_hosts(folder: Path, count: int = 3) -> Iterator[Hosts]:
    prefix = f"prop{os.getpid()}x"
    addresses = tuple(f"{NETWORK}.{index + 1}" for index in range(count))
    hosts = Hosts(folder, addresses, prefix)
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(hosts.key))
    with ExitStack() as stack:
        for name in ("s", "c", *map(str, range(count))):
            call("ip", "netns", "add", prefix + name)
            stack.callback(call, "ip", "netns", "del", prefix + name)
        switch = ("ip", "-n", f"{prefix}s")
        call(*switch, "link", "add", "bridge", "type", "bridge")
        call(*switch, "link", "set", "bridge", "up")
        for index, name in enumerate((*map(str, range(count)), "c")):
            host = ("ip", "-n", prefix + name)
            port = f"port{index}"
            call(
                *switch, "link", "add", port, "type", "veth", "peer", "eth0", "netns", prefix + name
            )
            call(*switch, "link", "set", port, "master", "bridge", "up")
            call(*host, "address", "add", f"{NETWORK}.{index + 1}/24", "dev", "eth0")
            call(*host, "link", "set", "eth0", "up")
            call(*host, "link", "set", "lo", "up")
        for index, address in enumerate(addresses):
            stack.enter_context(_sshd(hosts, index, address))
        yield hosts


@contextmanager
def _sshd(hosts: Hosts, index: int, address: str) -> Iterator[None]:
    folder = hosts.folder / address
    hosts.home(address).mkdir(parents=True)
    users = Path("/etc/passwd").read_text().splitlines()
    root = f"root:x:0:0:root:{hosts.home(address)}:/bin/bash"
    others = [line for line in users if not line.startswith("root:")]
    (folder / "passwd").write_text("\n".join([root, *others]) + "\n")
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key"))
    with hosts.known_hosts.open("a") as file:
        file.write(f"{address} {(folder / 'host_key.pub').read_text()}")
    public = hosts.key.with_suffix(".pub")
    (folder / "sshd_config").write_text(SSHD.format(folder=folder, keys=public))
    (folder / "start.sh").write_text(HOST_SCRIPT)
    with (folder / "sshd.log").open("w") as log:
        process = subprocess.Popen(
            [
                *("ip", "netns", "exec", f"{hosts.prefix}{index}"),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", str(folder / "start.sh"), str(folder)),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 20
        while "Server listening" not in (folder / "sshd.log").read_text():
            assert process.poll() is None, (folder / "sshd.log").read_text()
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.05)
        yield
    finally:
        # Ends all processes of the host, for their first one goes.
        process.kill()
        process.wait()
