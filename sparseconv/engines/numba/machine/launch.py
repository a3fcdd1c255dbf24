"""One compiled call that runs a kernel on several threads: none of them meets Python's lock.

Threads that begin in Python take its lock one after the other, and wait for it again with every
part of the work; on sixteen threads that took milliseconds, longer than most layers. So the loop
over the parts, and the call of the OpenMP library that brings the threads, are machine code.

Benchmark: threads submanifold 3x3x3, 64 channels, and torch.mm in turns
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparseconv.engines.numba.machine.vectors import Value

_LONG, _INT, _BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
# what lies in the block that all members read; the kernel's own arguments come behind
_TAKEN, _COUNT, _STEP, _KERNEL, _FAILED, _ARGUMENTS = range(6)


@intrinsic
def _shared(typing, kernel, begin, members, taken, count, step, arguments):
    """Emit the call; what the arguments are, see :func:`launch`."""

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> Value:
        kernel, begin, members, taken, count, step, given = args
        zero = _LONG(0)
        own = cgutils.alloca_once_value(builder, zero)
        single = builder.icmp_signed("==", taken, zero)
        taken = builder.select(single, builder.ptrtoint(own, _LONG), taken)
        entries = (taken, count, step, kernel, zero, given)
        block = cgutils.alloca_once(builder, ir.LiteralStructType([e.type for e in entries]))
        for place, entry in enumerate(entries):
            builder.store(entry, builder.gep(block, [_INT(0), _INT(place)]))
        member = _member(context, builder, list(signature.args[-1]), block.type)
        raw = builder.bitcast(block, _BYTES)
        with builder.if_else(builder.icmp_signed("<", members, _LONG(2))) as (alone, together):
            with alone:
                builder.call(member, [raw])
            with together:
                kinds = [member.type, _BYTES, _INT, _INT]
                library = builder.inttoptr(
                    begin, ir.FunctionType(ir.VoidType(), kinds).as_pointer()
                )
                builder.call(library, [member, raw, builder.trunc(members, _INT), _INT(0)])
        return builder.load(builder.gep(block, [_INT(0), _INT(_FAILED)]))

    return types.int64(kernel, begin, members, taken, count, step, arguments), emit


def _member(context: Any, builder: Value, kinds: list[Any], block_type: Any) -> Value:
    """Emit the function that every member runs: it takes parts until none is left."""
    name = f"{builder.function.name}.member"
    member = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_BYTES]), name)
    member.linkage = "internal"
    own = ir.IRBuilder(member.append_basic_block("begin"))
    block = own.bitcast(member.args[0], block_type)
    places = [own.gep(block, [_INT(0), _INT(place)]) for place in range(_ARGUMENTS + 1)]
    count, step = own.load(places[_COUNT]), own.load(places[_STEP])
    taken = own.inttoptr(own.load(places[_TAKEN]), _LONG.as_pointer())
    whole = own.load(places[_ARGUMENTS])
    given = [
        _lent(context, own, kind, own.extract_value(whole, place))
        for place, kind in enumerate(kinds)
    ]
    kinds = [types.int64, types.int64, *kinds]
    convention = context.call_conv
    kernel_type = convention.get_function_type(types.none, kinds).as_pointer()
    kernel = own.inttoptr(own.load(places[_KERNEL]), kernel_type)
    take, work, done = (member.append_basic_block(name) for name in ("take", "work", "done"))
    own.branch(take)
    own.position_at_end(take)
    first = own.mul(own.atomic_rmw("add", taken, _LONG(1), "monotonic"), step)
    own.cbranch(own.icmp_signed("<", first, count), work, done)
    own.position_at_end(work)
    last = own.add(first, step)
    last = own.select(own.icmp_signed("<", last, count), last, count)
    status, _ = convention.call_function(own, kernel, types.none, kinds, [first, last, *given])
    with cgutils.if_unlikely(own, status.is_error):
        own.store(_LONG(1), places[_FAILED])
    own.branch(take)
    own.position_at_end(done)
    own.ret_void()
    return member


def _lent(context: Any, builder: Value, kind: Any, value: Value) -> Value:
    """Return an argument that the kernel neither counts owners of nor frees.

    Each view of an array counts one more owner and one less, in one number for all threads: sixteen
    of them that look at each row of a result wait for each other most of their time.
    """
    if isinstance(kind, types.BaseTuple):
        entries = [
            _lent(context, builder, entry, builder.extract_value(value, number))
            for number, entry in enumerate(kind)
        ]
        return context.make_tuple(builder, kind, entries)
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    return array._getvalue()


def launch(
    kernel: int,
    begin: int,
    members: int,
    taken: int,
    count: int,
    step: int,
    arguments: tuple[Any, ...],
) -> int:
    """Call ``kernel(first, last, *arguments)`` for parts of ``step`` up to ``count``.

    Args:
        kernel: address of what Numba compiled for these arguments; it returns nothing.
        begin: address of ``GOMP_parallel``, unused with one member.
        members: threads.
        taken: address of an int64 in which several calls count the parts that are taken, from 0
            on; 0 where this is the only call.
        count, step: of the rows, or whatever the kernel counts; the last part may be smaller.
        arguments: what the kernel takes behind ``first`` and ``last``.

    Returns:
        0, or 1 where a part failed.
    """
    failed: int = _shared(kernel, begin, members, taken, count, step, arguments)
    return failed
