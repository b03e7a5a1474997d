"""Learn the space: raw logs -> relations -> training -> checkpoint -> evaluation.

Importing this package loads nothing heavy. `errors`, `records`, `artifact`, `config`, `prepared` and
`validity` are free of torch, so that `indexes` can read what `model` wrote without paying for it.
"""
