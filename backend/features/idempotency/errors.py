"""What can be wrong with an Idempotency-Key."""

from backend.core.errors import RETRY_AFTER, BadRequest, Conflict, Unprocessable


class BadIdempotencyKey(BadRequest):
    code = "bad_idempotency_key"
    message = "Idempotency-Key takes one value of 1 to 255 printable characters, such as a UUID in quotes"


class IdempotencyKeyReused(Unprocessable):
    code = "idempotency_key_reused"
    message = "This Idempotency-Key was used for another request, or by a caller with other permissions: take a new one"


class StillRunning(Conflict):
    """Asked again too soon (always with Retry-After, in seconds)."""

    code = "idempotency_in_progress"
    message = "The first request with this Idempotency-Key is still being carried out"

    def __init__(self) -> None:
        super().__init__(headers=RETRY_AFTER)


class AnswerNotKept(Conflict):
    code = "idempotency_answer_not_kept"
    message = (
        "The request with this Idempotency-Key was carried out, and is not carried out again; "
        "its answer was not kept, as it holds a secret or is too large"
    )
