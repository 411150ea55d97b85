"""A real Redis Cluster for end-to-end tests: three masters and three replicas on loopback, made by redis-cli."""

import os
import subprocess

import redis

import harness

N_NODES = 6


class RedisCluster:
    """It takes some seconds to form: make one for all tests of a file. Nodes are named by their ports."""

    def __init__(self, folder):
        self.processes, self.folder = {}, folder
        try:
            for _ in range(N_NODES):
                harness.on_free_port(self.start)
            subprocess.run(["redis-cli", "--cluster", "create", "--cluster-replicas", "1", "--cluster-yes",
                            *("127.0.0.1:%d" % port for port in self.processes)], check=True, stdout=subprocess.DEVNULL)
            self.wait_until_well()
        except BaseException:
            self.close()
            raise

    def start(self, port):
        """Starts a node; one that ran before still knows its cluster, and has lost its records."""
        folder = os.path.join(self.folder, str(port))
        os.makedirs(folder, exist_ok=True)
        process = harness.spawn(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, "--cluster-enabled",
             "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(harness.free_port()),
             "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"], stdout=subprocess.DEVNULL)
        harness.poll_until(lambda: harness.redis_answers(process, port), "redis-server on port %d" % port)
        self.processes[port] = process

    def uri(self, *options):
        nodes = ",".join("127.0.0.1:%d" % port for port in list(self.processes)[:3])
        return "redis-cluster://" + nodes + ("?" + "&".join(options) if options else "")

    def ask(self, port, *words):
        with redis.Redis(host="127.0.0.1", port=port) as connection:
            connection.set_response_callback(words[0].upper(), lambda reply, **_: reply)
            return connection.execute_command(*words)

    def running(self):
        return [port for port, process in self.processes.items() if process.poll() is None]

    def masters(self, port=None):
        """{slot range: port of its master}, as one node sees it."""
        answer = self.ask(port or self.running()[0], "CLUSTER", "SLOTS")
        return {(first, last): nodes[0][1] for first, last, *nodes in answer}

    def master_of(self, key, port=None):
        slot = self.ask(self.running()[0], "CLUSTER", "KEYSLOT", key)
        return next(m for (first, last), m in self.masters(port).items() if first <= slot <= last)

    def _is_well(self, port):
        info = self.ask(port, "CLUSTER", "INFO").decode()
        return ("cluster_state:ok" in info and "cluster_slots_ok:16384" in info and
                "cluster_known_nodes:%d" % N_NODES in info)

    def wait_until_well(self):
        harness.poll_until(lambda: all(map(self._is_well, self.running())), "a cluster that is well")

    def wait_until_agreed(self, key, is_right):
        """Until the key's master is as it should be in the eyes of every node."""

        def agreed():
            return all(is_right(self.master_of(key, port)) and
                       b"cluster_state:ok" in self.ask(port, "CLUSTER", "INFO") for port in self.running())

        harness.poll_until(agreed, "agreement on the master of %s" % key)

    def set_all(self, values):
        for key, value in values.items():
            self.ask(self.master_of(key), "SET", key, value)

    def move_slot_of(self, key, target):
        """Moves the slot of a key, with all its keys, to another master."""
        source, slot = self.master_of(key), self.ask(target, "CLUSTER", "KEYSLOT", key)
        ids = {port: self.ask(port, "CLUSTER", "MYID") for port in (source, target)}
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        for name in self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1000):
            self.ask(source, "MIGRATE", "127.0.0.1", target, name, 0, 5000)
        for port in (target, source):
            self.ask(port, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        self.wait_until_agreed(key, lambda master: master == target)

    def kill(self, port):
        self.processes[port].kill()
        self.processes[port].wait()

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
