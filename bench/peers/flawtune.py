"""flawtune's side: the example `speed`, run anew for every measurement."""
import re
import subprocess

import environment


class Speed:
    def __init__(self):
        self.program = environment.program("speed", "FLAWTUNE_SPEED")

    def _report(self, *arguments):
        return subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True)

    def precisions(self):
        """Those that the binary takes: it names the precision in its first line, or else computes f32 whatever is asked."""
        known = ["f32"]
        for name in ("f16", "bf16", "int8"):
            done = self._report("s", 32, 1, 1, 1, name)
            first = done.stdout.splitlines()[:1]
            if done.returncode == 0 and first and re.search(rf"\b{name}\b", first[0]):
                known.append(name)
        return known

    def measure(self, case, least, rate=None, precision="f32"):
        """Images/s, with the yardsticks of the same turns; `rate`: what an earlier call gave, to choose the number of rounds."""
        # a round of the program is one batch; the first, which is not counted, comes on top
        rounds = max(1, round(least * rate / case["batch"])) if rate else 1
        arguments = [case["model"], case["side"], case["batch"], case["threads"], rounds]
        done = self._report(*arguments, *([precision] if precision != "f32" else []))
        if done.returncode != 0:
            raise SystemExit(f"{self.program} {' '.join(map(str, arguments))} failed: {done.stderr.strip()}")

        def number(pattern):
            return float(re.search(pattern, done.stdout)[1])

        return {
            "rate": number(r"([\d.]+) images/s"),
            "fma": number(r"FMA ([\d.]+)"),
            "attainable": number(r"attainable ([\d.]+)"),
            "share": number(r"([\d.]+) of attainable"),
        }
