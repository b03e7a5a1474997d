"""Learn the space: raw logs -> relations -> training -> checkpoint -> evaluation.

Importing this package loads nothing heavy. `errors`, `records`, `artifact`, `config`, `prepared` and
`validity` are free of torch, so that `indexes` can read what `model` wrote without paying for it.
"""

__version__ = "0.1.0"
"""Of rcml: here, so that the package also works where it lies without having been installed."""
