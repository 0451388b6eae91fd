"""The peers that compile a whole function: torch.compile, JAX, numba and ONNX Runtime.

Each turns a ``Batch`` into calls for softmax, loss and gradient, written as a user who wants speed
writes them in that library's manual. What they compile, they compile in the first call, whose answer is
checked and not timed. Of the number of threads each is told in its own way.
"""

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benches.batch import Batch
from benches.interpreted import as_tensor
from benches.operations import Call

Array = npt.NDArray[Any]


def torch_compile_calls(batch: Batch) -> dict[str, Call]:
    """Torch's own functions, fused by its compiler. It needs a C++ compiler."""
    torch = importlib.import_module("torch")
    functional = torch.nn.functional
    torch.set_num_threads(batch.threads)  # what it compiles is for this number
    torch.compiler.reset()  # else it gives up on a function that came with eight shapes
    config: Any = importlib.import_module("torch._inductor.config")
    config.compile_threads = 1  # no idle processes beside us
    x, y = as_tensor(batch.logits), as_tensor(batch.targets)

    def compiled(function: Any) -> Any:
        return torch.compile(function, dynamic=False)

    loss = compiled(lambda x: functional.cross_entropy(x, y))
    softmax = compiled(lambda x: torch.softmax(x, -1))
    logsumexp = compiled(lambda x: torch.logsumexp(x, -1))

    def with_grad() -> Any:
        leaf = x.detach().requires_grad_()
        mean = loss(leaf)
        return mean.detach(), torch.autograd.grad(mean, leaf)[0]

    return {
        "logsumexp": Call(lambda: logsumexp(x)),
        "softmax": Call(lambda: softmax(x)),
        "cross_entropy": Call(lambda: loss(x)),
        "cross_entropy_with_grad": Call(with_grad),
    }


def jax_calls(batch: Batch) -> dict[str, Call]:
    """Jitted, on a copy of the logits that JAX holds already."""
    # XLA reads it before its first function, and has neither another way nor a second look.
    threads = str(batch.threads)
    if os.environ.setdefault("NPROC", threads) != threads:
        raise RuntimeError(
            f"XLA has {os.environ['NPROC']} threads by now, and cannot have {threads}"
        )
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)  # float32 stays float32
    jax.config.update("jax_platforms", "cpu")
    jnp = jax.numpy

    def mean_loss(x: Any, y: Any) -> Any:
        at_target = jnp.take_along_axis(x, y[:, None], axis=-1)[:, 0]
        return (jax.nn.logsumexp(x, axis=-1) - at_target).mean()

    x, y = jnp.asarray(batch.logits), jnp.asarray(batch.targets)
    of_logits = {
        "logsumexp": jax.jit(lambda x: jax.nn.logsumexp(x, axis=-1)),
        "softmax": jax.jit(lambda x: jax.nn.softmax(x, axis=-1)),
    }
    of_both = {
        "cross_entropy": jax.jit(mean_loss),
        "cross_entropy_with_grad": jax.jit(jax.value_and_grad(mean_loss)),
    }
    runs = {name: functools.partial(function, x) for name, function in of_logits.items()}
    runs |= {name: functools.partial(function, x, y) for name, function in of_both.items()}

    def finished(run: Callable[[], Any]) -> Any:
        return jax.block_until_ready(run())  # else it returns when it has hardly begun

    return {name: Call(functools.partial(finished, run)) for name, run in runs.items()}


def numba_calls(batch: Batch) -> dict[str, Call]:
    """One function that does all, rows in parallel, exp written to the gradient and then scaled."""
    if batch.logits.dtype.name not in ("float32", "float64"):
        return {}
    importlib.import_module("numba").set_num_threads(batch.threads)
    loss, loss_and_grad, softmax = _numba_functions()
    x, y, out = batch.logits, batch.targets, batch.out

    def with_grad(grad: Array) -> Any:
        return loss_and_grad(x, y, grad), grad

    def probabilities(p: Array) -> Array:
        softmax(x, p)
        return p

    return {
        "softmax": Call(lambda: probabilities(np.empty_like(x))),
        "softmax out=": Call(lambda: probabilities(out)),
        "cross_entropy": Call(lambda: loss(x, y)),
        "cross_entropy_with_grad": Call(lambda: with_grad(np.empty_like(x))),
        "cross_entropy_with_grad out=": Call(lambda: with_grad(out)),
    }


@functools.cache
def _numba_functions() -> tuple[Any, Any, Any]:
    numba = importlib.import_module("numba")
    # With leave to reorder sums they are vectorised; not to assume that there is no infinity.
    fast = {"reassoc", "contract", "arcp", "nsz", "afn"}
    parallel = functools.partial(numba.njit, parallel=True, fastmath=fast)
    prange = numba.prange

    @parallel
    def loss(x, y):  # type: ignore[no-untyped-def]
        rows, columns = x.shape
        losses = np.empty(rows, np.float64)
        for i in prange(rows):
            largest = x[i, 0]
            for j in range(columns):
                largest = max(largest, x[i, j])
            total = x.dtype.type(0)
            for j in range(columns):
                total += np.exp(x[i, j] - largest)
            losses[i] = np.log(total) - (x[i, y[i]] - largest)
        return losses.mean()

    @parallel
    def loss_and_grad(x, y, grad):  # type: ignore[no-untyped-def]
        rows, columns = x.shape
        losses = np.empty(rows, np.float64)
        for i in prange(rows):
            largest = x[i, 0]
            for j in range(columns):
                largest = max(largest, x[i, j])
            total = x.dtype.type(0)
            for j in range(columns):
                e = np.exp(x[i, j] - largest)
                grad[i, j] = e
                total += e
            scale = x.dtype.type(1 / (total * rows))
            for j in range(columns):
                grad[i, j] *= scale
            losses[i] = np.log(total) - (x[i, y[i]] - largest)
            grad[i, y[i]] -= 1 / rows
        return losses.mean()

    @parallel
    def softmax(x, p):  # type: ignore[no-untyped-def]
        rows, columns = x.shape
        for i in prange(rows):
            largest = x[i, 0]
            for j in range(columns):
                largest = max(largest, x[i, j])
            total = x.dtype.type(0)
            for j in range(columns):
                e = np.exp(x[i, j] - largest)
                p[i, j] = e
                total += e
            scale = x.dtype.type(1 / total)
            for j in range(columns):
                p[i, j] *= scale

    return loss, loss_and_grad, softmax


def onnxruntime_calls(batch: Batch) -> dict[str, Call]:
    """A graph of one node each. Its package for inference has no gradient."""
    if batch.logits.dtype != np.float32:  # its loss knows no other
        return {}
    onnx = importlib.import_module("onnx")
    runtime = importlib.import_module("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    x, y, out = batch.logits, batch.targets, batch.out
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = batch.threads, 1
    # Its arena would keep four times the size of the logits for good, of which the loss uses three.
    options.enable_cpu_mem_arena = False
    # Its threads wait for the next call spinning, for 30 ms and more of somebody else's time.
    options.add_session_config_entry("session.force_spinning_stop", "1")

    def session(node: Any, of: Any, result: list[str]) -> Any:
        logits = helper.make_tensor_value_info("logits", kind.FLOAT, ["N", "V"])
        targets = helper.make_tensor_value_info("targets", kind.INT64, ["N"])
        results = [helper.make_tensor_value_info("result", kind.FLOAT, result)]
        graph = helper.make_graph([node], "softxent", [logits, targets][:of], results)
        opset = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.checker.check_model(model)
        providers = ["CPUExecutionProvider"]
        return runtime.InferenceSession(model.SerializeToString(), options, providers=providers)

    softmax = session(helper.make_node("Softmax", ["logits"], ["result"], axis=-1), 1, ["N", "V"])
    loss_node = helper.make_node(
        "SoftmaxCrossEntropyLoss", ["logits", "targets"], ["result"], reduction="mean"
    )
    loss = session(loss_node, 2, [])
    into = softmax.io_binding()
    into.bind_cpu_input("logits", x)
    into.bind_output("result", "cpu", 0, np.float32, out.shape, out.ctypes.data)

    def softmax_into_out() -> Array:
        softmax.run_with_iobinding(into)
        return out

    return {
        "softmax": Call(lambda: softmax.run(None, {"logits": x})[0]),
        "softmax out=": Call(softmax_into_out),
        "cross_entropy": Call(lambda: loss.run(None, {"logits": x, "targets": y})[0]),
    }
