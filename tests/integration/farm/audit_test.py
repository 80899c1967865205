"""thresher audit: any one record removed, doubled or altered, and made to fit again, is found."""

import json
import re
import unittest

import farm


class Audit(farm.FarmTest):
    # Groups without variance are dropped here, so that the journal holds every kind of record.
    OVERRIDES = ("rl.drop_zero_variance=true", "rl.group_size=2", "supervised.steps=20")
    KINDS = {"EpochStarted", "ItemsIssued", "SampleAccepted", "SampleDropped", "BatchComposed",
             "StepCommitted", "VersionPublished", "StepsDurable", "RoundEvaluated", "RunFinished"}
    # What names the records that there is one of.
    SINGLE = {"EpochStarted": "broker|journal record 0:", "RunFinished": "finish|final weights"}

    def journal(self):
        """(number, kind, fields, subject) of every record of the reference run's journal."""
        text = self.store_tool("journal", self.reference().folder / "journal", "list")
        out = []
        for line in text.splitlines():
            number, kind, fields, subject = line.split(" ", 3)
            subject = self.SINGLE.get(kind, re.escape(subject) + r"\b")
            out.append((int(number), kind, fields.split(","), subject))
        return out

    def middle_of_each_kind(self):
        """One record of each kind, from the middle of its own."""
        by_kind = {}
        for record in self.journal():
            by_kind.setdefault(record[1], []).append(record)
        self.assertEqual(set(by_kind), self.KINDS)
        return [records[len(records) // 2] for records in by_kind.values()]

    def assert_found(self, store, subject, *words):
        """Edits a copy; the audit must exit with 1 and name the subject (a regular expression)."""
        copy = self.copy_of(self.reference(), "forged")
        self.store_tool(store, copy.folder / store, *words)
        audit = self.command("audit", copy.folder)
        self.assertEqual(audit.code, 1, f"{words} ({subject}): {audit}")
        problems = [l for l in audit.out.splitlines() if l.startswith("problem: ")]
        self.assertTrue(any(re.search(subject, problem) for problem in problems),
                        f"{words}: nobody names '{subject}': {audit}")

    def test_the_run_is_sound(self):
        report = self.assert_sound(self.reference())
        self.assertGreater(report["streams"]["train"]["dropped"], 0)

    def test_a_rewritten_copy_without_a_change_is_sound(self):
        copy = self.copy_of(self.reference(), "same")
        # Two changes that undo each other: proves that what is found below is the content.
        for _ in range(2):
            self.store_tool("journal", copy.folder / "journal", "alter", "0", "run_id")
        name = self.store_tool("trajectories", copy.folder / "trajectories", "list").split(" ")[0]
        for _ in range(2):
            self.store_tool("trajectories", copy.folder / "trajectories", "alter", name,
                            "run_identity")
        self.assert_sound(copy)

    def test_journal_records_removed(self):
        for number, kind, _, subject in self.middle_of_each_kind():
            with self.subTest(kind=kind):
                self.assert_found("journal", subject, "remove", number)

    def test_journal_records_doubled(self):
        for number, kind, _, subject in self.middle_of_each_kind():
            with self.subTest(kind=kind):
                self.assert_found("journal", subject, "double", number)

    def test_journal_records_altered_in_each_field(self):
        for number, kind, fields, subject in self.middle_of_each_kind():
            for field in fields:
                with self.subTest(kind=kind, field=field):
                    self.assert_found("journal", subject, "alter", number, field)

    def test_trajectories_removed_doubled_and_altered(self):
        for name in ("train/0/3/1", "supervised/0/100/0", "eval/0/5/2"):
            with self.subTest(name=name):
                self.assert_found("trajectories", name, "remove", name)
                self.assert_found("trajectories", name, "double", name)
                for field in ("reward", "actor", "run_identity", "text"):
                    self.assert_found("trajectories", name, "alter", name, field)
        for field in ("token", "logprob"):
            self.assert_found("trajectories", "train/0/3/1", "alter", "train/0/3/1", field, 1)

    def test_json_names_the_same_problems(self):
        copy = self.copy_of(self.reference(), "json")
        self.store_tool("trajectories", copy.folder / "trajectories", "remove", "train/0/3/1")
        audit = self.command("audit", copy.folder, "--json")
        self.assertEqual(audit.code, 1, audit)
        report = json.loads(audit.out)
        self.assertFalse(report["sound"])
        self.assertEqual(report["problem_count"], 1)
        self.assertIn("train/0/3/1", report["problems"][0])


if __name__ == "__main__":
    unittest.main()
