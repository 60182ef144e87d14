"""The admin console at `/admin`: SQLAdmin, signed in with the app's own staff, showing the views of the features."""

from admin.site import mount

__all__ = ["mount"]
