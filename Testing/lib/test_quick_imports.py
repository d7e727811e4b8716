"""The garbage collector and torch's compiler within and after a block of imports."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from ICHAnalysisLib.quick_imports import collector_paused


def test_the_collector_rests_within_and_runs_after_also_where_the_block_fails():
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), collector_paused():
        raise ImportError("no such library")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


COMPILER_WANTED = """
import sys
import torch
from ICHAnalysisLib.networks import dtvit, ich_scnet
assert not [name for name in sys.modules if name.startswith("torch._dynamo")], "imported"
disable = torch.compiler.disable
assert disable.__module__ == "torch.compiler", disable

from torchvision.ops import roi_align
pooled = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]]), 2)  # a plain call works
assert pooled.shape == (1, 1, 2, 2) and float(pooled.min()) == 1.0
from timm.models.naflexvit import NaFlexRopeIterator
import torch._dynamo
assert torch._dynamo.__file__ and torch._dynamo.utils.__file__  # the real ones
from torchvision.ops.roi_align import is_compile_supported
from torch._dynamo.utils import is_compile_supported as real
assert is_compile_supported("cpu") == real("cpu")
compiled = torch.compile(lambda x: x.sin() + 1, backend="eager")
assert torch.allclose(compiled(torch.zeros(2)), torch.ones(2))
"""

MAKES_WAY = """
import sys
from ICHAnalysisLib.quick_imports import compiler_put_off
with compiler_put_off():
    from torch._dynamo import reset
    import torch._dynamo.config
assert callable(reset) and sys.modules["torch._dynamo"].reset is reset
assert sys.modules["torch._dynamo.config"].__file__ and sys.modules["torch._dynamo.utils"].__file__
"""

PUT_OFF = """
import sys
import torch
from ICHAnalysisLib.quick_imports import compiler_put_off
with compiler_put_off():
    @torch.compiler.disable
    def double(x):
        "Twice."
        return 2 * x
assert double.__name__ == "double" and double.__doc__ == "Twice." and "torch._dynamo" not in sys.modules
assert double(4) == 8 and "torch._dynamo" in sys.modules
seen = []
def backend(graph, inputs):
    seen.append(graph)
    return graph.forward
whole = torch.compile(lambda x: double(x + 1) - 1, backend=backend)
assert torch.equal(whole(torch.ones(2)), torch.full((2,), 3.0)) and len(seen) == 2  # it breaks the graph, as disabled
"""


@pytest.mark.parametrize("program", [COMPILER_WANTED, MAKES_WAY, PUT_OFF], ids=["after", "within", "decorated"])
def test_the_compiler_is_put_off_and_is_there_when_it_is_wanted(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
