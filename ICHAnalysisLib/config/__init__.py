"""Every default of the project: frozen dataclasses, one file a subject. Kept free of heavy imports."""
