"""ONNX files written node by node."""

import numpy as np
import torch

OPSET = 18


def save(path, nodes, weights, *, shape, outputs=("y",), opset=OPSET, batch="N", dtype=np.float32):
    """Writes a graph with the input "x" [batch, *shape] and returns its path.

    nodes: (operator, inputs, outputs, attributes); weights: name -> array.
    """
    import onnx
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node(operator, list(inputs), list(results), **attributes)
         for operator, inputs, results, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    for name in outputs:  # onnxruntime needs the type of an output
        graph_output = next(each for each in model.graph.output if each.name == name)
        graph_output.type.tensor_type.elem_type = kind
    onnx.save(model, str(path))
    return path


def small_network():
    """(a convolutional network of 3 × 6 × 6 images and 4 classes, its nodes and weights for `save`)."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1),
        torch.nn.BatchNorm2d(5),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(45, 4),
    ).eval()
    network[1].running_mean.uniform_(-0.2, 0.2)
    network[1].running_var.uniform_(0.5, 2)
    weights = {name.replace(".", "_"): value.numpy() for name, value in network.state_dict().items() if value.dim()}
    nodes = [
        ("Conv", ["x", "0_weight", "0_bias"], ["a"], {"pads": [1, 1, 1, 1]}),
        ("BatchNormalization", ["a", "1_weight", "1_bias", "1_running_mean", "1_running_var"], ["b"], {}),
        ("Relu", ["b"], ["c"], {}),
        ("MaxPool", ["c"], ["d"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", ["d"], ["e"], {}),
        ("Gemm", ["e", "5_weight", "5_bias"], ["y"], {"transB": 1}),
    ]
    return network, nodes, weights
