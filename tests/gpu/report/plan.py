"""The pieces of the report in their order, each a list of steps with its own time."""

import dataclasses
import pathlib
import shutil

import machine
import parse
import shapes
from steps import Step

HERE = pathlib.Path(__file__).resolve().parent
MIXES, TOKENS = 2000, 1000000  # what the checks of row purity and of one policy are asked for
MISSING = 4  # exit code of a script of this folder that lacks a library
ENGINE_SUITES = ("DeviceEngine.*", "DeviceRowPurity.*")
LEARNER_SUITES = ("DeviceTrainingPass.*", "DeviceOnePolicy.*", "NcclOnDevice.*", "CudaPort.*")
# Under compute-sanitizer a test takes 10 to 100 times as long: races are looked for where threads
# share memory.
RACE_SUITES = ("CudaAttention*.*", "CudaKernels.*", "CudaHead*.*", "GemmBf16Test.EveryFormIsWithin*")
MODEL_CONTEXT = 8192 + 128
KERNEL_SET = "cuda-bf16-sm90-v1"  # of the engine cells
NEW_TOKENS = 33
# (context, batches, rounds, limit): what one call of `bench engine` measures.
CELLS = ((1024, (1, 16, 64), 2, 45), (8192, (1, 16), 1, 45), (1024, (256, ), 1, 60),
         (8192, (64, ), 1, 60), (8192, (256, ), 1, 90))
# What gpu_bench measures, and for how long at most.
SECTIONS = ((("limits", ), 20), (("gemm", ), 45), (("attention", ), 30), (("head", ), 20),
            (("training", "0.5B"), 60), (("training", "1.5B"), 120))
PEER_BATCHES = (1, 16, 64)


@dataclasses.dataclass
class Piece:
    name: str
    title: str
    limit: float
    steps: list


class Plan:
    """root: of the sources, key: their hash. build: the build folder. folder: where results, models
    and the quickstart's run lie: an interrupted run goes on with the same sources alone."""
    def __init__(self, root, build, folder, programs, key):
        self.root, self.build, self.folder = root, build, folder
        self.run = folder / f"quickstart-{key}"
        self.programs = {**default_programs(root, build), **programs}

    def pieces(self):
        return [
            self.build_piece(),
            self.kernels(),
            self.engine(),
            self.learner(),
            self.sanitizer(),
            self.quickstart(),
            self.bench()
        ]

    def lacks(self, *names):
        """A reason for a step to be absent: a program of the build that is not there."""
        def absent():
            missing = [name for name in names if not pathlib.Path(self.programs[name]).exists()]
            return f"{missing[0]} is not built" if missing else ""

        return absent

    def build_piece(self):
        p = self.programs
        return Piece("build", "Build", 300, [
            Step("programs", [p["bootstrap"], "--version"], 280,
                 lambda text, out: {"version": out.strip().splitlines()[0]}),
            Step("tests", [
                p["cmake"], "--build", self.build, "--target", "gpu_tests", "gpu_learner_tests",
                "gpu_bench"
            ], 280)
        ])

    def tests(self, name, limit, suites, environment=None, under=(), read=parse.gtest,
              program="gpu_tests"):
        return Step(name, [*under, self.programs[program], "--gtest_filter=" + ":".join(suites)],
                    limit, read, self.lacks(program), environment or {})

    def kernels(self):
        others = "-" + ":".join((*ENGINE_SUITES, *LEARNER_SUITES))
        return Piece("kernels", "Kernels against float64 and the CPU's bits", 60,
                     [self.tests("all", 55, ["*" + others])])

    def engine(self):
        return Piece(
            "engine", "Engine: the CPU's bits, graphs on and off, chunks, row purity", 70, [
                self.tests("engine", 30, ENGINE_SUITES[:1]),
                self.tests("row-purity", 60, ENGINE_SUITES[1:], {"THRESHER_MIXES": str(MIXES)})
            ])

    def learner(self):
        return Piece("learner", "Learner: the CPU's bits, one policy with the actor, optimiser, NCCL", 90, [
            self.tests("training", 30, LEARNER_SUITES[:1]),
            self.tests("one-policy", 60, LEARNER_SUITES[1:2], {"THRESHER_TOKENS": str(TOKENS)}),
            self.tests("state", 30, ["*"], program="gpu_learner_tests"),
            self.tests("nccl", 40, LEARNER_SUITES[2:])
        ])

    def sanitizer(self):
        program = self.programs["compute-sanitizer"]

        def under(tool):
            return (program, "--tool", tool, "--error-exitcode", "9", "--print-limit", "5")

        steps = [
            self.tests("memcheck", 45, ["*-NcclOnDevice.*:Device.*:SelfTestOnDevice.A*"], None,
                       under("memcheck"), parse.sanitizer),
            self.tests("racecheck", 55, RACE_SUITES, None, under("racecheck"), parse.sanitizer)
        ]
        for step in steps:
            built = step.absent
            step.absent = lambda built=built: built() or ("" if shutil.which(
                program) else "compute-sanitizer is not on this machine")
        return Piece("sanitizer", "compute-sanitizer", 100, steps)

    def quickstart(self):
        thresher, run = self.programs["thresher"], self.run
        config = self.root / "configs" / "quickstart.yaml"
        expected = parse.expected_hash((self.root / "configs" / "README.md").read_text())

        def absent():
            return self.lacks("thresher")() or ("" if (run / "summary.json").exists() else
                                                "there is no finished run of the quickstart")

        return Piece("quickstart", "Quickstart on the GPU", 150, [
            Step("run", [
                thresher, "run", config, "--dir", run, "--set", "actors.device=cuda", "--set",
                "learner.device=cuda"
            ],
                 140,
                 parse.quickstart(expected),
                 self.lacks("thresher"),
                 least=10),
            Step("replay", [thresher, "replay", run, "--random", "300"], 40, parse.nothing, absent),
            Step("audit", [thresher, "audit", run], 40, parse.nothing, absent)
        ])

    def bench(self):
        steps = [
            Step("-".join(words), [self.programs["gpu_bench"], *words], limit, parse.json_of,
                 self.lacks("gpu_bench")) for words, limit in SECTIONS
        ]
        for shape in shapes.SHAPES.values():
            steps += self.model_steps(shape)
        return Piece("bench", "Benchmarks", 400, steps)

    def model_steps(self, shape):
        """A random model, the engine over contexts and batches, its peer."""
        folder = self.folder / "models" / shape.name
        python = self.programs["python"]

        def absent():
            return self.lacks("thresher")() or ("" if (folder / "complete").exists() else
                                                f"there is no model {shape.name}")

        yield Step(f"model-{shape.name}",
                   [python, HERE / "random_model.py", shape.name, MODEL_CONTEXT, folder],
                   60,
                   parse.nothing,
                   absent_codes=(MISSING, ))
        for context, batches, rounds, limit in CELLS:
            many = ",".join(map(str, batches))
            yield Step(f"engine-{shape.name}-{context}-{many}", [
                self.programs["thresher"], "bench", "engine", folder, "--device", "cuda",
                "--kernel-set", KERNEL_SET, "--batch",
                many, "--prompt-tokens", context, "--new-tokens", NEW_TOKENS, "--rounds", rounds
            ],
                       limit,
                       parse.json_of,
                       absent,
                       least=8)
            if context == 1024 and len(batches) > 1:
                peers = ",".join(map(str, PEER_BATCHES))
                yield Step(f"transformers-{shape.name}",
                           [python, HERE / "peer_generate.py", folder, peers, context, NEW_TOKENS],
                           60,
                           parse.json_of,
                           absent,
                           absent_codes=(MISSING, ),
                           least=8)


def default_programs(root, build):
    """Where everything is that is called."""
    return {
        "bootstrap": root / "launch" / "thresher", "cmake": "cmake", "git": "git",
        "nvidia-smi": "nvidia-smi", "nvcc": machine.cuda_program("nvcc"), "python": "python3",
        "compute-sanitizer": machine.cuda_program("compute-sanitizer"),
        "thresher": build / "launch" / "thresher-cli",
        "gpu_tests": build / "tests" / "gpu" / "gpu_tests",
        "gpu_learner_tests": build / "tests" / "gpu" / "gpu_learner_tests",
        "gpu_bench": build / "tests" / "bench" / "gpu" / "gpu_bench"
    }
