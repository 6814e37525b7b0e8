"""A module's forward cut into blocks: followed once, sliced where submodules end.

A block computes one cut's tensor from the cut's tensor before it and the latent, and from nothing
else: x_k = f_k(x_{k-1}, w), image = f_{K+1}(x_K, w). A forward in which something else passes a
cut has no such blocks, and is refused by the name of what passes. What runs them is
`rtil.models.wrapped`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, fx, nn

from rtil.process.brief import brief, reason

# Of the module's holder, x and w; the holder is an argument so that copies run their own weights.
Program = Callable[[nn.Module, Tensor, Tensor], Tensor]
Stage = Callable[[nn.Module, Tensor], Tensor]
HELD = "module"  # attribute of the holder
LISTED = 40  # names that a message shows
ADVICE = "Cut elsewhere, or give the stages as functions of (module, x) to rtil.wrap."
# What following a forward raises: Proxies reach code that was written for tensors.
UNFOLLOWED = (
    *(fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError),
    *(LookupError, NotImplementedError),
)


@dataclass(frozen=True)
class Stages:
    """A generator as programs.

    Attributes:
        names: of the cuts.
        map: z to w; None: w is z.
        blocks: K programs of (x_{k-1}, w), and one from x_K to the image; the first ignores x.
        readers: the blocks that read w, from 1; K + 1 is the image.
    """

    names: tuple[str, ...]
    map: Program | None
    blocks: tuple[Program, ...]
    readers: tuple[int, ...]


def of_functions(functions: Sequence[Stage]) -> Stages:
    """Stages that the caller wrote: the first takes z, the last returns the image.

    Raises:
        ValueError: fewer than two, which leave no cut.
    """
    if len(functions) < 2:
        raise ValueError(
            f"rtil.wrap: {len(functions)} stage leaves no cut between stages; give the one that "
            "takes z, those after it, and the one that returns the image."
        )

    def program(place: int, stage: Stage) -> Program:
        return lambda holder, x, w: stage(getattr(holder, HELD), x if place else w)

    names = tuple(f"stage {place}" for place in range(1, len(functions)))
    blocks = tuple(program(place, stage) for place, stage in enumerate(functions))
    return Stages(names, None, blocks, (1,))


def of_names(holder: nn.Module, cuts: Sequence[str], latent_map: str | None) -> Stages:
    """Stages that end at submodules of holder.module, in the order in which forward runs them.

    Args:
        cuts: names of submodules; a "*" stands for one part of a name.
        latent_map: the submodule whose output is w; None: w is the latent itself.

    Raises:
        ValueError: a name that there is not, runs not once, or out of order; a forward that
            cannot be followed; something beside the cut's tensor and w that passes a cut.
    """
    module = getattr(holder, HELD)
    who = type(module).__name__
    names = _expanded(who, module, cuts)
    latent = () if latent_map is None else (_expanded(who, module, [latent_map])[0],)
    graph, ends = _followed(holder, [*latent, *names], who)
    (z,) = [node for node in graph.nodes if node.op == "placeholder"]
    w = ends[latent[0]] if latent else z
    flow = _Flow(holder, graph, w, who)
    places = [flow.order[ends[name]] for name in names]
    if sorted(set(places)) != places:
        ran = sorted(names, key=lambda name: flow.order[ends[name]])
        raise ValueError(
            f"rtil.wrap: cuts={brief(names)} of {who} must lie one after the other, as forward "
            f"runs them: {brief(ran)}."
        )
    (output,) = [node for node in graph.nodes if node.op == "output"]
    image = output.args[0]
    if not isinstance(image, fx.Node):
        raise ValueError(
            f"rtil.wrap: {who} returns {brief(type(image).__name__)} instead of an image; wrap a "
            "module whose forward returns the image alone."
        )
    blocks, readers, before = [], [], None
    for k, end in enumerate([*(ends[name] for name in names), image], start=1):
        program, reads = flow.block(end, before, names[k - 2] if before is not None else "")
        blocks.append(program)
        readers += [k] if reads else []
        before = end
    to_w = flow.program(w, None, z) if latent else None
    return Stages(tuple(names), to_w, tuple(blocks), tuple(readers))


def _expanded(who: str, module: nn.Module, cuts: Sequence[str]) -> list[str]:
    """Names of submodules, with those that a "*" stands for, part by part of a name."""
    known = [name for name, _ in module.named_modules() if name]
    names: list[str] = []
    for cut in cuts:
        parts = cut.split(".")
        matching = []
        for name in known:
            own = name.split(".")
            if len(own) == len(parts) and all(map(fnmatchcase, own, parts)):
                matching.append(name)
        if not matching:
            more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
            raise ValueError(
                f"rtil.wrap: {who} has no submodule {brief(cut)}; it has "
                f"{', '.join(known[:LISTED])}{more}."
            )
        names += matching
    if not names:
        raise ValueError(f"rtil.wrap: cuts=[] name no submodule of {who}; give one or more.")
    return names


class _Follower(fx.Tracer):
    """Records what forward does; submodules that hold no cut are steps of their own.

    So only the code that joins stages is followed, and a submodule may branch as it likes.
    """

    proxy_buffer_attributes = True

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__()
        self.ends: dict[str, list[Any]] = {path: [] for path in paths}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(path.startswith(f"{module_qualified_name}.") for path in self.ends)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if path in self.ends:
            self.ends[path].append(result)
        return result


class _Holder(nn.Module):
    """Takes the latent alone, so that forward's other arguments have their defaults."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        return self.module(z)


@contextmanager
def _counting(module: nn.Module) -> Iterator[None]:
    """Within, `len` in the code of a module and those below it takes what follows a tensor.

    Python has `len` return a number, so it is replaced where that code looks it up.
    """

    def length(x: Any) -> Any:
        return x.size(0) if isinstance(x, fx.Proxy) else len(x)

    kinds = {type(each) for each in module.modules()}
    codes = [
        kind.forward.__globals__ for kind in kinds if kind.__module__.split(".")[0] != "torch"
    ]
    own = [(names, names["len"]) for names in codes if "len" in names]
    for names in codes:
        names["len"] = length
    try:
        yield
    finally:
        for names in codes:
            names.pop("len", None)
        for names, replaced in own:
            names["len"] = replaced


def _followed(
    holder: nn.Module, names: Sequence[str], who: str
) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """The graph of forward, and the node of each name's output.

    Raises:
        ValueError: as `of_names`.
    """
    follower = _Follower([f"{HELD}.{name}" for name in names])
    module = getattr(holder, HELD)
    try:
        with _counting(module):
            graph = follower.trace(_Holder(module))
    except UNFOLLOWED as error:
        raise ValueError(
            f"rtil.wrap: forward of {who} cannot be followed from cut to cut "
            f"({reason(error)}), as where a condition depends on a tensor. {ADVICE}"
        ) from error
    made = [node for node in graph.nodes if "_tensor_constant" in str(node.target)]
    if made:
        raise ValueError(
            f"rtil.wrap: forward of {who} makes a tensor that moves to no device; register it as "
            "a buffer of the module."
        )
    ends = {}
    for name in names:
        results = follower.ends[f"{HELD}.{name}"]
        if len(results) != 1:
            raise ValueError(
                f"rtil.wrap: forward of {who} runs {name} {len(results)} times; a cut is a "
                "submodule that runs once."
            )
        if not isinstance(results[0], fx.Proxy):
            raise ValueError(
                f"rtil.wrap: {name} of {who} returns {brief(type(results[0]).__name__)}, and one "
                f"tensor crosses a cut. {ADVICE}"
            )
        ends[name] = results[0].node
    return graph, ends


class _Flow:
    """What depends on what in a followed forward, and programs for parts of it.

    Args:
        holder: of the module.
        graph: of forward.
        w: the latent's node, or that of its map.
        who: name of the module's class.
    """

    def __init__(self, holder: nn.Module, graph: fx.Graph, w: fx.Node, who: str) -> None:
        self.holder, self.w, self.who = holder, w, who
        self.order = {node: place for place, node in enumerate(graph.nodes)}
        self.above: dict[fx.Node, set[fx.Node]] = {}
        for node in graph.nodes:
            above: set[fx.Node] = set()
            for source in node.all_input_nodes:
                above |= self.above[source] | {source}
            self.above[node] = above

    def block(self, end: fx.Node, before: fx.Node | None, cut: str) -> tuple[Program, bool]:
        """The program from a cut's tensor to `end`, and whether it reads w.

        Args:
            before: the cut's node; None for the first block.
            cut: its name.

        Raises:
            ValueError: something else passes the cut.
        """
        needed, reads = self._needed(end, before)
        if before is not None:
            passing = [node for node in needed if self._passes(node, before)]
            if passing:
                what = " and ".join(dict.fromkeys(map(self._named, passing)))
                raise ValueError(
                    f"rtil.wrap: {what} of {self.who} passes the cut {cut} beside its tensor: "
                    "what comes after reads it too, so a restart from the cut would lack it. If "
                    f"it maps the latent to styles, name it latent_map. {ADVICE}"
                )
        return self.program(end, before, self.w), reads

    def _needed(self, end: fx.Node, before: fx.Node | None) -> tuple[list[fx.Node], bool]:
        """What is computed between two cuts, in order, and whether w is read there."""
        needed, left, reads = set(), [end], False
        while left:
            node = left.pop()
            if node is self.w:
                reads = True
            if node in (before, self.w) or node in needed:
                continue
            needed.add(node)
            left += () if self._counts(node) else node.all_input_nodes
        return sorted(needed, key=self.order.__getitem__), reads

    def _passes(self, node: fx.Node, before: fx.Node) -> bool:
        """Whether a node carries what forward computes from w on its way to a cut.

        What is a function of w beside that way, as the style of a later block, or a part of w, is
        computed again from w.
        """
        above = self.above[node] | {node}
        if before in above or node.op == "get_attr" or self._counts(node):
            return False
        if node.op == "placeholder":  # the latent itself, beside what its map makes of it
            return True
        is_of_w = self.w in above or any(each.op == "placeholder" for each in above)
        weighs = any(self._weighs(each) for each in above - self.above[self.w] - {self.w})
        return is_of_w and node in self.above[before] and weighs

    def _counts(self, node: fx.Node) -> bool:
        """Whether a node is the number of samples, x.size(0) in any spelling."""
        if not any(each.op == "placeholder" for each in self.above[node]):
            return False
        if node.op == "call_method" and node.target == "size":
            return node.args[1:] == (0,)
        if node.target is not operator.getitem or node.args[1] != 0:
            return False
        sizes = node.args[0]
        assert isinstance(sizes, fx.Node)
        by_name = sizes.target is getattr and sizes.args[1] == "shape"
        return bool(by_name or (sizes.op == "call_method" and sizes.target == "size"))

    def _weighs(self, node: fx.Node) -> bool:
        """Whether a node applies weights."""
        if node.op == "call_module":
            called = self.holder.get_submodule(str(node.target))
            return next(called.parameters(), None) is not None
        return node.op == "get_attr"

    def _named(self, node: fx.Node) -> str:
        """What a message calls a node: the last submodule that made it."""
        if node.op == "placeholder":
            return "the latent"
        made = [each for each in (*self.above[node], node) if each.op == "call_module"]
        if not made:
            return node.name
        last = max(made, key=self.order.__getitem__)
        return str(last.target).removeprefix(f"{HELD}.")

    def program(self, end: fx.Node, before: fx.Node | None, w: fx.Node) -> Program:
        """A function of (holder, x, w) that computes `end`, with x at `before`."""
        graph, stop = fx.Graph(), self.w
        self.w = w
        try:
            needed, _ = self._needed(end, before)
        finally:
            self.w = stop
        x = graph.placeholder("x")
        values = {w: graph.placeholder("w")}
        if before is not None:
            values[before] = x
        for node in needed:
            if self._counts(node):
                values[node] = graph.call_method("size", (values[w], 0))
            else:
                values[node] = graph.node_copy(node, values.__getitem__)
        graph.output(values[end])
        made = fx.GraphModule(self.holder, graph)
        return type(made).forward  # of any holder of such a module
