"""Storage and search of the vectors of every item under every relation.

Importing this package or any of its modules never loads torch. A server that only looks up catalogue items needs
nothing but the files that `rcml index` wrote.
"""
