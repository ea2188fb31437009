"""Each operation of an ONNX graph against NumPy, in float64; and against onnxruntime, where it is installed."""

import jax
import numpy as np
import onnxcases
import pytest
from compiling import FAST
from numpy.testing import assert_allclose

from diffinv.weights.convert import onnx
from diffinv.weights.convert.onnx import running

every = pytest.mark.parametrize("case", onnxcases.CASES, ids=onnxcases.label)


@pytest.fixture
def load(tmp_path):
    def written(content):
        path = tmp_path / "x.onnx"
        path.write_bytes(content)
        return onnx.network(path)

    return written


def outputs(found):
    return found if isinstance(found, tuple) else (found,)


@every
def test_an_operation_gives_what_numpy_does(case, load):
    content, enter = onnxcases.written(case, np.float64)
    apply, params = load(content)
    found = jax.jit(apply, compiler_options=FAST)(params, **enter)
    for each, want in zip(outputs(found), outputs(case.want), strict=True):
        assert each.shape == np.shape(want) and each.dtype.kind == np.asarray(want).dtype.kind
        assert_allclose(each, want, rtol=1e-6 if case.settings.keys() & {"alpha", "epsilon"} else 1e-10, atol=1e-10)


def test_every_operation_has_a_case():
    tried = {case.op for case in onnxcases.CASES}
    assert running.OPERATIONS.keys() - tried == {"CastLike", "IsInf", "IsNaN", "Swish"}, "tried below, or not at all"


@pytest.mark.torch
@every
def test_onnxruntime_gives_the_same(case, load):
    runtime = pytest.importorskip("onnxruntime", reason="the comparison needs onnxruntime")
    content, enter = onnxcases.written(case, np.float32)
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        assert "NOT_IMPLEMENTED" in str(error) or "opset" in str(error).lower(), error
        pytest.skip(f"onnxruntime does not have it: {str(error)[:90]}")
    theirs = session.run(None, enter)
    apply, params = load(content)
    for ours, want in zip(outputs(apply(params, **enter)), theirs, strict=True):
        assert ours.shape == want.shape
        assert_allclose(ours, want, rtol=2e-5, atol=2e-5)
