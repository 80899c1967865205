"""Results of steps, kept in a file from one call to the next."""

import json
import os

# Results that stand: --resume does not run them again, but what timed out, crashed, did not run.
STANDING = ("passed", "failed")


class Results:
    """"PIECE/STEP" -> result, in the order in which they came, saved after each. A result:
    {"status", "seconds", "detail", "figures", "command", "date", "key", "device", "revision"}."""
    def __init__(self, path):
        self.path = path
        self.steps = {}
        if path.exists():
            self.steps = json.loads(path.read_text())["steps"]

    def clear(self):
        self.steps = {}

    def forget(self, piece):
        self.steps = {name: r for name, r in self.steps.items() if name.split("/")[0] != piece}

    def put(self, name, result):
        self.steps.pop(name, None)
        self.steps[name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        half = self.path.with_suffix(".half")
        half.write_text(json.dumps({"steps": self.steps}, indent=1))
        os.replace(half, self.path)

    def get(self, name):
        return self.steps.get(name)

    def passed(self, name):
        return self.steps.get(name, {}).get("status") == "passed"

    def figures(self, name):
        return self.steps.get(name, {}).get("figures") or {}

    def stands(self, name, key, device):
        result = self.steps.get(name)
        return (result is not None and result["status"] in STANDING and result["key"] == key
                and result["device"] == device)
