"""Sums over the processes of one machine."""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solution.contracts import InputError
from solution.data.views import rows_of
from solution.runtime import reserve

_SMALL_BYTES = 1 << 20
_ENDED = "another process of this training has ended: see its own message"


class Link:
    """Sums of the processes of one machine: few numbers by sockets, as batch norms need two a layer and step; many,
    such as gradients, in memory that all of them see.

    PyTorch's own way on processors hands each sum through several threads and sockets, which takes far longer.
    """

    def __init__(self, rank: int, count: int) -> None:
        """All `count` processes make theirs at the same time."""
        place = [""]
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
            if not rank:
                place = [str(Path(folder) / "link")]
                door.bind(place[0])
                door.listen(count)
            torch.distributed.broadcast_object_list(place)
            if rank:
                self.others = [socket.socket(socket.AF_UNIX)]
                self.others[0].connect(place[0])
                self.others[0].sendall(bytes([rank % 256, rank // 256]))
            else:
                found = {}
                for _ in range(count - 1):
                    other = door.accept()[0]
                    low, high = other.recv(2, socket.MSG_WAITALL)
                    found[low + 256 * high] = other
                self.others = [found[number] for number in sorted(found)]
        self.rank, self.count = rank, count
        self.memory: Any = None

    def sum(self, numbers: Tensor) -> None:
        """`numbers`, in place the sum of those of all processes, added in their order. They are contiguous."""
        if numbers.nbytes > _SMALL_BYTES:
            self.sum_in_memory([numbers])
        elif numbers.numel():
            self._sum_by_sockets(numbers.view(-1))

    def sum_in_memory(self, parts: Sequence[Tensor], divisor: int = 1) -> None:
        """In place of each, the sum of those of all processes, divided. Each process adds up a share of the numbers."""
        sizes = [part.numel() for part in parts]
        rows = self._rows(sum(sizes), parts[0].dtype)
        torch.cat([part.reshape(-1) for part in parts], out=rows[self.rank])
        self._wait()
        first, *others = rows[:, rows_of(sum(sizes), self.rank, self.count)]
        for other in others:
            first.add_(other)
        if divisor != 1:
            first.div_(divisor)
        self._wait()
        whole = rows[0].split(sizes)
        torch._foreach_copy_(list(parts), [a.view(b.shape) for a, b in zip(whole, parts, strict=True)])
        self._wait()

    def _sum_by_sockets(self, flat: Tensor) -> None:
        view = flat.view(torch.uint8).numpy().data
        if self.rank:
            self.others[0].sendall(view)
            _receive(self.others[0], view)
            return
        received = torch.empty_like(flat)
        for other in self.others:
            _receive(other, received.view(torch.uint8).numpy().data)
            flat.add_(received)
        for other in self.others:
            other.sendall(view)

    def _rows(self, length: int, dtype: torch.dtype) -> Tensor:
        """(processes, length) in memory that all see. The same each time: new memory would take five times as long."""
        size = self.count * length * dtype.itemsize
        if self.memory is None or len(self.memory) < size:
            self.memory = self._shared_memory(size)
        return torch.frombuffer(self.memory, dtype=dtype, count=self.count * length).view(self.count, length)

    def _wait(self) -> None:
        """Until all have come so far."""
        self._sum_by_sockets(torch.zeros(1, dtype=torch.uint8))

    def _shared_memory(self, size: int) -> mmap.mmap:
        """The same bytes in all processes; they have no name, so that nothing is left of them."""
        if self.rank:
            _, numbers, *_ = socket.recv_fds(self.others[0], 1, 1)
            if not numbers:
                raise InputError(_ENDED)
            number = numbers[0]
        else:
            with tempfile.TemporaryFile() as file:
                number = os.memfd_create("sums") if hasattr(os, "memfd_create") else os.dup(file.fileno())
            reserve(number, size)
            for other in self.others:
                socket.send_fds(other, [b"\0"], [number])
        try:
            return mmap.mmap(number, size)
        finally:
            os.close(number)


def _receive(other: socket.socket, into: memoryview) -> None:
    got = other.recv_into(into, 0, socket.MSG_WAITALL)
    while got < len(into):
        more = other.recv_into(into[got:])
        if not more:
            raise InputError(_ENDED)
        got += more


_links: list[Link] = []


def link_of(state: Any) -> Link | None:
    """The sockets of this process, made once; None when the processes lie on several machines."""
    if not _links:
        names: list[Any] = [None] * state.num_processes
        torch.distributed.all_gather_object(names, socket.gethostname())
        if len(set(names)) > 1 or not hasattr(socket, "AF_UNIX"):
            return None
        _links.append(Link(state.process_index, state.num_processes))
    return _links[0]
