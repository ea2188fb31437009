"""How the tests compile: most of their time is compilation. A flag that XLA no longer knows would end them."""

from importlib import metadata

KNOWN = metadata.version("jaxlib").startswith("0.10.")
OLDER = {"xla_cpu_use_fusion_emitters": False} if KNOWN else {}
"""The older emitters, which compile in half the time."""

FUSED = {"xla_cpu_use_fusion_emitters": True} if KNOWN else {}
"""As a command compiles, whatever the suite's flags."""

PLAIN = {"xla_backend_optimization_level": 0}
OPTIMISED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
"""Of the few programs that run for longer than they compile."""

SPLIT = {"xla_cpu_parallel_codegen_split_count": 1} if KNOWN else {}
"""A worker for each core is parallel enough."""

FAST = {**PLAIN, **OLDER}
"""Compiler options for programs that compile in a third of the time, also where the suite has the usual ones."""


def flags(options: dict) -> str:
    """The same for XLA_FLAGS."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())


def one_context(renewed=64) -> None:
    """Programs are lowered in one MLIR context, renewed now and then: to load its dialects anew takes a small program a
    quarter of its time. It is JAX's own affair: under a version that is not known each program has its own."""
    if not KNOWN:
        return
    from jax._src.interpreters import mlir  # not before the environment is set

    make, held = mlir.make_ir_context, []

    def shared():
        if not held or held[1] == renewed:
            held[:] = [make(), 0]
        held[1] += 1
        return held[0]

    mlir.make_ir_context = shared
