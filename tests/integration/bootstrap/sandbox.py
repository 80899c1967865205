"""A copy of the bootstrap around a two-file project, with faked package tools on its path."""

import os
import pathlib
import pty
import select
import shutil
import subprocess
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
CXX11 = "_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx11"
JOB_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_STEP_ID", "SLURM_JOB_ID")

# The fakes keep the installed packages as files in $FAKE_STATE and log how they were called.
FAKE_DPKG_QUERY = """#!/bin/sh
for name in "$@"; do
  [ -e "$FAKE_STATE/installed/$name" ] && echo "$name installed"
done
exit 0
"""
FAKE_APT_GET = """#!/bin/sh
echo "apt-get $*" >>"$FAKE_STATE/calls"
case " $* " in
  *" --print-uris "*)
    for name in "$@"; do
      case $name in -*|install) ;; *) echo "'file:/$name.deb' ${name}_1_amd64.deb 2500000 SHA256:0" ;; esac
    done ;;
  *" install "*)
    [ -e "$FAKE_STATE/apt-fails" ] && echo "E: no network" && exit 100
    for name in "$@"; do
      case $name in -*|install) ;; *) : >"$FAKE_STATE/installed/$name" ;; esac
    done ;;
esac
exit 0
"""
FAKE_SUDO = """#!/bin/sh
echo "sudo $*" >>"$FAKE_STATE/calls"
[ "$1" = -n ] && shift
exec "$@"
"""


def make_folder(prefix):
    """A temporary folder that another user can reach: in TMPDIR if that can be, else in /tmp."""
    base = pathlib.Path(tempfile.gettempdir()).resolve()
    reachable = all(part.stat().st_mode & 0o001 for part in (base, *base.parents))
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=base if reachable else "/tmp"))
    folder.chmod(0o755)
    return folder


class Sandbox:
    """The project in a temporary folder. Packages 'alpha' and 'beta' are needed, both installed."""

    def __init__(self):
        self.folder = make_folder("thresher-bootstrap-")
        self.root = self.folder / "project"
        shutil.copytree(ROOT / "tests/fixtures/bootstrap", self.root)
        shutil.copy(ROOT / "launch/thresher", self.root / "launch/thresher")
        shutil.copytree(ROOT / "launch/bootstrap", self.root / "launch/bootstrap")
        (self.root / "launch/packages.txt").write_text(
            "# comment\nalpha  first purpose\nbeta   second purpose\n")
        self.state = self.folder / "state"
        (self.state / "installed").mkdir(parents=True)
        self.fakes = self.folder / "bin"
        self.fakes.mkdir()
        self.fake("dpkg-query", FAKE_DPKG_QUERY)
        self.fake("apt-get", FAKE_APT_GET)
        self.install("alpha", "beta")
        self.torch = self.make_torch(self.folder / "torch")
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith("THRESHER_") and k not in JOB_VARIABLES}
        self.env |= {"PATH": f"{self.fakes}:/usr/bin:/bin", "FAKE_STATE": str(self.state),
                     "THRESHER_TORCH": str(self.torch), "PIP_CONFIG_FILE": "/dev/null",
                     "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder)}
        for name in ("CONDA_PREFIX", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PIP_EXTRA_INDEX_URL"):
            self.env.pop(name, None)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def fake(self, name, text):
        path = self.fakes / name
        path.write_text(text)
        path.chmod(0o755)

    def install(self, *names):
        for name in names:
            (self.state / "installed" / name).touch()

    def remove(self, *names):
        for name in names:
            (self.state / "installed" / name).unlink()

    def calls(self):
        path = self.state / "calls"
        return path.read_text() if path.exists() else ""

    @staticmethod
    def make_torch(folder, version="2.13.0+cpu", cuda=None, abi=CXX11):
        """What the probe looks at of an installed torch."""
        (folder / "share/cmake/Torch").mkdir(parents=True)
        (folder / "share/cmake/Torch/TorchConfig.cmake").touch()
        (folder / "lib").mkdir()
        (folder / "lib/libc10.so").write_bytes(b"\x7fELF\0" + abi.encode() + b"\0")
        if cuda:
            (folder / "lib/libtorch_cuda.so").touch()
        value = f"'{cuda}'" if cuda else None
        (folder / "version.py").write_text(
            f"__version__ = '{version}'\ncuda: Optional[str] = {value}\n")
        return folder

    def make_wheel(self, version="2.13.0+cpu", requires=(), cuda=None):
        """A wheel that pip finds through PIP_FIND_LINKS."""
        content = self.make_torch(self.folder / "wheel" / version / "torch", version, cuda)
        (content / "__init__.py").touch()
        info = f"torch-{version}.dist-info"
        with zipfile.ZipFile(self.folder / f"torch-{version}-py3-none-any.whl", "w") as wheel:
            names = []
            for path in sorted(p for p in content.rglob("*") if p.is_file()):
                names.append("torch/" + str(path.relative_to(content)))
                wheel.write(path, names[-1])
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
                           + "".join(f"Requires-Dist: {r}\n" for r in requires))
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\n"
                           "Root-Is-Purelib: true\nTag: py3-none-any\n")
            names += [f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"]
            wheel.writestr(f"{info}/RECORD", "".join(f"{n},,\n" for n in names))

    def command(self, arguments, nobody):
        drop = []
        if nobody and os.geteuid() == 0:
            subprocess.run(["chown", "-R", "65534:65534", self.root, self.state], check=True)
            drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        return [*drop, str(self.root / "launch/thresher"), *arguments]

    def start(self, *arguments, nobody=False, **env):
        return subprocess.Popen(self.command(arguments, nobody), env={**self.env, **env},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def run(self, *arguments, nobody=False, **env):
        """Without a terminal. Returns (exit status, stdout, stderr)."""
        process = self.start(*arguments, nobody=nobody, **env)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def run_at_terminal(self, *arguments, answer="", nobody=False, **env):
        """At a terminal; `answer` is typed when asked. Returns (exit status, all that was shown)."""
        pid, terminal = pty.fork()
        if pid == 0:
            command = self.command(arguments, nobody)
            os.execvpe(command[0], command, {**self.env, **env})
        shown, end = b"", time.monotonic() + 120
        while time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    data = os.read(terminal, 4096)
                except OSError:
                    break
                if not data:
                    break
                shown += data
                if b"[Y/n]" in shown and answer is not None:
                    os.write(terminal, (answer + "\n").encode())
                    answer = None
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()
