"""
Programs as users type them, for the stage ``types``. Lines that mypy must refuse have a
``type: ignore`` with the error's code. Strict mypy complains about one that is not needed: a
mistake of a user that it does not see fails the stage.
"""
