"""Keep and search the vectors of every (item, relation).

Importing this package, or any module of it, never loads torch: a server that answers about catalogue items
needs only what `rcml index` computed once.
"""
