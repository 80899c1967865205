"""The simulated processes are the production classes: only the seams are substituted, and no symbol is replaced."""

import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIMULATOR = ROOT / "tests/support/sim"

# What a simulation may put in the machine's place, and the classes that it implements for that.
SEAMS = {"Clock", "Entropy", "FaultObserver", "Process", "Scheduler", "Files", "Transport"}
INTERFACES = {"Clock", "EntropySource", "FaultObserver", "sync::Scheduler", "FileSystem", "File", "FileMapping",
              "net::Transport", "net::Server", "net::Client"}


def texts(folder, *suffixes):
    return {path: path.read_text() for path in sorted(folder.rglob("*")) if path.suffix in suffixes}


class SubstitutedTest(unittest.TestCase):
    def test_the_simulator_substitutes_the_seams_and_implements_nothing_else(self):
        sources = texts(SIMULATOR, ".h", ".cc")
        self.assertGreater(len(sources), 20)
        text = "".join(sources.values())
        self.assertEqual(set(re.findall(r"\bSubstitute(\w+)\(", text)), SEAMS)
        own = set(re.findall(r"\b(?:class|struct) (\w+)", text))
        bases = {base.strip() for bases in re.findall(r"\b(?:class|struct) \w+ (?:final )?: ([^{;]+)\{", text)
                 for base in re.sub(r"\b(public|private|protected|virtual)\b", "", bases).split(",")}
        self.assertIn("net::Transport", bases)
        self.assertEqual(bases - INTERFACES - own, set())

    def test_no_symbol_of_production_is_defined_again(self):
        build = pathlib.Path(os.environ["THRESHER_BUILD"])
        objects = [*build.glob("tests/support/sim/*.a"), *build.glob("tests/fault/sim/CMakeFiles/simulate_parts.dir/*.o")]
        self.assertGreaterEqual(len(objects), 3, build)
        listing = subprocess.run(["nm", "--demangle", "--defined-only", "--extern-only", *objects],
                                 capture_output=True, text=True, check=True).stdout
        strong = re.findall(r"^[0-9a-f]+ [A-TX-Z] (.+)$", listing, re.MULTILINE)
        self.assertGreater(len(strong), 100)
        others = [name for name in strong if not re.search(r"\bthresher::sim::", name) and name != "main"]
        self.assertEqual(others, [])

    def test_histories_die_at_every_crash_point_there_is(self):
        named = re.search(r"CrashPoints\(\) \{.*?\{(.*?)\}", (SIMULATOR / "history.cc").read_text(), re.DOTALL)
        drawn = set(re.findall(r'"(\w+)"', named.group(1)))
        code = "".join(text for folder in ("actor", "broker", "learner") for text in texts(ROOT / folder, ".cc").values())
        points = set(re.findall(r'\bReached\("(\w+)"\)', code))
        log = re.findall(r'return "(\w+)";', (ROOT / "common/data/record_log_writer.cc").read_text())
        points |= {prefix + point for prefix in ("journal_", "store_", "partials_") for point in log}
        disk = (SIMULATOR / "disk.cc").read_text()
        points |= set(re.findall(r'\bPass\("(\w+)"', disk))
        self.assertGreater(len(points), 30)
        self.assertEqual(drawn, points)


if __name__ == "__main__":
    unittest.main()
