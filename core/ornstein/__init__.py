"""One diffusion core: processes, denoisers, samplers, networks and training, shared by every app.

Importing this package loads nothing else; import what you need from its modules, for example
`from ornstein.process.ouve import OUVE`.
"""

__version__ = "0.1.0"
