"""How often somebody was made to wait, for whoever watches."""

from backend.core.tallies import Tally

LOCKOUTS = Tally("lockouts", "Sign-in delays that began or grew: of an account, an address, or the two together.")
