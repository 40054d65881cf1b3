"""The functions of a native module, and those that its stub declares."""

import ast
import re


def functions_of(module):
    """{name: names of its arguments}, from the signatures that pybind11 writes into the docstrings."""
    found = {}
    for name in dir(module):
        doc = getattr(module, name).__doc__ if callable(getattr(module, name)) else None
        if not name.startswith("_") and doc:
            signature = re.match(rf"{name}\((.*)\) -> ", doc.splitlines()[0]).group(1)
            found[name] = re.findall(r"(?:^|, )(\w+): ", signature)
    return found


def functions_of_stub(path):
    """{name: names of its arguments}"""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return {function.name: [argument.arg for argument in function.args.args] for function in functions}


def attributes_of_stub(path):
    """The names of its annotated attributes."""
    return {node.target.id for node in ast.parse(path.read_text()).body if isinstance(node, ast.AnnAssign)}
