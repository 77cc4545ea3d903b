"""The runtimes of the core: the two providers of ``IRuntime`` for users."""
