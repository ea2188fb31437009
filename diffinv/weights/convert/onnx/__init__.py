"""ONNX files without onnx: tensors and graph, the names of norms, and the whole network as a pure function of JAX."""

from diffinv.weights.convert.onnx.naming import norms
from diffinv.weights.convert.onnx.reading import Graph, Node, Port, read_graph
from diffinv.weights.convert.onnx.running import Network, network

__all__ = ["Graph", "Network", "Node", "Port", "network", "norms", "read_graph"]
