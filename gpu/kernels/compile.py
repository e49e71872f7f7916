"""Compiles every kernel without a device: PTX and machine code to ship, whose use of registers is held to its budget.

compile.py NVRTC_LIBRARY [--write]

Prints a line per kernel and architecture. Fails on a compiler's error, on spilled registers, on more registers than
registers.txt allows, on kernels that are not in it, and where ptx/ and cubin/ are not what the sources give (--write renews
all three).
"""

import ctypes
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
# --fmad=false: products are fused only where the source says so, as on the CPU.
COMMON = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"]
PTX = "compute_80"
MACHINES = ["sm_80", "sm_90"]
# The machine whose code is shipped beside the PTX; it is the same from one compilation to the next.
SHIPPED = "sm_90"
# Threads of a block, where they are not 128, and registers that all of them share.
THREADS = {"change_points": 1024, "rank1": 256, "roll": 256, "centre": 512, "shares_along": 256, "tile_products": 64}
REGISTERS = 65536
# What would not give the CPU's bits: functions that are only near, flushed subnormals, and sums and products without a
# rounding, which the driver may fuse.
INEXACT = re.compile(r"\b(\w+\.approx\S*|\w+\S*\.ftz\S*|(?:add|sub|mul)\.f(?:32|64))\b")
RESOURCES = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<machine>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Nvrtc:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def check(self, code, log=""):
        if code != 0:
            raise SystemExit(f"{log}nvrtc: {self.library.nvrtcGetErrorString(code).decode()}")

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def compile(self, name, source, headers, options, what):
        program = ctypes.c_void_p()
        texts = (ctypes.c_char_p * len(headers))(*[text.encode() for text in headers.values()])
        names = (ctypes.c_char_p * len(headers))(*[name.encode() for name in headers])
        create = self.library.nvrtcCreateProgram
        self.check(create(ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names))
        arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        code = self.library.nvrtcCompileProgram(program, len(options), arguments)
        log = self.text(program, "ProgramLog").rstrip(b"\0").decode()
        self.check(code, log)
        made = self.text(program, what)
        self.check(self.library.nvrtcDestroyProgram(ctypes.byref(program)))
        return made, log


def main():
    nvrtc = Nvrtc(sys.argv[1])
    write = "--write" in sys.argv[2:]
    headers = {path.name: path.read_text() for path in sorted(HERE.glob("*.cuh"))}
    budget_file = HERE / "registers.txt"
    budget = dict(line.rsplit(" ", 1) for line in budget_file.read_text().splitlines()) if budget_file.exists() else {}
    problems, found = [], {}
    for path in sorted(HERE.glob("*.cu")):
        source = path.read_text()
        made, _ = nvrtc.compile(path.name, source, headers, COMMON + [f"--gpu-architecture={PTX}"], "PTX")
        # What differs from one release of the compiler to the next stands in comments.
        lines = [line for line in made.rstrip(b"\0").decode().splitlines() if not line.startswith("//")]
        text = "\n".join(lines).strip() + "\n"
        for inexact in sorted(set(INEXACT.findall(text))):
            problems.append(f"{path.name}: {inexact} is not exact")
        target = HERE / "ptx" / f"{path.stem}.ptx"
        if write:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            problems.append(f"{target.name} is not what {path.name} gives; run with --write and commit it")
        for machine in MACHINES:
            options = COMMON + [f"--gpu-architecture={machine}", "--ptxas-options=-v"]
            made, log = nvrtc.compile(path.name, source, headers, options, "CUBIN")
            if machine == SHIPPED:
                target = HERE / "cubin" / f"{path.stem}.cubin"
                if write:
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(made)
                elif not target.exists() or target.read_bytes() != made:
                    problems.append(f"{target.name} is not what {path.name} gives; run with --write and commit it")
            seen = list(RESOURCES.finditer(log))
            if not seen:
                problems.append(f"{path.name}: the compiler says nothing of registers: {log[:200]!r}")
            for kernel in seen:
                name = f"{kernel['kernel']} {kernel['machine']}"
                registers, stack = int(kernel["registers"]), int(kernel["stack"])
                found[name] = registers
                print(f"{name}: {registers} registers, {stack} bytes of stack")
                if int(kernel["stores"]) + int(kernel["loads"]) > 0:
                    problems.append(f"{name}: spills {kernel['stores']} bytes")
                if registers * THREADS.get(kernel["kernel"], 128) > REGISTERS:
                    problems.append(f"{name}: its blocks need more than {REGISTERS} registers")
                if not write and registers > int(budget.get(name, -1)):
                    problems.append(f"{name}: {registers} registers, allowed are {budget.get(name, 'none: not in registers.txt')}")
    for name in budget.keys() - found.keys():
        if not write:
            problems.append(f"{name} is in registers.txt, but there is no such kernel")
    if write:
        budget_file.write_text("".join(f"{name} {registers}\n" for name, registers in sorted(found.items())))
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{len(found)} kernels compiled, {len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())
