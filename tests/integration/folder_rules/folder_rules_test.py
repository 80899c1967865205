"""Each rule of folder_rules.py, broken once in a small tree that otherwise obeys them."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

import folder_rules


class FolderRulesTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="thresher-rules-"))
        self.addCleanup(shutil.rmtree, self.root)
        for folder in (*folder_rules.CODE_FOLDERS, "common/base", "common/net", "kernels/cpu", "tests"):
            self.write(f"{folder}/README.md", "words")
        self.write("common/base/ids.cc", '#include "common/base/ids.h"\n\n#include <unistd.h>\n#include <vector>\n')
        self.write("common/net/socket.cc", '#include <zmq.hpp>\n')
        self.write("README.md", "words")
        self.write(".gitignore", "/build/\n")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def broken(self, name, text, expected):
        self.assertEqual(folder_rules.check_tree(self.root), [])
        self.write(name, text)
        found = folder_rules.check_tree(self.root)
        self.assertEqual(len(found), 1, found)
        self.assertIn(expected, found[0])
        (self.root / name).unlink()

    def test_actor_broker_and_learner_never_include_one_another(self):
        for folder in ("actor", "broker", "learner"):
            for other in {"actor", "broker", "learner"} - {folder}:
                self.broken(f"{folder}/a.cc", f'#include "{other}/b.h"\n', f"may not include {other}")

    def test_common_knows_none_of_them(self):
        for other in ("actor", "broker", "learner", "launch"):
            self.broken("common/base/a.h", f'#include "{other}/b.h"\n', f"may not include {other}")

    def test_kernels_depend_on_nothing_of_the_project(self):
        self.broken("kernels/cpu/a.cc", '#include "common/base/ids.h"\n', "may not include common")

    def test_broker_includes_no_torch_mpi_or_cuda(self):
        for header in ("torch/torch.h", "mpi.h", "cuda_runtime.h", "nccl.h"):
            self.broken("broker/a.cc", f"#include <{header}>\n", "only in")

    def test_every_third_party_header_stays_in_its_folder(self):
        self.write("actor/README.md", "words")
        for prefix in folder_rules.THIRD_PARTY:
            header = prefix + "x.h" if prefix.endswith("/") else prefix
            self.broken("actor/a.cc", f"#  include <{header}>\n", "only in")

    def test_command_line_library_only_in_the_main_file(self):
        self.write("actor/main.cc", "#include <CLI/CLI.hpp>\n")
        self.broken("actor/a.cc", "#include <CLI/CLI.hpp>\n", "only in")

    def test_simulated_folders_go_through_the_seams(self):
        for line, seam in (("auto t = std::chrono::steady_clock::now();", "clock.h"), ("std::random_device d;", "entropy.h"),
                           ("auto p = ::getpid();", "process.h"), ("std::this_thread::sleep_for(1s);", "task.h"),
                           ("std::condition_variable c;", "condition.h"), ("#include <fstream>", "file_system.h"),
                           ("int fd = ::open(p, O_RDONLY);", "file_system.h"), ("::rename(a, b);", "file_system.h"),
                           ("if (std::filesystem::exists(p)) return;", "file_system.h"),
                           ("for (auto& e : fs::directory_iterator(p)) use(e);", "file_system.h")):
            self.broken("common/net/a.cc", f"{line}\n", seam)
        self.write("common/base/clock.cc", "// std::random_device is not used; steady_clock::now() is its business\n"
                                           "auto now = std::chrono::steady_clock::now();\n")
        self.write("launch/a.cc", "auto now = std::chrono::steady_clock::now();\n")
        self.assertEqual(folder_rules.check_tree(self.root), [])

    def test_unknown_library_is_refused(self):
        self.broken("actor/a.cc", "#include <boost/any.hpp>\n", "no library in the table")

    def test_header_is_named_from_the_root(self):
        self.broken("common/base/a.cc", '#include "ids.h"\n', "from the root")
        self.broken("common/base/a.cc", '#include <common/base/ids.h>\n', "angle brackets")

    def test_top_level_entry_is_refused(self):
        self.broken("scripts/a.sh", "true\n", "top level")

    def test_folder_without_readme_is_refused(self):
        self.broken("common/wire/a.h", "#pragma once\n", "common/wire: no README.md")

    def test_machine_path_is_refused(self):
        for path in ("/" + "work/main", "/" + "root/x", "/" + "home/ann/x"):
            self.broken("docs/README.md", f"see {path}/y\n", "path of a machine")

    def test_relative_work_folder_is_no_machine_path(self):
        self.write("common/README.md", "build/work/x, https://example.org/root/y, $HOME/root/x\n")
        self.assertEqual(folder_rules.check_tree(self.root), [])

    def test_ignored_files_are_not_looked_at(self):
        subprocess.run(["git", "-C", self.root, "init", "-q"], check=True)
        self.write("build/a.cc", '#include "nothing.h"\n')
        self.assertEqual(folder_rules.check_tree(self.root), [])

    def test_empty_tree_is_not_a_pass(self):
        for path in self.root.rglob("*.cc"):
            path.unlink()
        self.assertEqual(len(folder_rules.check_tree(self.root)), 1)


if __name__ == "__main__":
    unittest.main()
