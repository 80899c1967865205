"""The choice of libtorch: named, fetched, installed already; refused with its reason."""

import shutil
import subprocess
import unittest

from sandbox import Sandbox, make_folder


class TorchTest(unittest.TestCase):
    def setUp(self):
        self.box = Sandbox()
        self.box.env["THRESHER_PARITY"] = "1"
        self.addCleanup(self.box.close)

    def hide_cuda_toolkit(self):
        self.box.env["THRESHER_KEEP_ENV"] = "PATH"  # the sandbox's path, without /usr/local


class NamedTorchTest(TorchTest):
    def refused(self, **kind):
        folder = self.box.make_torch(self.box.folder / "candidate", **kind)
        status, _, err = self.box.run(THRESHER_TORCH=str(folder))
        shutil.rmtree(folder)
        self.assertEqual(status, 3, err)
        return err

    def test_named_torch_is_said_in_one_line(self):
        _, _, err = self.box.run()
        self.assertIn("torch 2.13.0+cpu (CPU), named by THRESHER_TORCH", err)

    def test_version_outside_the_range_is_refused(self):
        for version in ("2.3.1", "2.14.0", "1.13.0", "3.0.0", ""):
            self.assertIn("usable: 2.4 to 2.13", self.refused(version=version))

    def test_both_ends_of_the_range_are_taken(self):
        for version in ("2.4.0", "2.13.1+cpu"):
            folder = self.box.make_torch(self.box.folder / version, version)
            self.assertEqual(self.box.run(THRESHER_TORCH=str(folder))[0], 0)

    def test_old_string_abi_is_refused(self):
        self.assertIn("C++11 ABI", self.refused(abi="_ZN3c105ErrorC1ENS_14SourceLocationESs"))

    def test_cuda_build_without_a_toolkit_is_refused(self):
        self.hide_cuda_toolkit()
        self.assertIn("CUDA 12.6 build and there is no CUDA toolkit", self.refused(cuda="12.6"))

    def test_folder_without_libtorch_is_refused(self):
        status, _, err = self.box.run(THRESHER_TORCH="/nonexistent")
        self.assertEqual(status, 3)
        self.assertIn("TorchConfig.cmake", err)

    def test_without_consent_nothing_is_fetched(self):
        del self.box.env["THRESHER_TORCH"]
        self.box.make_wheel()
        status, _, err = self.box.run("solve", nobody=True)
        self.assertEqual(status, 3)
        self.assertIn("launch/thresher solve --yes", err)
        self.assertFalse((self.box.root / "build/venv").exists())


class FetchedTorchTest(TorchTest):
    """An empty environment is made once (seconds) and copied to each test."""

    @classmethod
    def setUpClass(cls):
        cls.template = make_folder("thresher-venv-")
        cls.addClassCleanup(shutil.rmtree, cls.template)
        subprocess.run(["/usr/bin/python3", "-m", "venv", cls.template / "venv"], check=True)

    def run_without_torch(self, *arguments, **env):
        del self.box.env["THRESHER_TORCH"]
        shutil.copytree(self.template / "venv", self.box.root / "build/venv", symlinks=True)
        return self.box.run("--yes", *arguments, **env)

    def test_environment_is_made_where_there_is_none(self):
        self.box.make_wheel()
        del self.box.env["THRESHER_TORCH"]
        status, _, err = self.box.run("--yes")
        self.assertEqual(status, 0, err)
        self.assertIn("torch 2.13.0+cpu (CPU), private wheel", err)

    def test_broken_environment_is_made_again(self):
        self.box.make_wheel()
        del self.box.env["THRESHER_TORCH"]
        (self.box.root / "build/venv/bin").mkdir(parents=True)
        self.assertEqual(self.box.run("--yes")[0], 0)

    def test_wheel_is_fetched_once_into_the_build_folder(self):
        self.box.make_wheel()
        status, out, err = self.run_without_torch()
        self.assertEqual((status, out), (0, "first\n"), err)
        self.assertIn("torch 2.13.0+cpu (CPU), private wheel", err)
        self.assertTrue(list(self.box.root.glob("build/venv/lib/*/site-packages/torch/version.py")))
        for wheel in self.box.folder.glob("*.whl"):
            wheel.unlink()
        (self.box.root / "launch/main.cc").touch()
        self.assertEqual(self.box.run("--yes")[0], 0)

    def test_programs_are_built_without_it_and_its_tests_with_it(self):
        self.hide_cuda_toolkit()
        self.box.make_wheel()
        status, out, err = self.run_without_torch(THRESHER_PARITY="0")
        self.assertEqual((status, out), (0, "first\n"), err)
        self.assertIn("libtorch not needed", err)
        cache = self.box.root / "build/release/CMakeCache.txt"
        self.assertRegex(cache.read_text(), "THRESHER_PARITY:.*=OFF")
        (self.box.root / "launch/main.cc").touch()
        status, _, err = self.box.run("--yes")
        self.assertEqual(status, 0, err)
        self.assertIn("torch 2.13.0+cpu (CPU), private wheel", err)
        self.assertNotRegex(cache.read_text(), "THRESHER_PARITY:.*=OFF")

    def test_half_installed_wheel_is_installed_again(self):
        self.box.make_wheel()
        self.run_without_torch()
        (self.box.root / "build/venv/complete").unlink()
        (self.box.root / "launch/main.cc").touch()
        status, _, err = self.box.run("--yes")
        self.assertEqual(status, 0, err)
        self.assertTrue((self.box.root / "build/venv/complete").exists())

    def test_other_version_is_not_taken_for_the_pinned_one(self):
        self.box.make_wheel("2.12.0+cpu")
        status, _, err = self.run_without_torch()
        self.assertEqual(status, 3)
        self.assertIn("could not fetch torch 2.13.0", err)

    def test_cuda_wheel_without_a_toolkit_names_the_remedy(self):
        self.hide_cuda_toolkit()
        self.box.make_wheel("2.13.0", requires=["nvidia-cublas==13.0"], cuda="13.0")
        status, _, err = self.run_without_torch()
        self.assertEqual(status, 3)
        self.assertIn("THRESHER_TORCH_INDEX=", err)
        self.assertFalse(list(self.box.root.glob("build/venv/lib/*/site-packages/torch")))

    def test_cuda_wheel_that_does_not_say_so_is_refused_after_the_probe(self):
        self.hide_cuda_toolkit()
        self.box.make_wheel("2.13.0", cuda="13.0")
        status, _, err = self.run_without_torch()
        self.assertEqual(status, 3)
        self.assertIn("THRESHER_TORCH_INDEX=", err)

    def test_with_a_toolkit_a_cuda_wheel_is_taken(self):
        self.hide_cuda_toolkit()
        self.box.fake("nvcc", "#!/bin/sh\n")
        self.box.make_wheel("2.13.0", requires=["nvidia-cublas==13.0"], cuda="13.0")
        status, _, err = self.run_without_torch()
        self.assertEqual(status, 0, err)
        self.assertIn("torch 2.13.0 (CUDA 13.0), private wheel", err)

    def test_offline_an_installed_torch_is_used_and_said(self):
        self.python_with(self.box.torch)
        status, _, err = self.run_without_torch()
        self.assertEqual(status, 0, err)
        self.assertIn(f"installed at {self.box.torch}", err)

    def test_offline_an_unusable_installed_torch_is_refused_with_its_reason(self):
        self.python_with(self.box.make_torch(self.box.folder / "old", "2.1.0"))
        status, _, err = self.run_without_torch()
        self.assertEqual(status, 3)
        self.assertIn("2.1.0", err)
        self.assertIn("THRESHER_TORCH=", err)

    def python_with(self, torch):
        """A python3 on the path whose torch is `torch`; nothing else is asked of it."""
        self.box.fake("python3", f"#!/bin/sh\n[ \"$1\" = -c ] && echo {torch}\n")


if __name__ == "__main__":
    unittest.main()
