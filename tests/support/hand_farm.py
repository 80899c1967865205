"""A farm whose processes a test starts itself, as an operator would on several hosts: a broker that
listens on tcp, and actors and a learner job that reach it through any address. Who dies is started
again at once."""

import os
import signal
import subprocess
import time

import farm

PROGRAMS = {role: f"{role}/thresher-{role}" for role in ("actor", "broker", "learner")}
GRACE_S = 10  # for the others, once the broker is done


class Member:
    """One process of the farm over all its lives."""

    def __init__(self, name, command, log):
        self.name, self.command, self.log = name, command, log
        self.process, self.lives, self.killed = None, 0, 0

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.environment())
        self.lives += 1

    def environment(self):
        return {**farm.environment(), "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class HandFarm:
    """`run` must hold a run that was prepared (FarmTest.prepare). `address`: of the broker, for the
    others. `Died` is raised for a death that nobody caused."""

    class Died(AssertionError):
        pass

    def __init__(self, run, address, actors=2, ranks=1):
        self.run = run
        self.members = {"broker": self._member("broker", "broker", [])}
        self.members["learner"] = self._member("learner", "learner", ["--broker", address])
        if ranks > 1:
            learner = self.members["learner"]
            learner.command = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none",
                               *learner.command]
        for i in range(actors):
            self.members[f"actor-{i}"] = self._member(
                f"actor-{i}", "actor", ["--broker", address, "--index", str(i)])

    def _member(self, name, role, words):
        program = os.path.join(os.environ["THRESHER_BUILD"], PROGRAMS[role])
        command = [program, "--run", str(self.run.folder), *words]
        return Member(name, command, self.run.folder / "logs" / f"{name}.log")

    def __enter__(self):
        for member in self.members.values():
            member.start()
        return self

    def __exit__(self, *_):
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            alive = [m.process for m in self.members.values() if m.process.poll() is None]
            for process in alive:
                process.send_signal(number)
            end = time.monotonic() + patience
            while any(p.poll() is None for p in alive) and time.monotonic() < end:
                time.sleep(0.02)

    def broker_address(self):
        """(host, port) that the broker's tcp endpoint has now; None while there is none."""
        try:
            endpoints = self.run.json("rendezvous.json")["endpoints"]
        except (OSError, ValueError):
            return None
        for endpoint in endpoints:
            if endpoint.startswith("tcp://"):
                host, port = endpoint[len("tcp://"):].rsplit(":", 1)
                return host, int(port)
        return None

    def kill(self, name, chance):
        """SIGKILL to a member; of an MPI job to one of its ranks. False when it was just starting."""
        member = self.members[name]
        pid = member.process.pid
        if member.command[0] == "mpirun":
            ranks = self.run.processes("learner")
            if not ranks:
                return False
            pid = chance.choice(ranks)
        member.killed += 1
        return farm.kill(pid)

    def tick(self):
        """Starts again who was killed. True once the broker is done, and everybody with it."""
        if (code := self.members["broker"].process.poll()) is not None and code >= 0:
            if code != 0:
                raise self.Died(f"broker: exit {code}\n{self.tail('broker')}")
            self._end_the_others()
            return True
        for name, member in self.members.items():
            code = member.process.poll()
            if code is None:
                continue
            # mpirun tells of its rank's death in its own way.
            killed = member.killed and (code == -signal.SIGKILL or member.command[0] == "mpirun")
            if not killed and not (code == 0 and self.finished()):
                raise self.Died(f"{name}: exit {code} that nobody caused\n{self.tail(name)}")
            if killed:
                member.start()
        return False

    def finished(self):
        return (self.run.folder / "summary.json").exists()

    def _end_the_others(self):
        """The word of the end may be lost with a connection: a launcher asks, too."""
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end:
            if all(m.process.poll() is not None for m in self.members.values()):
                return
            time.sleep(0.05)

    def tail(self, name):
        return self.members[name].log.read_text(errors="replace")[-2000:]

    def kills(self):
        return sum(member.killed for member in self.members.values())
