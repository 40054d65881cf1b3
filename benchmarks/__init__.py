"""Speed on CPUs (`speed`) and GPUs (`gpu`), and tables of the papers (`paper`): README.md lists the commands.

Run from the root of the repository: `python -m benchmarks.speed.margins`.
"""
