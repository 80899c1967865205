"""A run on a bad day: every process is killed again and again, and the network between them fails in
every way, until it is done; and it is the run that nothing disturbed, bit for bit.

Kills are spread over the steps, so that all of them happen however fast the machine is:
THRESHER_KILLS (24 by default, a minute; 200 take several), THRESHER_SEEDS, THRESHER_RANKS."""

import collections
import json
import os
import random
import time
import unittest

import farm
from fault_proxy import FaultProxy, Weather
from hand_farm import HandFarm

KILLS = int(os.environ.get("THRESHER_KILLS", "24"))
RANKS = int(os.environ.get("THRESHER_RANKS", "1"))
STEPS_PER_KILL = 6
ACTORS = 3
WEATHER = Weather(latency_s=0.001, jitter_s=0.003, every_s=3.0, lasting_s=(0.2, 8.0))
FAULTS = 2 * len(WEATHER.kinds)  # of the network, at least
PATIENCE_S = 120  # for the next step: far more than any recovery takes


def overrides(kills):
    return ("net.listen=tcp://127.0.0.1:0", f"learner.ranks={RANKS}", "rl.drop_zero_variance=true",
            f"rl.steps={max(6, kills * STEPS_PER_KILL - 30)}", "checkpoint.every=7")


class Storm(farm.FarmTest):
    KILLS = KILLS
    WEATHER = WEATHER
    ROLES = ["actor"] * 5 + ["broker"] * 2 + ["learner"] * 3  # of ten deaths; whoever it is of the actors
    OVERRIDES = overrides(KILLS)

    def test_deaths_and_a_bad_network_change_nothing(self):
        first, last = (int(t) for t in os.environ.get("THRESHER_SEEDS", "1-1").split("-"))
        for seed in range(first, last + 1):
            with self.subTest(seed=seed):
                self.storm(seed)

    def storm(self, seed):
        run = self.prepare(f"storm-{seed}")
        begin = time.monotonic()
        with FaultProxy(lambda: None, self.WEATHER, seed) as proxy:
            with HandFarm(run, proxy.endpoint, ACTORS, RANKS) as hands:
                proxy.upstream = hands.broker_address
                kills = self.disturb(hands, proxy, random.Random(seed))
        seconds = time.monotonic() - begin
        self.assertEqual(sum(kills.values()), self.KILLS)
        for kind in self.WEATHER.kinds:
            self.assertGreater(proxy.counts[kind], 0, proxy.counts)
        summary = run.summary()
        print(f"seed {seed}: {seconds:.0f} s, kills {dict(kills)}, network {dict(proxy.counts)}, retrained "
              f"{summary['faults']['retrained_steps']}, counters {self.interesting(summary)}", flush=True)
        self.assertEqual(run.hash(), self.reference().hash(), self.logs(run))
        self.assertEqual(summary["final_chain"], self.reference().summary()["final_chain"])
        self.assertEqual(summary["ledger"]["total"], self.reference().summary()["ledger"]["total"])
        self.assertEqual(summary["mismatched_tokens"], 0)
        # One that is killed before its first record has not started.
        self.assertLessEqual(summary["faults"]["broker_starts"], kills["broker"] + 2)
        self.assert_sound(run)
        self.assert_each_sample_once(run)
        self.check(run)

    def check(self, run):
        """More of a run that is over."""

    def disturb(self, hands, proxy, chance):
        """Kills self.KILLS times at moments spread over the steps of the run, then lets it end. Where the network has
        fewer faults than that share of the run asks for, it gets them: however fast the run is, all kinds come."""
        total = self.reference().summary()["steps"]
        moments = sorted(chance.uniform(0, total - 2) for _ in range(self.KILLS))
        kills = collections.Counter()
        steps, since = 0, time.monotonic()
        while not hands.tick():
            now = hands.run.steps_committed()
            if now > steps:
                steps, since = now, time.monotonic()
            self.assertLess(time.monotonic() - since, PATIENCE_S, f"no step since step {steps}")
            self.look(hands.run)
            if sum(proxy.counts[kind] for kind in self.WEATHER.kinds) < FAULTS * steps // total:
                proxy.strike()
            if moments and steps >= moments[0]:
                time.sleep(chance.uniform(0, 0.3))  # the schedule itself: a random moment
                role = self.role(chance, hands.run)
                name = f"actor-{chance.randrange(ACTORS)}" if role == "actor" else role
                if hands.kill(name, chance):
                    kills[role] += 1
                    moments.pop(0)
            time.sleep(0.02)
        return kills

    def role(self, chance, run):
        """Who dies next."""
        return chance.choice(self.ROLES)

    def look(self, run):
        """Whatever happens, the broker's books are balanced."""
        if status := run.status():
            self.assertTrue(status["ledger"]["balanced"], status["ledger"])

    def assert_each_sample_once(self, run):
        """0 lost, 0 twice, by the audit's own counts."""
        audit = json.loads(self.command("audit", run.folder, "--json").out)
        for name, stream in audit["streams"].items():
            self.assertEqual(stream["held"], 0, name)
            self.assertEqual(stream["issued"],
                             stream["trained"] + stream["evaluated"] + stream["dropped"], name)

    def interesting(self, summary):
        return {name: int(value) for name, value in summary["counters"].items()
                if name.startswith(("samples_dup", "samples_con", "samples_ref", "leases_exp",
                                    "frames_un", "frames_ret", "peers_ref", "actor_re", "learner_re"))}


class StormWithoutAJournal(Storm):
    """The same with journal.mode off, and a store that is given one trajectory of a group at most: the others die with
    the broker, and come again."""
    KILLS = max(1, KILLS // 2)
    ROLES = ["actor"] * 3 + ["broker"] * 4 + ["learner"] * 3
    OVERRIDES = overrides(KILLS) + ("journal.mode=off", "journal.group_commit_bytes=1")

    def role(self, chance, run):
        # A broker's death need not cost anything: they go on until one did.
        role = super().role(chance, run)
        return role if run.events("bytes_lost") else "broker"

    def check(self, run):
        self.assertTrue(run.events("bytes_lost"))
        audit = json.loads(self.command("audit", run.folder, "--json").out)
        self.assertGreater(audit["not_stored"], 0)


if __name__ == "__main__":
    unittest.main()
