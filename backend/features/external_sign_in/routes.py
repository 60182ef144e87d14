"""/auth/external: sign-in with others, and linking them to one's account."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from backend.core.auth import InPerson
from backend.core.db import Session, release
from backend.core.errors import AppError, Responses, SecondFactorRequired
from backend.core.limits import limit
from backend.core.schemas import Id
from backend.features.external_sign_in import flow as flows
from backend.features.external_sign_in import service
from backend.features.external_sign_in.exchange import authorization_url, refusal
from backend.features.external_sign_in.people import Person, person_behind
from backend.features.external_sign_in.providers import Provider, configured, provider_named
from backend.features.external_sign_in.schemas import IdentityOut, LinkRequest, LinkStart, Next, ProviderOut
from backend.features.users.auth_routes import as_answer
from backend.features.users.authority import JustSignedIn
from backend.features.users.schemas import Token

SIGN_IN = limit("auth.external", "240/minute", by="ip", when_away="closed")  # two steps each

external = APIRouter(prefix="/auth/external", tags=["auth"])
identities = APIRouter(prefix="/auth/identities", tags=["auth"])

Name = Annotated[str, Path(max_length=30, description="Of a provider that is set up here", examples=["google"])]
FromProvider = Annotated[str, Query(max_length=4096)]
UNKNOWN: Responses = {404: {"description": "There is no such provider here"}}
AWAY: Responses = {**UNKNOWN, 503: {"description": "The provider does not answer"}}
REFUSED: Responses = {
    **AWAY,
    303: {"description": "Signed in, or linked: on to the path given as `next`, the refresh token in a cookie"},
    400: {"description": "The sign-in was not begun in this browser, or too long ago"},
    401: {"description": "The provider refused, said something untrue, or a second factor is asked for"},
    403: {"description": "The address is not verified at the provider, or sign-up is closed"},
    409: {"description": "An account with this address has not been verified, or the identity is somebody else's"},
}


def _redirect_uri(request: Request, provider: Provider) -> str:
    """Where the provider sends people back: one address, which is registered there, whatever version they began in."""
    base = request.app.state.settings.api.public_url or str(request.base_url)
    return f"{base.rstrip('/')}/api/v1/auth/external/{provider.name}/callback"


def _remember(request: Request, response: Response, flow: flows.Flow) -> None:
    """Let this browser, and no other, come back from the provider."""
    sealed = flows.seal(request.app.state.settings, flow)
    response.set_cookie(value=sealed, max_age=flows.LIFETIME, **flows.cookie(request))
    response.headers["Cache-Control"] = "no-store"


@external.get("")
async def list_providers(request: Request) -> list[ProviderOut]:
    """With whom people may sign in here.

    Public: a sign-in page shows a button for each.
    """
    base = f"{request.scope.get('root_path', '')}/api/v1/auth/external"
    return [
        ProviderOut(name=one.name, label=one.label, start_url=f"{base}/{one.name}/start")
        for one in configured().values()
    ]


@identities.get("")
async def list_my_identities(caller: InPerson, session: Session) -> list[IdentityOut]:
    """The identities elsewhere that open your account."""
    return [IdentityOut.model_validate(one) for one in await service.list_identities(session, caller.id)]


@identities.delete(
    "/{identity_id:int}",
    status_code=204,
    responses={409: {"description": "It is the only way into the account"}},
)
async def unlink_identity(identity_id: Id, caller: JustSignedIn, session: Session) -> None:
    """Unlink an identity: it no longer opens your account."""
    await service.unlink(session, caller.id, identity_id)


@external.get(
    "/{provider}/start",
    status_code=302,
    response_class=RedirectResponse,
    responses=AWAY,
    dependencies=[SIGN_IN],
)
async def start_external_sign_in(
    provider: Name,
    request: Request,
    next: Annotated[Next, Query(description="A path on this site to go on to; empty: answer with tokens")] = "",  # noqa: A002
) -> RedirectResponse:
    """Sign in with a provider: sends the browser there, with a cookie that binds its return to this browser.

    Public: this is how callers become known.
    """
    chosen = provider_named(provider)
    flow = flows.Flow(provider=chosen.name, next=next)
    url = await authorization_url(request.app.state.outside, chosen, flow, _redirect_uri(request, chosen))
    response = RedirectResponse(url, 302)
    _remember(request, response, flow)
    return response


@external.post("/{provider}/link", responses=AWAY)
async def start_linking(
    provider: Name,
    caller: JustSignedIn,
    session: Session,
    request: Request,
    response: Response,
    body: LinkRequest | None = None,
) -> LinkStart:
    """Link an identity at a provider to your account: send this same browser to the address in the answer."""
    chosen = provider_named(provider)
    sid = await service.session_id_of(session, caller.credential)
    await release(session)
    flow = flows.Flow(provider=chosen.name, next=body.next if body else "", sid=sid)
    url = await authorization_url(request.app.state.outside, chosen, flow, _redirect_uri(request, chosen))
    _remember(request, response, flow)
    return LinkStart(url=url)


@external.get("/{provider}/callback", response_model=Token | IdentityOut, responses=REFUSED, dependencies=[SIGN_IN])
async def finish_external_sign_in(
    provider: Name,
    request: Request,
    response: Response,
    state: FromProvider = "",
    code: FromProvider = "",
    error: FromProvider = "",
    iss: FromProvider = "",
) -> Any:
    """Where the provider sends the browser back: tokens, or the identity that is now linked.

    When it began with `next`: a redirect there, with the refresh token in a cookie, or with `#second_factor=…`, where a
    code is asked for, to complete at `/auth/second-factor`. Refusals are always answered here.
    Public: this is how callers become known.
    """
    chosen = provider_named(provider)
    flow = flows.resumed(request, chosen.name, state)
    response.headers["Cache-Control"] = "no-store"
    response.delete_cookie(**flows.cookie(request))
    try:
        if error or not code:
            raise refusal(chosen, error or "no_code")
        redirect_uri = _redirect_uri(request, chosen)
        outside = request.app.state.outside
        person = await person_behind(outside, chosen, flow, code=code, issuer=iss, redirect_uri=redirect_uri)
        return await _finished(request, response, flow, person)
    except AppError as refused:
        refused.headers["Set-Cookie"] = response.headers["set-cookie"]  # it is over, whatever came of it
        raise


async def _finished(request: Request, response: Response, flow: flows.Flow, person: Person) -> Any:
    """Sign the person in, or link them, and answer as was asked at the start."""
    app = request.app.state
    answer = RedirectResponse(flow.next, 303, headers=response.headers) if flow.next else response
    result: Token | IdentityOut
    if flow.sid:
        result = IdentityOut.model_validate(await service.link(app.database, flow.sid, flow.provider, person))
    else:
        try:
            opened = await service.sign_in(app.database, app.settings, flow.provider, person)
        except SecondFactorRequired as step:
            if not flow.next:
                raise
            # After `#`, which browsers keep to themselves: the page asks for the code, and completes the sign-in.
            return RedirectResponse(
                f"{flow.next}#second_factor={(step.details or {})['pending']}", 303, response.headers
            )
        result = as_answer(request, answer, opened, by_cookie=bool(flow.next))
    return answer if flow.next else result


router = APIRouter(routes=[*external.routes, *identities.routes])
