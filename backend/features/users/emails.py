"""One spelling per address, so that the unique index and the sign-in agree about who is who."""

from email_validator import EmailNotValidError, validate_email


def normalised(email: str) -> str:
    """Lower case, international domains decoded. What is no address comes back in lower case: it belongs to nobody."""
    try:
        return validate_email(email.strip(), check_deliverability=False).normalized.lower()
    except EmailNotValidError:
        return email.strip().lower()


def is_storable(text: str) -> bool:
    """Whether a database takes the text: forms may hold NUL, or lone surrogates by a charset of the client's choice."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
