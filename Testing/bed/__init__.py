"""A bed for the module: Slicer's own libraries (scene, nodes, logics, displayable managers) without the application.

Passing here means "our module against Slicer's libraries"; `Testing/module/in_slicer.py` runs the same checks in a
real Slicer.
"""
