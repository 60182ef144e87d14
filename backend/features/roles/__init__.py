"""Roles as rows: each bundles permissions, and people hold any number of them in addition to their rank."""

from backend.core.feature import Feature
from backend.features.roles.admin import RoleHolderView, RoleView
from backend.features.roles.permissions import PERMISSIONS
from backend.features.roles.routes import router
from backend.features.roles.seed import seed
from backend.features.roles.service import add_what_roles_hold
from backend.features.users.events import PermissionsAsked

feature = Feature(
    name="roles",
    summary="Roles that bundle permissions",
    needs=("users",),
    v1=router,
    on={PermissionsAsked: add_what_roles_hold},
    permissions=PERMISSIONS,
    admin=(RoleView, RoleHolderView),
    seed=seed,
)
