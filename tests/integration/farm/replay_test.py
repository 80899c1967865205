"""thresher replay: kept trajectories come out again, token for token and bit for bit."""

import json
import pathlib
import unittest

import farm


class Replay(farm.FarmTest):
    def generated(self, run):
        """(id, tokens, policy tokens) of the generated trajectories, in file order."""
        out = []
        for line in self.store_tool("trajectories", run.folder / "trajectories", "list").splitlines():
            name, tokens, policy = line.split(" ")
            if not name.startswith("supervised/"):
                out.append((name, int(tokens), int(policy)))
        return out

    def forge(self, name, *words):
        copy = self.copy_of(self.reference(), name)
        self.store_tool("trajectories", copy.folder / "trajectories", *words)
        return copy

    def test_random_trajectories_are_equal(self):
        replay = self.command("replay", self.reference().folder, "--random", 20, "--json")
        self.assertEqual(replay.code, 0, replay)
        answers = [json.loads(line) for line in replay.out.splitlines()]
        self.assertEqual(len({a["id"] for a in answers}), 20)
        self.assertTrue(all(a["equal"] for a in answers), replay)
        self.assertGreater(len({a["version"] for a in answers}), 1)
        self.assertGreater(len({tuple(a["tokens"]) for a in answers}), 1)

    def test_a_copy_without_tokens_and_logprobs_gives_the_original_ones(self):
        wiped = self.forge("wiped", "wipe")
        against = self.command("replay", wiped.folder, "--random", 20, "--seed", 3, "--against",
                               self.reference().folder)
        self.assertEqual(against.code, 0, against)
        self.assertEqual(against.out.count("logprobs equal"), 20)
        alone = self.command("replay", wiped.folder, "--random", 3)
        self.assertEqual(alone.code, 1, "the wiped columns are compared, not read")

    def test_one_altered_token_is_found_at_its_position(self):
        name, tokens, policy = next(t for t in self.generated(self.reference()) if t[2] >= 3)
        copy = self.forge("token", "alter", name, "token", "2")
        replay = self.command("replay", copy.folder, name)
        self.assertEqual(replay.code, 1, replay)
        self.assertIn(f"{name}: differs at position {tokens - policy + 2}: token", replay.out)

    def test_one_altered_logprob_bit_is_found_at_its_position(self):
        name, tokens, policy = next(t for t in self.generated(self.reference()) if t[2] >= 2)
        copy = self.forge("logprob", "alter", name, "logprob", "1")
        replay = self.command("replay", copy.folder, name)
        self.assertEqual(replay.code, 1, replay)
        self.assertIn(f"{name}: differs at position {tokens - policy + 1}: logprob", replay.out)

    def test_an_unknown_id_is_a_usage_error(self):
        for name, said in (("train/0/999999/0", "train/0/999999/0"), ("train/0/1", "train/0/1"),
                           ("nothing/0/1/1", "nothing")):
            replay = self.command("replay", self.reference().folder, name)
            self.assertEqual(replay.code, 2, replay)
            self.assertIn(said, replay.err)

    def test_a_version_outside_the_window_names_the_oldest_one(self):
        copy = self.copy_of(self.reference(), "window")
        names = sorted((copy.folder / "weights").glob("*.safetensors"),
                       key=lambda path: [int(part) for part in path.stem.split(".")])
        versions = [path.stem for path in names]
        trained = next(t[0] for t in self.generated(copy) if t[0].startswith("train/0/0/"))
        names[0].unlink()
        replay = self.command("replay", copy.folder, trained)
        self.assertEqual(replay.code, 3, replay)
        self.assertIn(f"version {versions[0]} is outside the replay window", replay.err)
        self.assertIn(f"the oldest version that can be rebuilt is {versions[1]}", replay.err)

    def test_damaged_weights_are_told_apart_from_missing_ones(self):
        copy = self.copy_of(self.reference(), "damaged")
        file = copy.folder / "weights" / "0.30.safetensors"
        data = file.read_bytes()
        file.unlink()
        pathlib.Path(file).write_bytes(data[:len(data) // 2])
        replay = self.command("replay", copy.folder, "train/0/0/0")
        self.assertEqual(replay.code, 3, replay)
        self.assertIn("0.30.safetensors", replay.err)


if __name__ == "__main__":
    unittest.main()
