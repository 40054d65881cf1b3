"""The imports of a package, read from its source without running it."""

import ast
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """One imported module.

    importer, imported: dotted names of modules of the package; `imported` is a package where only that is known.
    when: "load" (when the importer is loaded), "call" (inside a function) or "types" (under `if TYPE_CHECKING:`).
    """

    importer: str
    imported: str
    when: str
    line: int


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted name -> file, for each module of the package; a package is named without `.__init__`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(package: Path) -> list[Import]:
    """Every import of a module of the package by another one."""
    modules = modules_of(package)
    found = []
    for name, path in modules.items():
        visitor = _Visitor(name, path.name == "__init__.py", package.name, modules)
        visitor.visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        found += visitor.found
    return found


class _Visitor(ast.NodeVisitor):
    def __init__(self, importer, is_package, root, modules):
        self.importer, self.root, self.modules = importer, root, modules
        self.package = importer if is_package else importer.rpartition(".")[0]
        self.when, self.found = "load", []

    def add(self, name, line):
        if name.split(".")[0] == self.root and name != self.importer:
            self.found.append(Import(self.importer, name, self.when, line))

    def visit_Import(self, node):
        for each in node.names:
            self.add(each.name, node.lineno)

    def visit_ImportFrom(self, node):
        base = node.module or ""
        if node.level:
            parent = self.package.split(".")
            base = ".".join([*parent[: len(parent) - node.level + 1], *filter(None, [node.module])])
        for each in node.names:
            inner = f"{base}.{each.name}"
            # A compiled module has no source here; the root package itself defines no name that a module needs.
            is_module = inner in self.modules or (base == self.root and each.name.startswith("_native"))
            self.add(inner if is_module else base, node.lineno)

    def visit_If(self, node):
        if "TYPE_CHECKING" in ast.unparse(node.test) and not isinstance(node.test, ast.UnaryOp):
            self.inside("types", node.body)
            for each in node.orelse:
                self.visit(each)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node):
        self.inside("call", node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def inside(self, when, body):
        outer, self.when = self.when, when
        for each in body:
            self.visit(each)
        self.when = outer


def cycle_in(imports: list[Import]) -> list[str]:
    """A cycle of imports that happen when modules are loaded, as names of modules, or an empty list.

    An import of a parent package is left out: loading a module always loads its parents first.
    """
    graph: dict[str, set[str]] = {}
    for each in imports:
        if each.when == "load" and not each.importer.startswith(f"{each.imported}."):
            graph.setdefault(each.importer, set()).add(each.imported)
    done: set[str] = set()
    path: list[str] = []

    def search(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for following in sorted(graph.get(name, ())):
            if found := search(following):
                return found
        path.pop()
        done.add(name)
        return []

    for name in sorted(graph):
        if found := search(name):
            return found
    return []
