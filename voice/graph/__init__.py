"""A model as a graph of operations, for those who bring it to a device."""

from voice.graph.dynamic import DynamicGraph, dynamic_graph
from voice.graph.dynamic_sizes import DynamicError
from voice.graph.export import export_graph, graph_of
from voice.graph.site_graph import SiteGraph, SiteNode, constant_of, site_node, site_nodes
from voice.graph.tracing import GraphError

__all__ = [
    "DynamicError",
    "DynamicGraph",
    "GraphError",
    "SiteGraph",
    "SiteNode",
    "constant_of",
    "dynamic_graph",
    "export_graph",
    "graph_of",
    "site_node",
    "site_nodes",
]
