"""The admin console at `/admin`: SQLAdmin, signed in with the app's own staff, with the views that features contribute."""

from admin.site import mount

__all__ = ["mount"]
