"""
Plants faults in the code and looks which of them no unit test notices: ``make mutants``.

``planting`` finds the places and makes the faults, ``coverage`` records once which test executes
which line, ``trying`` runs those of one fault and ends at the first that fails, ``__main__`` does
it for many faults in copies of the tree. ``equivalent.txt`` has the faults that change nothing that
anybody could see, with the reason.
"""
