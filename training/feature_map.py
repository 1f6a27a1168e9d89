"""The last feature map of an exported graph, made its second output: class-activation maps need it.

A network that averages its last feature map over all places before the head (Lin et al. 2013) can be asked at
every place apart: the head applied to one place's features. With a linear head that is the class-activation
map of Zhou et al. 2016 (https://arxiv.org/abs/1512.04150), up to a constant.
"""

from __future__ import annotations

import openvino

NAME = "features"  # of the tensor, by which the server finds it
POOLS = ("ReduceMean", "AdaptiveAvgPool", "AvgPool")


def add_feature_map(graph: openvino.Model) -> bool:
    """Make (N, channels, height, width), what the network averages before its head, the second output.

    False, and nothing changed, where the logits do not come from one such average alone.
    """
    pools: list[openvino.Node] = []
    seen: set[str] = set()
    waiting = [graph.output(0).get_node()]
    while waiting:
        node = waiting.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "Parameter":
            return False  # a way round the average
        if _is_global_average(node):
            pools.append(node)
        elif node.get_type_name() != "ShapeOf":  # it tells sizes, no values
            waiting += [value.get_source_output().get_node() for value in node.inputs()]
    sources = {_source_name(pool): pool.input(0).get_source_output() for pool in pools}
    if len(sources) != 1:
        return False
    (features,) = sources.values()
    features.get_tensor().add_names({NAME})
    graph.add_outputs([features])
    return True


def _source_name(pool: openvino.Node) -> str:
    source = pool.input(0).get_source_output()
    return f"{source.get_node().get_name()}:{source.get_index()}"


def _is_global_average(node: openvino.Node) -> bool:
    """(N, C, H, W) -> (N, C, 1, 1) or (N, C), averaged over all places of more than one."""
    if node.get_type_name() not in POOLS:
        return False
    before, after = node.input(0).get_partial_shape(), node.output(0).get_partial_shape()
    if len(before) != 4 or not all(side.is_static for side in list(before)[1:]):
        return False
    channels, height, width = (side.get_length() for side in list(before)[1:])
    kept = [side.get_length() for side in list(after)[1:] if side.is_static]
    return kept in ([channels], [channels, 1, 1]) and height * width > 1
