"""For a short loan of an accelerator: one command of ten minutes, whose finds are on disk as soon as they are made.

    python -m benchmarks.accelerator --out=FOLDER --carried=FOLDER [--seconds=600] [--only=tests,mfu]
    python -m benchmarks.accelerator --rehearse --out=FOLDER
    python -m benchmarks.accelerator --pack=FOLDER --data=PACK --photos=FOLDER [--pictures=N] [--photographs=N]

The first runs the sections that docs/accelerators.md tells of, each in a process of its own with its own budget of
seconds; one that fails, or is cut at its budget, leaves the others standing, and the exit status is then 1. The second
is the same on a CPU with small sizes, in a minute or two. The third prepares, where there is a network, what the first
needs where there is none: pictures as they are, in packs, and a word on the wheels; it refuses what takes more than
--limit MiB together with the files of the repository. Wheels of pure Python that lie in --carried are found there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Section(NamedTuple):
    """Attributes: name; seconds, the most that it may take; what it tells."""

    name: str
    seconds: float
    what: str


TRAINING = 180.0
SECTIONS = (
    Section("tests", 60, "the tests marked `gpu`"),
    Section("sampling", 60, "what DDIM and DPS cost over the bare network, embedded prior, float32"),
    Section("satellite64", 30, "the satellite prior, trained on in bfloat16"),
    Section("photo", 30, "the prior of photographs, trained in bfloat16"),
    Section("mfu", 100, "ADM's network at 256 x 256 in bfloat16: an evaluation, and a value with its input gradient"),
    Section("torch", 100, "the same network in PyTorch, channels_last, as it is and compiled"),
    Section("nccl", 40, "two processes, a device each"),
)
"""In the order in which they run; the trainings have their own seconds besides."""
TRAININGS = ("satellite64", "photo")


class Outcome(NamedTuple):
    """Attributes: state, of "done", "skipped", "failed", "cut", "not run"; why, one line; seconds; what was found."""

    state: str
    why: str
    seconds: float
    found: dict[str, Any]


def environment(carried: str, rehearse: bool) -> dict[str, str]:
    """Of a section's process: carried wheels and this repository can be imported."""
    wheels = sorted(str(path.resolve()) for path in Path(carried).glob("*-none-any.whl")) if carried else []
    paths = [str(ROOT), *wheels, *filter(None, [os.environ.get("PYTHONPATH")])]
    plain = "--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false"
    small = {"JAX_PLATFORMS": "cpu", "DIFFINV_DEVICES": "1", "XLA_FLAGS": os.environ.get("XLA_FLAGS") or plain}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **(small if rehearse else {})}


def found_in(path: Path) -> dict[str, Any]:
    """What a section's process has told so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def outcome(status: int | None, found: dict[str, Any], spent: float, log: Path) -> Outcome:
    """Of a process that ended with `status`, None where it was cut."""
    told = {name: value for name, value in found.items() if name not in ("skipped", "failed")}
    if status is None:
        return Outcome("cut", f"at {spent:.0f} s; what was found by then stands", spent, told)
    if status:
        return Outcome("failed", found.get("failed") or f"status {status}, see {log.name}", spent, told)
    return Outcome("skipped" if "skipped" in found else "done", found.get("skipped", ""), spent, told)


def stop(process: subprocess.Popen) -> None:
    """The process with all that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, sign)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                continue


def run(section: Section, seconds: float, options: dict[str, Any]) -> Outcome:
    """One section, for at most so many seconds."""
    folder, begun = Path(options["out"]) / "sections", time.monotonic()
    report, log = folder / f"{section.name}.json", folder / f"{section.name}.log"
    report.unlink(missing_ok=True)  # of an earlier run
    command = [sys.executable, "-m", "benchmarks.accelerator_sections", section.name, json.dumps(options)]
    given = {"cwd": ROOT, "env": environment(options["carried"], options["rehearse"]), "start_new_session": True}
    with open(log, "wb") as file, subprocess.Popen(command, stdout=file, stderr=file, **given) as process:
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            stop(process)
    return outcome(status, found_in(report), time.monotonic() - begun, log)


# ---- what is written


def shown(value: Any) -> str:
    """A cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def page(outcomes: dict[str, Outcome]) -> str:
    """A fragment in Markdown: a table of the sections, then a table of numbers for each."""
    lines = ["| section | what | state | seconds |", "|---|---|---|---|"]
    for section in SECTIONS:
        if found := outcomes.get(section.name):
            why = f": {found.why}" if found.why else ""
            lines.append(f"| {section.name} | {section.what} | {found.state}{shown(why)} | {found.seconds:.0f} |")
    for name, found in outcomes.items():
        if found.found:
            rows = [f"| {key.replace('_', ' ')} | {shown(value)} |" for key, value in found.found.items()]
            lines += ["", f"### {name}", "", "| what | found |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def write(folder: Path, outcomes: dict[str, Outcome]) -> None:
    """`accelerator.json` and `accelerator.md`, each whole at any moment."""
    told = {name: found._asdict() for name, found in outcomes.items()}
    for name, content in (("accelerator.json", json.dumps(told, indent=1) + "\n"), ("accelerator.md", page(outcomes))):
        temporary = folder / f".{name}.tmp"
        temporary.write_text(content)
        os.replace(temporary, folder / name)


def measure(options: dict[str, Any], only: Iterable[str], seconds: float) -> int:
    """All sections in turn; the exit status."""
    folder, begun = Path(options["out"]), time.monotonic()
    (folder / "sections").mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    for section in SECTIONS:
        if section.name not in only:
            continue
        budget = section.seconds + options["train_seconds"] * (section.name in TRAININGS)
        left = seconds - (time.monotonic() - begun)
        left = left if options["rehearse"] else min(budget, left)
        if left < 5:
            outcomes[section.name] = Outcome("not run", "no time was left", 0.0, {})
        else:
            outcomes[section.name] = run(section, left, options)
        write(folder, outcomes)
        found = outcomes[section.name]
        print(f"{section.name:12s} {found.state:8s} {found.seconds:5.0f} s  {found.why}", flush=True)
    print(f"\n{page(outcomes)}\nwritten to {folder}", flush=True)
    return int(any(found.state in ("failed", "cut", "not run") for found in outcomes.values()))


# ---- before


def prepare(args: argparse.Namespace) -> int:
    """Packs pictures, and says what else must travel. Raises ValueError over the limit, and leaves no pack then."""
    from benchmarks import carrying

    folder = Path(args.pack)
    folder.mkdir(parents=True, exist_ok=True)
    said = {name: value for name, value in (("name", args.photos_name), ("licence", args.photos_licence)) if value}
    asked = (("satellite64", args.data, args.pictures, 640, {}), ("photo", args.photos, args.photographs, 0, said))
    for name, path, count, held_out, told in asked:
        if path:
            counts = carrying.pack(path, folder / f"{name}.npz", count, held_out, told)
            print(f"{name}.npz: {counts['training']} pictures for training, {counts['held_out']} held out")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    sizes = {"the repository's files": carrying.of_repository(folder), **sizes}
    total = sum(sizes.values()) / carrying.MIB
    print("\n".join(f"{size / carrying.MIB:8.2f} MiB  {name}" for name, size in sizes.items()))
    print(f"{total:8.2f} MiB  together; the limit is {args.limit:g}")
    if total > args.limit:
        for name, *_ in asked:
            (folder / f"{name}.npz").unlink(missing_ok=True)
        over = f"{total:.1f} MiB would travel, more than --limit={args.limit:g}"
        raise ValueError(f"{over}; the sizes are above: give fewer --pictures or --photographs")
    lacking = carrying.packages(args.there.split(","))
    print("packages that are not --there:", ", ".join(f"{name} {version}" for name, version in lacking) or "none")
    if lacking:
        print(f"fetch them by: {carrying.fetching(lacking, folder, args.python)}")
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join(section.name for section in SECTIONS)
    parser.add_argument("--out", default=os.environ.get("OUT", "accelerator"), help="folder for what is found")
    parser.add_argument("--carried", default="", help="folder that --pack has made, with wheels where needed")
    parser.add_argument("--seconds", type=float, default=600, help="the most that all sections take together")
    parser.add_argument("--train-seconds", type=float, default=TRAINING, help="of each training")
    parser.add_argument("--only", default=names, help="sections, with commas")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with small sizes")
    parser.add_argument("--pack", help="prepare pictures in this folder, and measure nothing")
    parser.add_argument("--data", help="of the satellite prior, for --pack: a pack or a folder")
    parser.add_argument("--photos", help="photographs, for --pack: a folder")
    parser.add_argument("--photos-name", help="what the card is to say of the photographs")
    parser.add_argument("--photos-licence", help="what the card is to say of their licence")
    parser.add_argument("--pictures", type=int, default=0, help="for training the satellite prior, 0 for all")
    parser.add_argument("--photographs", type=int, default=0, help="for training on photographs, 0 for all")
    parser.add_argument("--limit", type=float, default=60, help="MiB that may travel")
    parser.add_argument("--there", default="jax,jaxlib,numpy,scipy", help="packages that the other machine has")
    parser.add_argument("--python", default="3.12", help="of the other machine")
    return parser


def main(given: list[str] | None = None) -> int:
    """The exit status: 1 where a section failed, was cut or did not run."""
    args = arguments().parse_args(given)
    try:
        if args.pack:
            return prepare(args)
        only = args.only.split(",")
        if unknown := set(only) - {section.name for section in SECTIONS}:
            raise ValueError(f"--only names {', '.join(sorted(unknown))}; known are {arguments().get_default('only')}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    held = [name for name in TRAININGS if name in only and (Path(args.out) / f"{name}.safetensors").exists()]
    if held:
        print(f"error: --out is {args.out!r}, which holds the weights {held[0]} already; give another", file=sys.stderr)
        return 2
    out, carried = str(Path(args.out).resolve()), str(Path(args.carried).resolve()) if args.carried else ""
    training = 6.0 if args.rehearse and args.train_seconds == TRAINING else args.train_seconds
    options = {"out": out, "carried": carried, "rehearse": args.rehearse, "train_seconds": training}
    return measure(options, only, args.seconds)


if __name__ == "__main__":
    sys.exit(main())
