"""How people come in, counted for whoever watches."""

from backend.core.tallies import Tally

SIGN_INS = Tally(
    "sign_ins",
    "Sessions that began (succeeded); wrong passwords and codes, and accounts that may not sign in (failed).",
    label="outcome",
    values=("succeeded", "failed"),
)
SIGN_UPS = Tally("sign_ups", "Accounts made: by sign-up, with another issuer, or by an administrator.")
REUSES = Tally("refresh_token_reuses", "Refresh tokens that came back after they were spent: somebody has a copy.")
