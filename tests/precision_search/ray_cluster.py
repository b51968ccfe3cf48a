"""A Ray cluster on this machine, in a process of its own: `python ray_cluster.py`.

Its head has no processor; each node has one, and a loopback address: nothing leaves the machine. It first tells two
addresses, of the head and of its door for clients; then it does what it is told, `add` or `kill N`, N counted from 0,
without grace, and says `done` each time, until its input ends.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
HEAD = "127.0.0.2"  # Ray takes 127.0.0.1 for the machine's outer address


def main() -> None:
    """Serve."""
    told = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    from ray.cluster_utils import Cluster

    # Where Ray notes the address, whatever `temp_dir` is; it makes the folder itself only where that is not given.
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    with socket.socket() as door:
        door.bind((HEAD, 0))
        port = door.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = {"num_cpus": 0, "node_ip_address": HEAD, "ray_client_server_port": port, "temp_dir": folder}
        cluster = Cluster(initialize_head=True, head_node_args={**small, **head})
        nodes = []

        def add() -> None:
            where = f"127.0.0.{3 + len(nodes)}"
            nodes.append(cluster.add_node(num_cpus=1, memory=2_000_000_000, node_ip_address=where, **small))

        try:
            print(cluster.address, f"ray://{HEAD}:{port}", file=told, flush=True)
            for line in sys.stdin:
                what, *which = line.split()
                if what == "add":
                    add()
                else:
                    cluster.remove_node(nodes[int(which[0])], allow_graceful=False)
                print("done", file=told, flush=True)
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    main()
