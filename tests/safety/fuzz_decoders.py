"""python -m tests.safety.fuzz_decoders [libFuzzer options]: any bytes, decoded under many annotations, through Python.

Run by `python -m tools.safety fuzz-python`, which gives it a core that reports its coverage and checks its memory.
Whatever the bytes, the answer is a value that comes back when it is written and read again, or a `SerializationError`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris  # type: ignore[import-not-found]

from lexigram.events import SerializationError, _core
from lexigram.events.messages import shapes
from lexigram.events.messages.registry import default_registry
from tests.safety.message_calls import Rich
from tests.unit.messages.codec_samples import BINARY, JSON, TYPED, same

CODECS = (_core.CodecCore(default_registry, False), _core.CodecCore(default_registry, True))
PLANS = [_core.compile_node(shapes.node_for(annotation)) for annotation, _ in TYPED]
RICH = default_registry.type_name(Rich)
SEEDS = [
    bytes([number]) + codec.encode_value(value, annotation)
    for number, (annotation, values) in enumerate(TYPED)
    for value in values
    for codec in (JSON, BINARY)
]
SEEDS += [b"\0" + codec.encode(Rich(value=1, tags=("a",), metadata={"a": 1})).payload for codec in (JSON, BINARY)]


def check(data: bytes) -> None:
    if not data:
        return
    plan, data = PLANS[data[0] % len(PLANS)], data[1:]
    for codec in CODECS:
        try:
            value = codec.decode_value(data, plan)
            again = codec.encode_value(value, plan)
        except SerializationError:
            pass
        else:
            back = codec.decode_value(again, plan)
            # Sets have no order, and not-a-number in one is equal to nothing: then their texts are compared.
            assert same(back, value) or sorted(repr(back)) == sorted(repr(value)), (value, again)
        try:
            codec.decode(RICH, "Rich", data, 1, 1)
        except SerializationError:
            pass
    try:
        _core.CodecCore.to_json(data)
    except SerializationError:
        pass


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[-1])
    for number, seed in enumerate(SEEDS):
        (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
