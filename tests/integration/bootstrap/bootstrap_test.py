"""The start as a whole: consent, exit codes, lock, stamp, rebuilds, interruption."""

import os
import pathlib
import signal
import subprocess
import time
import unittest

from sandbox import FAKE_SUDO, JOB_VARIABLES, ROOT, Sandbox


class BootstrapTest(unittest.TestCase):
    def setUp(self):
        self.box = Sandbox()
        self.addCleanup(self.box.close)

    def edit_greeting(self, text):
        (self.box.root / "common/greeting.h").write_text(
            f'#pragma once\ninline constexpr const char* kGreeting = "{text}";\n')

    def wait_for(self, condition, what):
        end = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.02)

    def slow_compiler(self):
        """A compile that goes on until the file 'go' exists."""
        go = self.box.folder / "go"
        script = self.box.folder / "slow.sh"
        script.write_text(f"touch {self.box.folder}/slow\n"
                          f"until [ -e {go} ]; do sleep 0.05; done\n")
        with (self.box.root / "CMakeLists.txt").open("a") as text:
            text.write(f"add_custom_target(slow COMMAND sh {script})\n"
                       "add_dependencies(thresher_cli slow)\n")
        return go


class BuildTest(BootstrapTest):
    def test_builds_then_becomes_the_program_with_every_argument_but_yes(self):
        status, out, err = self.box.run("solve", "--yes", "a b", "", "--", "--yes")
        self.assertEqual((status, out), (0, "first\nsolve\na b\n\n--\n--yes\n"), err)
        for phase in ("[1/4] system", "[2/4] packages", "[3/4] build", "[4/4] run"):
            self.assertIn(phase, err)

    def test_nothing_to_do_is_silent_and_quick(self):
        self.box.run()
        best = min(self.timed_start() for _ in range(3))
        self.assertLess(best, 1.0)

    def timed_start(self):
        began = time.monotonic()
        status, out, err = self.box.run("x")
        self.assertEqual((status, out, err), (0, "first\nx\n", ""))
        return time.monotonic() - began

    def test_changed_source_is_rebuilt(self):
        self.box.run()
        self.edit_greeting("second")
        self.assertEqual(self.box.run()[1], "second\n")

    def test_source_replaced_by_one_with_an_older_time_is_rebuilt(self):
        self.box.run()
        self.edit_greeting("older")
        path = self.box.root / "common/greeting.h"
        os.utime(path, (1, 1))
        _, out, err = self.box.run()
        self.assertIn("[3/4] build", err)  # looked at, though ninja itself judges by the time

    def test_readme_is_no_source(self):
        self.box.run()
        (self.box.root / "common/README.md").write_text("words")
        (self.box.root / "common/README.md").write_text("other words")
        os.utime(self.box.root / "common")
        self.box.run()
        (self.box.root / "common/README.md").write_text("third words")
        self.assertEqual(self.box.run()[2], "")

    def test_failure_shows_error_found_next_command_and_log_and_a_rerun_continues(self):
        self.edit_greeting('" broken')
        status, out, err = self.box.run("check", "a.yaml")
        self.assertEqual((status, out), (3, ""))
        for expected in ("error:", "found ", "next ", "launch/thresher check a.yaml",
                         "build/release/bootstrap/log"):
            self.assertIn(expected, err)
        self.edit_greeting("repaired")
        self.assertEqual(self.box.run()[:2], (0, "repaired\n"))

    def crash(self, times, says):
        """A compile that fails so many times before it succeeds."""
        script = self.box.folder / "crash.sh"
        script.write_text(f"echo x >> {self.box.folder}/tries\n"
                          f"[ $(wc -l < {self.box.folder}/tries) -gt {times} ] && exit 0\n"
                          f"echo '{says}' >&2\nexit 1\n")
        with (self.box.root / "CMakeLists.txt").open("a") as text:
            text.write(f"add_custom_target(crash COMMAND sh {script})\n"
                       "add_dependencies(thresher_cli crash)\n")

    def tries(self):
        return len((self.box.folder / "tries").read_text().splitlines())

    def test_a_compiler_that_crashed_is_asked_once_more(self):
        self.crash(1, "c++: internal compiler error: Segmentation fault signal terminated program")
        status, _, err = self.box.run()
        self.assertEqual((status, self.tries()), (0, 2), err)
        self.assertIn("building once more", err)

    def test_a_compiler_that_crashes_again_ends_the_build(self):
        self.crash(9, "c++: internal compiler error: Segmentation fault signal terminated program")
        status, _, err = self.box.run()
        self.assertEqual((status, self.tries()), (3, 2), err)
        self.assertIn("the build stopped", err)

    def test_an_error_in_the_source_is_not_tried_again(self):
        self.crash(9, "greeting.h:1: error: expected ;")
        self.assertEqual((self.box.run()[0], self.tries()), (3, 1))

    def test_another_libtorch_is_configured_anew(self):
        self.box.run()
        other = self.box.make_torch(self.box.folder / "other")
        status, _, err = self.box.run(THRESHER_TORCH=str(other))
        self.assertEqual(status, 0, err)
        cache = (self.box.root / "build/release/CMakeCache.txt").read_text()
        self.assertIn(f"{other}\n", cache)

    def test_an_nvcc_that_does_not_work_is_named(self):
        self.box.fake("nvcc", "#!/bin/sh\nexit 1\n")
        with (self.box.root / "CMakeLists.txt").open("a") as lists:
            lists.write('set(THRESHER_CUDA AUTO)\nset(THRESHER_SANITIZE "")\n'
                        f'include("{ROOT}/launch/cmake/ThresherCuda.cmake")\n')
        status, _, err = self.box.run(THRESHER_KEEP_ENV="PATH")
        self.assertEqual(status, 0, err)
        self.assertIn(f"CUDA: {self.box.fakes}/nvcc does not work with ", err)

    def test_build_folder_can_be_elsewhere(self):
        elsewhere = self.box.folder / "elsewhere"
        status, out, _ = self.box.run(THRESHER_BUILD_DIR=str(elsewhere))
        self.assertEqual((status, out), (0, "first\n"))
        self.assertTrue((elsewhere / "launch/thresher-cli").exists())
        self.assertFalse((self.box.root / "build").exists())

    def test_prefixes_are_ignored_and_named_unless_kept(self):
        _, _, err = self.box.run(CPATH="/conda/include", CONDA_PREFIX="/conda")
        self.assertRegex(err, "ignored for the build: CONDA_PREFIX CPATH")
        self.edit_greeting("again")
        _, _, err = self.box.run(CPATH="/conda/include", THRESHER_KEEP_ENV="CPATH")
        self.assertNotIn("ignored", err)

    def test_ignored_include_path_does_not_reach_the_compiler(self):
        shadow = self.box.folder / "shadow"
        shadow.mkdir()
        (shadow / "cstdio").write_text("#error shadowed\n")
        self.assertEqual(self.box.run(CPLUS_INCLUDE_PATH=str(shadow))[0], 0)
        self.edit_greeting("again")
        self.assertEqual(self.box.run(CPLUS_INCLUDE_PATH=str(shadow),
                                      THRESHER_KEEP_ENV="CPLUS_INCLUDE_PATH")[0], 3)


class JobTest(BootstrapTest):
    def test_inside_a_job_nothing_is_built(self):
        for name in JOB_VARIABLES:
            status, out, err = self.box.run(**{name: "0"})
            self.assertEqual((status, out), (3, ""))
            self.assertIn(name, err)
            self.assertIn("next ", err)
        self.assertFalse((self.box.root / "build").exists())

    def test_inside_a_job_a_built_program_runs_and_a_stale_one_does_not(self):
        self.box.run()
        self.assertEqual(self.box.run(PMIX_RANK="1")[:2], (0, "first\n"))
        self.edit_greeting("second")
        self.assertEqual(self.box.run(PMIX_RANK="1")[:2], (3, ""))


class ConsentTest(BootstrapTest):
    def setUp(self):
        super().setUp()
        self.box.remove("alpha", "beta")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_without_a_terminal_installs_without_asking(self):
        status, out, err = self.box.run()
        self.assertEqual((status, out), (0, "first\n"), err)
        self.assertNotIn("[Y/n]", err)
        self.assertRegex(self.box.calls(), "install .*alpha beta")

    def test_terminal_lists_sizes_and_purposes_and_yes_installs(self):
        self.box.fake("sudo", FAKE_SUDO)
        status, shown = self.box.run_at_terminal(answer="")
        self.assertEqual(status, 0, shown)
        self.assertRegex(shown, r"alpha +3 MB  first purpose")
        self.assertIn("2 missing, 5 MB. Install? [Y/n]", shown)
        self.assertTrue((self.box.state / "installed/beta").exists())

    def test_terminal_and_no_prints_the_commands_and_installs_nothing(self):
        status, shown = self.box.run_at_terminal("run", answer="n")
        self.assertEqual(status, 3)
        self.assertRegex(shown, r"apt-get install -y --no-install-recommends alpha beta")
        self.assertIn("launch/thresher run --yes", shown)
        self.assertNotRegex(self.box.calls(), "install (?!--print-uris)")
        self.assertFalse((self.box.state / "installed/alpha").exists())

    def test_user_without_a_terminal_gets_the_exact_commands_and_no_sudo_is_called(self):
        self.box.fake("sudo", "#!/bin/sh\ntouch \"$FAKE_STATE/sudo-was-called\"\n")
        status, out, err = self.box.run(nobody=True)
        self.assertEqual((status, out), (3, ""))
        self.assertIn("sudo apt-get install -y --no-install-recommends alpha beta", err)
        self.assertFalse((self.box.state / "sudo-was-called").exists())

    def test_user_with_yes_installs_through_sudo(self):
        self.box.fake("sudo", FAKE_SUDO)
        status, out, err = self.box.run("--yes", nobody=True)
        self.assertEqual((status, out), (0, "first\n"), err)
        self.assertRegex(self.box.calls(), "sudo -n .*apt-get .*install .*alpha beta")

    def test_user_with_yes_and_no_sudo_gets_the_commands(self):
        tools = self.box.folder / "tools-without-sudo"
        tools.mkdir()
        for tool in pathlib.Path("/usr/bin").iterdir():
            if tool.name != "sudo":
                (tools / tool.name).symlink_to(tool)
        status, _, err = self.box.run("--yes", nobody=True, PATH=f"{self.box.fakes}:{tools}")
        self.assertEqual(status, 3)
        self.assertIn("there is no sudo", err)
        self.assertIn("apt-get install", err)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_failed_installation_says_what_apt_said_and_tries_fresh_lists(self):
        (self.box.state / "apt-fails").touch()
        status, _, err = self.box.run()
        self.assertEqual(status, 3)
        self.assertIn("E: no network", err)
        self.assertIn("update", self.box.calls())

    def test_unsupported_machine_is_one_line_and_exit_3(self):
        self.box.fake("uname", "#!/bin/sh\necho aarch64\n")
        status, out, err = self.box.run()
        self.assertEqual((status, out), (3, ""))
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertIn("Debian 12", err)

    def test_read_only_tree_says_where_to_build_instead(self):
        self.box.install("alpha", "beta")
        command = self.box.command([], nobody=True)
        subprocess.run(["chmod", "-R", "a-w", self.box.root], check=True)
        result = subprocess.run(command, env=self.box.env, stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=60)
        subprocess.run(["chmod", "-R", "u+w", self.box.root], check=True)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("THRESHER_BUILD_DIR=", result.stderr)


class SupportTest(unittest.TestCase):
    def supported(self, function, *arguments):
        script = ROOT / "launch/bootstrap/system.sh"
        return subprocess.run(["bash", "-c", f'source "{script}"; {function} "$@"', "-",
                               *arguments]).returncode == 0

    def test_systems(self):
        for good in (("debian", "12"), ("ubuntu", "22.04"), ("ubuntu", "24.04")):
            self.assertTrue(self.supported("system_supported", "x86_64", *good))
        for bad in (("x86_64", "debian", "11"), ("x86_64", "debian", ""), ("x86_64", "fedora", "12"),
                    ("aarch64", "debian", "12"), ("x86_64", "ubuntu", "20.04")):
            self.assertFalse(self.supported("system_supported", *bad), bad)

    def test_compilers(self):
        for good in ("11.4.0", "12.2.0", "14"):
            self.assertTrue(self.supported("compiler_supported", good))
        for bad in ("10.2.1", "15.1.0", "none", ""):
            self.assertFalse(self.supported("compiler_supported", bad))


class LockTest(BootstrapTest):
    def test_second_start_waits_says_for_what_and_does_not_build_again(self):
        go = self.slow_compiler()
        first = self.box.start("one")
        self.wait_for(lambda: (self.box.folder / "slow").exists(), "the first build began")
        second = self.box.start("two")
        line = ""
        while "waiting" not in line:
            line = second.stderr.readline()
            self.assertNotEqual(line, "", "the second start ended without waiting")
        self.assertRegex(line, r"waiting .* for another start, which is at: \[3/4\] build")
        go.touch()
        self.assertEqual(first.communicate(timeout=60)[0], "first\none\n")
        out, err = second.communicate(timeout=60)
        self.assertEqual(out, "first\ntwo\n")
        log = (self.box.root / "build/release/bootstrap/log").read_text()
        self.assertEqual(log.count("Linking CXX executable"), 1)

    def test_lock_is_not_held_by_the_running_program(self):
        self.box.run()
        (self.box.root / "launch/main.cc").write_text(
            "#include <cstdio>\n#include <unistd.h>\n"
            "int main() { std::puts(\"up\"); std::fflush(stdout); pause(); }\n")
        program = self.box.start()
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        self.assertEqual(program.stdout.readline(), "up\n")
        lock = self.box.root / "build/bootstrap.lock"
        self.assertEqual(subprocess.run(["flock", "-n", lock, "true"]).returncode, 0)


class InterruptionTest(BootstrapTest):
    def stop_with(self, number):
        go = self.slow_compiler()
        process = self.box.start()
        self.wait_for(lambda: (self.box.folder / "slow").exists(), "the build began")
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        return go, process.returncode, err

    def test_sigterm_ends_the_build_with_75_and_a_rerun_goes_on(self):
        go, status, err = self.stop_with(signal.SIGTERM)
        self.assertEqual(status, 75, err)
        self.assertIn("goes on from here", err)
        go.touch()
        self.assertEqual(self.box.run()[:2], (0, "first\n"))

    def test_after_sigkill_a_rerun_goes_on(self):
        go, status, _ = self.stop_with(signal.SIGKILL)
        self.assertEqual(status, -signal.SIGKILL)
        go.touch()
        self.assertEqual(self.box.run()[:2], (0, "first\n"))


if __name__ == "__main__":
    unittest.main()
