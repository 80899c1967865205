"""What a result belongs to: the device, the versions around it, and the sources."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import time

SOURCES = ("CMakeLists.txt", "CMakePresets.json", "actor", "broker", "common", "configs", "kernels",
           "launch", "learner", "tests")
QUERY = ("name", "memory.total", "driver_version", "compute_cap", "clocks.max.sm")


class NoDevice(Exception):
    """Why nothing can be run here, in one line."""


def output_of(command, timeout=20):
    """(exit code, standard output, both outputs); code None: not started, or it took too long."""
    try:
        done = subprocess.run([str(word) for word in command],
                              capture_output=True,
                              text=True,
                              errors="replace",
                              timeout=timeout,
                              stdin=subprocess.DEVNULL)
    except OSError as error:
        return None, "", f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired as error:
        return None, "", f"{command[0]}: no answer within {error.timeout:.0f} s"
    return done.returncode, done.stdout, done.stdout + done.stderr


def find_device(programs):
    """{"name", "memory", "driver", "capability", "clock"} of the first GPU. Raises NoDevice."""
    code, out, everything = output_of(
        [programs["nvidia-smi"], "--query-gpu=" + ",".join(QUERY), "--format=csv,noheader"])
    line = out.strip().splitlines()[0] if code == 0 and out.strip() else ""
    if not line:
        told = everything.strip().splitlines()
        raise NoDevice(
            reason_of_tests(programs) or (told[-1] if told else "nvidia-smi shows no GPU"))
    values = [value.strip() for value in line.split(",")]
    return dict(zip(("name", "memory", "driver", "capability", "clock"), values))


def reason_of_tests(programs):
    """The text with which a GPU test is skipped; empty where they are not built."""
    if not pathlib.Path(programs["gpu_tests"]).exists():
        return ""
    _, out, _ = output_of([programs["gpu_tests"], "--gtest_filter=CudaKernels.Swiglu"], timeout=60)
    found = re.search(r": Skipped\n(.*\S)", out)
    return found.group(1).strip() if found else ""


def first_match(pattern, text, otherwise="not found"):
    found = re.search(pattern, text)
    return found.group(1) if found else otherwise


def versions(programs):
    """Name -> version of what the figures depend on."""
    _, nvcc, _ = output_of([programs["nvcc"], "--version"])
    _, smi, _ = output_of([programs["nvidia-smi"]])
    _, compiler, _ = output_of(["g++", "-dumpfullversion"])
    found = {
        "CUDA toolkit": first_match(r"release [^,]*, V(\S+)", nvcc),
        "CUDA of the driver": first_match(r"CUDA Version: (\S+)",
                                          smi), "g++": compiler.strip() or "not found"
    }
    for module in ("torch", "transformers"):
        code, out, _ = output_of(
            [programs["python"], "-c", f"import {module}; print({module}.__version__)"], 90)
        found[module] = out.strip().splitlines()[-1] if code == 0 and out.strip() else "not found"
    return found


def source_key(root):
    """A hash of all sources: what a result depends on, with or without git. Pages do not count."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def revision(root, programs):
    """Of git, "+" behind it where files are changed; "unknown" without git."""
    git = [programs["git"], "-c", "safe.directory=*", "-C", root]
    code, out, _ = output_of([*git, "rev-parse", "--short=12", "HEAD"])
    if code != 0 or not out.strip():
        return "unknown"
    _, changed, _ = output_of([*git, "status", "--porcelain", "--untracked-files=no"])
    return out.strip() + ("+" if changed.strip() else "")


def cuda_program(name):
    """A program of the CUDA toolkit, on the PATH or in its folder; its name where it is in neither."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    places = [pathlib.Path(home) / "bin" / name for home in homes if home]
    return shutil.which(name) or next((str(p) for p in places if p.exists()), name)


def today():
    return time.strftime("%Y-%m-%d")
